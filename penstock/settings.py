"""Every knob, its default, and a sentence on what it is for.

Settings come from the environment (``PENSTOCK_…``) and from ``<home>/penstock.toml``, or from the
file that ``PENSTOCK_SETTINGS`` names instead; the environment wins. A name that is not listed here
is refused: a misspelt one must not be ignored.
A process reads its settings once and passes values on.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from penstock.errors import BadSetting

PREFIX = "PENSTOCK_"

FILE_VARIABLE = "PENSTOCK_SETTINGS"

# Read elsewhere on purpose: fault injection in tests, and what the CLI needs before any settings.
_NOT_SETTINGS = {f"PENSTOCK_{name}" for name in ("FAULT", "HOME", "TOKEN", "API", "DOOR", "SECRET")}
_NOT_SETTINGS.add(FILE_VARIABLE)

_SECRET_NAME = re.compile("password|secret|token|key")


@dataclass(frozen=True, slots=True)
class S3Options:
    """How the lake's object store is reached; its secrets show nowhere.

    Without keys AWS's usual chain is asked: environment, profile, role of the pod or machine.
    """

    endpoint: str = ""
    region: str = ""
    path_style: bool = False
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)


def shown(url: str) -> str:
    """Answer the URL for people: without user, password and parameters, which may be secret."""
    bare, who = url.partition("?")[0], urlsplit(url).netloc.rpartition("@")
    return bare.replace("".join(who[:2]), "", 1)


def _secrets_of(url: str) -> set[str]:
    """Answer the passwords in a URL, as written and as read; all of one that cannot be read."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return {url}
    password = parts.password or ""
    asked = dict(parse_qsl(parts.query))
    named = {asked[name] for name in asked if _SECRET_NAME.search(name)}
    return {password, unquote(password), *named, *map(quote, named)}


class Settings(BaseModel):
    """The settings of every process of one home."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(description="Where embedded stores, secrets and logs are kept.")

    log_url: str = Field("", description="The log. Empty: embedded, in `<home>/log`.")
    log_partitions: int = Field(
        1, ge=1, le=1000, description="Log partitions of a new collection; embedded: always 1."
    )
    log_retention_hours: int = Field(
        168, ge=1, description="How long a new collection's records stay on Kafka, landed or not."
    )
    warehouse_url: str = Field(
        "", description="Iceberg files, `s3://bucket/prefix` or a folder. Empty: in `<home>/lake`."
    )
    catalog_url: str = Field(
        "",
        repr=False,
        description="Iceberg catalog: `postgresql://…`, `rest+https://…`, `glue://region` or "
        "SQLite. Empty: `<home>/catalog.db`.",
    )
    s3_endpoint: str = Field("", description="Where the object store answers. Empty: AWS.")
    s3_region: str = Field("", description="Its region. Empty: as AWS's own clients find it.")
    s3_path_style: bool = Field(
        False, description="Whether the bucket is part of the path, as most stores but AWS want it."
    )
    s3_access_key: str = Field(
        "", description="The key's name. Empty: as AWS's own clients find it (environment, role)."
    )
    s3_secret_key: SecretStr = Field(SecretStr(""), description="The key itself; shown nowhere.")
    metadata_url: str = Field(
        "", description="Teams, collections, tokens, replays. Empty: SQLite, `<home>/metadata.db`."
    )
    credential_keys: SecretStr = Field(
        SecretStr(""),
        description="Keys under which credentials of destinations are kept, each 32 bytes in "
        "base64, with commas between: the first encrypts, all decrypt. Empty: in a file.",
    )
    credential_keys_file: Path | None = Field(
        None, description="The file of these keys, one a line. Empty: `<home>/credential.keys`."
    )
    stats_url: str = Field("", description="Statistics. Empty: where the metadata is.")
    dagster_url: str = Field(
        "", description="Dagster's runs and events. Empty: SQLite, below `<home>/dagster`."
    )
    cache_url: str = Field(
        "", description="What doors know of tokens and collections. Empty: `<home>/cache`."
    )
    cache_user: str = Field("", description="The user of the cache, where it asks for one.")
    cache_password: SecretStr = Field(SecretStr(""), description="The password of that user.")
    cache_ca: Path | None = Field(
        None, description="Certificates (PEM) that the cache's own is checked with."
    )
    cache_certificate: Path | None = Field(
        None, description="The certificate (PEM) shown to the cache."
    )
    cache_key: Path | None = Field(None, description="The key (PEM) of that certificate.")
    bus_url: str = Field(
        "", description="Messages between Penstock's processes. Empty: in the metadata."
    )

    search_url: str = Field(
        "", description="The search index. Empty: none, searches read the lake."
    )
    search_user: str = Field("", description="Who signs in to the search engine, if anybody.")
    search_password: SecretStr = Field(SecretStr(""), description="That user's password.")
    search_api_key: SecretStr = Field(
        SecretStr(""), description="Signs in to the search engine instead of user and password."
    )
    search_ca_file: str = Field(
        "", description="Certificates to trust for the search engine. Empty: those of the machine."
    )
    search_replicas: int = Field(0, ge=0, description="Copies of each index beside the first one.")
    search_days: int = Field(
        0, ge=0, description="Days that the index holds, older ones are read in the lake; 0: all."
    )
    search_filter_bytes: int = Field(
        1 << 30,
        ge=0,
        description="What filters of data files may take below the home: searches skip rows by "
        "them. 0: none are made.",
    )

    host: str = Field("127.0.0.1", description="The address every server binds to.")
    http_port: int = Field(8080, ge=1, le=65535, description="The door's HTTP port.")
    grpc_port: int = Field(9000, ge=1, le=65535, description="The door's gRPC port.")
    platform_port: int = Field(8000, ge=1, le=65535, description="API and search.")
    dagster_port: int = Field(3000, ge=1, le=65535, description="Dagster's own pages.")
    dashboard_url: str = Field(
        "",
        description="Where browsers reach the platform, `https://…` behind a proxy. Empty: at its "
        "own address.",
    )
    dagster_pages_url: str = Field(
        "",
        description="Where browsers reach Dagster's pages, for links to them. Empty: at its port.",
    )

    max_event_bytes: int = Field(1 << 20, ge=1, description="The largest event; over it: 413.")
    max_body_bytes: int = Field(
        16 << 20, ge=1, description="The largest HTTP body, also decompressed."
    )
    max_ratio: int = Field(
        200, ge=2, description="Most a body may grow by decompression, as a factor."
    )
    max_waiting_bytes: int = Field(
        64 << 20, ge=1, description="Accepted but not yet durable bytes in a door; over it: 503."
    )
    events_per_second: int = Field(
        0, ge=0, description="Events a token may send per second, 0 for no limit; over it: 429."
    )

    landing_patience_seconds: float = Field(
        2.0,
        gt=0,
        description="How long an event waits for others before it lands. Where hundreds of "
        "collections are busy it may be 50 seconds.",
    )
    landing_batch_bytes: int = Field(
        64 << 20, ge=1 << 16, description="Payload bytes that one commit takes at most."
    )
    landing_at_once: int = Field(
        4,
        ge=1,
        le=32,
        description="Small batches that one landing run lands at the same time: with hundreds of "
        "collections, or a slow object store, it is waiting for the stores that takes time. "
        "Each has its part of `landing_batch_bytes`.",
    )
    lanes: int = Field(
        1, ge=1, le=64, description="Landing runs at once, each with its share of all partitions."
    )
    duplicate_window_hours: float = Field(
        24.0,
        ge=0,
        description="How long after an event the same one sent again is a duplicate; 0: never.",
    )
    duplicate_memory_mib: int = Field(
        256,
        ge=1,
        description="Memory for the ids of that time, 12 bytes each, in a landing run and in the "
        "platform. With more ids the time is shorter.",
    )
    registry_patience_seconds: float = Field(
        300.0,
        ge=0,
        description="How long landing waits for a schema registry that does not answer; after it "
        "events of unknown schemas go to quarantine.",
    )
    max_columns: int = Field(1000, ge=1, description="Discovered columns of one collection.")
    snapshots_kept: int = Field(50, ge=2, description="Iceberg snapshots that upkeep leaves.")
    compact_below_bytes: int = Field(
        64 << 20,
        ge=1,
        description="Upkeep merges data files smaller than this, or than half of the next one.",
    )
    compact_to_bytes: int = Field(
        128 << 20, ge=1 << 20, description="How large the files are that it makes of them."
    )
    compact_url: str = Field(
        "",
        description="Who merges data files: `trino://user@host:port/catalog`, or `trino+https://`, "
        "of a user who may execute `optimize`. Empty: upkeep itself.",
    )
    compact_password: SecretStr = Field(
        SecretStr(""), description="The password of the user in `compact_url`; over HTTPS only."
    )
    compact_token: SecretStr = Field(
        SecretStr(""),
        description="A JWT for `compact_url` in place of a password; over HTTPS only.",
    )
    upkeep_seconds: float = Field(
        480.0, gt=0, description="After so long a run of upkeep begins nothing new."
    )

    sql_url: str = Field(
        "",
        description="Where callers' SQL runs: `trino://user@host:port/catalog`, or "
        "`trino+https://`. Empty: DuckDB, in processes of their own.",
    )
    sql_password: SecretStr = Field(
        SecretStr(""), description="The password of the user in `sql_url`; over HTTPS only."
    )
    sql_token: SecretStr = Field(
        SecretStr(""), description="A JWT for `sql_url` in place of a password; over HTTPS only."
    )
    sql_seconds: float = Field(60.0, gt=0, description="The longest a SQL statement may take.")
    sql_rows: int = Field(10_000, ge=1, description="The most rows a SQL answer holds.")
    sql_memory: str = Field("2GB", description="Memory that one SQL statement may use.")

    allow_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        (),
        description="Networks of destinations and registries that may be reached although they "
        "are not public (CIDR). Not set, `penstock up` allows this machine while `host` is a "
        "loopback address and there is no `dashboard_url`.",
    )
    allow_ports: tuple[int, ...] = Field(
        (),
        description="Ports of destinations and registries that may be reached beside 80, 443 and "
        "8000 to 9999.",
    )
    tails_per_team: int = Field(
        20, ge=1, description="Live tails that one team may have open at once."
    )
    replay_confirm_above: int = Field(
        1_000_000, ge=1, description="Events above which a replay has to be confirmed by its count."
    )
    replay_files_days: int = Field(
        7, ge=1, description="Days that a file which a replay wrote is kept after the replay ended."
    )
    replay_senders: int = Field(
        1, ge=1, le=32, description="Processes that send one replay to HTTP. 1: its own alone."
    )

    @property
    def replay_files(self) -> Path:
        """The folder of files that replays write."""
        return self.home / "replay-files"

    @property
    def log(self) -> str:
        """The log's URL."""
        return self.log_url or f"embedded://{self.home / 'log'}"

    @property
    def partitions_at_first(self) -> int:
        """How many log partitions a new collection gets that asks for no number."""
        return 1 if self.log.startswith("embedded:") else self.log_partitions

    @property
    def warehouse(self) -> str:
        """The warehouse's URL."""
        return self.warehouse_url or f"file://{self.home / 'lake'}"

    @property
    def catalog(self) -> str:
        """The catalog's URL."""
        return self.catalog_url or f"sqlite:///{self.home / 'catalog.db'}"

    @property
    def s3(self) -> S3Options | None:
        """How the object store is reached; None where the lake's files are on this machine."""
        if not self.warehouse.startswith("s3:"):
            return None
        return S3Options(
            endpoint=self.s3_endpoint,
            region=self.s3_region,
            path_style=self.s3_path_style,
            access_key=self.s3_access_key,
            secret_key=self.s3_secret_key.get_secret_value(),
        )

    @property
    def metadata(self) -> str:
        """The metadata database's URL."""
        return self.metadata_url or f"sqlite:///{self.home / 'metadata.db'}"

    @property
    def stats(self) -> str:
        """The URL of the database of the statistics."""
        return self.stats_url or self.metadata

    @property
    def cache(self) -> str:
        """The URL of the doors' cache."""
        return self.cache_url or f"embedded://{self.home / 'cache'}"

    def censored(self, text: str) -> str:
        """Answer the text with an ellipsis in place of every secret of these settings."""
        for secret in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(secret, "…")
        return text

    def _secrets(self) -> set[str]:
        found = set()
        for value in dict(self).values():
            if isinstance(value, SecretStr):
                found.add(value.get_secret_value())
            elif isinstance(value, str) and "://" in value:
                found |= _secrets_of(value)
        return found - {""}


def load_settings(
    home: Path,
    environ: Mapping[str, str] = os.environ,
    *,
    file: Path | None = None,
    **given: Any,
) -> Settings:
    """Read the settings of a home; `given` (command-line flags) win over everything.

    `file` stands in for ``<home>/penstock.toml`` and for the one that the environment names.
    Raises `BadSetting` with every problem in one message.
    """
    values = _read(home, file or environ.get(FILE_VARIABLE))
    for name, value in environ.items():
        if name.startswith(PREFIX) and name not in _NOT_SETTINGS:
            field = name.removeprefix(PREFIX).lower()
            values[field] = _list(value) if field.startswith("allow_") else value
    values.update({name: value for name, value in given.items() if value is not None})
    values["home"] = home.expanduser().absolute()
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise BadSetting(_all_problems(error)) from error


def _read(home: Path, named: Path | str | None) -> dict[str, Any]:
    """Answer what the file says; only the home's own may be missing."""
    file = Path(named).expanduser() if named else home.expanduser() / "penstock.toml"
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        if named:
            raise BadSetting(f"there is no settings file {file}") from None
        return {}
    except OSError as error:
        raise BadSetting(f"{file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSetting(f"{file}: {error}") from error


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _all_problems(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{name}: there is no such setting (environment: {PREFIX}{name.upper()})")
        else:
            lines.append(f"{name}: {problem['msg']}")
    return "\n".join(lines)


def door_of(settings: Settings) -> str:
    """Answer the address at which this machine reaches its door."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{host}:{settings.http_port}"
