"""Measure everything and write it into docs/benchmarks.md, with its plots.

    python -m benchmarks [--seconds 5] [--runs 5] [--folder DIR] [--results DIR]

It takes an hour or two and 30 GB of disk. What is in the folder of results already is not measured
again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks import report

_DOCS = Path(__file__).parents[1] / "docs"
_PAGE = _DOCS / "benchmarks.md"
_LATENCY_PLOT = "![latency of the results of each tool, against bnfold's](images/latency.svg)"
_COST_PLOT = "![time and memory of a fold against the size of the model](images/fold-cost.svg)"


def main() -> None:
    """Measure, and replace the tables of the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each model and comparison")
    parser.add_argument("--runs", type=int, default=5, help="of each fold")
    parser.add_argument("--folder", type=Path, help="where models are written, 30 GB")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    folder = [] if arguments.folder is None else ["--folder", str(arguments.folder)]
    cost = arguments.results / "fold_cost.json"
    speed = arguments.results / "latency.json"
    for file, module, options in (
        (cost, "benchmarks.fold_cost", ["--runs", str(arguments.runs)]),
        (speed, "benchmarks.latency", ["--seconds", str(arguments.seconds)]),
    ):
        if not file.exists():
            command = [sys.executable, "-m", module, *options, *folder, "--json", str(file)]
            subprocess.run(command, check=True)
    costs, speeds = json.loads(cost.read_text()), json.loads(speed.read_text())
    images = _DOCS / "images"
    images.mkdir(exist_ok=True)
    report.cost_plot(costs, images / "fold-cost.svg")
    report.latency_plot(speeds, images / "latency.svg")
    page = _PAGE.read_text()
    for name, text in (
        ("machine", report.machine()),
        ("latency", f"{_LATENCY_PLOT}\n\n{report.latency_table(speeds)}"),
        ("fold cost", f"{_COST_PLOT}\n\n{report.cost_table(costs)}"),
    ):
        page = report.replace_part(page, name, text)
    _PAGE.write_text(page)


if __name__ == "__main__":
    main()
