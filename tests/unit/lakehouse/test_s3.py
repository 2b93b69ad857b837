"""Files in an S3 store: whole or not there, never written over; a store that is away is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from engines.fresh import fresh_name
from engines.places import BUCKET
from lakes import STORE, store_at
from ports import free_port

from lakehouse.s3 import OPTIONS, Key, S3Files, address_of
from penstock.errors import EngineUnavailable
from penstock.settings import S3Options, load_settings, shown


@pytest.fixture
def place() -> str:
    return f"s3://{BUCKET}/{fresh_name('files')}"


@pytest.fixture
def files() -> S3Files:
    return S3Files({OPTIONS: STORE})


@pytest.mark.engines
def test_a_file_is_made_and_read_back(files: S3Files, place: str) -> None:
    """Names hold what URLs would treat as something else."""
    location = f"{place}/data/day=1/a b%20ü+?.parquet"

    with files.new_output(location).create() as out:
        out.write(b"rows")

    with files.new_input(location).open() as stream:
        assert stream.read() == b"rows"
    assert len(files.new_input(location)) == 4
    assert list(files.list(place)) == [location]


@pytest.mark.engines
def test_a_file_is_never_written_over(files: S3Files, place: str) -> None:
    """Of two who give the same name one wins, even if both began before either ended."""
    location = f"{place}/a.parquet"
    first = files.new_output(location).create()
    second = files.new_output(location).create()
    first.write(b"first")
    second.write(b"second")
    first.close()

    with pytest.raises(FileExistsError):
        second.close()
    assert files.new_input(location).open().read() == b"first"


@pytest.mark.engines
def test_a_file_that_was_not_finished_is_not_there(files: S3Files, place: str) -> None:
    """Half a Parquet file with a whole file's name would be read as one."""
    location = f"{place}/a.parquet"

    def half() -> None:
        with files.new_output(location).create() as out:
            out.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()

    assert not files.new_input(location).exists()
    assert list(files.list(place)) == []


@pytest.mark.engines
def test_what_is_missing_is_told_apart_from_a_store_that_is_away(
    files: S3Files, place: str
) -> None:
    """Metadata that was cleaned away is looked up again; a store that is away is waited for."""
    with pytest.raises(FileNotFoundError):
        files.new_input(f"{place}/a").open()
    with pytest.raises(FileNotFoundError):
        len(files.new_input(f"{place}/a"))
    files.delete(f"{place}/a")


@pytest.mark.engines
def test_only_what_lies_below_is_listed(files: S3Files, place: str) -> None:
    """The sweep of `flights` must not take the files of `flights2`."""
    for name in ("flights/a", "flights/metadata/b", "flights2/c"):
        files.new_output(f"{place}/{name}").create().close()

    below = set(files.list(f"{place}/flights"))

    assert below == {f"{place}/flights/a", f"{place}/flights/metadata/b"}


def test_a_store_that_is_away_is_unavailable_within_seconds() -> None:
    """And says nothing of keys."""
    files = S3Files({OPTIONS: store_at(f"http://127.0.0.1:{free_port()}")})

    with pytest.raises(EngineUnavailable) as put:
        files.new_output("s3://b/x").create().close()
    with pytest.raises(EngineUnavailable):
        files.new_input("s3://b/x").open()
    with pytest.raises(EngineUnavailable):
        list(files.list("s3://b/x"))

    assert STORE.secret_key not in repr(put.value) + repr(put.value.__cause__)


class Forgetful(BaseHTTPRequestHandler):
    """A store that keeps the first PUT and cuts the connection instead of answering."""

    kept: ClassVar[dict[str, str]] = {}

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path in self.kept:
            self.send_response(412)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.kept[self.path] = self.headers["x-amz-meta-penstock-writer"]
        self.close_connection = True

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("x-amz-meta-penstock-writer", self.kept[self.path])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Short(BaseHTTPRequestHandler):
    """A store whose answers end before the bytes that they promise."""

    def do_GET(self) -> None:
        self.send_response(206)
        self.send_header("Content-Range", "bytes 0-99/100")
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"x" * 60)

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[S3Files]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield S3Files({OPTIONS: store_at(f"http://127.0.0.1:{server.server_port}")})
        server.shutdown()
        thread.join()


@pytest.fixture
def forgetful() -> Iterator[S3Files]:
    Forgetful.kept.clear()
    with served(Forgetful) as files:
        yield files


def test_a_short_answer_is_never_taken_for_the_whole() -> None:
    """Landing and upkeep wait for a store that cannot be read, whatever file it was."""
    with served(Short) as files:
        for metadata in ("m.avro", "1.metadata.json"):
            with pytest.raises(EngineUnavailable):
                files.new_input(f"s3://bucket/{metadata}").open()
        with files.new_input("s3://bucket/a.parquet").open() as data, pytest.raises(OSError):  # noqa: PT011
            data.read()


def test_a_file_whose_answer_was_lost_is_ours(forgetful: S3Files) -> None:
    """The second try meets the first; landing would give up a file that is there."""
    with forgetful.new_output("s3://bucket/a").create() as out:
        out.write(b"rows")

    assert len(Forgetful.kept) == 1


def test_a_file_of_somebody_else_is_not_ours(forgetful: S3Files) -> None:
    """Only who wrote it may take it for its own."""
    Forgetful.kept["/bucket/a"] = "another"

    with pytest.raises(FileExistsError):
        forgetful.new_output("s3://bucket/a").create().close()


class Busy(Short):
    """A store that refuses every second request."""

    asked: ClassVar[int] = 0

    def do_GET(self) -> None:
        if not self.refused():
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 1000)

    def do_HEAD(self) -> None:
        if not self.refused():
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()

    def refused(self) -> bool:
        Busy.asked += 1
        if Busy.asked % 2:
            self.send_error(503)
        return bool(Busy.asked % 2)


def test_reads_are_tried_again_however_many_were_before() -> None:
    """A process that reads for weeks would get through its retries, and then fail at each break."""
    with served(Busy) as files:
        for number in range(110):
            assert files.new_input(f"s3://bucket/{number}.json").open().read() == b"x" * 1000


def test_no_key_is_shown() -> None:
    """A log line or a traceback with locals prints what objects say of themselves."""
    options = S3Options(endpoint="http://s3", access_key="AKIA4711", secret_key="hush")
    key = Key("AKIA4711", "hush", "hush")
    files = S3Files({OPTIONS: options})

    for said in (repr(options), str(options), repr(key), repr(files), str(files.properties)):
        assert "hush" not in said
        assert "AKIA4711" not in said


def test_settings_carry_the_store_and_show_no_secret(tmp_path: Path) -> None:
    """They are printed when something goes wrong."""
    given = {
        "PENSTOCK_WAREHOUSE_URL": "s3://lake/x",
        "PENSTOCK_CATALOG_URL": "postgresql://me:hush@db/lake?password=hush",
        "PENSTOCK_S3_ACCESS_KEY": "AKIA4711",
        "PENSTOCK_S3_SECRET_KEY": "hush",
        "PENSTOCK_S3_PATH_STYLE": "true",
    }
    settings = load_settings(tmp_path, given)

    assert settings.s3 == S3Options(path_style=True, access_key="AKIA4711", secret_key="hush")
    assert "hush" not in repr(settings) + repr(settings.s3) + shown(settings.catalog)
    assert shown(settings.catalog) == "postgresql://db/lake"
    assert shown("sqlite:////home/x/catalog.db") == "sqlite:////home/x/catalog.db"
    assert load_settings(tmp_path, {}).s3 is None


def test_a_location_is_taken_literally() -> None:
    """Nothing in a key is a parameter or an escape."""
    at = address_of("s3://bucket/a/../b?x=1#y%20z")

    assert (at.bucket, at.key) == ("bucket", "a/../b?x=1#y%20z")
