"""Engines that speak TLS and let in only who signs in: one more of each, for a test's own use."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
from certificates import make_certificates
from engines.etcd import Etcd
from engines.kafka import Kafka
from engines.kit import Launch
from engines.places import HOST
from engines.postgres import Postgres
from engines.rabbitmq import RabbitMQ

USER = "penstock"
PASSWORD = "s3cret=of the t@st"
"""With characters that a settings file or a URL has to get right; nothing may ever show it."""


PAGE = Path(__file__).parents[1] / "docs" / "howto" / "tls-and-passwords.md"


def example(setting: str, instead: Mapping[str, str]) -> str:
    """Answer the block of the page that says this setting, what is the reader's own replaced."""
    blocks = re.findall(r"^```\w+\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    [found] = [one for one in blocks if re.search(rf"^{setting} ?=", one, re.MULTILINE)]
    for theirs, ours in instead.items():
        assert theirs in found, f"the page does not say {theirs} any more"
        found = found.replace(theirs, ours)
    return found


def keys_of(folder: Path) -> Path:
    """Answer the folder with the certificates of the engine that runs in this one."""
    keys = folder / "keys"
    if not keys.exists():
        make_certificates(keys)
    return keys


_SASL_SSL = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={host}:{controller}
controller.listener.names=CONTROLLER
listeners=SECURED://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=SECURED://{host}:{port},CONTROLLER://{host}:{controller}
listener.security.protocol.map=SECURED:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SECURED
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.secured.scram-sha-512.sasl.jaas.config=\\
  org.apache.kafka.common.security.scram.ScramLoginModule required \\
  username="{user}" password="{password}";
ssl.keystore.type=PEM
ssl.keystore.location={keys}/both.pem
ssl.truststore.type=PEM
ssl.truststore.location={keys}/ca.pem
"""


class SecuredKafka(Kafka):
    """Has one listener for clients, SASL_SSL with SCRAM-SHA-512."""

    heap = "256m"

    def settings(self) -> str:
        keys = keys_of(self.run)
        pair = [(keys / name).read_text() for name in ("server.key", "server.pem")]
        (keys / "both.pem").write_text("".join(pair))
        return _SASL_SSL.format(
            host=HOST, port=self.port, controller=self.port + 1, keys=keys,
            user=USER, password=PASSWORD,
        )  # fmt: skip

    def format_options(self) -> Sequence[str]:
        """Make the user, who is there before the broker is."""
        user = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        return (*super().format_options(), "--add-scram", user)


_AMQPS = """
listeners.tcp = none
listeners.ssl.1 = {host}:{port}
ssl_options.cacertfile = {keys}/ca.pem
ssl_options.certfile = {keys}/server.pem
ssl_options.keyfile = {keys}/server.key
"""


class SecuredRabbitMQ(RabbitMQ):
    """Has one listener for clients, AMQP over TLS; its user is that of the kit."""

    def listeners(self) -> str:
        return _AMQPS.format(host=HOST, port=self.port, keys=keys_of(self.run))

    def connect(self) -> socket.socket:
        context = ssl.create_default_context(cafile=keys_of(self.run) / "ca.pem")
        return context.wrap_socket(super().connect(), server_hostname=HOST)


class SecuredPostgres(Postgres):
    """Lets in who comes over TLS; its user is that of the kit."""

    def settings(self) -> dict[str, str]:
        keys = keys_of(self.run)
        return {
            **super().settings(),
            "ssl": "on",
            "ssl_cert_file": str(keys / "server.pem"),
            "ssl_key_file": str(keys / "server.key"),
        }

    def launch(self) -> Launch:
        how = super().launch()
        (self.run / "data" / "pg_hba.conf").write_text(f"hostssl all all {HOST}/32 scram-sha-256\n")
        if os.geteuid() == 0:
            # The server takes a key only from its own user.
            for file in keys_of(self.run).iterdir():
                shutil.chown(file, how.user)
        return how


class SecuredEtcd(Etcd):
    """Shows a certificate to clients, and asks for theirs."""

    def launch(self) -> Launch:
        keys, plain, secured = keys_of(self.run), self._url, f"https://{HOST}:{self.port}"
        command = [secured if part == plain else part for part in super().launch().command]
        return Launch([
            *command, "--client-cert-auth", "--trusted-ca-file", str(keys / "ca.pem"),
            "--cert-file", str(keys / "server.pem"), "--key-file", str(keys / "server.key"),
        ])  # fmt: skip

    def ready(self) -> bool:
        keys = keys_of(self.run)
        context = ssl.create_default_context(cafile=keys / "ca.pem")
        context.load_cert_chain(keys / "client.pem", keys / "client.key")
        url = f"https://{HOST}:{self.port}/health"
        try:
            return httpx.get(url, verify=context, trust_env=False).is_success
        except httpx.TransportError:
            return False
