"""Providers: what is asked for runs, with proof, or is an error that says what is missing."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from check_pairs import layers, network, text

from bnfold.check import check
from bnfold.check.runtimes.installed import require_runtime
from bnfold.check.runtimes.placement import nodes_per_provider, prove_placement, shape_arithmetic
from bnfold.check.runtimes.providers import native_messages, not_started, resolve_provider
from bnfold.errors import InputError, MissingPackageError, ProviderError

CUDA = "CUDAExecutionProvider"
IDS = text("g (float[N] x) => (float[N] y) { y = Identity (x) }")


def test_cuda_that_is_missing_is_never_a_pass() -> None:
    if CUDA in require_runtime().get_available_providers():
        pytest.skip("this runtime has CUDA")
    with pytest.raises(ProviderError, match="CUDAExecutionProvider is not available") as caught:
        check(IDS, IDS, providers=("cpu", "cuda"))
    assert caught.value.exit_code == 4
    assert "bnfold[gpu]" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("cpu", "CPUExecutionProvider"),
        ("CPU", "CPUExecutionProvider"),
        ("CPUExecutionProvider", "CPUExecutionProvider"),
        ("cpu:0", "CPUExecutionProvider:0"),
    ],
)
def test_names_of_providers(name: str, full: str) -> None:
    assert resolve_provider(name) == full


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:-1", "cpu:"])
def test_provider_that_no_runtime_has(name: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_provider(name)
    assert caught.value.hint


def test_provider_that_runs_nothing_is_never_a_pass() -> None:
    """The provider is in the runtime and starts, but has no kernels: everything is on the CPU."""
    if "AzureExecutionProvider" not in require_runtime().get_available_providers():
        pytest.skip("this runtime has no Azure provider")
    pair = network(layers(2), folded=True), network(layers(2), folded=True)
    with pytest.raises(ProviderError, match=r"nodes are not on Azure.*: Conv") as caught:
        check(*pair, providers=("cpu", "azure"))
    assert [report.equivalent for report in caught.value.learned] == [True, True]


def part(provider: str, *nodes: tuple[str, str]) -> SimpleNamespace:
    found = [SimpleNamespace(op_type=op, name=name) for op, name in nodes]
    return SimpleNamespace(ep_name=provider, get_nodes=lambda: found)


def session(*parts: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(
        get_providers=lambda: [CUDA, "CPUExecutionProvider"],
        get_provider_graph_assignment_info=lambda: list(parts),
    )


SHAPES = """
g (float[N,C,H] x, float[K] z) => (float[M] y, int64[3] s) {
    [c] a = Relu (x)
    [sh] s = Shape (a)
    zero = Constant <value_int = 0> ()
    [g] n = Gather (s, zero)
    [m] mn = Mul (n, n)
    [u] l = Unsqueeze (mn, zero)
    [d] dd = Mul (a, a)
    [r] y = Reshape (dd, l)
    [uniq] q, i, j, k = Unique (z)
    [other] unused = Neg (q)
}
"""


def test_shape_arithmetic_may_stand_elsewhere() -> None:
    graph = text(SHAPES).graph
    excused = [graph.node[position].name for (position,) in sorted(shape_arithmetic(graph))]
    assert [name for name in excused if name] == ["sh", "g", "m", "u"]
    on_cpu = [("Shape", "sh"), ("Gather", "g"), ("Mul", "m"), ("Unsqueeze", "u")]
    placed = session(
        part(CUDA, ("Relu", "c"), ("Mul", "d"), ("Reshape", "r")),
        part("CPUExecutionProvider", *on_cpu),
    )
    prove_placement(placed, CUDA, "model.onnx", graph)
    assert nodes_per_provider(placed) == {CUDA: 3, "CPUExecutionProvider": 4}


def test_compute_nodes_on_the_wrong_provider_are_listed() -> None:
    graph = text(SHAPES).graph
    placed = session(
        part(CUDA, ("Relu", "c")),
        part("CPUExecutionProvider", ("Gather", "g"), ("Mul", "d"), ("FusedConv", "new")),
    )
    with pytest.raises(
        ProviderError, match=r"2 nodes are not on CUDA.*: Mul 'd', FusedConv 'new'"
    ) as caught:
        prove_placement(placed, CUDA, "model.onnx", graph)
    assert caught.value.exit_code == 4


def test_nodes_in_a_body_are_looked_at() -> None:
    graph = text("""
    g (bool c, float[N] x) => (float[N] y) {
        [if] y = If (c) <
            then_branch = t () => (float[N] p) { [uniq] p, i, j, k = Unique (x) },
            else_branch = e () => (float[N] q) { [neg] q = Neg (x) }>
    }
    """).graph
    with pytest.raises(ProviderError, match=r"1 node is not on CUDA.*: Unique 'uniq'"):
        prove_placement(
            session(
                part(CUDA, ("Neg", "neg"), ("If", "if")),
                part("CPUExecutionProvider", ("Unique", "uniq")),
            ),
            CUDA,
            "model.onnx",
            graph,
        )


def test_runtime_that_does_not_tell_is_no_proof() -> None:
    silent = SimpleNamespace(get_providers=lambda: [CUDA, "CPUExecutionProvider"])
    with pytest.raises(ProviderError, match="does not tell"):
        prove_placement(silent, CUDA, "model.onnx", onnx.GraphProto())


@pytest.mark.parametrize(
    ("said", "cause", "hint"),
    [
        (
            "Failed to load library /x/libonnxruntime_providers_cuda.so with error: "
            "libcublasLt.so.13: cannot open shared object file: No such file or directory\n"
            "Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*. Please "
            "install all dependencies",
            "the library libcublasLt.so.13 is missing",
            "the runtime needs cuDNN 9.* and CUDA 13.*",
        ),
        (
            "Failed to load library /x/libonnxruntime_providers_cuda.so with error: libcuda.so.1: "
            "cannot open shared object file: No such file or directory",
            "there is no NVIDIA driver",
            "install the NVIDIA driver",
        ),
        (
            "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version",
            "driver is too old",
            "update the NVIDIA driver",
        ),
        (
            "with error: /x/libonnxruntime_providers_cuda.so: undefined symbol: "
            "cuTensorMapEncodeTiled",
            "driver is too old",
            "update the NVIDIA driver",
        ),
        ("CUDA failure 100: no CUDA-capable device is detected", "sees no GPU", "nvidia-smi"),
        ("CUDA failure 101: invalid device ordinal", "no such device", "nvidia-smi -L"),
        ("CUDA failure 2: out of memory", "no memory left", "--input"),
        ("something new\nand more", "did not start: something new", "check the driver"),
        ("", "took another provider", "check the driver"),
    ],
)
def test_why_a_provider_did_not_start(said: str, cause: str, hint: str) -> None:
    error = not_started("m.onnx", CUDA, said)
    assert cause in error.message
    assert "\n" not in error.message
    assert hint in (error.hint or "")


def test_messages_of_native_code_are_caught(capfd: pytest.CaptureFixture[str]) -> None:
    with native_messages() as read:
        os.write(2, b"from below\n")
        assert read() == "from below\n"
    os.write(2, b"outside")
    assert capfd.readouterr().err == "outside"


def shadow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Put another onnxruntime before the installed one, as the child process sees it too."""
    (tmp_path / "onnxruntime.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)


def test_missing_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow(tmp_path, monkeypatch, "raise ImportError('No module named onnxruntime')")
    with pytest.raises(MissingPackageError, match="No module named onnxruntime") as caught:
        check(IDS, IDS)
    assert caught.value.hint == 'pip install "bnfold[cpu]"'


def test_damaged_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow(tmp_path, monkeypatch, "")
    with pytest.raises(MissingPackageError, match="damaged"):
        check(IDS, IDS)


def test_both_builds_of_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / f"{name}-1.31.1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.31.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ProviderError, match="both installed") as caught:
        check(IDS, IDS)
    assert not isinstance(caught.value, MissingPackageError)
    assert "pip uninstall" in (caught.value.hint or "")


def test_tf32_needs_cuda() -> None:
    with pytest.raises(InputError, match="TF32"):
        check(IDS, IDS, tf32=True)
