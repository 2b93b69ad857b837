"""Whose certificates an HTTP destination is trusted by, and which one it is shown."""

from __future__ import annotations

import os
import ssl

from penstock.errors import BadRequest


def client_tls(
    ca: str | None, certificate: str | None = None, key: str | None = None
) -> ssl.SSLContext | None:
    """Answer what TLS is spoken with; None for what every client speaks it with.

    With `ca` the certificates (PEM) in it are trusted instead of the system's. Raises `BadRequest`
    for what cannot be used, without showing it.
    """
    if ca is None and certificate is None and key is None:
        return None
    if (certificate is None) != (key is None):
        said = "client_certificate and client_key belong together: give both or neither"
        lacks = "client_certificate" if certificate is None else "client_key"
        raise BadRequest(said).at(f"credentials.{lacks}")
    try:
        context = ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError):
        said = "the option ca is no PEM text with certificates"
        raise BadRequest(said).at("options.ca") from None
    if certificate is not None and key is not None:
        _show(context, certificate, key)
    return context


def _show(context: ssl.SSLContext, certificate: str, key: str) -> None:
    # OpenSSL reads files only: this one has no name, and is on no disk.
    file = os.memfd_create("client")
    try:
        os.write(file, f"{certificate.strip()}\n{key.strip()}\n".encode())
        context.load_cert_chain(f"/proc/self/fd/{file}", password=lambda: b"")
    except (ssl.SSLError, ValueError, OSError):
        raise BadRequest(
            "client_certificate and client_key do not belong together, or are no PEM texts; a key "
            "that asks for a password cannot be used"
        ).at("credentials.client_certificate") from None
    finally:
        os.close(file)
