"""``python -m tests.differential``: random models until the time is over; 1 if one failed."""

from __future__ import annotations

import argparse
import collections
import contextlib
import random
import sys
import time
import traceback
from pathlib import Path

import onnx

from tests.differential import attack, saved
from tests.differential.coverage import Coverage
from tests.differential.shrink import shrink, symptom
from tests.generate.builder import Case
from tests.generate.model import random_model

PROGRESS_EVERY = 10.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--count", type=int, help="at most so many models")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first model")
    parser.add_argument("--only", type=int, help="one seed: the model, and its traceback")
    parser.add_argument(
        "--save", type=Path, default=saved.CASES, help="folder for failures, made small"
    )
    return parser.parse_args()


def options_of(seed: int) -> dict[str, object]:
    """Mostly the defaults; sometimes a channel of ones, no merges, other options."""
    return {
        "ones_channel": seed % 4 == 1,
        "merge": seed % 8 != 2,
        "freeze_initializers": seed % 16 == 3,
        "keep": ("node1*", "*5") if seed % 16 == 7 else (),
    }


class _Run:
    """What a run has found so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = 0
        self.failed = 0
        self.seen: collections.Counter[str] = collections.Counter()
        self.coverage = Coverage()
        self.began = self.told = time.monotonic()

    def attack(self, seed: int) -> None:
        """Attack one model, and keep it if a promise is broken."""
        options = options_of(seed)
        case = random_model(random.Random(seed))  # noqa: S311 - not for secrets
        self.models += 1
        try:
            outcome = attack(case, **options)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            self.failed += 1
            self._keep(seed, case, options, error)
            return
        by = " and ".join(outcome.opinions) or "nobody"
        self.seen[f"models changed, compared by {by}" if outcome.changed else "unchanged"] += 1
        for verdict in outcome.report.sites:
            what = "branch" if verdict.kind == "branch" else "site"
            fate = "gone" if verdict.folded else f"kept: {verdict.reason}"
            self.seen[f"{what} {fate}"] += 1
            if verdict.reason is not None:
                self.coverage.reasons[str(verdict.reason)] += 1

    def _keep(self, seed: int, case: Case, options: dict[str, object], error: Exception) -> None:
        """Write down the smallest model that fails alike."""

        def fails(candidate: Case) -> str | None:
            try:
                attack(candidate, **options)
            except Exception as found:  # noqa: BLE001 - as above
                return symptom(found)
            return None

        small = shrink(case, fails)
        path = saved.save(self.folder, f"{symptom(error).replace(' ', '-')}-{seed}", small, options)
        last = traceback.format_exception_only(error)[-1].strip()
        print(f"seed {seed}: {last}; {len(small.model.graph.node)} nodes in {path}", flush=True)

    def progress(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if always or now - self.told > PROGRESS_EVERY:
            self.told = now
            rate = self.models / max(now - self.began, 1e-9)
            print(f"{self.models} models, {self.failed} failed, {rate:.1f}/s", file=sys.stderr)

    def summary(self) -> None:
        print(f"{self.models} models, {self.failed} failed")
        for name, count in self.seen.most_common():
            print(f"{count:8d} {name}")
        for name in self.coverage.never():
            print(f"   never {name}")


def main() -> int:
    """Run; 1 if anything failed."""
    arguments = _arguments()
    if arguments.only is not None:
        case = random_model(random.Random(arguments.only))  # noqa: S311 - not for secrets
        print(onnx.printer.to_text(case.model))
        attack(case, **options_of(arguments.only))
        return 0
    run = _Run(arguments.save)
    end = time.monotonic() + 60 * arguments.minutes
    seed = arguments.seed
    with contextlib.suppress(KeyboardInterrupt):  # what has been found until then counts
        while time.monotonic() < end and run.models != arguments.count:
            run.attack(seed)
            run.progress()
            seed += 1
    run.progress(always=True)
    run.summary()
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
