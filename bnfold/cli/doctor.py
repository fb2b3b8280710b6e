"""``bnfold doctor``: what is installed, what of it works, and how to repair the rest."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from bnfold.cli.console import Terminal, print_hint, print_json, print_labelled, print_line
from bnfold.cli.options import provider_option
from bnfold.cli.verb import Verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bnfold.doctor.diagnosis import Diagnosis, Package, Provider

__all__ = ["doctor"]


@click.command(cls=Verb)
@provider_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def doctor(provider: tuple[str, ...], *, as_json: bool, quiet: bool) -> int:
    """Say what is installed, whether it works, and which command repairs what does not.

    Packages are imported and every provider runs a small model, in processes of their own. Exit
    code 4 if models cannot be folded, or not be proved on the providers of --provider.
    """
    from bnfold.doctor.examine import examine
    from bnfold.errors import ProviderError

    terminal = Terminal(json=as_json, quiet=quiet)
    with terminal.progress() as progress:
        diagnosis = examine(tuple(dict.fromkeys(provider)), progress or (lambda _: None))
    if terminal.json:
        from bnfold.cli.objects import json_head

        print_json({**json_head(), **diagnosis.to_dict()})
    elif not terminal.quiet and importlib.util.find_spec("rich"):
        from bnfold.cli.layout import print_tables

        print_tables(_tables(diagnosis))
    for problem in diagnosis.problems:
        if problem.severity == "error" or not terminal.quiet:
            colour = "red" if problem.severity == "error" else "yellow"
            print_labelled(problem.severity, problem.message, colour)
            print_hint(problem.repair)
    if diagnosis.works and not (terminal.quiet or terminal.json):
        print_line("models can be folded, and proved on: " + ", ".join(dict.fromkeys(provider)))
    return 0 if diagnosis.works else ProviderError.exit_code


def _tables(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    from rich.text import Text

    from bnfold._version import __version__
    from bnfold.cli.layout import columns, size

    machine = diagnosis.machine
    yield Text(f"bnfold {__version__}, Python {diagnosis.python} ({diagnosis.executable})")
    packages = columns("package", "installed", "needed", "by", "")
    for package in diagnosis.packages:
        style = None if package.installed else "dim"
        cells = (package.name, package.installed or "-", package.needed, ", ".join(package.by))
        packages.add_row(*map(Text, (*cells, _state(package))), style=style)
    if diagnosis.packages:
        yield packages
    providers = columns("provider", "usable", "why not, and what to do")
    for each in diagnosis.providers:
        providers.add_row(each.name, "yes" if each.usable else "no", Text(_reason(each)))
    if diagnosis.providers:
        yield providers
    computer = columns("machine", "")
    for name, value in (
        ("system", machine.system),
        ("processor", " ".join((machine.processor, *machine.features))),
        ("cores", str(machine.cores)),
        ("memory", _amount(machine.memory, machine.available)),
        ("temporary files", f"{machine.temporary}, {size(machine.free or 0)} free"),
    ):
        computer.add_row(name, Text(value))
    yield computer


def _state(package: Package) -> str:
    if package.installed is None:
        return package.repair or ""
    if package.fits is False:
        return "does not fit"
    if package.works is None:
        return "not tried"
    return "works" if package.works else "cannot be imported"


def _reason(provider: Provider) -> str:
    return "; ".join(part for part in (provider.problem, provider.repair) if part)


def _amount(total: int | None, available: int | None) -> str:
    from bnfold.cli.layout import size

    if total is None:
        return "unknown"
    return size(total) if available is None else f"{size(total)}, {size(available)} free"
