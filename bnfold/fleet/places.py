"""Where files are: paths of this machine, or URLs that fsspec understands.

What is written appears whole or not at all: under a temporary name first where a filesystem can
rename, in one piece where it is a store of objects.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from bnfold.errors import BnfoldError, InputError, MissingPackageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = [
    "digest",
    "fetch",
    "is_url",
    "join",
    "local_path",
    "models_beneath",
    "name_of",
    "parent_of",
    "read_bytes",
    "send",
    "write_bytes",
]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_CAN_RENAME = {"arrow_hdfs", "dask", "ftp", "hdfs", "sftp", "smb", "ssh", "webdav", "webhdfs"}
_BLOCK = 1 << 22


def is_url(place: str) -> bool:
    """True for a URL such as ``s3://bucket/a.onnx``."""
    return _URL.match(place) is not None


def local_path(place: str) -> str:
    """Return the path that a ``file://`` URL stands for; other places stay as they are."""
    for head in ("file://", "local://"):
        if place.lower().startswith(head):
            return unquote(place[len(head) :])
    return place


def join(place: str, relative: str) -> str:
    """Return what is beneath a place."""
    return f"{place.rstrip('/')}/{relative}" if is_url(place) else str(Path(place) / relative)


def parent_of(place: str) -> str:
    """Return the directory of a file."""
    return _without_query(place).rpartition("/")[0] if is_url(place) else str(Path(place).parent)


def name_of(place: str) -> str:
    """Return the name of a file without its directory, and without the query of a web address."""
    if not is_url(place):
        return Path(place).name
    return _without_query(place).rpartition("/")[2]


def _without_query(url: str) -> str:
    is_of_the_web = url.lower().startswith(("http://", "https://"))
    return url.partition("?")[0] if is_of_the_web else url


def read_bytes(place: str) -> bytes | None:
    """Return the content of a file, or None if there is no such file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        if not is_url(place):
            return Path(place).read_bytes()
        system, path = _system(place)
        content: bytes = system.cat_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:
        raise _failure(place, "read", error) from error
    return content


def write_bytes(place: str, content: bytes) -> None:
    """Write a file whole, with the directories above it.

    Raises:
        InputError: It cannot be written.
    """
    try:
        if is_url(place):
            system, path = _system(place)
            _make_parent(system, path)
            with _Settled(system, place, path) as staged:
                system.pipe_file(staged, content)
            return
        from bnfold.store.temporaries import replacing  # noqa: PLC0415 - heavy

        file = Path(place)
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as unfinished:
            unfinished.write_bytes(content)
    except Exception as error:
        raise _failure(place, "written", error) from error


def digest(place: str) -> str | None:
    """Return a hash of the content of a file, or None if there is no such file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        if not is_url(place):
            if not Path(place).is_file():  # opening a pipe would wait
                return None
            with Path(place).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        system, path = _system(place)
        found = hashlib.sha256()
        with system.open(path, "rb", block_size=_BLOCK) as file:
            while block := file.read(_BLOCK):
                found.update(block)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:
        raise _failure(place, "read", error) from error
    return found.hexdigest()


def fetch(url: str, path: Path) -> bool:
    """Copy a file from a URL; False if there is no such file.

    Raises:
        InputError: It cannot be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        system, remote = _system(url)
        system.get_file(remote, str(path))
    except FileNotFoundError:
        return False
    except Exception as error:
        raise _failure(url, "read", error) from error
    return True


def send(path: Path, url: str) -> None:
    """Copy a file to a URL, whole.

    Raises:
        InputError: It cannot be written.
    """
    try:
        system, remote = _system(url)
        _make_parent(system, remote)
        with _Settled(system, url, remote) as staged:
            system.put_file(str(path), staged)
    except Exception as error:
        raise _failure(url, "written", error) from error


def models_beneath(url: str) -> list[str] | None:
    """Return the ONNX files beneath a URL, relative to it and in order; None for a single file.

    Hidden files and folders are passed over.

    Raises:
        InputError: It cannot be listed.
    """
    if name_of(url).lower().endswith(".onnx"):
        return None
    try:
        system, root = _system(url)
        root = root.rstrip("/")
        found = [str(path)[len(root) :].lstrip("/") for path in system.find(root)]
    except Exception as error:
        raise _failure(url, "listed", error) from error
    return sorted(
        (path for path in found if path.lower().endswith(".onnx") and not _is_hidden(path)),
        key=lambda path: path.split("/"),
    )


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


class _Settled:
    """The name to write a file under, which becomes its own in the end."""

    def __init__(self, system: AbstractFileSystem, url: str, path: str) -> None:
        self._system, self._path = system, path
        self._staged = path
        if url.partition("://")[0].lower() in _CAN_RENAME:
            folder, _, _ = path.rpartition("/")
            self._staged = f"{folder}/.bnfold-{secrets.token_hex(8)}.tmp"

    def __enter__(self) -> str:
        return self._staged

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._staged == self._path:
            return
        if kind is None:
            self._system.mv(self._staged, self._path)
        elif self._system.exists(self._staged):
            self._system.rm_file(self._staged)


def _make_parent(system: AbstractFileSystem, path: str) -> None:
    folder = path.rpartition("/")[0]
    if folder:
        system.makedirs(folder, exist_ok=True)


def _system(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the filesystem of a URL, and the path in it."""
    try:
        import fsspec  # noqa: PLC0415 - an optional package
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{url}: URLs need the package 'fsspec', which is not installed",
            hint="pip install 'bnfold[fleet]'",
        ) from error
    try:
        # What a listing said may be out of date: others write too.
        system, path = fsspec.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise _missing(url, error) from error
    return system, path


def _missing(url: str, error: ImportError) -> MissingPackageError:
    from fsspec.registry import known_implementations  # noqa: PLC0415

    protocol = url.partition("://")[0]
    home = known_implementations.get(protocol, {}).get("class", "").partition(".")[0]
    cause = error.name or getattr(error.__cause__, "name", None)
    package = home if home not in ("", "fsspec") else cause or protocol
    return MissingPackageError(
        f"{url}: '{protocol}://' needs the package '{package}', which is not installed",
        hint=f"pip install {package}",
    )


def _failure(place: str, what: str, error: Exception) -> BnfoldError:
    if isinstance(error, BnfoldError):
        return error
    said: Any = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError(
        f"{place}: cannot be {what}: {' '.join(str(said).split())[:300]}",
        hint="check the address, the access rights and the room that is left",
    )
