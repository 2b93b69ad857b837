"""Tables behind an Iceberg REST catalog.

The server checks what a commit requires, and knows the standard requirements only. Ours are left
out here; how pins and expiry stay apart without them is told in `lakehouse.upkeep`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow as pa
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.io import FileIO, load_file_io
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException

from lakehouse.catalog import CATALOG_NAME
from lakehouse.updates import OURS
from penstock.errors import BadSetting, EngineUnavailable

if TYPE_CHECKING:
    from pyiceberg.table import CommitTableResponse, Table
    from pyiceberg.table.update import TableRequirement, TableUpdate

_SECONDS = (3.0, 30.0)
"""How long to wait for a connection, and then for each part of an answer."""

# Parameters of the address that PyIceberg understands; anything else is a typing error.
_PARAMETERS = frozenset({"warehouse", "scope", "prefix", "oauth2-server-uri", "audience"})


class _Bounded(HTTPAdapter):
    """PyIceberg gives no time limit, and would wait for ever.

    Raises `EngineUnavailable` where no whole answer comes: whoever sent a commit tries again later,
    as with the other catalogs.
    """

    def send(self, request: PreparedRequest, *args: Any, **more: Any) -> Response:
        more["timeout"] = more.get("timeout") or _SECONDS
        try:
            answer: Response = super().send(request, *args, **more)
            # It is kept: who reads it later would meet its end there.
            answer.content  # noqa: B018
        except RequestException as error:
            kind = type(error).__name__
            raise EngineUnavailable(f"the REST catalog does not answer: {kind}") from None
        return answer


class ServedCatalog(RestCatalog):
    """A catalog behind REST. The files are reached by our own settings, whatever the server says.

    `checks_ours` is false: requirements that are not standard do not reach the server.
    """

    checks_ours = False

    def __init__(self, name: str, warehouse: str, files: dict[str, Any], **properties: Any) -> None:
        self._base = warehouse
        self._files = files
        super().__init__(name, **properties)

    def _create_session(self) -> Session:
        session: Session = super()._create_session()
        session.mount("https://", _Bounded())
        session.mount("http://", _Bounded())
        return session

    def _load_file_io(
        self,
        properties: Properties = EMPTY_DICT,  # noqa: ARG002 - the server's
        location: str | None = None,
        *_: Any,
        **__: Any,
    ) -> FileIO:
        return load_file_io(self._files, location)

    def create_table(
        self,
        identifier: str | Identifier,
        schema: Schema | pa.Schema,
        location: str | None = None,
        partition_spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        sort_order: SortOrder = UNSORTED_SORT_ORDER,
        properties: Properties = EMPTY_DICT,
    ) -> Table:
        """Create the table in its namespace's folder, whatever folders the server would choose."""
        place = location or "/".join((self._base, *self.identifier_to_tuple(identifier)))
        table: Table = super().create_table(
            identifier, schema, place, partition_spec, sort_order, properties
        )
        return table

    def commit_table(
        self,
        table: Table,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> CommitTableResponse:
        """Commit with what the server can check."""
        standard = tuple(one for one in requirements if one.type not in OURS)
        response: CommitTableResponse = super().commit_table(table, standard, updates)
        return response


def open_rest(url: str, properties: dict[str, Any]) -> ServedCatalog:
    """Open the catalog at ``rest+https://[user[:password]@]host/path[?warehouse=name]``.

    User and password are the client's id and secret (OAuth 2), a password alone is a bearer token.
    """
    parts = urlsplit(url)
    parameters = dict(parse_qsl(parts.query))
    if unknown := parameters.keys() - _PARAMETERS:
        raise BadSetting(f"catalog_url has parameters that are not known: {', '.join(unknown)}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    access = {"credential": f"{user}:{password}"} if user else {"token": password}
    bare = parts._replace(
        scheme=parts.scheme.removeprefix("rest+"),
        netloc=parts.netloc.rpartition("@")[2],
        query="",
    ).geturl()
    try:
        return ServedCatalog(
            CATALOG_NAME,
            properties["warehouse"],
            properties,
            uri=bare,
            **(access if password else {}),
            **parameters,
        )
    except Exception as error:  # noqa: BLE001 - told by its kind
        # PyIceberg's own sentences may repeat what was sent, the secret too.
        kind = type(error).__name__
        raise EngineUnavailable(f"the REST catalog cannot be used: {kind}") from None
