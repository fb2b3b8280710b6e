"""PyTorch files that are hostile: pickles that run code, bombs, paths that lead out.

Pickles are written by hand, opcode by opcode: what they call is a function that would leave a file
behind if anything ever ran it.
"""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

__all__ = ["HOSTILE", "MARK", "archive_seeds"]

MARK = "was-here"
"""The file that a pickle leaves in the current directory if its code runs."""

_PROTO = b"\x80\x02"


def payload(module: str = "posix", function: str = "mkdir") -> bytes:
    """A pickle that calls a function with the mark."""
    text = MARK.encode()
    argument = b"X" + struct.pack("<I", len(text)) + text
    return _PROTO + f"c{module}\n{function}\n".encode() + argument + b"\x85R."


PAYLOADS = {
    "posix.mkdir": payload(),
    "os.mkdir": payload("os", "mkdir"),
    "builtins.open": payload("builtins", "open"),
    "builtins.exec": payload("builtins", "exec"),
    "nt and posix by STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x93\x8c"
    + bytes([len(MARK)]) + MARK.encode() + b"\x85R.",
    "INST": b"(S'" + MARK.encode() + b"'\niposix\nmkdir\n.",
    "torch.serialization.load": payload("torch.serialization", "load"),
    "torch._utils._rebuild_device_tensor_from_numpy": payload(
        "torch._utils", "_rebuild_device_tensor_from_numpy"
    ),
    "two deep": _PROTO + b"c_pickle\nloads\nB" + struct.pack("<I", len(payload()))
    + payload() + b"\x85R.",
    "a module attribute chain": b"\x80\x04\x8c\x05torch\x8c\x0eos.posix.mkdir\x93.",
}  # fmt: skip
"""What the pickle calls -> the pickle."""


def _zip(entries: Mapping[str, bytes], *, compress: bool = False) -> bytes:
    out = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", kind) as archive:
        warnings.simplefilter("ignore")
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


def _saved(pickled: bytes, **entries: bytes) -> bytes:
    """What ``torch.save`` writes, with this pickle."""
    return _zip({"m/data.pkl": pickled, "m/version": b"3\n", "m/byteorder": b"little", **entries})


def _legacy(pickled: bytes) -> bytes:
    """What ``torch.save`` wrote before it wrote archives."""
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    return head + pickle.dumps(system, 2) + pickled + pickle.dumps([], 2)


def _tar(pickled: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(pickled)
            archive.addfile(info, io.BytesIO(pickled))
    return out.getvalue()


@functools.cache
def archive_seeds() -> dict[str, bytes]:
    """Legal PyTorch files of every kind, by the name that they have.

    They are made in another process: the threads that torch starts would not survive a fork.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_seeds).result()


def _seeds() -> dict[str, bytes]:
    import torch  # noqa: PLC0415 - heavy
    from safetensors.torch import save  # noqa: PLC0415

    module = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    example = torch.zeros(1, 4, 8, 8)
    seeds = {"m.safetensors": save(module.state_dict())}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, write in (
            ("m.pth", lambda file: torch.save(module.state_dict(), file)),
            (
                "m.pt",
                lambda file: torch.save(
                    module.state_dict(), file, _use_new_zipfile_serialization=False
                ),
            ),
            ("m.ts", lambda file: torch.jit.save(torch.jit.trace(module, example), file)),
            (
                "m.pt2",
                lambda file: torch.export.save(torch.export.export(module, (example,)), file),
            ),
        ):
            out = io.BytesIO()
            write(out)
            seeds[name] = out.getvalue()
    return seeds


def _replaced(kind: str, ending: str, data: bytes) -> bytes:
    """A legal archive with other content in the entries of this ending, or one more."""
    entries = _entries(archive_seeds()[kind])
    found = [name for name in entries if name.endswith(ending)]
    root = next(iter(entries)).partition("/")[0]
    return _zip(entries | dict.fromkeys(found or [f"{root}/{ending}"], data))


def _entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _with(kind: str, **entries: bytes) -> bytes:
    return _zip(_entries(archive_seeds()[kind]) | entries)


def _bomb(kind: str, size: int) -> bytes:
    """An entry that expands a thousandfold, compressed as no PyTorch writes it."""
    entries = _entries(archive_seeds()[kind])
    root = next(iter(entries)).partition("/")[0]
    return _zip(entries | {f"{root}/data/0": bytes(size)}, compress=True)


def _overlapping(kind: str) -> bytes:
    """All entries of the directory lead to the bytes of the first."""
    data = bytearray(archive_seeds()[kind])
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        data[at + 42 : at + 46] = bytes(4)
        at = data.find(b"PK\x01\x02", at + 4)
    return bytes(data)


def _patched(kind: str, at: int, value: bytes) -> bytes:
    """Every entry of the directory with other bytes at an offset of its record."""
    data = bytearray(archive_seeds()[kind])
    found = data.find(b"PK\x01\x02")
    while found >= 0:
        data[found + at : found + at + len(value)] = value
        found = data.find(b"PK\x01\x02", found + 4)
    return bytes(data)


def _duplicated(kind: str) -> bytes:
    """Every entry twice, with other content the second time."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            for name, data in _entries(archive_seeds()[kind]).items():
                archive.writestr(name, data)
    return out.getvalue()


def _safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _cases() -> dict[str, tuple[str, Callable[[], bytes]]]:
    cases: dict[str, tuple[str, Callable[[], bytes]]] = {}
    for what, pickled in PAYLOADS.items():
        for name, make in {
            "m.pt": _saved,
            "m.pth": _legacy,
            "m.tar": _tar,
            "m.pkl": bytes,
        }.items():
            cases[f"{what} in {name}"] = name, functools.partial(make, pickled)
        for kind, ending in (
            ("m.ts", "data.pkl"),
            ("m.ts", "constants.pkl"),
            ("m.ts", "attributes.pkl"),
            ("m.pt2", "sample_inputs/model.pt"),
            ("m.pt2", "data/weights/model.pt"),
            ("m.pt2", "data/constants/model.pt"),
            ("m.pt2", ".pt"),
        ):
            for shape, wrap in (("bare", bytes), ("saved", _saved), ("legacy", _legacy)):
                make = functools.partial(_in_archive, kind, ending, wrap, pickled)
                cases[f"{what}, {shape}, as {ending} in {kind}"] = kind, make
    for kind in ("m.pth", "m.ts", "m.pt2"):
        part = functools.partial
        for what, make in {
            "a bomb": part(_bomb, kind, 1 << 30),
            "overlapping entries": part(_overlapping, kind),
            "duplicate entries": part(_duplicated, kind),
            "wrong checksums": part(_patched, kind, 16, b"\xde\xad\xbe\xef"),
            "encrypted entries": part(_patched, kind, 8, b"\x01\x00"),
            "entries that are links": part(_patched, kind, 38, b"\x00\x00\xff\xa1"),
            "huge entries": part(_patched, kind, 20, b"\xfe\xff\xff\x7f" * 2),
            "an unknown compression": part(_patched, kind, 10, b"\x63\x00"),
            "a path upwards": part(_with, kind, **{f"../../{MARK}": b"x"}),
            "a path upwards, inside": part(_with, kind, **{f"m/data/../../../{MARK}": b"x"}),
            "an absolute path": part(_with, kind, **{f"/{MARK}": b"x"}),
            "a path for Windows": part(_with, kind, **{f"..\\..\\{MARK}": b"x"}),
        }.items():
            cases[f"{what} in {kind}"] = kind, make
    for what, data in {
        "a header of nothing": _safetensors({}),
        "a header of junk": _safetensors(b"{" + b"x" * 50),
        "a deep header": _safetensors(b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
        "offsets that overlap": _safetensors(
            {name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for name in "ab"},
            bytes(16),
        ),
        "offsets past the end": _safetensors(
            {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
        ),
        "a shape that overflows": _safetensors(
            {"a": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 0]}}
        ),
    }.items():
        cases[f"{what} in m.safetensors"] = "m.safetensors", functools.partial(bytes, data)
    return cases


def _in_archive(kind: str, ending: str, wrap: Callable[[bytes], bytes], pickled: bytes) -> bytes:
    return _replaced(kind, ending, wrap(pickled))


HOSTILE = _cases()
"""What is hostile about it -> the name of the file, and what makes it."""
