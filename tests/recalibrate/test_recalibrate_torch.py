"""PyTorch: its own epoch in train mode says the same, and so does the same model as ONNX."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import bnfold
from bnfold.errors import InputError, ModelError

torch = pytest.importorskip("torch")
nn = torch.nn


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x):  # type: ignore[no-untyped-def]
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(x + y)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(*(Residual(8) for _ in range(3)))
        self.shared = nn.BatchNorm2d(8)
        self.head = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))

    def forward(self, x):  # type: ignore[no-untyped-def]
        x = self.shared(self.blocks(self.stem(x)))
        x = self.shared(torch.relu(x))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    net = Net()
    for each in net.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(each.weight, 1, 0.3)
            nn.init.normal_(each.bias, 0, 0.3)
            # Statistics that were never right.
            nn.init.uniform_(each.running_mean, -9, 9)
            nn.init.uniform_(each.running_var, 0.1, 30)
    return net.eval()


@pytest.fixture
def batches() -> list[torch.Tensor]:
    rows = torch.randn(44, 3, 12, 10, generator=torch.Generator().manual_seed(1)) * 2 + 1
    return list(rows.split(16))  # 16, 16, 12


def buffers(module: nn.Module) -> dict[str, np.ndarray]:
    state = module.state_dict()
    return {name: state[name].double().numpy() for name in state if "running" in name}


def test_an_epoch_in_train_mode(net: nn.Module, batches: list[torch.Tensor]) -> None:
    trained = copy.deepcopy(net).double().train()
    for each in trained.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            each.reset_running_stats()
            each.momentum = None
    with torch.no_grad():
        for batch in batches:
            trained(batch.double())
    before = buffers(net)
    renewed, report = bnfold.torch.recalibrate(net, batches, pooling="batches")
    right = buffers(trained)
    for name, found in buffers(renewed).items():
        np.testing.assert_allclose(found, right[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert type(renewed) is Net
    assert not any(each.training for each in renewed.modules())
    assert not any("forward" in vars(each) for each in renewed.modules())
    assert (report.samples, report.batches, len(report.norms)) == (44, 3, 9)
    assert report.norms[0].kl >= report.norms[-1].kl > 1
    for name, value in buffers(net).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("mode", ["precise", "sequential"])
@pytest.mark.parametrize("pooling", ["samples", "batches"])
def test_the_same_model_as_onnx(
    tmp_path: Path, net: nn.Module, batches: list[torch.Tensor], mode: str, pooling: str
) -> None:
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (batches[0],),
            path,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "N"}},
        )
    renewed, report = bnfold.torch.recalibrate(net, batches, mode=mode, pooling=pooling)
    data = [{"x": batch.numpy()} for batch in batches]
    theirs = bnfold.recalibrate(path, tmp_path / "o.onnx", data=data, mode=mode, pooling=pooling)
    values = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "o.onnx").graph.initializer
    }
    for name, found in buffers(renewed).items():
        np.testing.assert_allclose(found, values[name], rtol=2e-6, atol=2e-6, err_msg=name)
    kls = [sorted(norm.kl for norm in each.norms) for each in (report, theirs)]
    np.testing.assert_allclose(*kls, rtol=1e-4)


def test_the_variance_over_all_samples_is_that_of_one_batch_in_the_first_layer(
    net: nn.Module, batches: list[torch.Tensor]
) -> None:
    renewed, _ = bnfold.torch.recalibrate(net, batches, only="stem.*")
    rows = torch.cat(batches).double()
    conv = copy.deepcopy(net.stem[0]).double()
    x = conv(rows).detach()
    np.testing.assert_allclose(renewed.stem[1].running_var, x.var((0, 2, 3)), rtol=2e-6)
    np.testing.assert_array_equal(renewed.shared.running_var, net.shared.running_var)


def test_destroyed_statistics_are_restored(net: nn.Module, batches: list[torch.Tensor]) -> None:
    # Used twice, it normalizes two distributions in training, and their mixture afterwards.
    net.shared = nn.Identity()
    whole = [torch.cat(batches)]
    renewed, _ = bnfold.torch.recalibrate(net, whole)
    train = copy.deepcopy(net)
    for each in train.modules():
        each.training = isinstance(each, nn.modules.batchnorm._BatchNorm)
    with torch.no_grad():
        right, found = train(whole[0]), renewed(whole[0])
    # Running variances are unbiased, those of a batch are not: the one difference.
    torch.testing.assert_close(found, right, rtol=0.02, atol=0.02)


def test_labels_dicts_and_a_function(net: nn.Module, batches: list[torch.Tensor]) -> None:
    plain = buffers(bnfold.torch.recalibrate(net, batches)[0])
    pairs = [(batch, torch.zeros(len(batch))) for batch in batches]
    dicts = [{"x": batch} for batch in batches]
    swapped = [(None, batch.numpy()) for batch in batches]
    for found in (
        bnfold.torch.recalibrate(net, pairs),
        bnfold.torch.recalibrate(net, dicts),
        bnfold.torch.recalibrate(net, swapped, inputs=lambda batch: batch[1]),
    ):
        for name, value in buffers(found[0]).items():
            np.testing.assert_array_equal(value, plain[name])
    _, report = bnfold.torch.recalibrate(net, batches, samples=20)
    assert (report.samples, report.batches) == (32, 2)


def test_half_precision() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3)).to(torch.bfloat16)
    rows = (torch.randn(20, 3, 8, 8) * 2 + 3).to(torch.bfloat16)
    renewed, _ = bnfold.torch.recalibrate(net, [rows])
    right = rows.double().var((0, 2, 3)).to(torch.bfloat16)
    assert torch.equal(renewed[0].running_var, right)


def one_by_one(batches: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    yield from batches


def test_bad_input(net: nn.Module, batches: list[torch.Tensor]) -> None:
    recalibrate = bnfold.torch.recalibrate
    with pytest.raises(ModelError, match="no batch normalization"):
        recalibrate(nn.Linear(2, 2), batches)
    with pytest.raises(ModelError, match="no running statistics"):
        recalibrate(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), batches)
    with pytest.raises(InputError, match="only= matches none"):
        recalibrate(net, batches, only="nothing")
    with pytest.raises(InputError, match="no batches"):
        recalibrate(net, [])
    with pytest.raises(InputError, match="does not take batch 0"):
        recalibrate(net, [torch.zeros(4, 5, 9, 9)])
    with pytest.raises(InputError, match="NaN or infinity in batch 1"):
        recalibrate(net, [batches[0], batches[1] * float("nan")])
    with pytest.raises(InputError, match="several times"):
        recalibrate(net, one_by_one(batches), mode="sequential")
    with pytest.raises(InputError, match="constant"):
        recalibrate(net, [torch.zeros(4, 3, 9, 9)])
    with pytest.raises(InputError, match="too few"):
        recalibrate(nn.Sequential(nn.BatchNorm1d(3)), [torch.zeros(1, 3)])
    with pytest.raises(InputError, match="unknown mode"):
        recalibrate(net, batches, mode="fast")
    with pytest.raises(InputError, match="momentum 0"):
        recalibrate(net, batches, momentum=0.0)
    assert not any("forward" in vars(each) for each in net.modules())
