"""Train the digits model and write everything that stands beside this file.

A small network of the classic layout, batch normalization after both convolutions and after a
linear layer, trained on the 8 x 8 digits that ship with scikit-learn::

    conv - bn - relu - pool - conv - bn - relu - pool - flatten - linear - bn - relu - linear

    python models/train_digits.py [DIRECTORY]

It writes, to the directory of this file if no other is named:

``digits.onnx``
    The trained model, its batch normalizations alive, weights inside, any batch size.
``digits.state_dict.pt``
    The parameters of `DigitsNet`.
``digits.pt2``
    The same model as an exported program, any batch size.
``digits.script.pt``
    The same model as a TorchScript archive.
``digits_heldout.npz``
    The held-out digits, under the name of the model's input.
``digits_heldout_labels.npy``
    What the held-out digits are.

One thread, one seed: the same versions of PyTorch and scikit-learn give the same weights again.
"""

from __future__ import annotations

import io
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

SEED = 2024
EPOCHS = 40
BATCH_SIZE = 64
INPUT = "images"
OUTPUT = "logits"
OPSET = 18


class DigitsNet(nn.Module):
    """Ten logits for grey images of 8 x 8 pixels in [0, 1]: (N, 1, 8, 8) -> (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc1 = nn.Linear(32 * 2 * 2, 64)
        self.bn3 = nn.BatchNorm1d(64)
        self.fc2 = nn.Linear(64, 10)
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        x = self.pool(torch.relu(self.bn1(self.conv1(images))))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        x = torch.relu(self.bn3(self.fc1(torch.flatten(x, 1))))
        return self.fc2(x)


def load_data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return train images, held-out images, train labels, held-out labels: three to one."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, np.newaxis]
    labels = digits.target.astype(np.int64)
    split = train_test_split(images, labels, test_size=0.25, random_state=SEED, stratify=labels)
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, split)
    return train_images, test_images, train_labels, test_labels


def train(model: DigitsNet, images: Tensor, labels: Tensor) -> None:
    """Train in place; the learning rate falls to zero along a cosine."""
    loader = DataLoader(
        TensorDataset(images, labels),
        batch_size=BATCH_SIZE,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(SEED),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    model.train()
    for _ in range(EPOCHS):
        for batch, target in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), target).backward()
            optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def accuracy(model: DigitsNet, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that the model names rightly."""
    return (model(images).argmax(dim=1) == labels).float().mean().item()


def export(model: DigitsNet, path: Path) -> None:
    """Write the model as one ONNX file in which every batch normalization is still a node.

    The exporter is the older of PyTorch's two: it names nodes after modules. Without constant
    folding it leaves Conv -> BatchNormalization alone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (torch.zeros(1, 1, 8, 8),),
            path,
            dynamo=False,
            do_constant_folding=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "N"}, OUTPUT: {0: "N"}},
        )
    onnx.checker.check_model(path)


def save_program(model: DigitsNet, path: Path) -> None:
    """Write the model as an exported program, without the paths of this machine."""
    batch = torch.export.Dim("N")
    program = torch.export.export(
        model, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: batch},), strict=False
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path)


def save_script(model: DigitsNet, path: Path) -> None:
    """Write the model as TorchScript, without the debug files that name this machine's paths."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = torch.jit.trace(model, torch.zeros(2, 1, 8, 8)).save_to_buffer()
    source = zipfile.ZipFile(io.BytesIO(content))
    with zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(entry.filename), source.read(entry))


def main(directory: Path) -> None:
    """Train, report the accuracy, and write all files into the directory."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train_images, test_images, train_labels, test_labels = load_data()
    model = DigitsNet()
    train(model, train_images, train_labels)
    share = accuracy(model, test_images, test_labels)
    print(f"held-out accuracy: {share:.2%} of {len(test_labels)} digits")

    export(model, directory / "digits.onnx")
    torch.save(model.state_dict(), directory / "digits.state_dict.pt")
    save_program(model, directory / "digits.pt2")
    save_script(model, directory / "digits.script.pt")
    np.savez_compressed(directory / "digits_heldout.npz", **{INPUT: test_images.numpy()})
    np.save(directory / "digits_heldout_labels.npy", test_labels.numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
