"""Print the accuracy of digits models on the held-out digits, as ONNX Runtime computes it.

::

    python models/evaluate.py models/digits.onnx digits.folded.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).parent


def evaluate(model: str) -> tuple[int, int]:
    """Return how many of the held-out digits the model names rightly, and how many there are."""
    with np.load(HERE / "digits_heldout.npz") as data:
        feed = dict(data)
    labels = np.load(HERE / "digits_heldout_labels.npy")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, feed)
    return int((logits.argmax(axis=1) == labels).sum()), len(labels)


def main(models: list[str]) -> None:
    """Print one line for each model."""
    if not models:
        sys.exit("usage: python models/evaluate.py MODEL...")
    for model in models:
        right, total = evaluate(model)
        print(f"{model}: {right} of {total} digits right, {right / total:.2%}")


if __name__ == "__main__":
    main(sys.argv[1:])
