"""A network under a real shift: accuracy before, after recalibration, and after folding.

The digits model was trained on clean images. Here a camera changes: less contrast, a blur, noise,
and all of them. A third of the held-out digits, without labels, is what ``recalibrate`` sees; the
accuracy is that on the other two thirds::

    python examples/recalibrate_digits.py [DIRECTORY]

It needs ONNX Runtime only, and writes the shifted images and the models to the directory (a
temporary one if none is named).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import bnfold

MODELS = Path(__file__).parents[1] / "models"
INPUT = "images"
CALIBRATION = 150

Images = np.ndarray[Any, np.dtype[np.float32]]


def contrast(images: Images) -> Images:
    """A third of the contrast, around a mid grey."""
    return (0.35 * images + 0.3).astype(np.float32)


def blur(images: Images) -> Images:
    """A box of 3 x 3 pixels."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return windows.mean(axis=(4, 5)).astype(np.float32)


def noise(images: Images, size: float = 0.3) -> Images:
    """Gaussian noise, its standard deviation as a part of the range."""
    drawn = np.random.default_rng(0).normal(0, size, images.shape)
    return (images + drawn).astype(np.float32)


SHIFTS: dict[str, Callable[[Images], Images]] = {
    "contrast": contrast,
    "blur": blur,
    "noise": noise,
    "all three": lambda images: noise(contrast(blur(images)), 0.03),
}


def accuracy(model: Path, images: Images, labels: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    """Return the share of images that the model names rightly."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {INPUT: images})
    return float((logits.argmax(axis=1) == labels).mean())


def compare(shift: str, directory: Path) -> tuple[float, float, float]:
    """Return the accuracy under a shift before, after recalibration, and after folding."""
    with np.load(MODELS / "digits_heldout.npz") as data:
        images = SHIFTS[shift](data[INPUT])
    labels = np.load(MODELS / "digits_heldout_labels.npy")
    name = shift.replace(" ", "_")
    seen, better, folded = (directory / f"{name}{end}" for end in (".npz", ".onnx", ".folded.onnx"))
    np.savez(seen, **{INPUT: images[:CALIBRATION]})
    bnfold.recalibrate(MODELS / "digits.onnx", better, data=seen, batch_size=CALIBRATION)
    bnfold.optimize(better, folded)
    rest = images[CALIBRATION:], labels[CALIBRATION:]
    before, after, last = (
        accuracy(model, *rest) for model in (MODELS / "digits.onnx", better, folded)
    )
    return before, after, last


def main(directory: Path) -> None:
    """Print one line for each shift."""
    print(f"{'shift':<10} {'before':>8} {'recalibrated':>13} {'folded':>8}")
    for shift in SHIFTS:
        before, after, folded = compare(shift, directory)
        print(f"{shift:<10} {before:>8.1%} {after:>13.1%} {folded:>8.1%}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
