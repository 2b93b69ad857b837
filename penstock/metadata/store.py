"""The metadata store: what Penstock knows about itself, in one SQL database.

Every method is one short transaction. A store may be shared by threads, and any number of
processes may have one open on the same database. What holds NaN or an infinity in a JSON document
is refused as `BadRequest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from penstock.envelope import CollectionId, Micros
from penstock.errors import AlreadyExists, NotFound, WrongState
from penstock.metadata import database, sharing, states
from penstock.metadata.documents import document
from penstock.metadata.keys import NO_KEYS, Keyring, key_of, keyring_of
from penstock.metadata.records import (
    CollectionRecord,
    Destination,
    Known,
    Lease,
    ListedDestination,
    RegistrySecret,
    ReplayRecord,
    SavedSearch,
    SchemaVersion,
    SessionRecord,
    TokenRecord,
)
from penstock.metadata.sharing import Share, Sharing
from penstock.metadata.tables import (
    collections,
    destinations,
    format_schemas,
    leases,
    messages,
    registry_secrets,
    replays,
    revision,
    saved_searches,
    schema_versions,
    sessions,
    sharings,
    tokens,
)
from penstock.schema.formats import Format
from penstock.settings import Settings
from penstock.vocabulary import Contract, State, Wish

MESSAGE_LASTS: Micros = 60_000_000
"""How long a message is kept for those who look for it."""

_R = TypeVar("_R", bound=msgspec.Struct)


class KeyNeeded(NamedTuple):
    """What has credentials under a key: each is named ``team.name``."""

    destinations: list[str]
    collections: list[str]
    """Those whose schema registry asks for a secret."""

    def __str__(self) -> str:
        return ", ".join((*self.destinations, *(f"collection {one}" for one in self.collections)))


class Store:
    """Collections, tokens, destinations, replays, saved searches, column histories and leases.

    A method that changes something has changed all of it durably when it returns, and nothing
    when it raises. Every method raises `EngineUnavailable` while the database does not answer.
    """

    def __init__(self, engine: Engine, keys: Keyring = NO_KEYS) -> None:
        self._engine = engine
        self._keys = keys

    def ping(self) -> None:
        """Return if the database answers."""
        self.version()

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def version(self) -> int:
        """Answer the version that `known` would have now; much cheaper than asking for it."""
        with self._reading() as connection:
            version: int = connection.execute(select(revision.c.version)).scalar_one()
            return version

    def known(self) -> Known:
        """Answer what a door needs, all from one moment."""
        with self._reading() as connection:
            version = connection.execute(select(revision.c.version)).scalar_one()
            named = connection.execute(
                select(collections).order_by(collections.c.team, collections.c.name)
            )
            valid = connection.execute(
                select(tokens).where(tokens.c.revoked_at.is_(None)).order_by(tokens.c.id)
            )
            return Known(
                version=version,
                collections=tuple(_collection(row) for row in named.mappings()),
                tokens=tuple(_record(TokenRecord, row) for row in valid.mappings()),
            )

    # Collections

    def create_collection(
        self,
        record: CollectionRecord,
        token: TokenRecord | None = None,
        *,
        schema: bytes | None = None,
        secret: RegistrySecret | None = None,
    ) -> None:
        """Add the collection, with the token, and the schema and secret that its format names.

        Raises `AlreadyExists` if the name is taken, `KeyMissing` where no secret can be kept.
        """
        row = {
            "team": record.id.team,
            "name": record.id.name,
            "created_at": record.created_at,
            "paused": record.paused,
            "contract": record.contract,
            "notes": record.notes,
            "allow_loops": record.allow_loops,
            "partitions": record.partitions,
            "format": msgspec.to_builtins(record.format),
            "keep_days": record.keep_days,
        }
        with self._writing() as connection, _unique("collection", str(record.id)):
            _next_revision(connection)
            connection.execute(insert(collections).values(row))
            _keep_schema(connection, record.id, record.format, schema)
            _keep_secret(connection, self._keys, record.id, secret)
            if token is not None:
                connection.execute(insert(tokens).values(_row(token)))

    def collection(self, id: CollectionId) -> CollectionRecord:  # noqa: A002 - the field's name
        """Answer the collection; raise `NotFound`."""
        with self._reading() as connection:
            found = connection.execute(select(collections).where(_is(id))).mappings().first()
        if found is None:
            raise NotFound("collection", str(id))
        return _collection(found)

    def collections(self, team: str | None = None) -> list[CollectionRecord]:
        """Answer the collections of a team, or of all, by name."""
        query = select(collections).order_by(collections.c.team, collections.c.name)
        if team is not None:
            query = query.where(collections.c.team == team)
        with self._reading() as connection:
            return [_collection(row) for row in connection.execute(query).mappings()]

    def set_paused(self, id: CollectionId, paused: bool) -> CollectionRecord:  # noqa: A002
        """Pause or resume the collection and answer it as it is now; raise `NotFound`."""
        with self._writing() as connection:
            _next_revision(connection)
            connection.execute(update(collections).where(_is(id)).values(paused=paused))
            found = connection.execute(select(collections).where(_is(id))).mappings().first()
            if found is None:
                raise NotFound("collection", str(id))
            return _collection(found)

    def set_allow_loops(self, id: CollectionId, allow: bool) -> CollectionRecord:  # noqa: A002
        """Say whether replays of the collection may come back to it; raise `NotFound`."""
        with self._writing() as connection:
            _next_revision(connection)
            connection.execute(update(collections).where(_is(id)).values(allow_loops=allow))
            found = connection.execute(select(collections).where(_is(id))).mappings().first()
            if found is None:
                raise NotFound("collection", str(id))
            return _collection(found)

    def set_partitions(self, id: CollectionId, partitions: int) -> CollectionRecord:  # noqa: A002
        """Note how many partitions the log has for the collection; raise `NotFound`."""
        with self._writing() as connection:
            _next_revision(connection)
            connection.execute(update(collections).where(_is(id)).values(partitions=partitions))
            found = connection.execute(select(collections).where(_is(id))).mappings().first()
            if found is None:
                raise NotFound("collection", str(id))
            return _collection(found)

    def set_contract(
        self,
        id: CollectionId,  # noqa: A002
        contract: Contract,
        at: Micros,
    ) -> CollectionRecord:
        """Give the collection a contract and answer it as it is now; raise `NotFound`.

        A change is entered in the history of its columns: it says why none came since.
        """
        with self._writing() as connection:
            _next_revision(connection)
            before = connection.execute(select(collections).where(_is(id))).mappings().first()
            if before is None:
                raise NotFound("collection", str(id))
            if before["contract"] != contract:
                connection.execute(update(collections).where(_is(id)).values(contract=contract))
                change = {
                    "path": "",
                    "what": "contract",
                    "before": before["contract"],
                    "type": contract,
                    "event_id": None,
                }
                _add_version(connection, id, at, [change])
            return _collection({**before, "contract": contract})

    def set_format(
        self,
        id: CollectionId,  # noqa: A002
        format: Format,  # noqa: A002
        *,
        schema: bytes | None = None,
        secret: RegistrySecret | None = None,
    ) -> CollectionRecord:
        """Note what the collection's payloads are from now on; raise `NotFound`.

        `schema` is what the format names by its digest and `secret` what that names, None where
        they are known already. Raises `KeyMissing` where no secret can be kept.
        """
        values = {"format": msgspec.to_builtins(format)}
        with self._writing() as connection:
            _next_revision(connection)
            connection.execute(update(collections).where(_is(id)).values(values))
            found = connection.execute(select(collections).where(_is(id))).mappings().first()
            if found is None:
                raise NotFound("collection", str(id))
            _keep_schema(connection, id, format, schema)
            _keep_secret(connection, self._keys, id, secret)
            return _collection(found)

    def format_schema(self, id: CollectionId, digest: str) -> bytes:  # noqa: A002
        """Answer what a format of the collection names by this digest; raise `NotFound`."""
        with self._reading() as connection:
            body: bytes | None = connection.execute(
                select(format_schemas.c.body).where(_is_schema(id, digest))
            ).scalar()
        if body is None:
            raise NotFound("schema", digest)
        return body

    def keep_format_schema(self, id: CollectionId, key: str, body: bytes) -> None:  # noqa: A002
        """Keep what formats of the collection know by this key, unless it is kept already.

        Raises `NotFound` for an unknown collection.
        """
        with self._writing() as connection:
            if connection.execute(select(collections.c.name).where(_is(id))).first() is None:
                raise NotFound("collection", str(id))
            _keep_body(connection, id, key, body)

    def registry_secret(self, id: CollectionId, secret_id: str) -> str:  # noqa: A002
        """Answer what a registry asks for; raise `NotFound`, or `KeyMissing`."""
        with self._reading() as connection:
            sealed: str | None = connection.execute(
                select(registry_secrets.c.sealed).where(_is_secret(id, secret_id))
            ).scalar()
        if sealed is None:
            raise NotFound("secret", secret_id)
        return self._keys.unseal(sealed, of=_secret_owner(id, secret_id))

    def set_keep_days(self, id: CollectionId, keep_days: int | None) -> CollectionRecord:  # noqa: A002
        """Keep the collection's rows so many days, None for ever; raise `NotFound`."""
        with self._writing() as connection:
            _next_revision(connection)
            connection.execute(update(collections).where(_is(id)).values(keep_days=keep_days))
            found = connection.execute(select(collections).where(_is(id))).mappings().first()
            if found is None:
                raise NotFound("collection", str(id))
            return _collection(found)

    # Tokens

    def add_token(self, record: TokenRecord) -> None:
        """Add the token; raise `AlreadyExists` if its id or digest is known."""
        with self._writing() as connection, _unique("token", record.id):
            _next_revision(connection)
            connection.execute(insert(tokens).values(_row(record)))

    def tokens(self, team: str) -> list[TokenRecord]:
        """Answer the team's tokens, revoked ones included, oldest first."""
        query = (
            select(tokens).where(tokens.c.team == team).order_by(tokens.c.created_at, tokens.c.id)
        )
        with self._reading() as connection:
            return [_record(TokenRecord, row) for row in connection.execute(query).mappings()]

    def revoke_token(self, team: str, id: str, at: Micros) -> TokenRecord:  # noqa: A002
        """Make the token worthless from now on and answer it; raise `NotFound`.

        A token that is revoked already keeps its first time.
        """
        mine = (tokens.c.team == team) & (tokens.c.id == id)
        with self._writing() as connection:
            _next_revision(connection)
            connection.execute(
                update(tokens).where(mine & tokens.c.revoked_at.is_(None)).values(revoked_at=at)
            )
            found = connection.execute(select(tokens).where(mine)).mappings().first()
            if found is None:
                raise NotFound("token", id)
            return _record(TokenRecord, found)

    def token_by_digest(self, digest: str) -> TokenRecord | None:
        """Answer the token with this digest, revoked or not."""
        with self._reading() as connection:
            found = connection.execute(select(tokens).where(tokens.c.digest == digest))
            row = found.mappings().first()
        return None if row is None else _record(TokenRecord, row)

    # Sessions of the dashboard: no door needs them, so they are no new version.

    def add_session(self, record: SessionRecord) -> None:
        """Add the session, and forget those that were over when it began.

        Raises `NotFound` for a token that there is not.
        """
        over = sessions.c.expires_at <= record.created_at
        with self._writing() as connection:
            owner = select(tokens.c.id).where(tokens.c.id == record.token_id)
            if connection.execute(owner).first() is None:
                raise NotFound("token", record.token_id)
            connection.execute(delete(sessions).where(over))
            connection.execute(insert(sessions).values(_row(record)))

    def session(self, digest: str) -> tuple[SessionRecord, TokenRecord] | None:
        """Answer the session with this digest, over or not, and its token as it is now."""
        mine = select(sessions).where(sessions.c.digest == digest)
        with self._reading() as connection:
            found = connection.execute(mine).mappings().first()
            if found is None:
                return None
            owner = select(tokens).where(tokens.c.id == found["token_id"])
            token = connection.execute(owner).mappings().one()
            return _record(SessionRecord, found), _record(TokenRecord, token)

    def drop_session(self, digest: str) -> None:
        """Forget the session, if there is one."""
        with self._writing() as connection:
            connection.execute(delete(sessions).where(sessions.c.digest == digest))

    # Destinations

    def add_destination(self, record: Destination) -> None:
        """Add the destination; raise `AlreadyExists` if the team has that name, or `KeyMissing`.

        Its credentials are kept encrypted.
        """
        with self._writing() as connection, _unique("destination", record.name):
            # Within the transaction: no key is forgotten meanwhile.
            row = {**_row(record), **_sealed(self._keys, record)}
            connection.execute(insert(destinations).values(row))

    def destination(self, team: str, name: str) -> Destination:
        """Answer the destination with its credentials; raise `NotFound`, or `KeyMissing`."""
        with self._reading() as connection:
            return _unsealed(self._keys, _destination_of(connection, team, name))

    def listed_destination(self, team: str, name: str) -> ListedDestination:
        """Answer the destination without its credentials; raise `NotFound`."""
        with self._reading() as connection:
            return _listed(_destination_of(connection, team, name))

    def destinations(self, team: str) -> list[ListedDestination]:
        """Answer the team's destinations by name, without their credentials."""
        query = (
            select(destinations).where(destinations.c.team == team).order_by(destinations.c.name)
        )
        with self._reading() as connection:
            return [_listed(row) for row in connection.execute(query).mappings()]

    def note_trial(
        self, team: str, name: str, tried: Mapping[str, object], now: Micros
    ) -> ListedDestination:
        """Keep what became of a trial of the destination, and answer it; raise `NotFound`."""
        mine = (destinations.c.team == team) & (destinations.c.name == name)
        with self._writing() as connection:
            connection.execute(
                update(destinations).where(mine).values(tried_at=now, tried=dict(tried))
            )
            return _listed(_destination_of(connection, team, name))

    def change_destination(
        self, team: str, name: str, change: Callable[[Destination], Destination], now: Micros
    ) -> ListedDestination:
        """Put what `change` makes of the destination in its place, and answer it.

        Nobody else changes it meanwhile. Raises `NotFound`, `KeyMissing` where what it has cannot
        be read, and what `change` raises.
        """
        mine = (destinations.c.team == team) & (destinations.c.name == name)
        with self._writing() as connection:
            before = _unsealed(self._keys, _destination_of(connection, team, name))
            after = change(before)
            row = {**_row(after), **_sealed(self._keys, after)}
            connection.execute(update(destinations).where(mine).values(row))
            if after.rate != before.rate:
                left = sharing.cut(_sharing_of(connection, team, name), now)
                _keep_sharing(connection, team, name, left)
            return _listed(_destination_of(connection, team, name))

    def delete_destination(self, team: str, name: str) -> None:
        """Forget the destination. Raise `NotFound`, or `WrongState` while a replay needs it."""
        mine = (destinations.c.team == team) & (destinations.c.name == name)
        needed = (
            select(replays.c.id)
            .where(replays.c.team == team, replays.c.destination == name)
            .where(replays.c.state.not_in(states.ENDS))
            .limit(1)
        )
        with self._writing() as connection:
            replay = connection.execute(needed).scalar()
            if replay is not None:
                raise WrongState(f"replay {replay} still sends to {name!r}; cancel it first")
            if connection.execute(delete(destinations).where(mine)).rowcount == 0:
                raise NotFound("destination", name)
            connection.execute(delete(sharings).where(_is_shared(team, name)))

    def share(
        self, team: str, name: str, replay_id: str, wants: float | None, now: Micros
    ) -> Share | None:
        """Answer when this replay may send to the destination, which it is about to.

        That is None where the destination has no rate of its own. `wants` is how many sends a
        second could be used, None for all there are. Raises `NotFound`.
        """
        with self._reading() as connection:
            if _rate_of(connection, team, name) is None:
                return None
        with self._writing() as connection:
            rate = _rate_of(connection, team, name)
            if rate is None:
                return None
            before = _sharing_of(connection, team, name)
            after = sharing.asked(before, replay_id, wants, rate=rate, now=now)
            _keep_sharing(connection, team, name, after)
            return sharing.share(after, replay_id, now)

    # Keys of credentials

    def masking_secret(self, team: str) -> bytes:
        """Answer the secret of a team's pseudonyms; raise `KeyMissing` where there is no key.

        Equal values have equal pseudonyms until the installation's oldest key is forgotten.
        """
        return self._keys.secret(of=("pseudonyms", team))

    def keys_needed(self) -> dict[str, KeyNeeded]:
        """Answer the ids of the keys that credentials are under, and what needs each."""
        with self._reading() as connection:
            return _keys_needed(connection)

    def reseal(self) -> int:
        """Put every credential under the key that encrypts now; answer how many there are.

        Raises `KeyMissing` if one of them cannot be read: then all are as they were.
        """
        query = select(destinations).order_by(destinations.c.team, destinations.c.name)
        done = 0
        with self._writing() as connection:
            for kept in connection.execute(select(registry_secrets)).all():
                id_ = CollectionId(kept.team, kept.name)
                owner = _secret_owner(id_, kept.id)
                again = self._keys.seal(self._keys.unseal(kept.sealed, of=owner), of=owner)
                mine = _is_secret(id_, kept.id)
                connection.execute(update(registry_secrets).where(mine).values(sealed=again))
                done += 1
            for row in connection.execute(query).mappings().all():
                record = _unsealed(self._keys, row)
                mine = (destinations.c.team == record.team) & (destinations.c.name == record.name)
                sealed = _sealed(self._keys, record)
                connection.execute(update(destinations).where(mine).values(sealed))
                done += len(record.headers) + (record.secret is not None)
                done += len(record.credentials)
        return done

    @contextmanager
    def unneeded_key(self, key_id: str) -> Iterator[None]:
        """Hold it within the block that no credential is under this key; raise `WrongState`."""
        with self._writing() as connection:
            needing = _keys_needed(connection).get(key_id)
            if needing:
                raise WrongState(
                    f"the key {key_id} is needed by {needing}: 'penstock key rotate' "
                    "puts everything under a new one"
                )
            yield

    # Replays

    def create_replay(self, record: ReplayRecord) -> None:
        """Add the replay; raise `AlreadyExists` if its id is taken."""
        with self._writing() as connection, _unique("replay", record.id):
            connection.execute(insert(replays).values(_row(record)))

    def replay(self, team: str, id: str) -> ReplayRecord:  # noqa: A002
        """Answer the replay; raise `NotFound`."""
        with self._reading() as connection:
            return _replay_of(connection, team, id)

    def replays(self, team: str, *, limit: int = 1_000) -> list[ReplayRecord]:
        """Answer the team's newest replays, newest first."""
        query = (
            select(replays)
            .where(replays.c.team == team)
            .order_by(replays.c.created_at.desc(), replays.c.id.desc())
            .limit(limit)
        )
        with self._reading() as connection:
            return [_record(ReplayRecord, row) for row in connection.execute(query).mappings()]

    def open_replays(self) -> list[ReplayRecord]:
        """Answer the replays of all teams that have not come to an end, oldest first."""
        query = (
            select(replays)
            .where(replays.c.state.not_in(states.ENDS))
            .order_by(replays.c.created_at, replays.c.id)
        )
        with self._reading() as connection:
            return [_record(ReplayRecord, row) for row in connection.execute(query).mappings()]

    def wish(self, team: str, id: str, wish: Wish, now: Micros) -> ReplayRecord:  # noqa: A002
        """Ask a replay to pause, resume or cancel, and answer it as it is now.

        A live holder is left the wish and grants it at its next checkpoint. Where nobody holds
        the replay the state changes at once, under a new epoch, so that a holder believed dead
        cannot take it back. Raises `NotFound`, or `WrongState` where `next_state` says so.
        """
        with self._writing() as connection:
            replay = _replay_of(connection, team, id)
            state = states.next_state(
                replay.state, wish, planned=replay.plan is not None, pending=replay.wish
            )
            if replay.held(now):
                # Also a wish for what is already so: the holder may just be granting another one.
                return _change(connection, replay, wish=wish)
            return _change(
                connection,
                replay,
                state=state,
                wish=None,
                epoch=replay.epoch + 1,
                lease_until=None,
                error=replay.error if state == replay.state else None,
                finished_at=now if state in states.ENDS else None,
            )

    def change_options(
        self,
        team: str,
        id: str,  # noqa: A002
        options: Mapping[str, object],
    ) -> ReplayRecord:
        """Put these options in the place of a replay's own, and answer it.

        Who sends sees them at the next checkpoint. Raises `NotFound`, and `WrongState` for a
        replay that has come to an end.
        """
        with self._writing() as connection:
            replay = _replay_of(connection, team, id)
            if replay.state in states.ENDS:
                raise WrongState(f"the replay is {replay.state}; nothing of it changes any more")
            return _change(connection, replay, options=dict(options))

    def claim_replay(
        self,
        id: str,  # noqa: A002
        holder: str,
        now: Micros,
        ttl: Micros,
        *,
        run_id: str | None = None,
    ) -> ReplayRecord | None:
        """Become the one who sends, under a new epoch, until `now + ttl`.

        Answers None while another holder's lease is alive. Raises `NotFound`, and `WrongState`
        for a replay that came to an end or is paused and shall stay so.
        """
        with self._writing() as connection:
            replay = _replay_of(connection, None, id)
            if replay.held(now):
                return None
            if not states.wants_a_run(replay, now):
                raise WrongState(f"the replay is {replay.state}; there is nothing to run")
            state = replay.state
            if replay.wish == "resume":
                state = states.next_state(state, "resume", planned=replay.plan is not None)
            return _change(
                connection,
                replay,
                state=state,
                wish=None if replay.wish == "resume" else replay.wish,
                holder=holder,
                epoch=replay.epoch + 1,
                lease_until=now + ttl,
                run_id=run_id or replay.run_id,
            )

    def checkpoint_replay(
        self,
        id: str,  # noqa: A002
        epoch: int,
        *,
        progress: Mapping[str, object],
        plan: Mapping[str, object] | None = None,
        state: State | None = None,
        error: str | None = None,
        now: Micros,
        ttl: Micros,
    ) -> ReplayRecord:
        """Record how far the replay is, keep the lease until `now + ttl`, and answer the replay.

        The answer carries the wish that is still to be granted. None leaves plan and state as they
        were, an error stays until the state changes, and an end gives the lease up. Raises
        `WrongState` when the epoch is no longer ours or the state cannot follow the one before:
        nothing is recorded and the caller has to stop sending.
        """
        with self._writing() as connection:
            replay = _replay_of(connection, None, id)
            if replay.epoch != epoch or replay.lease_until is None:
                raise WrongState(f"replay {id} is no longer held under epoch {epoch}")
            to = states.moved(replay.state, state or replay.state)
            ended = to in states.ENDS
            return _change(
                connection,
                replay,
                progress=dict(progress),
                plan=replay.plan if plan is None else dict(plan),
                state=to,
                error=error or (replay.error if to == replay.state else None),
                wish=states.remaining(replay.wish, to),
                lease_until=None if ended else now + ttl,
                started_at=replay.started_at or (now if to == "running" else None),
                finished_at=now if ended else None,
            )

    def release_replay(self, id: str, epoch: int) -> None:  # noqa: A002
        """Give the lease up, so that the next run need not wait for its end.

        Does nothing where the epoch is no longer ours.
        """
        mine = (replays.c.id == id) & (replays.c.epoch == epoch)
        with self._writing() as connection:
            connection.execute(update(replays).where(mine).values(lease_until=None))

    def set_replay_run(self, id: str, run_id: str, now: Micros) -> ReplayRecord:  # noqa: A002
        """Note which Dagster run was started for the replay and answer it; raise `NotFound`.

        Changes nothing while somebody holds the replay: the run that holds it is the one to show.
        """
        with self._writing() as connection:
            replay = _replay_of(connection, None, id)
            return replay if replay.held(now) else _change(connection, replay, run_id=run_id)

    # Saved searches

    def add_saved_search(self, record: SavedSearch) -> None:
        """Keep the search; raise `AlreadyExists` if the team has that name."""
        with self._writing() as connection, _unique("saved search", record.name):
            connection.execute(insert(saved_searches).values(_row(record)))

    def change_saved_search(self, record: SavedSearch) -> SavedSearch:
        """Put this search under its name and answer it, since when it is kept; raise `NotFound`."""
        mine = _is_saved(record.team, record.name)
        values = {**_row(record), "created_at": saved_searches.c.created_at}
        with self._writing() as connection:
            connection.execute(update(saved_searches).where(mine).values(values))
            found = connection.execute(select(saved_searches).where(mine)).mappings().first()
            if found is None:
                raise NotFound("saved search", record.name)
            return _record(SavedSearch, found)

    def saved_search(self, team: str, name: str) -> SavedSearch:
        """Answer the saved search; raise `NotFound`."""
        query = select(saved_searches).where(_is_saved(team, name))
        with self._reading() as connection:
            found = connection.execute(query).mappings().first()
        if found is None:
            raise NotFound("saved search", name)
        return _record(SavedSearch, found)

    def saved_searches(self, team: str) -> list[SavedSearch]:
        """Answer the team's saved searches by name."""
        kept = saved_searches.c
        query = select(saved_searches).where(kept.team == team).order_by(kept.name)
        with self._reading() as connection:
            return [_record(SavedSearch, row) for row in connection.execute(query).mappings()]

    def delete_saved_search(self, team: str, name: str) -> None:
        """Forget the saved search; raise `NotFound`."""
        with self._writing() as connection:
            gone = connection.execute(delete(saved_searches).where(_is_saved(team, name)))
            if gone.rowcount == 0:
                raise NotFound("saved search", name)

    # Column histories

    def add_schema_version(
        self,
        collection: CollectionId,
        at: Micros,
        changes: Sequence[Mapping[str, object]],
    ) -> int:
        """Add the changes as the collection's next version and answer it; raise `NotFound`."""
        with self._writing() as connection:
            owner = select(collections.c.name).where(_is(collection))
            if connection.execute(owner).first() is None:
                raise NotFound("collection", str(collection))
            return _add_version(connection, collection, at, changes)

    def schema_versions(self, collection: CollectionId) -> list[SchemaVersion]:
        """Answer the collection's changes of columns, first to last."""
        query = (
            select(schema_versions)
            .where(
                schema_versions.c.team == collection.team,
                schema_versions.c.name == collection.name,
            )
            .order_by(schema_versions.c.version)
        )
        with self._reading() as connection:
            return [
                SchemaVersion(
                    collection=collection,
                    version=row.version,
                    at=row.at,
                    changes=tuple(row.changes),
                )
                for row in connection.execute(query)
            ]

    # Messages

    def send_messages(self, sent: Sequence[tuple[str, str]], now: Micros) -> None:
        """Add messages, each a topic and a text, for whoever looks within `MESSAGE_LASTS`."""
        values = [{"topic": topic, "text": text, "at": now} for topic, text in sent]
        with self._writing() as connection:
            connection.execute(delete(messages).where(_out_of_date(now)))
            connection.execute(insert(messages), values)

    def last_message(self) -> int:
        """Answer the id of the newest message, 0 where there is none."""
        with self._reading() as connection:
            return _last_message(connection)

    def messages_after(self, id: int) -> tuple[int, list[tuple[int, str, str]]]:  # noqa: A002
        """Answer the newest id; and id, topic and text of the messages after this one, in order.

        In a database that was put back ids count from lower ones: then nothing is new.
        """
        newer = select(messages).where(messages.c.id > id).order_by(messages.c.id)
        with self._reading() as connection:
            found = connection.execute(newer).all()
            if found:
                return found[-1].id, [(row.id, row.topic, row.text) for row in found]
            return min(id, _last_message(connection)), []

    # Leases

    def take_lease(self, name: str, holder: str, now: Micros, ttl: Micros) -> int | None:
        """Take the lease until `now + ttl` and answer its new epoch; None while it is alive.

        One that is said to live for longer than `ttl` was taken before the clock was set back.
        """
        with self._writing() as connection:
            held = connection.execute(select(leases).where(leases.c.name == name)).first()
            if held is not None and now < held.until <= now + ttl:
                return None
            epoch: int = 1 if held is None else held.epoch + 1
            values = {"holder": holder, "epoch": epoch, "until": now + ttl}
            if held is None:
                connection.execute(insert(leases).values(name=name, **values))
            else:
                connection.execute(update(leases).where(leases.c.name == name).values(values))
            return epoch

    def keep_lease(self, name: str, epoch: int, now: Micros, ttl: Micros) -> bool:
        """Hold the lease until `now + ttl`; False when it has lapsed, was dropped or taken."""
        mine = (leases.c.name == name) & (leases.c.epoch == epoch) & (leases.c.until > now)
        with self._writing() as connection:
            kept = connection.execute(update(leases).where(mine).values(until=now + ttl))
            return kept.rowcount == 1

    def drop_lease(self, name: str, epoch: int) -> None:
        """Give the lease up; does nothing where the epoch is no longer ours."""
        mine = (leases.c.name == name) & (leases.c.epoch == epoch)
        with self._writing() as connection:
            connection.execute(update(leases).where(mine).values(until=0))

    def lease(self, name: str) -> Lease | None:
        """Answer who holds the lease, or held it last; None when nobody ever did."""
        with self._reading() as connection:
            query = select(leases).where(leases.c.name == name)
            found = connection.execute(query).mappings().first()
        return None if found is None else _record(Lease, found)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _answering(), database.reading(self._engine) as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _answering(), database.writing(self._engine) as connection:
            yield connection


def open_store(url: str, keys: Keyring = NO_KEYS) -> Store:
    """Open the store at `url`, made or brought up to date first.

    That is ``sqlite:///file`` or ``postgresql://user:password@host:port/database``. Without `keys`
    no credential can be kept or read.

    Raises `BadSetting` for any other kind of URL, `EngineUnavailable` if it cannot be opened,
    `KeyMissing` if an older release has left credentials that no key is there for.
    """
    with _answering():
        return Store(database.open_engine(url, keys), keys)


def store_of(settings: Settings) -> Store:
    """Open the store of an installation, with its keys."""
    return open_store(settings.metadata, keyring_of(settings))


def _add_version(
    connection: Connection,
    collection: CollectionId,
    at: Micros,
    changes: Sequence[Mapping[str, object]],
) -> int:
    highest = select(func.max(schema_versions.c.version)).where(
        schema_versions.c.team == collection.team, schema_versions.c.name == collection.name
    )
    version = (connection.execute(highest).scalar() or 0) + 1
    connection.execute(
        insert(schema_versions).values(
            team=collection.team,
            name=collection.name,
            version=version,
            at=at,
            changes=document("changes", [dict(change) for change in changes]),
        )
    )
    return version


def _answering() -> AbstractContextManager[None]:
    return database.answering("the metadata database")


@contextmanager
def _unique(what: str, name: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise AlreadyExists(what, name) from error


def _next_revision(connection: Connection) -> None:
    connection.execute(update(revision).values(version=revision.c.version + 1))


def _out_of_date(now: Micros) -> Any:
    # On both sides: a clock that was set back must not keep messages until it is there again.
    return (messages.c.at < now - MESSAGE_LASTS) | (messages.c.at > now + MESSAGE_LASTS)


def _last_message(connection: Connection) -> int:
    return connection.execute(select(func.max(messages.c.id))).scalar() or 0


def _is(id: CollectionId) -> Any:  # noqa: A002
    return (collections.c.team == id.team) & (collections.c.name == id.name)


def _collection(row: Mapping[Any, Any]) -> CollectionRecord:
    return CollectionRecord(
        id=CollectionId(row["team"], row["name"]),
        created_at=row["created_at"],
        paused=row["paused"],
        contract=row["contract"],
        notes=row["notes"],
        allow_loops=row["allow_loops"],
        partitions=row["partitions"],
        format=msgspec.convert(row["format"], Format),
        keep_days=row["keep_days"],
    )


def _is_saved(team: str, name: str) -> Any:
    return (saved_searches.c.team == team) & (saved_searches.c.name == name)


def _is_schema(id: CollectionId, digest: str) -> Any:  # noqa: A002
    kept = format_schemas.c
    return (kept.team == id.team) & (kept.name == id.name) & (kept.digest == digest)


def _is_secret(id: CollectionId, secret_id: str) -> Any:  # noqa: A002
    kept = registry_secrets.c
    return (kept.team == id.team) & (kept.name == id.name) & (kept.id == secret_id)


def _secret_owner(id: CollectionId, secret_id: str) -> tuple[str, ...]:  # noqa: A002
    return ("collection", id.team, id.name, f"registry/{secret_id}")


def _keep_schema(
    connection: Connection,
    id: CollectionId,  # noqa: A002
    format: Format,  # noqa: A002
    body: bytes | None,
) -> None:
    """Keep what a format names by its digest, unless it is kept already."""
    if body is not None and format.schema is not None:
        _keep_body(connection, id, format.schema, body)


def _keep_body(connection: Connection, id: CollectionId, key: str, body: bytes) -> None:  # noqa: A002
    kept = select(format_schemas.c.digest).where(_is_schema(id, key))
    if connection.execute(kept).first() is None:
        row = {"team": id.team, "name": id.name, "digest": key, "body": body}
        connection.execute(insert(format_schemas).values(row))


def _keep_secret(
    connection: Connection,
    keys: Keyring,
    id: CollectionId,  # noqa: A002
    secret: RegistrySecret | None,
) -> None:
    """Keep it encrypted. Within the transaction: no key is forgotten meanwhile."""
    if secret is not None:
        sealed = keys.seal(secret.text, of=_secret_owner(id, secret.id))
        row = {"team": id.team, "name": id.name, "id": secret.id, "sealed": sealed}
        connection.execute(insert(registry_secrets).values(row))


def _row(record: msgspec.Struct) -> dict[str, Any]:
    return {name: document(name, getattr(record, name)) for name in record.__struct_fields__}


def _record(kind: type[_R], row: Mapping[Any, Any]) -> _R:
    known = {name: row[name] for name in kind.__struct_fields__}
    return msgspec.convert(known, kind)


def _destination_of(connection: Connection, team: str, name: str) -> Mapping[Any, Any]:
    mine = (destinations.c.team == team) & (destinations.c.name == name)
    found = connection.execute(select(destinations).where(mine)).mappings().first()
    if found is None:
        raise NotFound("destination", name)
    return found


def _rate_of(connection: Connection, team: str, name: str) -> float | None:
    mine = (destinations.c.team == team) & (destinations.c.name == name)
    found = connection.execute(select(destinations.c.rate).where(mine)).first()
    if found is None:
        raise NotFound("destination", name)
    rate: float | None = found.rate
    return rate


def _is_shared(team: str, name: str) -> Any:
    return (sharings.c.team == team) & (sharings.c.destination == name)


def _sharing_of(connection: Connection, team: str, name: str) -> Sharing:
    query = select(sharings.c.sharing).where(_is_shared(team, name))
    return msgspec.convert(connection.execute(query).scalar() or {}, Sharing)


def _keep_sharing(connection: Connection, team: str, name: str, kept: Sharing) -> None:
    values = {"sharing": msgspec.to_builtins(kept)}
    changed = connection.execute(update(sharings).where(_is_shared(team, name)).values(values))
    if changed.rowcount == 0:
        connection.execute(insert(sharings).values(team=team, destination=name, **values))


def _listed(row: Mapping[Any, Any]) -> ListedDestination:
    known = {name: row[name] for name in ListedDestination.__struct_fields__}
    names = tuple(name for name, _ in row["headers"])
    secret, credentials = row["secret"] is not None, tuple(row["credentials"])
    return msgspec.convert(
        {**known, "headers": names, "secret": secret, "credentials": credentials},
        ListedDestination,
    )


def _owner(team: str, name: str, field: str) -> tuple[str, ...]:
    return ("destination", team, name, field)


def _sealed(keys: Keyring, record: Destination) -> dict[str, Any]:
    """Answer the columns of a destination's credentials."""
    team, name = record.team, record.name
    return {
        "headers": [
            [header, keys.seal(value, of=_owner(team, name, f"headers/{number}/{header}"))]
            for number, (header, value) in enumerate(record.headers)
        ],
        "secret": None
        if record.secret is None
        else keys.seal(record.secret, of=_owner(team, name, "secret")),
        "credentials": {
            what: keys.seal(text, of=_owner(team, name, f"credentials/{what}"))
            for what, text in record.credentials.items()
        },
    }


def _unsealed(keys: Keyring, row: Mapping[Any, Any]) -> Destination:
    team, name, secret = row["team"], row["name"], row["secret"]
    headers = [
        (header, keys.unseal(value, of=_owner(team, name, f"headers/{number}/{header}")))
        for number, (header, value) in enumerate(row["headers"])
    ]
    if secret is not None:
        secret = keys.unseal(secret, of=_owner(team, name, "secret"))
    credentials = {
        what: keys.unseal(text, of=_owner(team, name, f"credentials/{what}"))
        for what, text in row["credentials"].items()
    }
    read = {"headers": headers, "secret": secret, "credentials": credentials}
    return _record(Destination, {**row, **read})


def _keys_needed(connection: Connection) -> dict[str, KeyNeeded]:
    needed: dict[str, KeyNeeded] = {}
    query = select(destinations).order_by(destinations.c.team, destinations.c.name)
    for row in connection.execute(query).mappings():
        sealed = [value for _, value in row["headers"]]
        sealed += [] if row["secret"] is None else [row["secret"]]
        sealed += row["credentials"].values()
        for key in sorted(set(map(key_of, sealed))):
            by = needed.setdefault(key, KeyNeeded([], []))
            by.destinations.append(f"{row['team']}.{row['name']}")
    kept = registry_secrets.c
    for secret in connection.execute(select(registry_secrets).order_by(kept.team, kept.name)):
        by = needed.setdefault(key_of(secret.sealed), KeyNeeded([], []))
        name = str(CollectionId(secret.team, secret.name))
        if name not in by.collections:
            by.collections.append(name)
    return needed


def _replay_of(connection: Connection, team: str | None, id: str) -> ReplayRecord:  # noqa: A002
    query = select(replays).where(replays.c.id == id)
    if team is not None:
        query = query.where(replays.c.team == team)
    found = connection.execute(query).mappings().first()
    if found is None:
        raise NotFound("replay", id)
    return _record(ReplayRecord, found)


def _change(connection: Connection, replay: ReplayRecord, **values: object) -> ReplayRecord:
    checked = {name: document(name, value) for name, value in values.items()}
    connection.execute(update(replays).where(replays.c.id == replay.id).values(checked))
    return _replay_of(connection, None, replay.id)
