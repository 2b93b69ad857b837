"""Make the Python modules of the .proto files: ``python -m ingest_api.proto.generate``."""

from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
PACKAGE = FOLDER.relative_to(ROOT)

# protoc knows the default pool only. Both lines occur once in every module it writes.
_PRIVATE_POOL = (
    (
        "from google.protobuf import descriptor_pool as _descriptor_pool\n",
        "from ingest_api.proto import POOL as _POOL\n",
    ),
    ("_descriptor_pool.Default().AddSerializedFile(", "_POOL.AddSerializedFile("),
)


def generate(into: Path) -> list[Path]:
    """Write the modules below `into` and answer their paths, relative to it.

    protoc runs at the root with paths from there, so that the modules import each other by the
    names they have inside this package. Raises `RuntimeError` if protoc fails or wrote another
    text than expected.
    """
    from grpc_tools import protoc  # type: ignore[import-untyped] # it has no types

    sources = sorted(path.relative_to(ROOT) for path in FOLDER.glob("*.proto"))
    options = ["protoc", f"-I{ROOT}", f"--python_out={into}", f"--pyi_out={into}"]
    if protoc.main([*options, *(str(ROOT / source) for source in sources)]):
        raise RuntimeError("protoc refused a message file")
    # Only this file has a service; protoc would write an empty module for the others.
    service = ROOT / PACKAGE / "services.proto"
    if protoc.main(["protoc", f"-I{ROOT}", f"--grpc_python_out={into}", str(service)]):
        raise RuntimeError("protoc refused the service")

    for source in sources:
        module = into / PACKAGE / f"{source.stem}_pb2.py"
        text = module.read_text()
        for old, new in _PRIVATE_POOL:
            if text.count(old) != 1:
                raise RuntimeError(f"{module.name} does not have {old!r} once")
            text = text.replace(old, new)
        module.write_text(text)
    return sorted(path.relative_to(into) for path in into.glob(f"{PACKAGE}/*_pb2*.py*"))


if __name__ == "__main__":
    generate(ROOT)
