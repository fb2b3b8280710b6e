"""What kind of PyTorch file is it? Told by content, never by name, and without importing torch."""

from __future__ import annotations

import enum
import json
import zipfile
from pathlib import Path

from bnfold.errors import ModelError

__all__ = ["Kind", "kind_of", "written_as"]

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
LONGEST_HEADER = 100_000_000


class Kind(enum.Enum):
    """The formats that hold PyTorch models, in words."""

    PROGRAM = "an exported program"
    SCRIPT = "a TorchScript archive"
    PICKLE = "a file of torch.save"
    SAFETENSORS = "a safetensors file"


def kind_of(path: Path) -> Kind | None:
    """Tell PyTorch files from each other and from everything else.

    Args:
        path: Any file.

    Returns:
        The kind, or None for what is no PyTorch file (an ONNX model, a file that is not there).

    Raises:
        ModelError: It is a zip archive, as all newer PyTorch files are, but a damaged one.
    """
    if not path.is_file():  # a pipe would wait, a device never end
        return None
    try:
        with path.open("rb") as file:
            head = file.read(16)
            file.seek(0, 2)
            size = file.tell()
    except OSError:
        return None
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_archive(path)
    if head.startswith(LEGACY_MAGIC):
        return Kind.PICKLE
    return Kind.SAFETENSORS if _is_safetensors(path, head, size) else None


def _kind_of_archive(path: Path) -> Kind | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise ModelError(
            f"{path}: a damaged archive: {error}", hint="the file may be cut short: copy it again"
        ) from error
    inner = {name.partition("/")[2] for name in names} | set(names)
    if any(n.startswith("models/") or n == "serialized_exported_program.json" for n in inner):
        return Kind.PROGRAM
    if any(name.startswith("code/") for name in inner) and "data.pkl" in inner:
        return Kind.SCRIPT
    return Kind.PICKLE if "data.pkl" in inner else None


def _is_safetensors(path: Path, head: bytes, size: int) -> bool:
    """Eight bytes of length, then a JSON object of that length."""
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or not 2 <= length <= min(LONGEST_HEADER, size - 8):
        return False
    with path.open("rb") as file:
        file.seek(8)
        try:
            return isinstance(json.loads(file.read(length)), dict)
        except (ValueError, RecursionError):
            return False


def written_as(source: Path) -> str:
    """The suffix of what a PyTorch file becomes by default: programs stay, the rest is exported."""
    return source.suffix if kind_of(source) is Kind.PROGRAM else ".onnx"
