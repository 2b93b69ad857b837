"""RabbitMQ, from Debian's package."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

from engines.kit import Engine, Launch, fetch_debian
from engines.places import HOST, PASSWORD, RABBITMQ_PORT, USER

_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

_SETTINGS = """
default_user = {user}
default_pass = {password}
log.console = true
log.file = false
"""


class RabbitMQ(Engine):
    """One node that is its own cluster."""

    name = "rabbitmq"
    version = "3"
    default_port = RABBITMQ_PORT
    port_count = 3

    def fetch(self) -> None:
        """Install the package; its service is not started."""
        fetch_debian("rabbitmq-server", _SERVER)

    def listeners(self) -> str:
        """Answer where it listens for clients, and how."""
        return f"listeners.tcp.1 = {HOST}:{self.port}\n"

    def launch(self) -> Launch:
        """Start the name server that Erlang needs beside it, so that both end together."""
        settings, plugins = self.run / "rabbitmq.conf", self.run / "enabled_plugins"
        settings.write_text(self.listeners() + _SETTINGS.format(user=USER, password=PASSWORD))
        between_nodes, name_server = self.port + 1, self.port + 2
        plugins.write_text("[].\n")
        names = f"epmd -port {name_server} -address {HOST}"
        return Launch(
            ["sh", "-c", f"{names} & exec {shlex.quote(str(_SERVER))}"],
            environment={
                "RABBITMQ_NODENAME": "penstock@localhost",
                "RABBITMQ_NODE_IP_ADDRESS": HOST,
                "RABBITMQ_NODE_PORT": str(self.port),
                "RABBITMQ_DIST_PORT": str(between_nodes),
                "RABBITMQ_MNESIA_BASE": str(self.run / "mnesia"),
                "RABBITMQ_LOG_BASE": str(self.run / "logs"),
                "RABBITMQ_CONFIG_FILE": str(settings),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                    "-kernel inet_dist_use_interface {127,0,0,1}"
                ),
                "ERL_EPMD_PORT": str(name_server),
                "ERL_EPMD_ADDRESS": HOST,
            },
        )

    def ready(self) -> bool:
        """Begin to speak: the server answers a protocol header with its first frame."""
        with self.connect() as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"

    def connect(self) -> socket.socket:
        """Open a connection as a client does."""
        return socket.create_connection((HOST, self.port), timeout=2)
