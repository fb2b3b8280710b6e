"""What a file and the environment set, as the commands get it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from bnfold.cli import main
from bnfold.cli.verb import Verb, commands_of
from bnfold.config.models import matches
from bnfold.config.names import COMMAND_LINE_ONLY, WHOLE_RUN, configurable, key_of

Run = Callable[..., Result]
Write = Callable[[str, str], Path]


def values(run: Run, *arguments: object) -> dict[str, dict[str, Any]]:
    """What `bnfold config` says: values by verb and option."""
    result = run("config", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    verbs = json.loads(result.stdout)["verbs"]
    return {
        verb: {key: entry["value"] for key, entry in options.items()}
        for verb, options in verbs.items()
    }


def verbs() -> dict[str, Verb]:
    return commands_of(click.Context(main))


PLACES = """
    seed = 1
    [optimize]
    seed = 2
    [models."*.onnx"]
    seed = 3
    [models."*.onnx".optimize]
    seed = 4
"""


def test_precedence(run: Run, write: Write, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        "bnfold.fleet.task.FoldTask.fold", lambda task, _: seen.append(task.options["seed"])
    )

    def seed(*arguments: object) -> int:
        run("optimize", digits, *arguments)
        return seen.pop()

    assert seed() == 0
    lines = write("bnfold.toml", PLACES).read_text().splitlines()
    for kept, expected in ((2, 1), (4, 2), (6, 3), (8, 4)):
        write("bnfold.toml", "\n".join(lines[:kept]))
        assert seed() == expected
    monkeypatch.setenv("BNFOLD_SEED", "5")
    assert seed() == 5
    monkeypatch.setenv("BNFOLD_OPTIMIZE_SEED", "6")
    assert seed() == 6
    assert seed("--seed", 7) == 7


def test_each_model_has_its_own(
    run: Run, write: Write, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (digits.parent / "deep").mkdir()
    other = digits.parent / "deep" / "other.onnx"
    other.write_bytes(digits.read_bytes())
    write(
        "bnfold.toml",
        """
        [models."deep/**"]
        keep = ["/bn1*"]
        [models."*.onnx"]
        rtol = 1e-3
        atol = 1e-5
        """,
    )
    for verb in ("inspect", "optimize"):
        result = run(verb, digits, other, "--json")
        assert result.exit_code == 0, result.stderr
        folded = [model["summary"]["folded"] for model in json.loads(result.stdout)["models"]]
        assert folded == [3, 2]
    seen: list[Any] = []
    module = importlib.import_module("bnfold.check")
    monkeypatch.setattr(module, "check", lambda *_, **given: seen.append(given) or ())
    assert run("check", digits, other).exit_code == 0
    assert (seen[0]["rtol"], seen[0]["atol"]) == (1e-3, 1e-5)


def test_options_of_one_model_reach_the_work_on_it(
    run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No option can be set for a model that the work on it does not look at."""

    class Watched(dict[str, Any]):
        def __init__(self, content: dict[str, Any]) -> None:
            super().__init__(content)
            watched.append(self)
            self.used: set[str] = set()

        def __getitem__(self, name: str) -> Any:
            self.used.add(name)
            return super().__getitem__(name)

        def pop(self, name: str, *default: Any) -> Any:
            self.used.add(name)
            return super().pop(name, *default)

    watched: list[Watched] = []
    for name, command in verbs().items():
        if command.each_model:
            module = importlib.import_module(f"bnfold.cli.{name}")
            monkeypatch.setattr(
                module,
                "settings_for",
                lambda model, given=module.settings_for: Watched(given(model)),
            )
            assert run(name, digits).exit_code == 0
            used = watched.pop().used
            per_model = {option.name for option in configurable(command)} - WHOLE_RUN
            assert per_model <= used, name


def test_in_pyproject(run: Run, write: Write) -> None:
    write("pyproject.toml", '[tool.bnfold]\nseed = 1\n[tool.bnfold.models."a*"]\nseed = 2\n')
    assert values(run)["check"]["seed"] == 1
    assert values(run, "a.onnx")["check"]["seed"] == 2


VALUES: dict[str, tuple[str, str, Any]] = {
    "a number": ("seed = 3", "seed", 3),
    "a whole number for a number": ("timeout = 3", "timeout", 3.0),
    "a flag": ("simplify = true", "simplify", True),
    "a flag that is on": ("check = false", "check", False),
    "a flag of two names": ("merge = false", "merge", False),
    "a choice": ('level = "basic"', "level", "basic"),
    "a list": ('keep = ["a", "b c"]', "keep", ["a", "b c"]),
    "a list of one": ("seed = [3]", "seed", 3),
    "one of a list": ('provider = "cuda"', "provider", ["cuda"]),
    "a plural": ('providers = ["cpu", "cuda:1"]', "provider", ["cpu", "cuda:1"]),
    "underscores": ("freeze_initializers = true", "freeze-initializers", True),
    "shapes": ('inputs = ["x:1x3", "y:2"]', "input", {"x": [1, 3], "y": [2]}),
    "shapes as a table": (
        'inputs = {x = [1, 3], "a:b" = "4x5"}',
        "input",
        {"x": [1, 3], "a:b": [4, 5]},
    ),
    "the shape of a scalar": ("inputs = {x = []}", "input", {"x": []}),
    "dimensions": ("dims = {N = 4, M = 5}", "dim", {"N": 4, "M": 5}),
    "arguments": ("arch-args = {classes = 10}", "arch-args", ["classes=10"]),
    "a path": ('data = "in/x.npz"', "data", ["in/x.npz"]),
    "an absolute path": ('data = "/in/x.npz"', "data", ["/in/x.npz"]),
    "a URL": ('data = "s3://in/x.npz"', "data", ["s3://in/x.npz"]),
    "a function in a file": ('data-loader = "in/load.py:run"', "data-loader", "in/load.py:run"),
    "a factory in a module": ('arch = "timm:resnet50"', "arch", "timm:resnet50"),
    "a file of tolerances": ('tolerances = "t.toml"', "tolerances", "t.toml"),
    "tolerances": (
        "tolerances = {y = {rtol = 0, atol = 1}}",
        "tolerances",
        {"y": {"rtol": 0, "atol": 1}},
    ),
}


@pytest.mark.parametrize(("text", "key", "expected"), VALUES.values(), ids=VALUES)
def test_values(run: Run, write: Write, text: str, key: str, expected: Any) -> None:
    write("bnfold.toml", text)
    assert values(run)["optimize"][key] == expected


def test_paths_are_relative_to_the_file(
    run: Run, write: Write, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        "bnfold.toml",
        'data = "in/x.npz"\ndata-loader = "in/load.py:run"\n[optimize]\noutput-dir = "~/o"',
    )
    (place / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(place / "a" / "b")
    found = values(run)["optimize"]
    assert found["data"] == ["../../in/x.npz"]
    assert found["data-loader"] == "../../in/load.py:run"
    assert found["output-dir"] == str(Path("~/o").expanduser())


REFUSED: dict[str, tuple[str, str, str]] = {
    "an unknown key": ("kep = 1", "bnfold.toml: unknown key 'kep'", "did you mean 'keep'?"),
    "an unknown key of a verb": (
        "[optimize]\noutputdir = 1",
        "[optimize]: unknown key 'outputdir'",
        "did you mean 'output-dir'?",
    ),
    "an unknown verb": (
        "[optimise]\nkeep = 'x'",
        "unknown key 'optimise'",
        "did you mean 'optimize'?",
    ),
    "an unknown key like no other": ("zzzzqq = 1", "unknown key 'zzzzqq'", "bnfold config"),
    "an option of another verb": (
        "[inspect]\nprovider = 'cpu'",
        "unknown key 'provider'",
        "option of optimize",
    ),
    "an unknown key of a model": (
        "[models.'x']\nkepe = 1",
        "[models.\"x\"]: unknown key 'kepe'",
        "'keep'",
    ),
    "pyproject's prefix": ("[tool.bnfold]\nseed = 1", "unknown key 'tool'", "pyproject.toml"),
    "text for a number": (
        "seed = '3'",
        "seed: a whole number is expected, not the text '3'",
        "--seed",
    ),
    "a flag for a number": ("seed = true", "seed: a whole number is expected, not true", "--seed"),
    "a fraction": ("seed = 1.5", "seed: a whole number is expected, not 1.5", "--seed"),
    "a number for a flag": (
        "simplify = 1",
        "simplify: true or false is expected, not 1",
        "--simplify",
    ),
    "a number for text": ("keep = [3]", "keep: text (or a list) is expected, not 3", "--keep"),
    "a table for text": (
        "keep = {a = 1}",
        "keep: text (or a list) is expected, not a table",
        "--keep",
    ),
    "a list for a number": (
        "timeout = [1, 2]",
        "timeout: a number is expected, not a list",
        "--timeout",
    ),
    "out of range": (
        "[check]\nsamples = 0",
        "[check]: samples: 0 is not in the range x>=1",
        "--samples",
    ),
    "no choice": ("level = 'fast'", "level: 'fast' is not one of", "--level"),
    "no shape": ("inputs = {x = [1, 'q']}", "'x:1xq' is not a shape", "--input"),
    "no dimension": ("dims = ['N']", "'N' is not a dimension", "--dim"),
    "two names for one": ("input = 'x:1'\ninputs = 'y:1'", "'input' is set twice", "once"),
    "an option of the command line": (
        "[optimize]\nin-place = true",
        "'in-place' cannot be set in a file",
        "option",
    ),
    "consent": ("trust-pickle = true", "'trust-pickle' cannot be set in a file", "option"),
    "an output": (
        "output = 'x.onnx'",
        "'output' cannot be set in a file: it names one file",
        "option",
    ),
    "a run's option for a model": (
        "[models.x]\njson = true",
        "'json' is for a run as a whole",
        "outside",
    ),
    "models that are no table": ("models = 3", "[models]: is not a table", "resnet"),
    "a model that is no table": ("models.x = 3", '[models."x"]: is not a table', "resnet"),
    "no number": ("timeout = nan", "timeout: a number is expected, not nan", "--timeout"),
    "tolerances without one": (
        "tolerances = {y = {rtol = 1}}",
        "tolerances: 'y' is not such as { rtol = 1e-3, atol = 1e-5 }",
        "--tolerances",
    ),
    "a rule that is a number": ("tolerances = {y = 1}", "'y' is not such as", "--tolerances"),
    "a rule that is a date": (
        "tolerances = {y = {rtol = 1, atol = 2020-01-01}}",
        "'y' is not such as",
        "--tolerances",
    ),
    "a command that is no table": ("bench = 3", "'bench' is a command", "write [bench]"),
    "NUL": ('data = "a\\u0000b"', "data: text without NUL", "--data"),
}


@pytest.mark.parametrize("verb", ["bench", "config"])
@pytest.mark.parametrize(("text", "said", "hint"), REFUSED.values(), ids=REFUSED)
def test_refused_whatever_runs(
    run: Run, write: Write, verb: str, text: str, said: str, hint: str
) -> None:
    write("bnfold.toml", text)
    result = run(verb, "missing.onnx")
    assert result.exit_code == 2
    assert result.stdout == ""
    error, advice = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert advice.startswith("hint: ")
    assert hint in advice


def test_a_value_for_all_that_one_verb_cannot_take(run: Run, write: Write, digits: Path) -> None:
    write("bnfold.toml", 'provider = ["cpu", "cuda"]')
    assert run("inspect", digits).exit_code == 0
    result = run("recalibrate", digits, "-o", "x.onnx")
    assert result.exit_code == 2
    assert "provider: text is expected, not a list" in result.stderr
    shown = json.loads(run("config", "--json").stdout)
    assert "recalibrate" not in shown["verbs"]
    assert "recalibrate: " in shown["warnings"][0]
    assert run("config", "--verb", "recalibrate").exit_code == 2
    write("bnfold.toml", 'provider = ["cpu", "cuda"]\n[recalibrate]\nprovider = "cpu"')
    assert values(run, "--verb", "recalibrate")["recalibrate"]["provider"] == "cpu"


def test_every_option_is_configurable_or_named(place: Path) -> None:
    for name, command in verbs().items():
        options = [each for each in command.params if isinstance(each, click.Option)]
        for option in options:
            assert (option in configurable(command)) is not (option.name in COMMAND_LINE_ONLY)
        keys = [key_of(option) for option in configurable(command)]
        assert len(keys) == len(set(keys)), name
        assert not set(keys) & (set(verbs()) - {"check"})


def test_the_environment(run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BNFOLD_OPTIMIZE_KEEP", "/bn1* /bn2*")
    monkeypatch.setenv("BNFOLD_CHECK", "false")
    monkeypatch.setenv("BNFOLD_DATA", "a b.npz:c.npz")
    monkeypatch.setenv("BNFOLD_INPUT", "x:1x2")
    monkeypatch.setenv("BNFOLD_SEED", "")
    monkeypatch.setenv("BNFOLD_TIMEOUT", "inf")
    found = values(run, "--verb", "optimize")["optimize"]
    assert found["keep"] == ["/bn1*", "/bn2*"]
    assert found["check"] is False
    assert found["data"] == ["a b.npz", "c.npz"]
    assert found["input"] == {"x": [1, 2]}
    assert (found["seed"], found["timeout"]) == (0, "inf")
    assert json.loads(run("optimize", digits, "--json").stdout)["summary"]["folded"] == 1


def test_an_unknown_variable_is_a_warning(
    run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNFOLD_PROVIDERR", "cuda")
    monkeypatch.setenv("BNFOLD_IN_PLACE", "1")
    result = run("inspect", digits)
    assert result.exit_code == 0
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning")]
    assert len(warnings) == 2
    assert "BNFOLD_PROVIDERR sets no option; did you mean BNFOLD_PROVIDER?" in warnings[1]
    assert "warning" not in run("inspect", digits, "-q").stderr
    listed = json.loads(run("config", "--json").stdout)["warnings"]
    assert [f"warning: {sentence}" for sentence in listed] == warnings


def test_a_variable_that_cannot_be_used_is_named(
    run: Run, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNFOLD_BENCH_SECONDS", "soon")
    result = run("bench", digits)
    assert result.exit_code == 2
    assert "BNFOLD_BENCH_SECONDS: 'soon'" in result.stderr
    assert run("config").exit_code == 2


def test_which_file(run: Run, write: Write, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("bnfold.toml", "seed = 1")
    other = write("ci/other.toml", 'seed = 2\ndata = "x.npz"')
    assert values(run, "--no-config")["check"]["seed"] == 0
    assert values(run, "--config", other)["check"]["seed"] == 2
    monkeypatch.setenv("BNFOLD_CONFIG", str(other))
    assert values(run)["check"] | {"seed": 2, "data": ["ci/x.npz"]} == values(run)["check"]
    assert values(run, "--no-config")["check"]["seed"] == 0
    assert values(run, "--config", place / "bnfold.toml")["check"]["seed"] == 1
    for arguments in (("--config", other, "--no-config"), ("--no-config", "--config", other)):
        result = run("config", *arguments)
        assert result.exit_code == 2
        assert "exclude each other" in result.stderr
    missing = run("config", "--config", "no.toml")
    assert (missing.exit_code, "no.toml: no such file" in missing.stderr) == (2, True)


def test_help_does_not_read_the_file(run: Run, write: Write) -> None:
    write("bnfold.toml", "seed = ")
    assert run("optimize", "--help").exit_code == 0
    assert run("optimize", "x.onnx").exit_code == 2


def test_the_command_line_takes_a_flag_back(run: Run, write: Write, digits: Path) -> None:
    write("bnfold.toml", "json = true\n[optimize]\nrequire-folded = true\nkeep = ['/bn1*']")
    assert run("optimize", digits).stdout.startswith("{")
    assert run("optimize", digits, "--no-json").stdout == ""


ALTERNATIVES: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    "an output for a directory": ("output-dir = 'out'", ["-o", "x.onnx"], {"output_dir": None}),
    "in place for a directory": ("output-dir = 'out'", ["--in-place"], {"output_dir": None}),
    "a loader for data": ("data = 'x.npz'", ["--data-loader", "f.py:g"], {"data": ()}),
    "one rule for one by output": (
        "tolerances = {y = {rtol = 0, atol = 1}}",
        ["--rtol", "1", "--atol", "1"],
        {"tolerances": None},
    ),
    "one by output for one rule": (
        "rtol = 1\natol = 1",
        ["--tolerances", "t.json"],
        {"rtol": None, "atol": None},
    ),
}


@pytest.mark.parametrize(("text", "arguments", "expected"), ALTERNATIVES.values(), ids=ALTERNATIVES)
def test_the_command_line_replaces_alternatives(
    run: Run,
    write: Write,
    digits: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    arguments: list[str],
    expected: dict[str, Any],
) -> None:
    seen: list[dict[str, Any]] = []

    def watch(self: Verb, ctx: click.Context) -> int:
        seen.append(ctx.params)
        return 0

    monkeypatch.setattr(click.Command, "invoke", watch)
    write("bnfold.toml", f"[optimize]\n{text}")
    command = main.get_command(None, "optimize")
    assert command is not None
    context = command.make_context("optimize", [str(digits), *arguments])
    command.invoke(context)
    assert seen[0] | expected == seen[0]


PATTERNS = [
    ("*.onnx", "deep/down/x.onnx", True),
    ("x*", "deep/x.onnx", True),
    ("deep/*.onnx", "deep/x.onnx", True),
    ("deep/*.onnx", "deep/down/x.onnx", False),
    ("deep/**/*.onnx", "deep/down/x.onnx", True),
    ("deep/**/*.onnx", "deep/x.onnx", True),
    ("**/" * 60 + "y.onnx", "a/b/c/d/e/f/g/h/x.onnx", False),
    ("**/" * 60 + "x.onnx", "a/b/c/d/e/f/g/h/x.onnx", True),
    ("deep/**", "deep/down/x.onnx", True),
    ("./deep/x.onnx", "deep/../deep/x.onnx", True),
    ("../other/*.onnx", "../other/x.onnx", True),
    ("/models/*.onnx", "/models/x.onnx", True),
    ("/models/*.onnx", "models/x.onnx", False),
    ("x.onnx", "X.onnx", False),
    ("s3://bucket/*.onnx", "s3://bucket/x.onnx", True),
    ("s3://bucket/**/*.onnx", "s3://bucket/a/b/x.onnx", True),
    ("bucket/*.onnx", "s3://bucket/x.onnx", False),
    ("*.onnx", "s3://bucket/x.onnx", True),
    ("mo[dt]els/é*.onnx", "models/é 1.onnx", True),
]


@pytest.mark.parametrize(("pattern", "model", "expected"), PATTERNS)
def test_patterns(place: Path, pattern: str, model: str, *, expected: bool) -> None:
    assert matches(pattern, model, place) is expected


def test_a_folder_whose_name_is_a_pattern(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = place / "[a]*"
    odd.mkdir()
    monkeypatch.chdir(odd)
    assert matches("./x.onnx", "x.onnx", odd)
    assert not matches("./x.onnx", "../a/x.onnx", odd)


def test_config_shows_where_each_value_is_from(
    run: Run, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(
        "bnfold.toml", "samples = 4\n[check]\nlevel = 'basic'\n[models.'a*']\ndims = {N = 2}"
    )
    monkeypatch.setenv("BNFOLD_CHECK_SEED", "9")
    found = json.loads(run("config", "a.onnx", "--json", "--verb", "check").stdout)
    assert (found["file"], found["model"]) == (str(file), "a.onnx")
    options = found["verbs"]["check"]
    assert options["samples"] == {"value": 4, "source": "file", "origin": str(file)}
    assert options["level"] == {"value": "basic", "source": "file", "origin": f"{file} [check]"}
    assert options["dim"]["origin"] == f'{file} [models."a*"]'
    assert options["seed"] == {"value": 9, "source": "environment", "origin": "BNFOLD_CHECK_SEED"}
    assert options["rtol"] == {"value": None, "source": "default", "origin": "default"}
    shown = run("config", "a.onnx").stderr
    assert "BNFOLD_CHECK_SEED" in shown
    assert "N=2" in shown
    result = run("config", "--verb", "benhc")
    assert (result.exit_code, "did you mean 'bench'?" in result.stderr) == (2, True)
