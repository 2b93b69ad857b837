"""Why a leaf of a payload is a misfit, in a sentence. Pure."""

from __future__ import annotations

from msgspec import Raw

from penstock.schema.fit import real, whole
from penstock.schema.gate import value_of
from penstock.schema.names import keys_of, nameable, path_text
from penstock.schema.retype import Column, columns_of
from penstock.schema.shape import Struct
from penstock.vocabulary import Contract

_KINDS = {
    "bool": "true or false",
    "long": "whole numbers of 64 bits",
    "double": "numbers",
    "string": "text",
}


class Reasons:
    """Says of the misfits of one row why they are none of its columns."""

    def __init__(self, shape: Struct, contract: Contract) -> None:
        """`shape` is what the row's table has, `contract` the one of now."""
        self._columns: dict[str, Column] = {}
        self._above: set[str] = set()
        self._in_other_case: dict[str, str] = {}
        self._contract = contract
        for column in columns_of(shape):
            keys = keys_of(column.misfit_path)
            self._columns.setdefault(column.misfit_path, column)
            self._in_other_case.setdefault(column.misfit_path.casefold(), column.path)
            self._above.update(path_text(keys[:n]) for n in range(1, len(keys)))

    def why(self, path: str, text: str) -> str:
        """Answer why the leaf at a path, with this JSON text as its value, has no column."""
        found = _kind(text)
        column = self._columns.get(path)
        if column is not None:
            return self._against(column, text, found)
        if not path:
            return "the document is no object, so that it has no fields"
        if path in self._above:
            return f"{found}, where other events have an object"
        keys = keys_of(path)
        for n in range(len(keys) - 1, 0, -1):
            above = self._columns.get(path_text(keys[:n]))
            if above is not None:
                return f"it is below {above.path}, which holds {_KINDS[above.kind]} elsewhere"
        if not all(nameable(key) for key in keys):
            return "a key in its path cannot be the name of a column"
        other = self._in_other_case.get(path.casefold())
        if other is not None:
            return f"its name differs only in case from that of the column {other}"
        if self._contract != "evolve":
            return f"there is no such column, and the contract {self._contract} lets none in"
        return "there was no room for a column when it landed"

    def _against(self, column: Column, text: str, found: str) -> str:
        holds = f"the column holds {_KINDS[column.kind]}"
        number = value_of(text.encode()) if found == "a number" else None
        if isinstance(number, int | Raw) and column.kind in ("long", "double"):
            if column.kind == "double" and real(number) is None:
                return "no double is exactly this number"
            if column.kind == "long" and whole(number) is None:
                retyped = "; retyping makes them doubles" if real(number) is not None else ""
                return f"a number that is none of them, and {holds}{retyped}"
            return "the column came, or changed, after this event had landed"
        if _KINDS[column.kind] == found:
            return "the column came, or changed, after this event had landed"
        return f"{found}, and {holds}"


def _kind(text: str) -> str:
    match text[:1]:
        case '"':
            return "text"
        case "t" | "f":
            return "true or false"
        case "{" | "[":
            return "an object or a list"
        case "n":
            return "null"
    return "a number"
