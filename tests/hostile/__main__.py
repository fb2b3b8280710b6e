"""``python -m tests.hostile``: so many damaged models and archives; 1 if a promise was broken.

Every file is read by ``inspect`` or folded by ``optimize --no-check``, one in fifty also proved.
The same seed makes the same files. What broke a promise is kept, and named.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile.archives import archive_seeds
from tests.hostile.mutate import mutate_bytes, mutate_model
from tests.hostile.seeds import model_seeds
from tests.hostile.trial import broken_promise, run, snapshot

PROVED = 50
ARCHIVES = 10
TIMEOUT = 20
"""Seconds that a proof may take."""
KEPT = Path("/tmp/hostile")  # noqa: S108 - the default, which --keep changes


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="how many files")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first file")
    parser.add_argument(
        "--keep", type=Path, default=KEPT, help="where files go that break promises"
    )
    parser.add_argument("--no-archives", action="store_true", help="ONNX files only")
    return parser.parse_args()


def make(seed: int, *, archives: bool) -> tuple[str, bytes]:
    """Return name and content of one damaged file."""
    draw = random.Random(seed)  # noqa: S311 - not for secrets
    if archives and seed % ARCHIVES == 0:
        name, data = draw.choice(sorted(archive_seeds().items()))
        return name, mutate_bytes(data, draw)
    data = draw.choice(model_seeds())
    return "m.onnx", (mutate_bytes if seed % 3 == 0 else mutate_model)(data, draw)


def attempt(seed: int, folder: Path, *, archives: bool) -> tuple[str, str | None]:
    """Run a verb on one damaged file; return what came out, and the promise that it broke."""
    name, data = make(seed, archives=archives)
    (folder / name).write_bytes(data)
    before = snapshot(folder)
    if name != "m.onnx":
        arguments = ["optimize", name, "--no-check", "-o", "out.onnx", "--input", "1x4x8x8"]
    elif seed % PROVED == 1:
        arguments = ["optimize", name, "-o", "out.onnx", "--timeout", str(TIMEOUT)]
    else:
        arguments = [("inspect", "optimize")[seed % 2], name]
        arguments += ["--no-check", "-o", "out.onnx"] if arguments[0] == "optimize" else []
    proved = arguments[0] == "optimize" and "--no-check" not in arguments
    result = run([*arguments, "--quiet"], folder)
    codes = (0, 2, 4) if proved or name != "m.onnx" else (0, 2)
    seconds = TIMEOUT + 5 if proved else 5 if name == "m.onnx" else 15
    problem = broken_promise(result, len(data), codes=codes, seconds=seconds)
    after = snapshot(folder)
    if any(after.get(path) != content for path, content in before.items()):
        problem = "the input was changed"
    elif extra := [path for path in after.keys() - before.keys() if not _is_expected(path)]:
        problem = f"left {sorted(extra)}"
    elif result.exit_code and (folder / "out.onnx").exists():
        problem = "failed, and wrote its output"
    return f"{arguments[0]} of {name}: exit code {result.exit_code}", problem


def _is_expected(path: str) -> bool:
    """The output, the log of the child that runs models, the folder that torch makes for itself."""
    return path.endswith(("/out.onnx", ".log")) or "torchinductor" in path


def main() -> int:
    """Run; 1 if any promise was broken."""
    arguments = _arguments()
    seen: collections.Counter[str] = collections.Counter()
    broken = 0
    began = told = time.monotonic()
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        with tempfile.TemporaryDirectory() as place:
            outcome, problem = attempt(seed, Path(place), archives=not arguments.no_archives)
        seen[outcome] += 1
        if problem is not None:
            broken += 1
            name, data = make(seed, archives=not arguments.no_archives)
            arguments.keep.mkdir(parents=True, exist_ok=True)
            (arguments.keep / f"{seed}-{name}").write_bytes(data)
            print(f"seed {seed}: {outcome}: {problem}", flush=True)
        if time.monotonic() - told > 10:
            told = time.monotonic()
            done = seed - arguments.seed + 1
            print(f"{done} files, {broken} broke a promise, {done / (told - began):.0f}/s",
                  file=sys.stderr)  # fmt: skip
    print(f"{arguments.count} files, {broken} broke a promise")
    for outcome, count in sorted(seen.items()):
        print(f"{count:8d} {outcome}")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
