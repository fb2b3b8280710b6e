"""Every promise of the page on guarantees names a test that is there."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import DOCS, ROOT

TEXT = (DOCS / "guarantees.md").read_text(encoding="utf-8")
PROMISES = [
    [cell.strip() for cell in row.split("|")[1:3]]
    for table in TEXT.split("| promise | test |\n|---|---|\n")[1:]
    for row in table.split("\n\n")[0].splitlines()
]


@pytest.mark.parametrize(
    ("promise", "tests"), PROMISES, ids=[promise[:40] for promise, _ in PROMISES]
)
def test_the_test_of_a_promise(promise: str, tests: str) -> None:
    assert promise
    named = re.findall(r"`(?:(tests/\w+/\w+\.py|tests/\w+\.py)(?:::)?)?(test_\w+)?`", tests)
    path = ""
    for module, function in named:
        path = module or path
        if path:
            source = (ROOT / path).read_text(encoding="utf-8")
            assert not function or f"\ndef {function}(" in source, (path, function)
    assert path or tests.startswith("the "), "a promise without a test"


def test_bounds_are_where_they_are_said_to_be() -> None:
    bounds = TEXT.split("| bound | value | where |")[1].split("\n\n")[0].splitlines()[2:]
    assert bounds
    for row in bounds:
        path = re.findall(r"`(bnfold/[\w/]+\.py)`", row)[0]
        assert (ROOT / path).exists(), path
