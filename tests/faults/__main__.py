"""``python -m tests.faults``: every writer, every fault, at many points.

It prints one line for each writer and fault, and exits with 1 if a promise was broken anywhere.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.trial import FAULTS, Bench, attack, points
from tests.faults.writers import WRITERS


def main() -> int:
    """Try what the arguments ask for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--points", type=int, default=100, help="points of each fault")
    parser.add_argument("--writer", choices=WRITERS, action="append", help="default: all")
    parser.add_argument("--fault", choices=FAULTS, action="append", help="default: all")
    arguments = parser.parse_args()
    broken = 0
    for name in arguments.writer or WRITERS:
        with tempfile.TemporaryDirectory() as place:
            bench = Bench(WRITERS[name], Path(place))
            for fault in arguments.fault or FAULTS:
                started = time.monotonic()
                at = points(bench.length(fault), arguments.points)
                wrong = {point: what for point in at if (what := attack(bench, fault, point))}
                took = time.monotonic() - started
                print(f"{name}, {fault}: {len(at)} points, {len(wrong)} wrong, {took:.0f} s")
                for point, what in wrong.items():
                    print(f"  at {point}: {what}")
                broken += len(wrong)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
