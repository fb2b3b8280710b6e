"""What people see, from reports made by hand."""

from __future__ import annotations

import pytest

from bnfold.cli.console import Terminal, printable
from bnfold.report import CheckReport, FoldReport, OutputComparison, Reason, Verdict


def folded(number: int) -> Verdict:
    name = f"bn{number}"
    return Verdict(name, "BatchNormalization", "main", 8, folded=True, direction="backward")


def kept(number: int, reason: Reason = Reason.FAN_OUT) -> Verdict:
    return Verdict(
        f"kept{number}",
        "BatchNormalization",
        "main",
        8,
        folded=False,
        reason=reason,
        detail=f"'conv{number}' has two consumers",
    )


def output(name: str, *, equivalent: bool = True, difference: float = 1e-7) -> OutputComparison:
    return OutputComparison(name, equivalent, difference, 1e-7, 1.0, 1e-6, 8e-7, (0,))


def shown(report: FoldReport, capsys: pytest.CaptureFixture[str], *, verbose: bool = False) -> str:
    Terminal(verbose=verbose).show_report(report)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_many_sites_are_grouped_unless_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    sites = (*map(folded, range(53)), *map(kept, range(20)), kept(99, Reason.TRAINING_MODE))
    report = FoldReport("m.onnx", "out.onnx", sites, 175, 122)
    text = shown(report, capsys)
    assert len(text.splitlines()) < 12
    assert "53 " in text
    assert "fan_out" in text
    assert "kept0: 'conv0' has two consumers" in text
    assert "training_mode" in text
    assert "bn52" in shown(report, capsys, verbose=True)


def test_hints_come_last_and_one_to_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    report = FoldReport("m.onnx", None, (kept(0),), 2, 2, hints=("freeze\nthem", "now"))
    assert shown(report, capsys).splitlines()[-2:] == ["hint: freeze\\nthem", "hint: now"]


def test_a_site_in_a_subgraph_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    site = Verdict("bn", "BatchNormalization", "main/if/then", None, folded=True, into=("conv",))
    assert "bn (in main/if/then)" in shown(FoldReport("m.onnx", None, (site,), 2, 1), capsys)


def test_the_path_of_the_affine_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    site = Verdict(
        "bn", "BatchNormalization", "main", 3, folded=True, into=("a", "b"), through=("relu",)
    )
    text = shown(FoldReport("m.onnx", None, (site,), 2, 1), capsys)
    assert "a, b through relu" in text


def test_sizes_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    report = FoldReport("m.onnx", "o.onnx", (), 1, 1, bytes_before=999, bytes_after=1_800_000_000)
    assert "size 999 B -> 1.80 GB" in shown(report, capsys)


def test_proof_shows_what_fails_or_the_closest_call(capsys: pytest.CaptureFixture[str]) -> None:
    good = CheckReport(
        "CPUExecutionProvider",
        "disable_all",
        True,
        (output("far"), output("near", difference=7e-7), output("zero", difference=0.0)),
        warnings=("the runtime changes the original",),
    )
    bad = CheckReport(
        "CPUExecutionProvider",
        "default",
        False,
        (output("fine"), output("wrong", equivalent=False, difference=1.0)),
        warnings=("the runtime changes the original",),
    )
    Terminal().show_checks("a and b", (good, bad))
    text = capsys.readouterr().err
    assert "do NOT compute the same" in text
    assert "near" in text
    assert "wrong" in text
    assert "far" not in text
    assert "and 2 more" in text
    assert text.count("warning: the runtime changes the original") == 1


def test_a_check_without_numbers_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    check = CheckReport(
        "CPUExecutionProvider", "default", False, (), detail="the candidate does not load"
    )
    Terminal().show_checks("a and b", (check,))
    assert "DIFFERENT: the candidate does not load" in capsys.readouterr().err


def test_names_cannot_forge_markup_or_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    site = Verdict(
        "[red]x[/red]\x1b[2J", "BatchNormalization", "main", 3, folded=True, into=("[bold]",)
    )
    text = shown(FoldReport("[m].onnx", None, (site,), 2, 1), capsys)
    assert "[red]x[/red]\\x1b[2J" in text
    assert "[bold]" in text
    assert "[m].onnx" in text
    assert "\x1b" not in text


def test_printable_keeps_what_can_be_read() -> None:
    assert printable("größe/レイヤー 1") == "größe/レイヤー 1"
    assert printable("a\tb\u202e") == "a\\tb\\u202e"
