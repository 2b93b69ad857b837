"""What every page is sent with, and which requests are refused before any page sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.errors import Forbidden, PenstockError

# Without 'unsafe-inline' and without eval: what slips through escaping still runs nothing.
_CONTENT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _CONTENT,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What every answer has; what keeps it for longer than `no-store` says so itself."""

_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where browsers reach this installation.

    `dashboard` and `dagster` are URLs, empty where nobody has said; `host` is what servers bind to.
    `http_port` and `grpc_port` are the door's.
    """

    host: str = "127.0.0.1"
    dashboard: str = ""
    dagster: str = ""
    dagster_port: int = 3000
    http_port: int = 8080
    grpc_port: int = 9000

    @property
    def names(self) -> frozenset[str]:
        """The host names that are this installation's own."""
        said = urlsplit(self.dashboard).hostname
        return frozenset(name for name in ("localhost", self.host, said) if name)

    def secure(self, scheme: str) -> bool:
        """Say whether browsers come over TLS: to us, or to the proxy before us."""
        return scheme == "https" or self.dashboard.startswith("https://")

    def dagster_pages(self, host: str) -> str:
        """Answer where Dagster's pages are for a browser that came to `host`."""
        if self.dagster:
            return self.dagster.rstrip("/")
        name, _ = host_and_port(host)
        return f"http://{name or self.host}:{self.dagster_port}"

    def doors(self, host: str) -> tuple[str, str]:
        """Answer where the door's HTTP and gRPC are for who came to `host` to see the pages."""
        name, _ = host_and_port(host)
        known = name or self.host
        return f"http://{known}:{self.http_port}", f"{known}:{self.grpc_port}"


def host_and_port(host: str) -> tuple[str, int | None]:
    """Take a `Host` header apart; the name is empty where it is none."""
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return "", None
    plain = not (parts.username or parts.password or parts.path or parts.query or parts.fragment)
    name = f"[{name}]" if ":" in name else name
    return (name, port) if plain else ("", None)


def is_ours(host: str, names: frozenset[str]) -> bool:
    """Say whether a `Host` header may be this installation's.

    A page elsewhere can have its own name point to this address and then read what we answer; a
    number cannot be made to point anywhere.
    """
    name, _ = host_and_port(host)
    if name in names or name.endswith(".localhost"):
        return True
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def refusal(method: str, headers: Mapping[str, str], addresses: Addresses) -> PenstockError | None:
    """Answer why a request is not let in, None if it is. `headers` are by their lower-case names.

    What changes something has to come from a page of ours, as the browser itself says.
    """
    host = headers.get("host", "")
    if not is_ours(host, addresses.names):
        return Forbidden(
            "this is not the address of the dashboard; where it is meant to be, "
            "set dashboard_url to it"
        )
    if method in _SAFE:
        return None
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is None and origin is None:
        return Forbidden("the browser did not say which page this comes from")
    if site not in (None, "same-origin"):
        return Forbidden("this comes from a page of another site")
    if origin is not None and not _same(origin, host, addresses.dashboard):
        return Forbidden("this comes from a page of another site")
    return None


def _same(origin: str, host: str, dashboard: str) -> bool:
    """Compare hosts and ports: behind a proxy we do not see the scheme, or the name in front."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    known = {host, urlsplit(dashboard).netloc}
    return parts.scheme in ("http", "https") and bool(parts.netloc) and parts.netloc in known


class Policed:
    """Lets in what `refusal` has nothing against, and gives every answer its headers."""

    def __init__(
        self,
        app: ASGIApp,
        addresses: Addresses,
        refused: Callable[[PenstockError], ASGIApp],
    ) -> None:
        self._app = app
        self._addresses = addresses
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or tell why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        error = refusal(scope["method"], Headers(scope=scope), self._addresses)
        app = self._app if error is None else self._refused(error)
        await app(scope, receive, headed)
