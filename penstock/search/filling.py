"""Makes the filters of data files, with SQL over one row group at a time.

Words are parted, and texts put in lower case, by the functions that searches use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.sql import Reader
from penstock.query.dialects import DUCKDB
from penstock.query.pieces import Sql, sql
from penstock.query.pruning import MOST_WHOLE, OPAQUE
from penstock.query.sql import IS_JSON_STRING
from penstock.query.stored import LeafColumn, all_values, columns_of, read
from penstock.schema.shape import Struct
from penstock.search.filters import LEAST_CHUNK, PROBES, Chunks, Group, bits_for, chunk_rows

COLUMNS = ("received_at", "payload", "data", "misfits")
"""What is read of a file, as far as it has it."""

_CHUNK = "chunk"
_WORD = r"'[\p{L}\p{N}]+'"


def words_of(reader: Reader, text: str) -> list[str]:
    """Answer the words of a text in lower case, as they are parted in filters."""
    found = reader.rows(f"SELECT regexp_extract_all(?, {_WORD}) AS words", [text])
    words: list[str] = found["words"][0].as_py()
    return words


def group_of(reader: Reader, rows: pa.Table, shape: Struct, *, least: int = LEAST_CHUNK) -> Group:
    """Make the filter of a row group, whose payloads have this shape."""
    size = chunk_rows(rows.num_rows, least)
    times = rows["received_at"]
    chunks = [times.slice(start, size) for start in range(0, rows.num_rows, size)]
    numbers = _chunk_numbers([len(times) for times in chunks])
    source = reader.arrow(rows.append_column(_CHUNK, numbers))
    tokens = _tokens(source, shape)
    digests = reader.rows(tokens.text, tokens.parameters)
    named = reader.arrow(digests)
    most = reader.rows(
        f"SELECT max(n) AS n FROM (SELECT count(*) AS n FROM {named} GROUP BY {_CHUNK})"  # noqa: S608
    )["n"][0].as_py()
    bits = bits_for(most or 0)
    described = Chunks(
        rows=[len(times) for times in chunks],
        first=[_micros(pc.min(times)) for times in chunks],
        last=[_micros(pc.max(times)) for times in chunks],
        bits=bits,
    )
    paths = _misfit_paths(source)
    misfits = reader.rows(paths.text, paths.parameters)["digest"].to_pylist()
    small, capital = _spelt(reader, source, columns_of(shape))
    return Group(described, _words(reader, named, bits), frozenset(misfits), small, capital)


def _spelt(
    reader: Reader, source: str, columns: Sequence[LeafColumn]
) -> tuple[frozenset[int], frozenset[int]]:
    """Answer which columns of texts have small letters only, and which have capitals only."""
    texts = {n: column for n, column in enumerate(columns) if column.kind == "string"}
    if not texts:
        return frozenset(), frozenset()
    small, capital = (
        ", ".join(f"coalesce(bool_and({_of_all(column, test)}), TRUE)" for column in texts.values())
        for test in (_is_small, _is_capital)
    )
    told = f"SELECT [{small}] AS small, [{capital}] AS capital FROM {source}"  # noqa: S608 - ours
    [found] = reader.rows(told).to_pylist()
    return _where(texts, found["small"]), _where(texts, found["capital"])


def _where(numbers: Iterable[int], found: Sequence[bool]) -> frozenset[int]:
    return frozenset(number for number, true in zip(numbers, found, strict=True) if true)


def _of_all(column: LeafColumn, test: Callable[[Sql], Sql]) -> str:
    """Answer whether all leaves of a row are so; NULL if there are none."""
    if None not in column.steps:
        return test(read(column)).text
    return f"list_bool_and({all_values(DUCKDB, column, test).text})"


def _is_small(leaf: Sql) -> Sql:
    return sql("({0} = lower({0}))", leaf)


def _is_capital(leaf: Sql) -> Sql:
    return sql("(strlen({0}) = length({0}) AND {0} = upper({0}))", leaf)


def _words(reader: Reader, digests: str, bits: int) -> bytes:
    """Answer for each bit the word that says in which chunks it is set."""
    step = "((digest >> 32) | 1)"
    found = reader.rows(
        f"SELECT coalesce(word, 0::UBIGINT) AS word FROM range({bits}) AS bits(bit) LEFT JOIN ("  # noqa: S608
        f"SELECT bit, bit_or(1::UBIGINT << {_CHUNK}::UBIGINT) AS word FROM ("
        f"SELECT {_CHUNK}, ((digest & 4294967295) + unnest(range({PROBES}))::UBIGINT * {step}) "
        f"% {bits} AS bit FROM {digests}) GROUP BY bit) USING (bit) ORDER BY bit"
    )
    words = pa.concat_arrays(found["word"].chunks)
    packed: bytes = words.buffers()[1].slice(words.offset * 8, bits * 8).to_pybytes()
    return packed


def _chunk_numbers(sizes: Sequence[int]) -> pa.Array:
    ends, end = [], 0
    for size in sizes:
        end += size
        ends.append(end)
    runs = pa.RunEndEncodedArray.from_arrays(
        pa.array(ends, pa.int32()), pa.array(range(len(sizes)), pa.int32())
    )
    return pc.run_end_decode(runs)


def _micros(time: pa.Scalar) -> int:
    number: int = time.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).as_py()
    return number


def _tokens(source: str, shape: Struct) -> Sql:
    """Answer the statement that answers every token of every chunk once, as its digest."""
    columns = columns_of(shape)
    opaque = _opaque(source, has_data=bool(columns))
    told = Sql("SELECT * FROM opaque")
    texts = _distinct([*_texts(source, columns), _misfit_texts(source), told])
    numbers = _distinct([*_numbers(source, columns), _misfit_numbers(source)])
    return sql(
        "WITH opaque AS MATERIALIZED ({2}), texts AS MATERIALIZED ({0}), "  # noqa: S608 - ours
        f"tokens AS (SELECT {_CHUNK}, 't' || v AS token FROM texts "
        "WHERE NOT regexp_full_match(v, {3}) "
        f"UNION ALL (SELECT DISTINCT {_CHUNK}, 'w' || unnest(regexp_extract_all(v, {{3}})) "
        "FROM texts) "
        f"UNION ALL SELECT {_CHUNK}, 'n' || v FROM ({{1}}) "
        f"UNION ALL SELECT DISTINCT {_CHUNK}, '{OPAQUE}' FROM opaque) "
        f"SELECT {_CHUNK}, md5_number_lower(token) AS digest FROM tokens",
        texts,
        numbers,
        opaque,
        Sql(_WORD),
    )


def _distinct(branches: Sequence[Sql]) -> Sql:
    together = " UNION ALL ".join(branch.text for branch in branches)
    return Sql(f"SELECT DISTINCT {_CHUNK}, v FROM ({together})")  # noqa: S608 - ours


def _told(source: str, column: LeafColumn, told: str) -> Sql:
    """Answer the statement for what is told of the leaves of a column, once for each chunk."""
    leaf = read(column)
    if None in column.steps:
        leaf = sql("unnest({0})", all_values(DUCKDB, column, lambda leaf: leaf))
    leaves = f"SELECT {_CHUNK}, {leaf.text} AS leaf FROM {source}"  # noqa: S608 - names are quoted
    return Sql(
        f"SELECT {_CHUNK}, {told} AS v FROM "  # noqa: S608 - ours
        f"(SELECT DISTINCT {_CHUNK}, leaf FROM ({leaves}) WHERE leaf IS NOT NULL)"
    )


def _texts(source: str, columns: Sequence[LeafColumn]) -> Iterator[Sql]:
    for column in columns:
        if column.kind == "string":
            yield _told(source, column, "lower(leaf)")


def _numbers(source: str, columns: Sequence[LeafColumn]) -> Iterator[Sql]:
    for column in columns:
        if column.kind == "long":
            bounded = f"greatest(least(leaf, {MOST_WHOLE}), -{MOST_WHOLE})"
            yield _told(source, column, f"{bounded}::VARCHAR")
        elif column.kind == "double":
            yield _told(source, column, _whole("leaf"))


def _whole(number: str) -> str:
    bounded = f"greatest(least({number}, {MOST_WHOLE}::DOUBLE), -{MOST_WHOLE}::DOUBLE)"
    return f"floor({bounded})::BIGINT::VARCHAR"


def _misfits(source: str, told: str, where: str) -> Sql:
    return Sql(
        f"SELECT {_CHUNK}, {told} AS v FROM "  # noqa: S608 - ours
        f"(SELECT {_CHUNK}, unnest(misfits) AS m FROM {source} WHERE misfits IS NOT NULL) "
        f"WHERE {where}"
    )


def _misfit_texts(source: str) -> Sql:
    text = sql(DUCKDB.text_of_json, Sql("m.value")).text
    return _misfits(source, f"lower({text})", IS_JSON_STRING)


def _misfit_numbers(source: str) -> Sql:
    number = sql(DUCKDB.double_of_json, Sql("m.value")).text
    return _misfits(source, _whole(number), f"{number} IS NOT NULL")


def _misfit_paths(source: str) -> Sql:
    """Answer the statement for the digests of all paths of misfits."""
    return Sql(
        "SELECT DISTINCT md5_number_lower('p' || m.path) AS digest FROM "  # noqa: S608 - ours
        f"(SELECT unnest(misfits) AS m FROM {source} WHERE misfits IS NOT NULL)"
    )


def _opaque(source: str, *, has_data: bool) -> Sql:
    """Answer the statement for payloads that may be text and no JSON; some others do no harm."""
    text = sql(DUCKDB.text_of_bytes, Sql("payload")).text
    no_data = f"(data IS NULL OR NOT json_valid({text}))" if has_data else "TRUE"
    return Sql(
        f"SELECT {_CHUNK}, lower({text}) AS v FROM {source} "  # noqa: S608 - ours
        f"WHERE coalesce(len(misfits), 0) = 0 AND {text} IS NOT NULL AND {no_data}"
    )
