"""Tolerances for single outputs, from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnfold.check.verdict.compare import Tolerance
from bnfold.check.verdict.tolerances import load_tolerances
from bnfold.errors import InputError

OUTPUTS = ["logits", "boxes_0", "boxes_1", "odd[0]"]


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (
            "json",
            '{"boxes_*": {"rtol": 0, "atol": 0.5}, "boxes_1": {"rtol": 1e-3, "atol": 0},'
            ' "odd[0]": {"rtol": 1, "atol": 1}}',
        ),
        (
            "toml",
            '"boxes_*" = {rtol = 0, atol = 0.5}\nboxes_1 = {rtol = 1e-3, atol = 0}\n'
            '["odd[0]"]\nrtol = 1\natol = 1',
        ),
    ],
)
def test_rules_by_name_and_pattern(tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"rules.{suffix}"
    path.write_text(content)
    assert load_tolerances(path, OUTPUTS) == {
        "boxes_0": Tolerance(0, 0.5),
        "boxes_1": Tolerance(1e-3, 0),
        "odd[0]": Tolerance(1, 1),
    }


def test_the_first_pattern_wins_and_a_star_takes_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text('{"box*": {"rtol": 1, "atol": 2}, "*": {"rtol": 3, "atol": 4}}')
    found = load_tolerances(path, OUTPUTS)
    assert found["boxes_0"] == Tolerance(1, 2)
    assert found["logits"] == found["odd[0]"] == Tolerance(3, 4)


WRONG = {
    "unknown-output": ('{"logit": {"rtol": 0, "atol": 0}}', "the model has no output 'logit'"),
    "unknown-pattern": ('{"q*": {"rtol": 0, "atol": 0}}', "the model has no output 'q*'"),
    "no-rule": ('{"logits": 1e-3}', "'logits' has no rtol and atol"),
    "one-missing": ('{"logits": {"rtol": 1e-3}}', "'logits' has no atol"),
    "unknown-key": ('{"logits": {"rtol": 0, "tol": 1}}', "'logits' has an unknown entry 'tol'"),
    "text": ('{"*": {"rtol": "1e-3", "atol": 0}}', "'*': rtol is '1e-3', not a number"),
    "bool": ('{"*": {"rtol": 0, "atol": true}}', "'*': atol is True, not a number"),
    "negative": ('{"*": {"rtol": 0, "atol": -1}}', "'*': atol is -1"),
    "nan": ('{"*": {"rtol": NaN, "atol": 0}}', "'*': rtol is nan"),
    "list": ("[]", "no rules by output name"),
    "syntax": ("{", "not valid JSON"),
    "twice": ('{"*": {"rtol": 0, "atol": 0}, "*": {"rtol": 1, "atol": 1}}', "'*' is there twice"),
    "twice among many": (
        "{" + "".join(f'"{at}": 0, ' for at in range(50_000)) + '"49999": 0}',
        "'49999' is there twice",
    ),
    "too large": ('{"*": {"rtol": 1' + "0" * 400 + ', "atol": 0}}', "'*': rtol is inf"),
    "binary": (b"\xff\xfe", "cannot be read: it is not text"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_file(tmp_path: Path, name: str) -> None:
    content, message = WRONG[name]
    path = tmp_path / "rules.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        load_tolerances(path, OUTPUTS)
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_no_such_file_and_no_such_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_tolerances(tmp_path / "rules.toml", OUTPUTS)
    with pytest.raises(InputError, match="unknown kind of tolerances"):
        load_tolerances(tmp_path / "rules.yaml", OUTPUTS)
