"""A front of tests for an engine that has none of it: TLS, and who may come in."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from engines.places import HOST


class _Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    allowed: frozenset[str]
    engine: int

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") not in self.allowed:
            refused = {"error": {"type": "security_exception"}, "status": 401}
            self._answer(401, "application/json", json.dumps(refused).encode())
            return
        headers = {name: self.headers[name] for name in ("Accept", "Content-Type")
                   if name in self.headers}  # fmt: skip
        with closing(http.client.HTTPConnection(HOST, self.engine, timeout=30)) as engine:
            engine.request(self.command, self.path, body, headers)
            answer = engine.getresponse()
            self._answer(answer.status, answer.getheader("Content-Type", ""), answer.read())

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - the server's names

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the server's name
        """Keep quiet."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet: whoever does not like the certificate ends the connection."""


@contextmanager
def guarded(engine: int, keys: Path, allowed: set[str]) -> Iterator[int]:
    """Let those headers in to the engine at this port, over TLS; answer the front's port."""
    kind = type("Front", (_Front,), {"allowed": frozenset(allowed), "engine": engine})
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(keys / "server.pem", keys / "server.key")
    with _Server((HOST, 0), kind) as server:
        # Shaken hands with in the request's thread: one that does not must not hold up the others.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
