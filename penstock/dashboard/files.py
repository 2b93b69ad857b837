"""The files of the pages: styles, modules, and what others wrote."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import Response

from penstock.errors import NotFound

FOLDER = Path(__file__).parent / "static"

_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Files:
    """All files by their path. `stamp` stands in their addresses and changes with any of them.

    A module that imports another by a relative path so gets the one that belongs to it.
    """

    by_path: Mapping[str, bytes]
    stamp: str

    def address(self, path: str) -> str:
        """Answer where a file is; raise `NotFound` where there is none, as in a template."""
        if path not in self.by_path:
            raise NotFound("file", path)
        return f"/static/{self.stamp}/{path}"

    def answer(self, stamp: str, path: str) -> Response:
        """Answer a file: for ever under its own stamp, and not kept under another's.

        Raises `NotFound`.
        """
        content = self.by_path.get(path)
        if content is None:
            raise NotFound("file", path)
        keep = "public, max-age=31536000, immutable" if stamp == self.stamp else "no-store"
        suffix = Path(path).suffix
        kind = _TYPES.get(suffix) or mimetypes.guess_type(path)[0] or "text/plain"
        return Response(content, headers={"Cache-Control": keep}, media_type=kind)


def read_files(folder: Path = FOLDER) -> Files:
    """Read every file below the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    by_path = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    known = hashlib.sha256()
    for path, content in by_path.items():
        known.update(f"{path}\0{len(content)}\0".encode() + content)
    return Files(by_path, known.hexdigest()[:16])
