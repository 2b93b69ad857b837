"""Engines of a test's own, which it may stop; those that all tests share go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from engines.kit import Engine, default_root
from ports import free_row

AnyEngine = TypeVar("AnyEngine", bound=Engine)


@contextmanager
def own_engine(kind: type[AnyEngine], folder: Path) -> Iterator[AnyEngine]:
    """Start one more of its kind for the block, on free ports; what it kept is in `folder`."""
    engine = kind(default_root(), run=folder / kind.name, port=free_row(kind.port_count))
    engine.ensure_fetched()
    try:
        engine.start()
        yield engine
    finally:
        engine.wipe()
