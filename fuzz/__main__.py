"""``python -m fuzz TARGET --minutes 10``: fuzz one reader; needs ``pip install atheris``.

What finds new code is added to ``fuzz/corpus/TARGET``. What breaks the reader is written to
``--crashes``, and ends the run with an exit code other than 0.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["bnfold"]):
    from fuzz.targets import REFUSALS, TARGETS

CORPUS = Path(__file__).parent / "corpus"
LONGEST = 4096


def main() -> None:
    """Fuzz until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="where inputs are kept")
    parser.add_argument("--crashes", type=Path, default=Path(), help="folder for what breaks it")
    arguments = parser.parse_args()
    folder = arguments.corpus / arguments.target
    folder.mkdir(parents=True, exist_ok=True)
    read = TARGETS[arguments.target]

    def one(data: bytes) -> None:
        with contextlib.suppress(REFUSALS):
            read(data)

    options = [
        f"-max_total_time={int(arguments.minutes * 60)}",
        f"-max_len={LONGEST}",
        "-timeout=20",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={arguments.crashes}/",
        "-reduce_inputs=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(folder)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
