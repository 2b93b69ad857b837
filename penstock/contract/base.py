"""What all shapes of the contract have in common: strictness, times, and how they are explained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, overload

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from penstock.envelope import Micros

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_AS = "write a time as 2026-11-22T08:30:00Z"


@overload
def moment(time: Micros) -> datetime: ...
@overload
def moment(time: Micros | None) -> datetime | None: ...
def moment(time: Micros | None) -> datetime | None:
    """Answer a time as the contract has it: in UTC. None stays None."""
    return None if time is None else _EPOCH + timedelta(microseconds=time)


@overload
def micros(moment: datetime) -> Micros: ...
@overload
def micros(moment: datetime | None) -> Micros | None: ...
def micros(moment: datetime | None) -> Micros | None:
    """Answer a time of the contract as the rest of Penstock has it. None stays None."""
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND


def rfc3339(moment: datetime) -> str:
    """Write a time with all six digits, so that texts sort like times."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return utc.isoformat(timespec="microseconds") + "Z"


def _read(value: object) -> datetime:
    """Read a time; raise `ValueError` for one that could be meant in two ways."""
    if not isinstance(value, str | datetime):
        raise ValueError(_AS)  # noqa: TRY004 - pydantic's error
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(_AS) from None
    if moment.tzinfo is None:
        raise ValueError("a time needs its zone: 2026-11-22T08:30:00Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(_AS) from None


Time = Annotated[
    datetime,
    BeforeValidator(_read),
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""RFC 3339 with microseconds on the wire, a `datetime` in UTC in Python."""

ShortText = Annotated[str, Field(max_length=200)]
LongText = Annotated[str, Field(max_length=10_000)]


class Asked(BaseModel):
    """What a caller sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Told(BaseModel):
    """What a caller is answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProblemTold(BaseModel):
    """Every error. A search that cannot be read also has `query`, and the `position` in it.

    `field` is there where one field, or parameter, of what was asked is at fault.
    """

    type: str = Field(examples=["urn:penstock:not-found"])
    title: str
    status: int
    detail: str = Field(description="What to do, in a sentence.")
    field: str = Field(
        default="",
        description="The first field that is at fault, with what it stands in: `options.rate`.",
        examples=["destination"],
    )


def example(**values: Any) -> ConfigDict:
    """Answer the configuration of a model that has these values as its example."""
    return ConfigDict(json_schema_extra={"examples": [values]})


def field_at_fault(mistakes: Iterable[Mapping[str, Any]]) -> str:
    """Answer the first field with a mistake, ``''`` where the body as a whole has it."""
    return next(
        (
            ".".join(str(part) for part in wrong["loc"])
            for wrong in mistakes
            if wrong["type"] != "json_invalid"
        ),
        "",
    )


def what_is_wrong(mistakes: Iterable[Mapping[str, Any]]) -> str:
    """Say which fields are wrong and why, without the values: they may be secret.

    `mistakes` are as pydantic lists them.
    """
    lines = []
    for wrong in mistakes:
        place = ".".join(str(part) for part in wrong["loc"])
        if wrong["type"] == "extra_forbidden":
            lines.append(f"{place}: there is no such field")
        elif wrong["type"] == "json_invalid":
            lines.append("the body is not valid JSON")
        else:
            said = str(wrong["msg"]).removeprefix("Value error, ")
            lines.append(f"{place}: {said}" if place else said)
    return "; ".join(lines)
