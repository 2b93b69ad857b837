"""Files of a warehouse in an S3 store: whole or not there, and never written over.

A file is kept in memory until it is complete, and then sent as one conditional PUT: of two who
write the same name one wins, an error before the end leaves nothing behind, and there are no
parts to abort. The largest file is what compaction writes, some 128 MB.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow.fs as pafs
import structlog
from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream
from pyiceberg.typedef import EMPTY_DICT, Properties

from lakehouse.files import Files
from penstock.errors import BadSetting, EngineUnavailable
from penstock.settings import S3Options

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError as error:
    raise BadSetting("s3:// needs a client: pip install 'penstock[s3]'") from error

log = structlog.get_logger()

OPTIONS = "penstock.s3"
"""The property of a catalog that holds the `S3Options`: an object, so that no text shows keys."""

# A request is tried thrice. A store that is away is told after some ten seconds, one that has
# stopped in the middle after a minute and a half.
_CONNECT_SECONDS = 3
_READ_SECONDS = 30
_TRIES = 3

# Whoever opens them reads all of them, and knows nothing of the store.
_METADATA = (".json", ".avro")

# Whoever answers a PUT too late has its request sent again, and that one meets the first.
_WRITER = "penstock-writer"


class Key(NamedTuple):
    """Who asks the store; `token` belongs to a key that ends."""

    name: str
    secret: str
    token: str

    def __repr__(self) -> str:
        return "Key(…)"


@dataclass(frozen=True, slots=True)
class Address:
    """An object, by its bucket and its key there."""

    bucket: str
    key: str


def address_of(location: str) -> Address:
    """Answer the object that an ``s3://`` location means; nothing in its name is special."""
    bucket, _, key = location.removeprefix("s3://").partition("/")
    return Address(bucket, key)


class Store:
    """The connections to one store. Threads may share it."""

    def __init__(self, options: S3Options) -> None:
        self.options = options
        session = boto3.session.Session(
            aws_access_key_id=options.access_key or None,
            aws_secret_access_key=options.secret_key or None,
            region_name=options.region or None,
        )
        self._credentials = session.get_credentials()
        self.client: Any = session.client(
            "s3",
            endpoint_url=options.endpoint or None,
            config=Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": _TRIES},
                s3={"addressing_style": "path" if options.path_style else "auto"},
                max_pool_connections=32,
            ),
        )

    @property
    def region(self) -> str:
        """The region, as the options or the environment say it."""
        region: str = self.client.meta.region_name
        return region

    def key(self) -> Key:
        """Answer the key as it is now; one from a role is renewed before it ends."""
        if self._credentials is None:
            raise EngineUnavailable("there is no key for the object store: set s3_access_key")
        frozen = self._credentials.get_frozen_credentials()
        return Key(frozen.access_key, frozen.secret_key, frozen.token or "")

    def reading(self) -> pafs.S3FileSystem:
        """Answer what reads at any place of a file."""
        return self._reader(self.key())

    @cached_property
    def _reader(self) -> Any:
        return lru_cache(maxsize=2)(self._new_reader)

    def _new_reader(self, key: Key) -> pafs.S3FileSystem:
        endpoint = urlsplit(self.options.endpoint)
        more = {"endpoint_override": endpoint.netloc, "scheme": endpoint.scheme}
        return pafs.S3FileSystem(
            access_key=key.name,
            secret_key=key.secret,
            session_token=key.token or None,
            region=self.region,
            connect_timeout=_CONNECT_SECONDS,
            request_timeout=_READ_SECONDS,
            # It counts those after the first. The standard strategy counts down and hears of no
            # success from Arrow: after a hundred retries a process would never try again.
            retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=_TRIES - 1),
            force_virtual_addressing=not self.options.path_style,
            **(more if self.options.endpoint else {}),
        )


@lru_cache(maxsize=8)
def store_of(options: S3Options) -> Store:
    """Answer the store; whoever asks with the same options shares its connections."""
    return Store(options)


@contextmanager
def _asking(location: str) -> Iterator[None]:
    """Tell what the store says in errors of ours."""
    try:
        yield
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        code = error.response["Error"]["Code"]
        if code != "NoSuchBucket" and status == HTTPStatus.NOT_FOUND:
            raise FileNotFoundError(location) from error
        if status == HTTPStatus.PRECONDITION_FAILED:
            raise FileExistsError(location) from error
        raise EngineUnavailable(f"the object store refuses: {code}") from error
    except BotoCoreError as error:
        kind = type(error).__name__
        raise EngineUnavailable(f"the object store does not answer: {kind}") from error


class S3Files(Files):
    """Files in an S3 store; raises `EngineUnavailable` where the store does not answer.

    Of a data file only opening it does so: what is read there afterwards raises `OSError`.
    """

    def __init__(self, properties: Properties = EMPTY_DICT) -> None:
        super().__init__(properties)
        self._store = store_of(properties.get(OPTIONS) or S3Options())

    def new_input(self, location: str) -> InputFile:
        """Answer the file to be read."""
        return _Input(location, self._store)

    def new_output(self, location: str) -> OutputFile:
        """Answer the file to be made."""
        return _Output(location, self._store)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Delete the file; one that is gone already is no error."""
        name = location if isinstance(location, str) else location.location
        at = address_of(name)
        with _asking(name):
            self._store.client.delete_object(Bucket=at.bucket, Key=at.key)

    def list(self, location: str) -> Iterator[str]:
        """Answer the locations of all files below an ``s3://`` location, in no order."""
        at = address_of(location)
        pages = self._store.client.get_paginator("list_objects_v2")
        below = at.key.rstrip("/") + "/" if at.key else ""
        with _asking(location):
            for page in pages.paginate(Bucket=at.bucket, Prefix=below):
                for found in page.get("Contents", ()):
                    yield f"s3://{at.bucket}/{found['Key']}"


def _size(location: str, store: Store) -> int:
    at = address_of(location)
    with _asking(location):
        size: int = store.client.head_object(Bucket=at.bucket, Key=at.key)["ContentLength"]
        return size


def _exists(location: str, store: Store) -> bool:
    try:
        _size(location, store)
    except FileNotFoundError:
        return False
    return True


class _Input(InputFile):
    def __init__(self, location: str, store: Store) -> None:
        super().__init__(location)
        self._store = store

    def __len__(self) -> int:
        return _size(self.location, self._store)

    def exists(self) -> bool:
        return _exists(self.location, self._store)

    def open(self, seekable: bool = True) -> InputStream:
        at = address_of(self.location)
        path = f"{at.bucket}/{at.key}"
        try:
            if seekable:
                stream: InputStream = self._store.reading().open_input_file(path)
            else:
                stream = self._store.reading().open_input_stream(path)
            if self.location.endswith(_METADATA):
                with stream:
                    return io.BytesIO(stream.read())
        except FileNotFoundError:
            raise
        except OSError as error:
            raise EngineUnavailable("the object store does not answer") from error
        return stream


class _Output(OutputFile):
    def __init__(self, location: str, store: Store) -> None:
        super().__init__(location)
        self._store = store
        self._upload: Upload | None = None

    def __len__(self) -> int:
        if self._upload is not None and self._upload.size is not None:
            return self._upload.size
        return _size(self.location, self._store)

    def exists(self) -> bool:
        return _exists(self.location, self._store)

    def to_input_file(self) -> InputFile:
        return _Input(self.location, self._store)

    def create(self, overwrite: bool = False) -> OutputStream:
        """Make the file, which is there once the stream was closed.

        Closing raises `FileExistsError` rather than write over a file, unless told to.
        """
        self._upload = Upload(self.location, self._store, exclusive=not overwrite)
        return self._upload


class Upload(io.BytesIO):
    """A new object that is in the store when `close` returns; after an error it is not made."""

    def __init__(self, location: str, store: Store, *, exclusive: bool) -> None:
        super().__init__()
        self.size: int | None = None
        self._location = location
        self._store = store
        self._exclusive = exclusive

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            super().close()

    def close(self) -> None:
        """Send it; let go of the memory even if that fails."""
        if self.closed:
            return
        try:
            self._send()
        finally:
            super().close()

    def __del__(self) -> None:
        # A stream that nobody closed was not finished; Python would close it.
        super().close()

    def _send(self) -> None:
        at, writer = address_of(self._location), secrets.token_hex(16)
        size = self.seek(0, io.SEEK_END)
        self.seek(0)
        condition = {"IfNoneMatch": "*"} if self._exclusive else {}
        try:
            with _asking(self._location):
                self._store.client.put_object(
                    Bucket=at.bucket,
                    Key=at.key,
                    Body=self,
                    Metadata={_WRITER: writer},
                    **condition,
                )
        except FileExistsError:
            with _asking(self._location):
                there = self._store.client.head_object(Bucket=at.bucket, Key=at.key)
            if there["Metadata"].get(_WRITER) != writer:
                raise
            log.info("a file was written by a request whose answer was lost")
        self.size = size


__all__ = ["OPTIONS", "FileIO", "Key", "S3Files", "Store", "Upload", "address_of", "store_of"]
