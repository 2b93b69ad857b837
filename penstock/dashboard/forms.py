"""What a form brought, and what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from penstock.errors import BadQuery, BadRequest, Rejected

KIND = "application/x-www-form-urlencoded"
MOST_BYTES = 512 * 1024
_MOST_FIELDS = 1_000
# Of the largest number that the API takes; Python refuses to read very long ones at all.
_DIGITS = 18

_M = TypeVar("_M", bound=BaseModel)


class Wrong(Exception):
    """A form that cannot be used: what is wrong, by the name of the field."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("the form has fields that cannot be used")
        self.fields = fields


def wrong_at(error: Rejected, names: Collection[str]) -> dict[str, str]:
    """Answer what `Wrong` says of an error of the API: at the field of the form that it is about.

    It is about the whole form (``''``) where it is about none of `names`. A search that cannot be
    read is pointed at, too.
    """
    field = next((part for part in reversed(error.field.split(".")) if part in names), "")
    wrong = {field: str(error)}
    if isinstance(error, BadQuery):
        wrong["pointer"] = error.pointer()
    return wrong


class Form:
    """The fields of a form: each may have come several times, or be empty."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields

    def text(self, name: str) -> str:
        """Answer the field without blanks around it, ``''`` where it did not come."""
        return self.raw(name).strip()

    def raw(self, name: str) -> str:
        """Answer the field as it came."""
        return self._fields.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """Answer every value of the field, as of boxes that were ticked."""
        return self._fields.get(name, [])

    def has(self, name: str) -> bool:
        """Say whether the field came, as a box does that was ticked."""
        return name in self._fields


def read_form(kind: str, body: bytes) -> Form:
    """Answer the form in a request's body; raise `BadRequest` for one that cannot be read."""
    if not body:
        return Form({})
    if kind.partition(";")[0].strip().lower() != KIND:
        raise BadRequest("a page sends its forms as application/x-www-form-urlencoded")
    fields: dict[str, list[str]] = {}
    try:
        for name, value in parse_qsl(
            body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"
        ):
            # A text area sends its lines as CR LF, whatever was typed.
            fields.setdefault(name, []).append(value.replace("\r\n", "\n"))
    except ValueError:
        raise BadRequest("the form cannot be read") from None
    return Form(fields)


def whole(text: str) -> int | str:
    """Answer the number that the text is; else the text, for the API's model to refuse."""
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else text


def asked(model: type[_M], values: Mapping[str, object]) -> _M:
    """Answer what a form asks of the API; raise `Wrong` with a sentence for each field.

    A value that is None or ``''`` was not given.
    """
    given = {name: value for name, value in values.items() if value not in (None, "")}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        wrong: dict[str, str] = {}
        for one in error.errors():
            name = str(one["loc"][0]) if one["loc"] else ""
            said = "is needed" if one["type"] == "missing" else str(one["msg"])
            wrong.setdefault(name, said.removeprefix("Value error, "))
        raise Wrong(wrong) from None
