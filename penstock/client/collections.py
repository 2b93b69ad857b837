"""Collections: make, list, and decide about one."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime
from typing import TypedDict, Unpack

from penstock.client.wire import Wire, asked, lines, path_of, read, read_json
from penstock.contract.base import Asked
from penstock.contract.collections import (
    Collection,
    ContractAsked,
    ContractTried,
    CreatedCollection,
    Grown,
    Keeping,
    KeptDays,
    LoopsAsked,
    NewCollection,
)
from penstock.contract.formats import FormatAsked, FormatTried
from penstock.contract.rewriting import RebuildTold, RetypeTold
from penstock.contract.trials import TrialTold
from penstock.errors import EngineUnavailable


class FormatOptions(TypedDict, total=False):
    """What a format needs beside its name; what is left out is what the collection has.

    `descriptor` is a serialised FileDescriptorSet, `avro_schema` the text of the newest schema.
    """

    descriptor: bytes | None
    message: str | None
    envelope: str
    payload_field: int | None
    payload_message: str | None
    avro_schema: str | None
    framing: str | None
    registry: str | None
    registry_secret: str | None


class Collections(Wire):
    """The team's collections."""

    def collections(self) -> list[Collection]:
        """List the team's collections by name."""
        return self._get(path_of("collections"), list[Collection])

    def create_collection(
        self,
        name: str,
        *,
        contract: str = "evolve",
        format: str = "json",  # noqa: A002 - the field's name
        notes: str = "",
        allow_loops: bool = False,
        partitions: int | None = None,
        keep_days: int | None = None,
        token: bool = False,
    ) -> CreatedCollection:
        """Make a collection, with an ingest token bound to it if `token`."""
        body = asked(
            NewCollection,
            name=name,
            contract=contract,
            format={"name": format},
            notes=notes,
            allow_loops=allow_loops,
            partitions=partitions,
            keep_days=keep_days,
            token=token,
        )
        return self._post(path_of("collections"), CreatedCollection, body)

    def collection(self, name: str) -> Collection:
        """Answer a collection."""
        return self._get(path_of("collections", name), Collection)

    def grow_collection(self, name: str, partitions: int) -> Collection:
        """Give a collection's log more partitions."""
        body = asked(Grown, partitions=partitions)
        return self._post(path_of("collections", name, "grow"), Collection, body)

    def retype(self, name: str) -> RetypeTold:
        """Answer which columns of longs have misfits that columns of doubles would hold."""
        return self._get(path_of("collections", name, "retype"), RetypeTold)

    def try_rebuild(self, name: str) -> RebuildTold | None:
        """Answer what a rebuild would change, None where there are no rows; nothing is changed."""
        answer = self._checked("POST", path_of("collections", name, "rebuild", "try"))
        return read(answer, RebuildTold | None)  # type: ignore[arg-type]  # a union is no class

    def set_loops(self, name: str, *, allow: bool) -> Collection:
        """Let doors take, or refuse, events that a replay took from the collection."""
        body = asked(LoopsAsked, allow=allow)
        return self._post(path_of("collections", name, "loops"), Collection, body)

    def set_contract(self, name: str, contract: str) -> Collection:
        """Say what becomes of leaves without a column, from the next batch that lands on."""
        body = asked(ContractAsked, contract=contract)
        return self._post(path_of("collections", name, "contract"), Collection, body)

    def try_contract(
        self,
        name: str,
        contract: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        sample: int | None = None,
    ) -> Iterator[TrialTold]:
        """Yield how far a trial of the contract on past events is, and its result as the last one.

        Nothing is changed by it.
        """
        body = asked(ContractTried, contract=contract, since=since, until=until, sample=sample)
        yield from self._trial(path_of("collections", name, "contract", "try"), body)

    def set_format(
        self,
        name: str,
        format: str,  # noqa: A002 - the field's name
        **options: Unpack[FormatOptions],
    ) -> Collection:
        """Say what a collection's payloads are from now on; see `FormatOptions`."""
        body = asked(FormatAsked, **_format(format, options))
        return self._post(path_of("collections", name, "format"), Collection, body)

    def try_format(
        self,
        name: str,
        format: str,  # noqa: A002 - the field's name
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        sample: int | None = None,
        **options: Unpack[FormatOptions],
    ) -> Iterator[TrialTold]:
        """Yield how far a trial of the format on past events is, and its result as the last one.

        Nothing is changed by it.
        """
        past = {"since": since, "until": until, "sample": sample}
        body = asked(FormatTried, **_format(format, options), **past)
        yield from self._trial(path_of("collections", name, "format", "try"), body)

    def _trial(self, path: str, body: Asked) -> Iterator[TrialTold]:
        trial: TrialTold | None = None
        for line in lines(self._stream("POST", path, body, accept="application/x-ndjson")):
            trial = read_json(line, TrialTold)
            yield trial
        if trial is None or not trial.done:
            raise EngineUnavailable(f"the trial at {self._base} broke off")

    def keep_collection(self, name: str, days: int | None, *, dry_run: bool = False) -> Keeping:
        """Keep a collection's rows so many days, None for ever; with `dry_run` only look."""
        body = asked(KeptDays, days=days, dry_run=dry_run)
        return self._post(path_of("collections", name, "keep"), Keeping, body)

    def pause_collection(self, name: str) -> Collection:
        """Let doors refuse the collection's events."""
        return self._post(path_of("collections", name, "pause"), Collection)

    def resume_collection(self, name: str) -> Collection:
        """Let doors accept the collection's events again."""
        return self._post(path_of("collections", name, "resume"), Collection)


def _format(name: str, options: FormatOptions) -> dict[str, object]:
    descriptor = options.get("descriptor")
    text = None if descriptor is None else base64.b64encode(descriptor).decode()
    return {**options, "name": name, "descriptor": text}
