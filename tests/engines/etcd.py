"""etcd, from Debian's package."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from engines.kit import Engine, Launch, fetch_debian
from engines.places import ETCD, ETCD_PEER_PORT, ETCD_PORT, HOST

_SERVER = Path("/usr/bin/etcd")


class Etcd(Engine):
    """Listens on `ETCD_PORT`, without sign-in."""

    name = "etcd"
    version = "3"
    ports = (ETCD_PORT, ETCD_PEER_PORT)

    def fetch(self) -> None:
        """Install the package; its service is not started."""
        fetch_debian("etcd-server", _SERVER)

    def launch(self) -> Launch:
        """Start one member that is its own cluster."""
        peer = f"http://{HOST}:{ETCD_PEER_PORT}"
        return Launch([
            str(_SERVER), "--name", "tests", "--data-dir", str(self.run / "data"),
            "--listen-client-urls", ETCD, "--advertise-client-urls", ETCD,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"tests={peer}",
        ])  # fmt: skip

    def ready(self) -> bool:
        """Ask for its health."""
        with urllib.request.urlopen(f"{ETCD}/health", timeout=2) as answer:
            return json.load(answer)["health"] == "true"
