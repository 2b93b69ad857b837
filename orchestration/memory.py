"""What upkeep remembers from one run to the next: when it first saw each orphan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from penstock.envelope import Micros

log = structlog.get_logger()


def read_seen(file: Path) -> dict[str, Micros]:
    """Answer what was written last; nothing if there is none, which only lets orphans live on."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, int])
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError:
        log.warning("upkeep begins anew: its notes cannot be read", file=str(file))
        return {}


def write_seen(file: Path, seen: Mapping[str, Micros]) -> None:
    """Replace what was written."""
    fresh = file.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(dict(seen)))
    fresh.replace(file)
