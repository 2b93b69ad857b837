"""Named points at which a test may break the process.

``PENSTOCK_FAULT=after_parquet:2:kill`` kills the process the second time it comes to that point.
Actions: ``kill`` (the default, SIGKILL), ``raise``, ``eio``, ``sleep`` (for ever). Unset, a point
costs one comparison.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from dataclasses import dataclass, field

from penstock.errors import BadSetting

VARIABLE = "PENSTOCK_FAULT"
_ACTIONS = ("kill", "raise", "eio", "sleep")


class Injected(RuntimeError):
    """Raised at a fault point by the action ``raise``."""


@dataclass
class Fault:
    """Breaks the process at the `nth` visit of the point `name`."""

    name: str
    nth: int
    action: str
    visits: int = field(default=0)

    def visit(self, name: str) -> None:
        """Count a visit; act if it is the one."""
        if name != self.name:
            return
        self.visits += 1
        if self.visits != self.nth:
            return
        match self.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise Injected(name)
            case "eio":
                raise OSError(errno.EIO, f"injected at {name}")
            case _:
                threading.Event().wait()


def parse_fault(text: str) -> Fault:
    """Read ``name[:nth][:action]``."""
    name, *rest = text.split(":")
    nth = int(rest.pop(0)) if rest and rest[0].isdigit() else 1
    action = rest.pop(0) if rest else "kill"
    if not name or rest or action not in _ACTIONS:
        raise BadSetting(f"{VARIABLE} is name[:nth][:{'|'.join(_ACTIONS)}], not {text!r}")
    return Fault(name, nth, action)


_active: Fault | None = None


def arm(text: str | None) -> None:
    """Switch a fault on (the text of the variable), or all off with None."""
    global _active  # noqa: PLW0603 - one switch for a whole process is the point of it
    _active = parse_fault(text) if text else None


def fault(name: str) -> None:
    """Mark a fault point."""
    if _active is not None:
        _active.visit(name)
