"""TorchScript archives that strangers made: what is looked at before PyTorch reads them.

PyTorch's reader of TorchScript is native code that believes the file. It reserves what a pickle
says that it holds, takes the memory behind a tensor for its elements if the pickle says that it has
more of them than there are, and runs the script's own code, which can read and write files.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from bnfold.errors import ModelError
from bnfold.torch.archive import DAMAGE, FILE_OPERATORS, untrusted
from bnfold.torch.pickled import Global, Stack

__all__ = ["require_harmless_script"]

_FILE_OPERATOR = re.compile(rb"\b(" + "|".join(sorted(FILE_OPERATORS)).encode() + rb")\b")
_NOT_READ = {"traced_inputs"}  # which are written without their elements
_BYTES = {
    **dict.fromkeys(("Bool", "Byte", "Char", "QInt8", "QUInt8", "QUInt2x4", "QUInt4x2"), 1),
    **dict.fromkeys(("BFloat16", "Half", "Short", "UInt16"), 2),
    **dict.fromkeys(("ComplexHalf", "Float", "Int", "QInt32", "UInt32"), 4),
    **dict.fromkeys(("ComplexFloat", "Double", "Long", "UInt64"), 8),
    "ComplexDouble": 16,
}
"""Type of a storage -> bytes of an element."""


def require_harmless_script(file: Path) -> None:
    """Refuse TorchScript that reads beyond its tensors, or uses files when it is loaded or called.

    Raises:
        InputError: Its code has an operator that reads or writes files.
        ModelError: A pickle is damaged, or says that a tensor has more elements than are there.
    """
    with zipfile.ZipFile(file) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        for name in sizes:
            if not name.endswith((".py", "pkl")):
                continue
            try:
                data = archive.read(name)
                tensors = list(_tensors(data)) if name.endswith("pkl") else []
            except (*DAMAGE, ValueError, IndexError, TypeError) as error:
                raise _damaged(file, name) from error
            if name.endswith(".py") and _FILE_OPERATOR.search(data):
                raise untrusted(file, "code that reads or writes files")
            folder = name.rpartition(".")[0]
            is_read = PurePosixPath(folder).name not in _NOT_READ
            if is_read and any(
                nbytes > sizes.get(f"{folder}/{key}", -1) for key, nbytes in tensors
            ):
                raise _damaged(file, name)


def _damaged(file: Path, name: str) -> ModelError:
    return ModelError(
        f"{file}: a damaged archive: '{name}' cannot be what PyTorch wrote", hint="copy it again"
    )


def _tensors(data: bytes) -> Iterator[tuple[str, int]]:
    """Yield key and size in bytes of every storage that a pickle asks for.

    Raises:
        ValueError: It is no pickle, or asks in a way that PyTorch does not.
        IndexError: It takes what it has not put down.
    """
    stack = Stack()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "BINPERSID":
            yield _storage(stack.items[-1])
        elif opcode.name == "PERSID":
            raise ValueError(argument)
        stack.run(opcode, argument)


def _storage(identifier: Any) -> tuple[str, int]:
    match identifier:
        case ("storage", Global(name), str(key), str(), int(count)) if count >= 0:
            kind = name.rpartition(" ")[2].removesuffix("Storage")
            if kind in _BYTES:
                return key, count * _BYTES[kind]
    raise ValueError(identifier)
