"""What the engines of SQL write differently. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """What engines write differently. Numbers in braces stand for the operands."""

    engine: str
    """The name of what speaks it, as people know it."""
    negated: str
    """Whether 0 is anything but true."""
    one: str
    """The list of the one element 0."""
    no_numbers: str
    """The list of doubles that has no element."""
    no_texts: str
    """The list of texts that has no element."""
    any_element: str
    """Whether an element of list 0, called 1, fulfils 2."""
    mapped: str
    """List 0 with 2 in place of each element, which is called 1."""
    filtered: str
    """Those elements of list 0, called 1, that fulfil 2."""
    flattened: str
    """The elements of the lists in list 0."""
    chained: str
    """The elements of list 0, then those of list 1; NULL stands for no element."""
    least: str
    """The least element of list 0 that is not NULL."""
    greatest: str
    """The greatest element of list 0 that is not NULL."""
    joined: str
    """The texts of list 0 as one, with 1 between them."""
    length: str
    """How many elements list 0 has."""
    map_value: str
    """The value of key 1 in map 0, NULL if there is none."""
    text_of_bytes: str
    """Bytes 0 as text, NULL if they are not UTF-8."""
    text_of_json: str
    """The text that the JSON string 0 stands for."""
    double_of_json: str
    """The double that the JSON number 0 stands for, NULL for other JSON."""
    is_json: str
    """Whether text 0 is JSON as RFC 8259 has it."""
    time: str
    """The time of 0 microseconds."""
    micros: str
    """The microseconds of time 0, as a double."""
    contains: str
    """Whether text 0 contains text 1."""
    matches: str
    """Whether a part of text 0 fits the expression 1."""
    matches_whole: str
    """Whether the whole text 0 fits the expression 1."""


# DuckDB lets NaN, Infinity and a comma before a closing bracket pass as JSON. In JSON they cannot
# stand outside strings, so strings are emptied first, and then looked for. (A test asks DuckDB and
# the gate of landing about some thousand texts.)
_STRINGS = r"""'"(?:[^"\\]|\\.)*"', '""', 'g'"""
_LENIENT = r"',\s*[\]}}]|[Nn][Aa][Nn]|[Ii][Nn][Ff]'"

DUCKDB = Dialect(
    engine="DuckDB",
    negated="(({0}) IS NOT TRUE)",
    one="[{0}]",
    no_numbers="CAST(NULL AS DOUBLE[])",
    no_texts="CAST(NULL AS VARCHAR[])",
    # Filtering copies whole elements; asking each takes a third less time.
    any_element="list_contains(list_transform({0}, lambda {1}: {2}), TRUE)",
    mapped="list_transform({0}, lambda {1}: {2})",
    filtered="list_filter({0}, lambda {1}: {2})",
    flattened="flatten({0})",
    chained="list_concat({0}, {1})",
    least="list_min({0})",
    greatest="list_max({0})",
    joined="array_to_string({0}, {1})",
    length="len({0})",
    map_value="{0}[{1}]",
    text_of_bytes="TRY(decode({0}))",
    text_of_json="json_extract_string({0}, '$')",
    double_of_json="TRY_CAST({0} AS DOUBLE)",
    is_json=(
        f"(json_valid({{0}}) AND NOT regexp_matches(regexp_replace({{0}}, {_STRINGS}), {_LENIENT}))"
    ),
    time="make_timestamptz({0})",
    micros="CAST(epoch_us({0}) AS DOUBLE)",
    contains="contains({0}, {1})",
    matches="regexp_matches({0}, {1})",
    matches_whole="regexp_full_match({0}, {1})",
)

# Trino takes half a surrogate for a character: `"\ud800"` is JSON to it, but no text. Escaped
# backslashes and whole pairs are left out, and then halves are looked for.
_HEX = "[0-9a-fA-F]"
_PAIRS = rf"'\\\\|\\u[dD][89abAB]{_HEX}{_HEX}\\u[dD][c-fC-F]{_HEX}{_HEX}', ''"
_HALF = r"'\\u[dD][89a-fA-F]'"

# Its `array_min` and `||` answer NULL where one element, or one list, is NULL. Its expressions know
# an older Unicode than Python does: beside a letter of a younger script a word seems to end.
TRINO = Dialect(
    engine="Trino",
    negated="(NOT coalesce({0}, FALSE))",
    one="ARRAY[{0}]",
    no_numbers="CAST(ARRAY[] AS array(double))",
    no_texts="CAST(ARRAY[] AS array(varchar))",
    any_element="any_match({0}, {1} -> {2})",
    mapped="transform({0}, {1} -> {2})",
    filtered="filter({0}, {1} -> {2})",
    flattened="flatten({0})",
    chained="(coalesce({0}, ARRAY[]) || coalesce({1}, ARRAY[]))",
    least="array_min(filter({0}, one -> one IS NOT NULL))",
    greatest="array_max(filter({0}, one -> one IS NOT NULL))",
    joined="array_join({0}, {1})",
    length="cardinality({0})",
    map_value="element_at({0}, {1})",
    text_of_bytes="CASE WHEN to_utf8(from_utf8({0})) = {0} THEN from_utf8({0}) END",
    text_of_json="json_extract_scalar({0}, '$')",
    double_of_json="TRY_CAST({0} AS DOUBLE)",
    is_json=(
        "(TRY(json_parse({0})) IS NOT NULL"
        f" AND NOT regexp_like(regexp_replace({{0}}, {_PAIRS}), {_HALF}))"
    ),
    time=(
        "CAST(from_unixtime_nanos(CAST({0} AS decimal(38, 0)) * 1000)"
        " AS timestamp(6) with time zone)"
    ),
    micros="round(to_unixtime({0}) * 1e6)",
    contains="(strpos({0}, {1}) > 0)",
    matches="regexp_like({0}, {1})",
    matches_whole=r"regexp_like({0}, concat('\A(?:', {1}, ')\z'))",
)
