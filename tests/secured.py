"""Engines that speak TLS and let in only who signs in: one more of each, for a test's own use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from certificates import make_certificates
from engines.kafka import Kafka
from engines.places import HOST

USER = "penstock"
PASSWORD = "s3cret=of the t@st"
"""With characters that a settings file or a URL has to get right; nothing may ever show it."""


PAGE = Path(__file__).parents[1] / "docs" / "howto" / "tls-and-passwords.md"


def example(holding: str, instead: Mapping[str, str]) -> str:
    """Answer the block of the page that holds this text, what is the reader's own replaced."""
    blocks = re.findall(r"^```\w+\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    [found] = [block for block in blocks if holding in block]
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
