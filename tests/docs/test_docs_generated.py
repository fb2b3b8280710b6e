"""Generated documents are up to date."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from bnfold.graph.merge.readers import READERS
from bnfold.graph.rules import RULES
from bnfold.report import REASONS, Reason

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["cli", "rules"])
def test_page_is_what_its_generator_makes(page: str) -> None:
    generator = runpy.run_path(str(DOCS / f"generate_{page}.py"))
    assert (DOCS / f"{page}.md").read_text(encoding="utf-8") == generator["render"]()


def test_every_merge_is_described() -> None:
    for op, reader in READERS.items():
        assert reader.takes_part, op
        assert reader.kernel, op


def test_every_rule_and_reason_is_described() -> None:
    assert set(REASONS) == set(Reason)
    for op, rule in RULES.items():
        assert rule.takes, op
        assert rule.gives, op
        assert rule.equation, op
