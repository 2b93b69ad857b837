r"""From the keys of JSON objects to column names and to the paths that people write, and back.

A column is named as its key was sent. Three things cannot stand in a column's name and are
written as `%` and two digits, so that the key can be read back: a dot (``a.b`` -> ``a%2Eb``, for
a dot parts the levels in Iceberg), `%` itself (``%25``), and the empty key (``%00``).

A path names a leaf in queries and in `misfits`: the keys from the top, joined by dots. A dot,
blank, colon, quote or backslash inside a key has a backslash before it. Positions in lists are
no part of it. The leaf of a document that is a bare scalar has the empty path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LONGEST_NAME = 255
"""Characters of a column's name; the AWS Glue catalog takes no more."""

_COLUMN_CODES = {"%00": "", "%25": "%", "%2E": "."}
_CODE = re.compile("%(?:00|25|2E)")

# Whoever sends events chooses their keys, and a column's name is written into SQL and shown in
# terminals: what would have to be escaped there, and what cannot be seen, makes no column.
_UNNAMEABLE = re.compile(r'[\x00-\x1f\x7f"\\]')

_SPECIAL = str.maketrans({character: f"\\{character}" for character in '. :"\\'})
_STEP = re.compile(r"((?:[^.\\]|\\.?)*)(\.|$)", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def column_name(key: str) -> str:
    """Answer the column name of a key. Different keys have different names."""
    if not key:
        return "%00"
    return key.replace("%", "%25").replace(".", "%2E")


def key_of(column: str) -> str:
    """Answer the key that a column is named after."""
    return _CODE.sub(lambda code: _COLUMN_CODES[code.group()], column)


def nameable(key: str) -> bool:
    """Say whether the key can have a column; the leaves below any other key are misfits."""
    return len(column_name(key)) <= LONGEST_NAME and not _UNNAMEABLE.search(key)


def clash_form(column: str) -> str:
    """Answer what two columns of one object must not have in common.

    Trino cannot tell names apart that differ in case only. And in Parquet files Iceberg writes
    names with letters, digits and `_` only, ``a b`` as ``a_x20b``: a table that has columns of
    both names cannot be written any more.
    """
    folded = column.casefold()
    first, rest = folded[:1], folded[1:]
    safe = first if first.isalpha() or first == "_" else _spelt(first)
    safe += "".join(c if c.isalnum() or c == "_" else _spelt(c) for c in rest)
    return safe.casefold()


def _spelt(character: str) -> str:
    return f"_{character}" if character.isdigit() else f"_x{ord(character):X}"


def join(path: str | None, key: str) -> str:
    """Answer the path of a field; `path` is that of its object, None for the document itself."""
    step = key.translate(_SPECIAL)
    return step if path is None else f"{path}.{step}"


def path_text(keys: Iterable[str]) -> str:
    """Answer the path of these keys, the outermost first."""
    return ".".join(key.translate(_SPECIAL) for key in keys)


def keys_of(path: str) -> tuple[str, ...]:
    """Answer the keys of a path; none for the empty path."""
    if not path:
        return ()
    keys, end = [], 0
    while step := _STEP.match(path, end):
        keys.append(_ESCAPED.sub(r"\1", step[1]))
        if not step[2]:
            break
        end = step.end()
    return tuple(keys)
