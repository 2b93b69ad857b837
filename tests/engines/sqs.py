"""ElasticMQ, an SQS server that keeps to SQS's limits."""

from __future__ import annotations

from engines.kit import Engine, Launch, fetch_jars, has_java, listening
from engines.places import HOST, SQS_PORT

_SETTINGS = """
include classpath("application.conf")
node-address {{ protocol = http, host = "{host}", port = {port} }}
rest-sqs {{
  enabled = true
  bind-hostname = "{host}"
  bind-port = {port}
  sqs-limits = strict
}}
rest-stats.enabled = false
"""


class Sqs(Engine):
    """Takes any credentials, keeps nothing when it ends."""

    name = "sqs"
    version = "1.6.12"
    default_port = SQS_PORT

    def fetch(self) -> None:
        """Bring the jars."""
        fetch_jars(self.kit / "lib", f"org.elasticmq:elasticmq-server_2.13:{self.version}")

    def launch(self) -> Launch:
        """Write its settings."""
        settings = self.run / "elasticmq.conf"
        settings.write_text(_SETTINGS.format(host=HOST, port=self.port))
        return Launch([
            has_java(17), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            f"-Dconfig.file={settings}", "-cp", f"{self.kit / 'lib'}/*",
            "org.elasticmq.server.Main",
        ])  # fmt: skip

    def ready(self) -> bool:
        """Its port opens when it can answer."""
        return listening(self.port)
