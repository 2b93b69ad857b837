"""``python -m engines``: fetch, start, stop and look at the real engines."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engines.etcd import Etcd
from engines.kafka import Kafka
from engines.kit import Engine, EngineError, default_root
from engines.postgres import Postgres
from engines.rabbitmq import RabbitMQ
from engines.rest import Rest
from engines.s3 import S3
from engines.search import Elasticsearch, OpenSearch
from engines.sqs import Sqs
from engines.trino import Trino

ENGINES: dict[str, type[Engine]] = {
    kind.name: kind
    for kind in (Postgres, Etcd, RabbitMQ, S3, Kafka, Sqs, Rest, Elasticsearch, OpenSearch, Trino)
}

# Fetching is one at a time: Maven and apt each lock what they write.
_AT_ONCE = len(ENGINES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one thing with some engines, or with all of them; answer the exit code."""
    given = _parser().parse_args(arguments)
    root: Path = given.root or default_root()
    chosen = [ENGINES[name](root) for name in given.names or ENGINES]
    actions: dict[str, Callable[[Sequence[Engine]], bool]] = {
        "fetch": _fetch,
        "start": lambda engines: _fetch(engines) and _each(engines, _start),
        "stop": lambda engines: _each(engines, _stop),
        "status": _status,
        "wipe": lambda engines: _each(engines, _wipe),
    }
    try:
        return 0 if actions[given.action](chosen) else 1
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="engines", description=__doc__)
    parser.add_argument(
        "action",
        choices=("fetch", "start", "stop", "status", "wipe"),
        help="start also fetches; wipe stops and forgets all data; status fails unless all run",
    )
    parser.add_argument(
        "names", nargs="*", choices=(*ENGINES, []), metavar="engine", help=", ".join(ENGINES)
    )
    parser.add_argument("--root", type=Path, help="where engines are kept [ENGINES_HOME]")
    return parser


def _fetch(engines: Sequence[Engine]) -> bool:
    for engine in engines:
        began = time.monotonic()
        try:
            if engine.ensure_fetched():
                print(f"{engine.name:14} fetched in {time.monotonic() - began:.0f} s", flush=True)
        except EngineError as error:
            raise EngineError(f"{engine.name}: {error}") from error
    return True


def _each(engines: Sequence[Engine], action: Callable[[Engine], str]) -> bool:
    """Do it with all of them at once; say for each how it went, and whether all went well."""

    def attempt(engine: Engine) -> bool:
        try:
            said, fine = action(engine), True
        except EngineError as error:
            said, fine = str(error), False
        print(f"{engine.name:14} {said}", flush=True)
        return fine

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return all(list(pool.map(attempt, engines)))


def _start(engine: Engine) -> str:
    began = time.monotonic()
    engine.start()
    return f"ready on port {engine.port} after {time.monotonic() - began:.1f} s"


def _stop(engine: Engine) -> str:
    return "stopped" if engine.stop() else "was not running"


def _wipe(engine: Engine) -> str:
    engine.wipe()
    return "wiped"


def _status(engines: Sequence[Engine]) -> bool:
    running = True
    for engine in engines:
        process = engine.process()
        running = running and process is not None
        said = f"running, {engine.memory() >> 20} MB, {engine.log}" if process else "stopped"
        print(f"{engine.name:14} {engine.version:8} {said}")
    return running


if __name__ == "__main__":
    sys.exit(main())
