"""Which file counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bnfold.config.find import find_file, read_document
from bnfold.errors import InputError

OPTIONS = "[tool.bnfold]\nseed = 1\n"


def test_the_nearest_counts_alone(place: Path) -> None:
    (place / "bnfold.toml").write_text("seed = 1")
    inner = place / "a" / "b"
    inner.mkdir(parents=True)
    assert find_file(inner) == place / "bnfold.toml"
    (place / "a" / "pyproject.toml").write_text(OPTIONS)
    assert find_file(inner) == place / "a" / "pyproject.toml"


def test_bnfold_toml_comes_before_pyproject(place: Path) -> None:
    (place / "pyproject.toml").write_text(OPTIONS)
    assert find_file(place) == place / "pyproject.toml"
    (place / "bnfold.toml").write_text("")
    assert find_file(place) == place / "bnfold.toml"


@pytest.mark.parametrize(
    "text", ["", "[tool.ruff]\nline-length = 100\n", '[project]\nname = "bnfold"']
)
def test_a_pyproject_of_others_is_passed_over(place: Path, text: str) -> None:
    (place / "bnfold.toml").write_text("")
    (place / "inner").mkdir()
    (place / "inner" / "pyproject.toml").write_text(text)
    assert find_file(place / "inner") == place / "bnfold.toml"


def test_a_broken_pyproject_of_others_is_none_of_our_business(place: Path) -> None:
    (place / "pyproject.toml").write_text("[tool.ruff\n")
    assert find_file(place) is None


def test_the_search_ends_at_the_repository(place: Path) -> None:
    (place.parent / "bnfold.toml").write_text("")
    assert find_file(place) is None
    (place / ".git").rmdir()
    assert find_file(place) == place.parent / "bnfold.toml"
    (place / ".git").write_text("gitdir: elsewhere")  # a worktree
    assert find_file(place) is None


def test_the_search_ends_at_home(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / ".git").rmdir()
    (place.parent / "bnfold.toml").write_text("")
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("USERPROFILE", str(place))
    assert find_file(place) is None
    (place / "bnfold.toml").write_text("")
    assert find_file(place) == place / "bnfold.toml"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="files of others need root")
def test_what_others_put_into_a_shared_folder_is_passed_over(place: Path) -> None:
    (place / ".git").rmdir()
    file = place.parent / "bnfold.toml"
    file.touch()
    os.chown(file, 12345, 12345)
    assert find_file(place) == file
    place.parent.chmod(0o1777)
    assert find_file(place) is None
    os.chown(file, 0, 0)
    assert find_file(place) == file


def test_a_folder_of_that_name_is_no_file(place: Path) -> None:
    (place / "bnfold.toml").mkdir()
    assert find_file(place) is None


BROKEN = {
    "not TOML": (b"seed = \n", "not valid TOML"),
    "not UTF-8": (b'keep = "\xff"\n', "not UTF-8"),
    "UTF-16": ("seed = 1\n".encode("utf-16"), "not UTF-8"),
    "nested too deep": (b"a = " + b"[" * 5000, "not valid TOML"),
}


@pytest.mark.parametrize(("content", "said"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_read(place: Path, content: bytes, said: str) -> None:
    file = place / "bnfold.toml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_document(file)
    assert str(file) in caught.value.message
    assert caught.value.hint


def test_a_byte_order_mark_is_no_content(place: Path) -> None:
    file = place / "bnfold.toml"
    file.write_bytes(b"\xef\xbb\xbfseed = 1")
    assert read_document(file) == ({"seed": 1}, "")


def test_a_named_pyproject_needs_the_table(place: Path) -> None:
    file = place / "pyproject.toml"
    file.write_text("")
    with pytest.raises(InputError, match=r"no table \[tool\.bnfold\]"):
        read_document(file)
    file.write_text("[tool]\nbnfold = 3")
    with pytest.raises(InputError, match="not a table"):
        read_document(file)
    with pytest.raises(InputError, match="no such file"):
        read_document(place / "missing.toml")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="every file can be read")
def test_a_file_without_permission(place: Path) -> None:
    file = place / "bnfold.toml"
    file.touch(mode=0o000)
    with pytest.raises(InputError, match="cannot be read"):
        read_document(file)
