"""Which models are found beneath directories, and where the result of each goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bnfold.errors import InputError
from bnfold.fleet.sources import find_sources
from bnfold.fleet.targets import assign_targets


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path, output_dir: Path | None = None) -> list[str]:
    sources = find_sources([str(root)], None if output_dir is None else str(output_dir))
    assert [source.model for source in sources] == [str(root / s.relative) for s in sources]
    return [source.relative for source in sources]


def test_every_onnx_file_in_the_order_of_paths(tmp_path: Path) -> None:
    touch(tmp_path, "b.onnx", "a/z.ONNX", "a/ü ñ.onnx", "a-b/c.onnx", "model.onnx/model.onnx")
    assert found(tmp_path) == [
        "a/z.ONNX",
        "a/ü ñ.onnx",
        "a-b/c.onnx",
        "b.onnx",
        "model.onnx/model.onnx",
    ]


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.onnx", "a.onnx.data", "b.pt2", "c.onnx.json", ".d.onnx", ".git/e.onnx")
    assert found(tmp_path) == ["a.onnx"]


def test_a_hidden_directory_that_is_named_is_searched(tmp_path: Path) -> None:
    touch(tmp_path, ".zoo/a.onnx")
    assert found(tmp_path / ".zoo") == ["a.onnx"]


def test_links_to_files_are_models_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "zoo/a.onnx", "elsewhere/b.onnx")
    (tmp_path / "zoo" / "loop").symlink_to(tmp_path / "zoo")
    (tmp_path / "zoo" / "elsewhere").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "zoo" / "link.onnx").symlink_to(tmp_path / "elsewhere" / "b.onnx")
    assert found(tmp_path / "zoo") == ["a.onnx", "link.onnx"]
    (tmp_path / "other name").symlink_to(tmp_path / "zoo")
    assert found(tmp_path / "other name") == ["a.onnx", "link.onnx"]


def test_the_output_directory_is_not_searched(tmp_path: Path) -> None:
    touch(tmp_path, "a.onnx", "out/a.onnx")
    assert found(tmp_path, tmp_path / "out") == ["a.onnx"]
    assert found(tmp_path, tmp_path / "sub" / ".." / "out") == ["a.onnx"]
    with pytest.raises(InputError, match="the output is the input"):
        found(tmp_path, tmp_path / "out" / "..")


def test_nothing_found_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt")
    with pytest.raises(InputError, match=r"no \.onnx file"):
        found(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "a.onnx", "closed/b.onnx")
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(InputError, match="cannot be listed"):
            found(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o755)


def targets(models: list[Path], **options: str) -> dict[str, str]:
    output, output_dir = options.get("output"), options.get("output_dir")
    sources = find_sources([str(model) for model in models], output_dir)
    assigned = assign_targets(sources, output, output_dir, in_place=False)
    return {source.model: target for source, target in assigned.items()}


def test_the_tree_is_kept(tmp_path: Path) -> None:
    touch(tmp_path, "zoo/a.onnx", "zoo/sub/a.onnx", "b.onnx")
    out = tmp_path / "out"
    assert targets([tmp_path / "zoo", tmp_path / "b.onnx"], output_dir=str(out)) == {
        str(tmp_path / "zoo" / "a.onnx"): str(out / "a.onnx"),
        str(tmp_path / "zoo" / "sub" / "a.onnx"): str(out / "sub" / "a.onnx"),
        str(tmp_path / "b.onnx"): str(out / "b.onnx"),
    }


def test_two_models_for_one_place_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "one/sub/a.onnx", "two/sub/a.onnx", "a.onnx")
    with pytest.raises(InputError, match=r"both '.*one/sub/a\.onnx' and '.*two/sub/a\.onnx'"):
        targets([tmp_path / "one", tmp_path / "two"], output_dir=str(tmp_path / "out"))
    with pytest.raises(InputError, match="both"):
        targets([tmp_path / "a.onnx", tmp_path / "a.onnx"])


def test_results_of_an_earlier_run_are_no_models(tmp_path: Path) -> None:
    touch(tmp_path, "a.onnx", "a.folded.onnx", "b.folded.onnx")
    assert set(targets([tmp_path])) == {
        str(tmp_path / "a.onnx"),
        str(tmp_path / "b.folded.onnx"),
    }
    with pytest.raises(InputError, match=r"a\.folded\.onnx: '.*a\.onnx' would be written here"):
        targets([tmp_path / "a.onnx", tmp_path / "a.folded.onnx"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.onnx")
    assert targets([tmp_path]) == {str(tmp_path / "a.onnx"): str(tmp_path / "a.folded.onnx")}


def test_urls(tmp_path: Path) -> None:
    assert targets([tmp_path / "a.onnx"], output_dir="s3://bucket/out/") == {
        str(tmp_path / "a.onnx"): "s3://bucket/out/a.onnx"
    }
    sources = find_sources([f"file://{tmp_path}/a%20b.onnx", "s3://bucket/c.onnx"])
    assert [source.model for source in sources] == [f"{tmp_path}/a b.onnx", "s3://bucket/c.onnx"]
    assigned = assign_targets(sources, None, None, in_place=False)
    assert list(assigned.values()) == [f"{tmp_path}/a b.folded.onnx", "s3://bucket/c.folded.onnx"]
