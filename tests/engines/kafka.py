"""Apache Kafka, one process as broker and controller (KRaft)."""

from __future__ import annotations

from collections.abc import Sequence

from engines.kit import Engine, Launch, fetch_jars, has_java, run
from engines.places import HOST, KAFKA_PORT

# Any 16 bytes; the same for every broker of this kit, so that its data can be started again.
_CLUSTER = "cGVuc3RvY2stdGVzdC0wMA"

_ALONE = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={host}:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
"""

_SETTINGS = """
# A topic exists because somebody made it, never because of a typing mistake.
auto.create.topics.enable=false
# One node: internal topics with three copies, the default, could not be made.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
# Tests join a group at once instead of waiting 3 s for more members.
group.initial.rebalance.delay.ms=0
log.retention.check.interval.ms=1000
"""

_LOGGING = """
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
"""


class Kafka(Engine):
    """Listens for clients without sign-in."""

    name = "kafka"
    version = "4.3.1"
    default_port = KAFKA_PORT
    port_count = 2
    heap = "512m"

    def fetch(self) -> None:
        """Bring the jars, and the bridge without which the broker logs nothing."""
        fetch_jars(
            self.kit / "lib",
            f"org.apache.kafka:kafka_2.13:{self.version}",
            "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",
        )

    def settings(self) -> str:
        """Answer its part in the cluster, its listeners, and what else is not as usual here."""
        return _ALONE.format(host=HOST, port=self.port, controller=self.port + 1)

    def format_options(self) -> Sequence[str]:
        """Answer how the data folder is made ready for that."""
        return ("--standalone",)

    def launch(self) -> Launch:
        """Format the data folder if it is new."""
        settings, logging = self.run / "server.properties", self.run / "log4j2.properties"
        data = self.run / "data"
        settings.write_text(f"log.dirs={data}\n{_SETTINGS}{self.settings()}")
        logging.write_text(_LOGGING)
        # The first compiler only: half the CPU of a start, and tests end before it would pay.
        java = [
            has_java(17), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp",
            f"{self.kit / 'lib'}/*", f"-Dlog4j2.configurationFile={logging}",
        ]  # fmt: skip
        if not (data / "meta.properties").exists():
            run([
                *java, "-Xmx128m", "kafka.tools.StorageTool", "format", "--config", str(settings),
                "--cluster-id", _CLUSTER, *self.format_options(),
            ])  # fmt: skip
        return Launch([*java, f"-Xms{self.heap}", f"-Xmx{self.heap}", "kafka.Kafka", str(settings)])

    def ready(self) -> bool:
        """Go by the broker's own word: the port opens before topics can be made."""
        return "Kafka Server started" in self.log.read_text(errors="replace")
