"""Start the processes of one home, keep them alive, end all of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from penstock.errors import BadSetting, EngineUnavailable

Tell = Callable[[str, str], None]
"""Hears what became of a program: a word (ready, slow, died, again, ending, killed), and which and
how."""

STOP_PATIENCE = 20.0
"""Seconds that programs have to end by themselves.

Door and platform let requests finish for ten seconds, and Dagster's code server waits for its runs:
a landing finishes its commit. Letting go takes each of them up to a second of CPU after that, which
is many seconds on a busy machine.
"""
_SAY_SO_SECONDS = 3.0
FIRST_WAIT = 1.0
LONGEST_WAIT = 30.0
# A process that lived this long was healthy: its next death starts the back-off anew.
HEALTHY_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep alive."""

    name: str
    argv: tuple[str, ...]
    port: int | None = None
    """The TCP port it listens on once it is ready; None: ready as soon as it runs."""
    after: str | None = None
    """The program that has to be ready before this one is started."""
    patience: float = 300.0
    """Seconds it may take to get ready: the first start of Dagster on a busy machine takes many."""
    slow: float = 20.0
    """Seconds after which it is said that it is waited for."""


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes]
    started: float
    log_from: int
    """Where its own lines begin in the log: those before are of its predecessors."""
    said_slow: bool = False
    deaths: int = 0
    again_at: float = field(default=0.0)


def back_off(deaths: int) -> float:
    """Answer the seconds to wait before the next start: 1, 2, 4 … 30."""
    return float(min(LONGEST_WAIT, FIRST_WAIT * 2 ** max(0, deaths - 1)))


def holder_of(port: int) -> str:
    """Say which process listens on a TCP port, as far as this user may know."""
    for connection in psutil.net_connections("tcp"):
        here = connection.laddr and connection.laddr.port == port
        if here and connection.status == psutil.CONN_LISTEN and connection.pid is not None:
            process = psutil.Process(connection.pid)
            return f"{process.name()} (pid {connection.pid}: {' '.join(process.cmdline())[:80]})"
    return "another process"


def require_free(host: str, ports: Mapping[str, int]) -> None:
    """Raise `BadSetting`, naming flag and holder, unless every port can be bound."""
    taken = []
    for flag, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                taken.append(f"port {port} is held by {holder_of(port)}; take another: {flag}")
    if taken:
        raise BadSetting("\n".join(taken))


def listening(host: str, port: int) -> bool:
    """Answer whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


class Supervisor:
    """The processes of one home. Call `start`, then `watch`; `stop` ends everything.

    Every program runs in a session of its own, so that what it starts (Dagster's runs) is ended
    with it. A guard, a process that does nothing else, ends the sessions should the supervisor
    itself be killed: a run would go on for as long as it has work.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        host: str,
        logs: Path,
        env: Mapping[str, str],
        tell: Tell,
        patience: float = STOP_PATIENCE,
    ) -> None:
        self._programs = programs
        self._host = host
        self._logs = logs
        self._env = dict(env)
        self._tell = tell
        self._patience = patience
        self._children: dict[str, _Child] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._hurried = False

    def start(self) -> None:
        """Start every program, each after the one it comes after, and wait until all are ready.

        Raises `EngineUnavailable` with the end of its log when one dies or is not ready in time;
        nothing is left running then.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        ready: set[str] = set()
        try:
            self._guard = self._launch_guard()
            while len(ready) < len(self._programs):
                for program in self._programs:
                    if program.name in ready:
                        continue
                    if program.name not in self._children:
                        if program.after is None or program.after in ready:
                            self._keep(self._launch(program))
                    elif self._is_ready(program):
                        ready.add(program.name)
                        took = time.monotonic() - begun
                        self._tell("ready", f"{program.name} ({took:.1f} s)")
                if self._stopping.wait(0.05):
                    raise KeyboardInterrupt
        except BaseException:
            self.stop()
            raise

    def watch(self) -> None:
        """Restart what dies, until `stop` is called."""
        while not self._stopping.wait(0.5):
            for child in list(self._children.values()):
                if child.process.poll() is not None:
                    self._revive(child)

    def pids(self) -> dict[str, int]:
        """Answer the process id of each program."""
        return {name: child.process.pid for name, child in self._children.items()}

    def request_stop(self) -> None:
        """Make `watch` return, asked again make `stop` kill at once; safe in a signal handler."""
        self._hurried = self._stopping.is_set()
        self._stopping.set()

    def stop(self) -> None:
        """End all programs and what they started, last one first; kill what lingers."""
        self._stopping.set()
        begun = time.monotonic()
        for child in reversed(list(self._children.values())):
            _signal_session(child.process.pid, signal.SIGTERM)
        said = False
        while (left := self._alive()) and not self._hurried:
            waited = time.monotonic() - begun
            if waited > self._patience:
                break
            if waited > _SAY_SO_SECONDS and not said:
                said = True
                given = f"{self._patience:.0f} s are given, another Ctrl-C ends it now"
                self._tell("ending", f"{', '.join(left)}; {given}")
            time.sleep(0.05)
        for name in left:
            self._tell("killed", f"{name} after {time.monotonic() - begun:.0f} s; nothing is lost")
        for child in self._children.values():
            _signal_session(child.process.pid, signal.SIGKILL)
            child.process.wait()
        self._children.clear()
        if self._guard is not None:
            # Nothing is left to end: the guard's input is over after an empty line.
            self._guard.communicate(b"\n")
            self._guard = None

    def _alive(self) -> list[str]:
        """Name the programs that have not ended."""
        return [name for name, one in self._children.items() if one.process.poll() is None]

    def _keep(self, child: _Child) -> None:
        self._children[child.program.name] = child
        if self._guard is not None and self._guard.stdin is not None:
            pids = " ".join(str(pid) for pid in self.pids().values())
            try:
                self._guard.stdin.write(f"{pids}\n".encode())
            except BrokenPipeError:
                # Without it everything runs; only a killed supervisor would leave more behind.
                self._tell("died", f"guard, see {self._logs / 'guard.log'}")
                self._guard = None

    def _launch_guard(self) -> subprocess.Popen[bytes]:
        with (self._logs / "guard.log").open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - ourselves
                (sys.executable, "-m", "penstock.cli.supervisor", str(self._patience)),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                bufsize=0,
                env=self._env,
                start_new_session=True,
            )

    def _launch(self, program: Program) -> _Child:
        with self._log_of(program).open("ab") as output:
            log_from = output.tell()
            process = subprocess.Popen(  # noqa: S603 - our own programs
                program.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
            )
        return _Child(program, process, time.monotonic(), log_from)

    def _is_ready(self, program: Program) -> bool:
        child = self._children[program.name]
        if child.process.poll() is not None:
            raise EngineUnavailable(
                f"{program.name} ended with code {child.process.returncode}:\n{self._tail(child)}"
            )
        if program.port is None or listening(self._host, program.port):
            return True
        waited = time.monotonic() - child.started
        if waited > program.patience:
            raise EngineUnavailable(
                f"{program.name} runs, but did not listen on port {program.port} within "
                f"{program.patience:g} s: where the machine was busy, start again, for what was "
                f"made is kept; else {self._log_of(program)} says more:\n{self._tail(child)}"
            )
        if waited > program.slow and not child.said_slow:
            child.said_slow = True
            self._tell(
                "slow",
                f"{program.name} takes its time, {program.patience:g} s are given; what it says: "
                f"{self._log_of(program)}",
            )
        return False

    def _revive(self, child: _Child) -> None:
        now = time.monotonic()
        if child.again_at == 0.0:
            healthy = now - child.started > HEALTHY_AFTER
            child.deaths = 1 if healthy else child.deaths + 1
            child.again_at = now + back_off(child.deaths)
            # What it started must not linger beside what its successor starts.
            _signal_session(child.process.pid, signal.SIGTERM)
            self._tell(
                "died",
                f"{child.program.name}, {_how(child.process.returncode)}; again in "
                f"{back_off(child.deaths):.0f} s, see {self._log_of(child.program)}",
            )
        elif now >= child.again_at:
            fresh = self._launch(child.program)
            fresh.deaths = child.deaths
            self._keep(fresh)
            self._tell("again", f"{child.program.name} (pid {fresh.process.pid})")

    def _log_of(self, program: Program) -> Path:
        return self._logs / f"{program.name}.log"

    def _tail(self, child: _Child, lines: int = 15) -> str:
        with self._log_of(child.program).open("rb") as log:
            log.seek(child.log_from)
            text = log.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:]) or "(it has said nothing yet)"


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"code {code}"


def guard(told: Iterable[bytes], patience: float) -> None:
    """Wait until `told` is over, then end the sessions of the last whole line of it.

    Each line holds the leaders of all sessions there are, so that a number that was given to
    another process meanwhile is not among them.
    """
    leaders: list[int] = []
    for line in told:
        if line.endswith(b"\n"):
            leaders = [int(leader) for leader in line.split()]
    for leader in leaders:
        _signal_session(leader, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(map(_members, leaders)):
        time.sleep(0.1)
    for leader in leaders:
        _signal_session(leader, signal.SIGKILL)


def _members(leader: int) -> list[psutil.Process]:
    """Answer every process of a session: what a dead leader started keeps its session id."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue
    return found


def _signal_session(leader: int, number: signal.Signals) -> None:
    for process in _members(leader):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


if __name__ == "__main__":
    # Whoever stops the supervisor from a keyboard means the supervisor.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    guard(sys.stdin.buffer, float(sys.argv[1]))
