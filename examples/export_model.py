"""Export a trained PyTorch model to a folded, proved ONNX file. Adapt the three marked places.

python examples/export_model.py model.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import bnfold

MODELS = Path(__file__).parents[1] / "models"


def trained_model() -> torch.nn.Module:
    """1. Your model with its weights, in eval mode."""
    file = MODELS / "digits.state_dict.pt"
    return bnfold.torch.load(file, arch=f"{MODELS}/train_digits.py:DigitsNet")


def main(path: str) -> None:
    """Fold in PyTorch, then export; either works without the other."""
    model = trained_model()
    images = torch.rand(2, 1, 8, 8)  # 2. What it is called with.

    # A module of the same class without batch normalization, for those who stay in PyTorch.
    folded, report = bnfold.torch.fold(model, images)
    print(f"in PyTorch: {len(report.folded)} folded, {len(report.kept)} kept")
    print(f"largest difference: {(folded(images) - model(images)).abs().max():.1e}")

    # 3. Which dimensions are open: here the first one of the only input.
    report = bnfold.export(model, images, path, dynamic_shapes=({0: "N"},))
    print(f"{report.output}: {len(report.folded)} folded, {len(report.kept)} kept")
    for site in report.kept:
        print(f"kept {site.name}: {site.reason}, {site.detail}")
    proof = report.checks[-1].outputs[0]
    print(f"against PyTorch: {proof.difference:.1e}, noise {proof.noise:.1e}")


if __name__ == "__main__":
    main(sys.argv[1])
