"""Events that the platform takes back from quarantine: of no others a door believes the envelope.

The body is MessagePack, a list of `penstock.envelope.Event`. Ids, keys, headers, source and the
sender's time stay what they were; the time of receipt is the door's, as for every event. Each says
in its metadata which quarantined event it comes from, and landing makes one row of all that say
the same.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from ingest_api.auth import Grant
from ingest_api.framing import MOST_EVENTS, Framed, Sent
from ingest_api.ids import LONGEST_ID
from penstock.envelope import Event
from penstock.errors import Forbidden, Malformed, TooMany
from penstock.quarantine.release import read_release

_decoder = msgspec.msgpack.Decoder(list[Event])


def refuse_all_but_admins(grant: Grant) -> None:
    """Raise `Forbidden` unless the token may change what its team's collections hold."""
    if "admin" not in grant.scopes:
        raise Forbidden("this needs a token with the scope 'admin'")


def released(sent: Sent) -> Framed:
    """Answer the events of the body, received now; raise `Malformed` if one is no released one."""
    try:
        events = _decoder.decode(sent.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed("the body is no MessagePack list of events") from error
    if len(events) > MOST_EVENTS:
        raise TooMany("body", len(events), MOST_EVENTS)
    for event in events:
        if read_release(event.metadata) is None or not event.id or len(event.id) > LONGEST_ID:
            raise Malformed("an event of the body does not say where it is released from")
    # All copies of an event belong to one partition of the log, like those with a sender's id.
    return Framed(
        [
            replace(event, received_at=sent.received_at, named=True, quarantine=False)
            for event in events
        ],
        batch=True,
    )
