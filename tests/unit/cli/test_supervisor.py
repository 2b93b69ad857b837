"""The supervisor, with small programs of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from ports import free_port

from penstock.cli.supervisor import Program, Supervisor, back_off, require_free
from penstock.errors import BadSetting, EngineUnavailable

LISTEN = (
    "import socket, sys, time; s = socket.socket();"
    "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1);"
    "s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); time.sleep(600)"
)
# Starts a grandchild that ignores the polite signal, and writes its pid.
WITH_CHILD = (
    "import subprocess, sys, time;"
    "p = subprocess.Popen([sys.executable, '-c',"
    "'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)']);"
    "open(sys.argv[1], 'w').write(str(p.pid)); time.sleep(600)"
)


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


Told = list[tuple[str, str]]


def of(programs: Sequence[Program], logs: Path, told: Told, *, patience: float = 0.5) -> Supervisor:
    return Supervisor(
        programs,
        host="127.0.0.1",
        logs=logs,
        env=dict(os.environ),
        tell=lambda word, what: told.append((word, what)),
        patience=patience,
    )


@contextmanager
def supervised(
    tmp_path: Path, *programs: Program, told: Told | None = None
) -> Iterator[Supervisor]:
    supervisor = of(programs, tmp_path, [] if told is None else told)
    supervisor.start()
    watching = threading.Thread(target=supervisor.watch)
    watching.start()
    try:
        yield supervisor
    finally:
        supervisor.request_stop()
        watching.join()
        supervisor.stop()


def test_a_program_that_was_killed_is_started_again(tmp_path: Path) -> None:
    """Landing must go on without a hand when Dagster's daemon dies."""
    port = free_port()
    program = Program("echo", (sys.executable, "-c", LISTEN, str(port)), port)

    told: Told = []

    with supervised(tmp_path, program, told=told) as supervisor:
        first = supervisor.pids()["echo"]
        os.kill(first, signal.SIGKILL)
        eventually(lambda: [word for word, _ in told] == ["ready", "died", "again"])

        assert supervisor.pids()["echo"] != first
    died = told[1][1]
    assert died.startswith("echo, killed by SIGKILL; again in 1 s")
    assert str(tmp_path / "echo.log") in died


def test_a_program_starts_when_the_one_before_it_is_ready(tmp_path: Path) -> None:
    """Programs that make the same database must not do so at the same time."""
    note, port = tmp_path / "reached", free_port()
    reach = (
        "import socket, sys, time; socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
        "open(sys.argv[2], 'w'); time.sleep(600)"
    )
    second = Program("second", (sys.executable, "-c", reach, str(port), str(note)), after="first")
    first = Program("first", (sys.executable, "-c", LISTEN, str(port)), port)
    told: Told = []

    with supervised(tmp_path, second, first, told=told):
        eventually(note.exists)

    assert [(word, what.split()[0]) for word, what in told] == [
        ("ready", "first"),
        ("ready", "second"),
    ]


def test_stopping_ends_what_the_programs_started(tmp_path: Path) -> None:
    """Dagster's runs are grandchildren; one left behind would go on landing."""
    note = tmp_path / "pid"
    program = Program("parent", (sys.executable, "-c", WITH_CHILD, str(note)))

    with supervised(tmp_path, program):
        eventually(lambda: note.exists() and note.read_text() != "")
        grandchild = int(note.read_text())
        assert psutil.pid_exists(grandchild)

    eventually(lambda: not _running(grandchild))


# Says that it is there, and needs so many seconds to end.
SLOW_TO_END = (
    "import signal, sys, time;"
    "signal.signal(15, lambda *_: (time.sleep(float(sys.argv[2])), sys.exit()));"
    "open(sys.argv[1], 'w').close();"
    "[time.sleep(1) for _ in range(600)]"
)


@pytest.mark.parametrize(
    ("needs", "patience", "words"),
    [
        (0.0, 30.0, ["ready"]),
        (4.0, 30.0, ["ready", "ending"]),
        (60.0, 4.0, ["ready", "ending", "killed"]),
    ],
)
def test_a_program_has_its_time_to_end_and_is_waited_for_with_a_word(
    tmp_path: Path, needs: float, patience: float, words: list[str]
) -> None:
    """A landing that ends its commit is no reason to say `killed`, nor to sit there silently."""
    note, told = tmp_path / "there", Told()
    program = Program("slow", (sys.executable, "-c", SLOW_TO_END, str(note), str(needs)))
    supervisor = of([program], tmp_path, told, patience=patience)
    supervisor.start()
    eventually(note.exists)
    begun = time.monotonic()

    supervisor.stop()

    assert [word for word, _ in told] == words
    assert time.monotonic() - begun < min(needs, patience) + 10
    assert [what for word, what in told if word == "ending"] == [
        f"slow; {patience:.0f} s are given, another Ctrl-C ends it now"
    ] * ("ending" in words)


def test_who_asks_twice_does_not_wait(tmp_path: Path) -> None:
    """Somebody who types Ctrl-C again wants the terminal back."""
    note, told = tmp_path / "there", Told()
    program = Program("slow", (sys.executable, "-c", SLOW_TO_END, str(note), "60"))
    supervisor = of([program], tmp_path, told, patience=60.0)
    supervisor.start()
    eventually(note.exists)
    supervisor.request_stop()
    supervisor.watch()
    stopping = threading.Thread(target=supervisor.stop)
    stopping.start()
    eventually(lambda: any(word == "ending" for word, _ in told))

    supervisor.request_stop()
    stopping.join(20)

    assert not stopping.is_alive()
    assert [word for word, _ in told] == ["ready", "ending", "killed"]


# A supervisor of one program; says its pid and stays.
ALONE = (
    "import os, sys; from pathlib import Path;"
    "from penstock.cli.supervisor import Program, Supervisor;"
    "told = lambda word, what: None;"
    "program = Program('parent', (sys.executable, '-c', sys.argv[1], sys.argv[2]));"
    "one = Supervisor([program], host='127.0.0.1', logs=Path(sys.argv[3]), env=dict(os.environ),"
    " tell=told, patience=0.5); one.start(); one.watch()"
)


def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path) -> None:
    """A run would go on for as long as it has work, beside those of the next supervisor."""
    note = tmp_path / "pid"
    supervisor = subprocess.Popen(
        [sys.executable, "-c", ALONE, WITH_CHILD, str(note), str(tmp_path)]
    )
    eventually(lambda: note.exists() and note.read_text() != "", 30)
    grandchild = int(note.read_text())
    leader = os.getsid(grandchild)

    supervisor.kill()
    supervisor.wait()

    # The grandchild ignores the polite signal.
    eventually(lambda: not _running(leader) and not _running(grandchild), 30)


def test_a_program_that_dies_at_start_is_shown_with_its_last_words(tmp_path: Path) -> None:
    """A bare time-out would send people to look for log files."""
    program = Program("broken", (sys.executable, "-c", "raise SystemExit('no luck')"), free_port())
    supervisor = of([program], tmp_path, [])

    with pytest.raises(EngineUnavailable, match="no luck"):
        supervisor.start()

    assert supervisor.pids() == {}


def test_a_program_that_does_not_get_ready_says_which_port_and_only_its_own_words(
    tmp_path: Path,
) -> None:
    """The log goes on from start to start: the last words of the one before sent people astray."""
    (tmp_path / "mute.log").write_text("an error of yesterday\n")
    port = free_port()
    mute = Program("mute", (sys.executable, "-c", "import time; time.sleep(600)"), port, None, 0.2)
    supervisor = of([mute], tmp_path, [])

    with pytest.raises(EngineUnavailable, match="start again") as refused:
        supervisor.start()

    said = str(refused.value)
    assert f"did not listen on port {port} within 0.2 s" in said
    assert "said nothing yet" in said
    assert "yesterday" not in said
    assert supervisor.pids() == {}


def test_a_slow_start_is_told_once_while_it_is_waited_for(
    tmp_path: Path,
) -> None:
    """Whoever sees nothing for a minute stops what was about to be ready."""
    late = f"import time; time.sleep(0.5); {LISTEN}"
    port = free_port()
    told: Told = []
    slow = Program("late", (sys.executable, "-c", late, str(port)), port, slow=0.1)
    with supervised(tmp_path, slow, told=told):
        pass

    assert [word for word, _ in told[:2]] == ["slow", "ready"]
    assert str(tmp_path / "late.log") in told[0][1]


def test_a_taken_port_names_its_holder_and_the_way_out() -> None:
    """The most common trouble at the first start."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadSetting, match=rf"port {port} .*pid {os.getpid()}.*--http-port"):
            require_free("127.0.0.1", {"--http-port": port})


def test_back_off_doubles_up_to_half_a_minute() -> None:
    """A program that cannot start must not be started a thousand times."""
    assert [back_off(deaths) for deaths in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


def _running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
