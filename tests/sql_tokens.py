"""What a compiled search may say in SQL: nothing that came with its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from penstock.query.pieces import Sql

_TOKEN = re.compile(
    r"""
    '(?:[^']|'')*'      # a text
    | "(?:[^"]|"")*"    # a quoted name
    | \w+               # a word, or a number
    | \S                # a sign
    """,
    re.VERBOSE | re.DOTALL,
)


def tokens(compiled: Sql) -> Iterator[str]:
    """Answer the tokens of a condition; what is within quotes is one."""
    return (found[0] for found in _TOKEN.finditer(compiled.text))


def vocabulary(harmless: Iterable[Sql]) -> frozenset[str]:
    """Answer every token that conditions of a shape and a dialect consist of.

    They come from searches that use all of the language and whose values are known: a name of a
    column, a function, a constant of ours. None of them depends on what was searched for.
    """
    return frozenset(token for one in harmless for token in tokens(one))


def brought_in(compiled: Sql, known: frozenset[str]) -> list[str]:
    """Answer what a condition says beyond the vocabulary, and whether a mark has no value."""
    said = list(tokens(compiled))
    found = [token for token in said if token not in known]
    marks = said.count("?")
    if marks != len(compiled.parameters):
        found.append(f"{marks} marks for {len(compiled.parameters)} values")
    return found
