"""etcd, from Debian's package."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from engines.kit import Engine, Launch, fetch_debian
from engines.places import ETCD_PORT, HOST

_SERVER = Path("/usr/bin/etcd")


class Etcd(Engine):
    """Lets everybody in."""

    name = "etcd"
    version = "3"
    default_port = ETCD_PORT
    port_count = 2

    def fetch(self) -> None:
        """Install the package; its service is not started."""
        fetch_debian("etcd-server", _SERVER)

    def launch(self) -> Launch:
        """Start one member that is its own cluster."""
        client, peer = self._url, f"http://{HOST}:{self.port + 1}"
        return Launch([
            str(_SERVER), "--name", "tests", "--data-dir", str(self.run / "data"),
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"tests={peer}",
        ])  # fmt: skip

    @property
    def _url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def ready(self) -> bool:
        """Ask for its health."""
        with urllib.request.urlopen(f"{self._url}/health", timeout=2) as answer:
            return json.load(answer)["health"] == "true"
