"""What runs print, kept in the lake's object store: any machine's pages can show it.

The keys come from Penstock's settings. Dagster's own settings file, which its pages show, has none.
"""

from __future__ import annotations

from typing import Any

from dagster_aws.s3 import S3ComputeLogManager, S3Resource

from assets.stores import stores_of_environment
from lakehouse.s3 import address_of, store_of
from penstock.errors import BadSetting
from penstock.settings import Settings

# Not below a table: the sweep looks at every file there.
FOLDER = "_dagster"

# A run lands for minutes; who looks at it does not want to wait for its end.
_UPLOAD_SECONDS = 30


def compute_logs(settings: Settings) -> dict[str, Any] | None:
    """Answer ``compute_logs`` of Dagster's settings; None where the lake is on this machine."""
    if settings.s3 is None:
        return None
    at = address_of(settings.warehouse)
    return {
        "module": "orchestration.compute_logs",
        "class": "LakeComputeLogs",
        "config": {
            "bucket": at.bucket,
            "prefix": f"{at.key.strip('/')}/{FOLDER}".lstrip("/"),
            "local_dir": str(settings.home / "dagster" / "compute_logs"),
            "upload_interval": _UPLOAD_SECONDS,
            "skip_empty_files": True,
        },
    }


class LakeComputeLogs(S3ComputeLogManager):
    """Reaches the store as the lake does, see `compute_logs`."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        """Take Dagster's configuration, and the keys of the home in ``PENSTOCK_HOME``."""
        super().__init__(*arguments, **more)
        self._s3_session = _client()


class LakeStore(S3Resource):
    """The resource `s3`: the lake's object store for ops and assets of one's own.

    Its configuration, which Dagster's pages show, holds no key.
    """

    def get_client(self) -> Any:
        """Answer the client that the lake uses."""
        return _client()


def _client() -> Any:
    """Answer the client of the home's store; Dagster makes these objects anew as it likes."""
    options = stores_of_environment().settings.s3
    if options is None:
        raise BadSetting("the lake is not in an object store any more: remove compute_logs")
    return store_of(options).client
