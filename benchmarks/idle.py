"""What an idle installation costs: `python -m benchmarks.idle` writes docs/reference/idle.md."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.__main__ import HERE
from benchmarks.processes import free_port
from benchmarks.report import machine
from penstock.cli.console import err
from penstock.cli.up import running
from penstock.settings import load_settings

PAGE = HERE.parent / "docs" / "reference" / "idle.md"
SETTLE_SECONDS = 90.0
WATCH_SECONDS = 60.0


def main() -> None:
    """Start everything, leave it alone, and say what each process used."""
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        ports = ("http_port", "grpc_port", "platform_port", "dagster_port")
        settings = load_settings(Path(folder) / "home", {}, **{port: free_port() for port in ports})
        with running(settings, err()) as (supervisor, _):
            watching = threading.Thread(target=supervisor.watch)
            watching.start()
            time.sleep(SETTLE_SECONDS)
            before = _cpu(supervisor.pids())
            time.sleep(WATCH_SECONDS)
            after = _cpu(supervisor.pids())
            memory = {name: _memory(pid) for name, pid in supervisor.pids().items()}
            supervisor.request_stop()
            watching.join()
    rows = ["| process, with what it started | CPU | memory |", "|---|---:|---:|"]
    for name, used in memory.items():
        share = (after[name] - before[name]) / WATCH_SECONDS
        rows.append(f"| {name} | {share:.2%} of a core | {used / 1e6:,.0f} MB |")
    total = sum(after[name] - before[name] for name in memory) / WATCH_SECONDS
    rows.append(f"| **all** | **{total:.2%}** | **{sum(memory.values()) / 1e6:,.0f} MB** |")
    text = "\n".join(
        [
            "# An idle installation",
            "",
            "Written by `python -m benchmarks.idle`: `penstock up` on an empty home, left alone.",
            f"CPU over {WATCH_SECONDS:.0f} s; memory is the proportional share (PSS).",
            f"Machine: {machine()}.",
            "",
            *rows,
            "",
        ]
    )
    PAGE.write_text(text)
    print(text)


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _cpu(pids: dict[str, int]) -> dict[str, float]:
    return {
        name: sum(sum(one.cpu_times()[:2]) for one in _family(pid)) for name, pid in pids.items()
    }


def _memory(pid: int) -> int:
    return sum(one.memory_full_info().pss for one in _family(pid))


if __name__ == "__main__":
    main()
