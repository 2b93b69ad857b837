"""RabbitMQ, from Debian's package."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

from engines.kit import Engine, Launch, fetch_debian
from engines.places import (
    EPMD_PORT,
    HOST,
    PASSWORD,
    RABBITMQ_DIST_PORT,
    RABBITMQ_PORT,
    USER,
)

_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

_SETTINGS = f"""
listeners.tcp.1 = {HOST}:{RABBITMQ_PORT}
default_user = {USER}
default_pass = {PASSWORD}
log.console = true
log.file = false
"""


class RabbitMQ(Engine):
    """Listens on `RABBITMQ_PORT`."""

    name = "rabbitmq"
    version = "3"
    ports = (RABBITMQ_PORT, RABBITMQ_DIST_PORT, EPMD_PORT)

    def fetch(self) -> None:
        """Install the package; its service is not started."""
        fetch_debian("rabbitmq-server", _SERVER)

    def launch(self) -> Launch:
        """Start the name server that Erlang needs beside it, so that both end together."""
        settings, plugins = self.run / "rabbitmq.conf", self.run / "enabled_plugins"
        settings.write_text(_SETTINGS)
        plugins.write_text("[].\n")
        names = f"epmd -port {EPMD_PORT} -address {HOST}"
        return Launch(
            ["sh", "-c", f"{names} & exec {shlex.quote(str(_SERVER))}"],
            environment={
                "RABBITMQ_NODENAME": "penstock@localhost",
                "RABBITMQ_NODE_IP_ADDRESS": HOST,
                "RABBITMQ_NODE_PORT": str(RABBITMQ_PORT),
                "RABBITMQ_DIST_PORT": str(RABBITMQ_DIST_PORT),
                "RABBITMQ_MNESIA_BASE": str(self.run / "mnesia"),
                "RABBITMQ_LOG_BASE": str(self.run / "logs"),
                "RABBITMQ_CONFIG_FILE": str(settings),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                    "-kernel inet_dist_use_interface {127,0,0,1}"
                ),
                "ERL_EPMD_PORT": str(EPMD_PORT),
                "ERL_EPMD_ADDRESS": HOST,
            },
        )

    def ready(self) -> bool:
        """Begin to speak: the server answers a protocol header with its first frame."""
        with socket.create_connection((HOST, RABBITMQ_PORT), timeout=2) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
