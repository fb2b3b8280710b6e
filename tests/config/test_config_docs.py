"""The pages on configuration and doctor are run: their files, their commands, their messages."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import Result

from bnfold.cli import main
from bnfold.cli.verb import commands_of
from bnfold.config.layers import read_configuration
from bnfold.config.names import WHOLE_RUN, configurable, key_of

Run = Callable[..., Result]
Write = Callable[[str, str], Path]

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "configuration.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_the_files_are_right(run: Run, write: Write) -> None:
    own, project = blocks("toml")
    for text in (own, project):
        name = text.splitlines()[0].removeprefix("# ")
        file = write(name, text)
        configuration = read_configuration(file, commands_of(click.Context(main)))
        assert configuration.for_verb("optimize")["keep"].value == ["stem/*"]
        assert configuration.for_model("check", "a/digits.onnx")[
            "dims" if name[0] == "p" else "data"
        ]
    write("bnfold.toml", own)
    found = json.loads(run("config", "zoo/a/b.onnx", "--json").stdout)["verbs"]
    assert found["check"]["dim"]["value"] == {"N": 4, "H": 224}
    assert found["check"]["samples"]["value"] == 8
    assert found["optimize"]["output-dir"]["value"] == "build/folded"
    assert tomllib.loads(own)["models"].keys() == {"digits*.onnx", "zoo/**/*.onnx"}


def test_the_file_of_the_readme(run: Run, write: Write) -> None:
    (text,) = blocks("toml", (DOCS.parent / "README.md").read_text(encoding="utf-8"))
    write("pyproject.toml", text)
    found = json.loads(run("config", "a/resnet50.onnx", "--json").stdout)["verbs"]["optimize"]
    assert found["input"]["value"] == {"images": [1, 3, 224, 224]}
    assert (found["keep"]["value"], found["output-dir"]["value"]) == (["stem/*"], "build/folded")


def test_the_message(run: Run, write: Write) -> None:
    write("bnfold.toml", "[optimize]\noutputdir = 'x'")
    shown = run("optimize", "x.onnx").stderr
    assert re.sub(r"error: \S*bnfold", "error: bnfold", shown) == blocks("text")[0]


@pytest.mark.usefixtures("place")
def test_the_commands(run: Run) -> None:
    commands = [
        line.split("  #")[0].split(" > ")[0] for line in "".join(blocks("bash")).splitlines()
    ]
    assert len(commands) == 3
    for command in commands:
        result = run(*shlex.split(command)[1:])
        assert result.exit_code == 0, result.stderr


def test_what_belongs_to_a_run_is_listed() -> None:
    sentence = PAGE.split("cannot stand there:")[1].split(".\n")[0]
    options = [
        each
        for command in commands_of(click.Context(main)).values()
        for each in configurable(command)
    ]
    keys = {key_of(option) for option in options if option.name in WHOLE_RUN}
    assert set(re.findall(r"`([\w-]+)`", sentence)) >= keys


def test_the_commands_that_can_be_configured_are_listed() -> None:
    sentence = PAGE.split("Every option of")[1].split("can be set")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == set(commands_of(click.Context(main)))
