"""Certificates for one test: an authority that nobody else trusts, a server's, a client's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from engines.places import HOST

_NEW = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_NAMES = f"subjectAltName=IP:{HOST},DNS:localhost"


def make_certificates(folder: Path) -> None:
    """Make ``ca.pem``, and of this authority ``server`` and ``client``, each ``.pem`` and ``.key``.

    The server's is for this machine's loopback, by address and by name.
    """
    folder.mkdir(parents=True)

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl(
        *(*_NEW, "-x509", "-days", "2", "-subj", "/CN=tests"),
        *("-keyout", "ca.key", "-out", "ca.pem"),
    )
    (folder / "names").write_text(_NAMES)
    for who in ("server", "client"):
        openssl(*_NEW, "-subj", f"/CN={who}", "-keyout", f"{who}.key", "-out", f"{who}.csr")
        openssl(
            *("x509", "-req", "-days", "2", "-in", f"{who}.csr", "-extfile", "names"),
            *("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{who}.pem"),
        )
