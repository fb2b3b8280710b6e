"""Hostile files of every kind, each in a process of its own: a result, or one clear line."""

from __future__ import annotations

import contextlib
import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bnfold.errors import BnfoldError, InputError, ModelError
from bnfold.torch.archive import require_harmless, require_sound
from fuzz.targets import TARGETS
from tests.hostile import archives
from tests.hostile.__main__ import PROVED, attempt
from tests.hostile.costs import COSTLY
from tests.hostile.graphs import HOSTILE, bn_model
from tests.hostile.places import PLACES
from tests.hostile.trial import broken_promise, run, snapshot

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"
MODELS = Path(__file__).parents[2] / "models"
SLOW = 3
"""How many times as long a file may take on a machine that does other things too."""

pytestmark = pytest.mark.skipif(not hasattr(__import__("os"), "pidfd_open"), reason="needs Linux")


GRAPHS = HOSTILE | COSTLY


@pytest.mark.parametrize("name", GRAPHS)
def test_a_hostile_graph_costs_a_line(name: str, tmp_path: Path) -> None:
    data = GRAPHS[name]()
    (tmp_path / "m.onnx").write_bytes(data)
    before = snapshot(tmp_path)
    result = run(["optimize", "m.onnx", "--no-check", "-o", "out.onnx", "--quiet"], tmp_path)
    assert broken_promise(result, len(data), seconds=5 * SLOW) is None
    (tmp_path / "out.onnx").unlink(missing_ok=True)
    assert snapshot(tmp_path) == before


def test_statistics_of_what_is_no_legal_model_cost_a_line(tmp_path: Path) -> None:
    model = bn_model()
    model.graph.node.add(op_type="Constant", output=["k"]).attribute.add(name="value_float", type=5)
    model.graph.node[1].input[2] = "k"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    result = run(["inspect", "m.onnx", "--statistics"], tmp_path)
    assert broken_promise(result, 0, codes=[2], seconds=5 * SLOW) is None


@pytest.mark.parametrize("name", [name for name in PLACES if "terabyte" not in name])
def test_a_hostile_place_is_left_alone(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(576))
    path = PLACES[name](folder)
    before = snapshot(tmp_path)
    result = run(["optimize", path.name, "--no-check", "-o", "out.onnx", "--quiet"], folder)
    assert broken_promise(result, 1 << 20, codes=[2], seconds=5 * SLOW) is None
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("seed", range(100, 160))
def test_damaged_models(seed: int, tmp_path: Path) -> None:
    if seed % PROVED == 1:
        seed += 1  # a proof takes seconds
    assert attempt(seed, tmp_path, archives=False)[1] is None


HARMLESS = {
    "sizes": [
        {"as_expr": {"expr_str": text}}
        for text in (
            "Add(Symbol('s0', positive=True), Integer(2))",
            "Pow(Symbol('s0', positive=True), Integer(-1))",
            "((((((s0 - 1)//2 + 1) - 1)//2 + 1) - 1)//2 + 1) - 1",
            "Max(1, s0*s1*s2**2)",
            "Piecewise((s0, s0 > 3), (s0*2, True))",
        )
    ]
}


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('was-here')",
        "Max(\"__import__('os').mkdir('was-here')\", 1)",
        "(lambda: 0)()",
        "s0.__class__",
        "[x for x in (1,)]",
        "open('x')",
        "eval(s0)",
        "1 +",
        "9**9**9**9",
        "((9**64)**64)**64",
        "PowByNatural(7, 10**9)",
        "LShift(1, 10**11)",
        "2**s0",
        "(1,) * 10**9",
        "s0.args * 10**9",
        f"Max({', '.join(f's{i}' for i in range(300))})",
        f"({' + '.join(f's{i}' for i in range(30))})**30",
    ],
)
@pytest.mark.parametrize("key", ["expr_str", "guards_code"])
def test_expressions_of_a_program_are_arithmetic(key: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "m.pt2"

    def write(content: object) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("m/models/model.json", json.dumps(content))

    write(HARMLESS)
    require_harmless(file)
    write(HARMLESS | {key: text if key == "expr_str" else [text]})
    with pytest.raises(InputError, match="more than arithmetic"):
        require_harmless(file)


CALL = "__import__('os').mkdir('was-here')"


@pytest.mark.parametrize(
    "content",
    [
        {"inputs": [{"as_tensor": {"name": f"x={CALL}"}}]},
        {"inputs": [{"name": f"x={CALL}, y", "arg": {"as_int": 1}, "kind": 2}]},
        {"as_sym_int": {"as_name": f"x={CALL}"}},
        {"arg": {"name": "x", "parameter_name": f'x", {CALL}, "y'}},
        {"signature": {"forward_arg_names": [f"x={CALL}"]}},
        {"signature": {"in_spec": json.dumps([1, {"context": json.dumps([f"x={CALL}"])}])}},
    ],
)
def test_a_name_in_a_program_is_no_code(content: object, tmp_path: Path) -> None:
    file = tmp_path / "m.pt2"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("m/models/model.json", json.dumps({"graph_module": content}))
    with pytest.raises(InputError, match="a name that is code"):
        require_harmless(file)


def test_a_program_with_code_as_a_name_runs_nothing(tmp_path: Path) -> None:
    source = MODELS / "digits.pt2"
    with (
        zipfile.ZipFile(source) as before,
        zipfile.ZipFile(tmp_path / "m.pt2", "w") as after,
    ):
        for name in before.namelist():
            after.writestr(name, before.read(name).replace(b'"images"', f'"x={CALL}"'.encode()))
    result = run(["optimize", "m.pt2", "--no-check"], tmp_path)
    assert broken_promise(result, 1 << 20, codes=[2], seconds=10 * SLOW) is None
    assert [each.name for each in tmp_path.iterdir()] == ["m.pt2"]


def test_a_program_that_cannot_be_written_as_code(tmp_path: Path) -> None:
    argument = {"name": "", "kind": 1, "arg": {"as_operator": "torch.os.system"}}
    node = {
        "target": "torch.ops.higher_order.wrap",
        "inputs": [argument],
        "outputs": [],
        "metadata": {},
        "is_hop_single_tensor_return": None,
        "name": "w",
    }
    first = b'"nodes": [' + json.dumps(node).encode() + b", "
    with (
        zipfile.ZipFile(MODELS / "digits.pt2") as before,
        zipfile.ZipFile(tmp_path / "m.pt2", "w") as after,
    ):
        for name in before.namelist():
            after.writestr(name, before.read(name).replace(b'"nodes": [', first))
    result = run(["optimize", "m.pt2", "--no-check"], tmp_path)
    assert broken_promise(result, 1 << 20, codes=[2], seconds=10 * SLOW) is None


def _zipped(name: str, content: bytes = b"{}") -> tuple[bytes, bytes, bytes]:
    """Entries, their list, and the end of an archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    data = buffer.getvalue()
    start = data.index(b"PK\x01\x02")
    return data[:start], data[start:-22], data[-22:]


def _with_two_lists(where: str) -> bytes:
    """An archive of which Python reads the second list of entries, and PyTorch the first."""
    entries, hidden, end = _zipped("m/models/evil.json")
    others, shown, _ = _zipped("m/models/fine.json")
    if where == "in front":
        return entries + hidden + others + shown + end
    end = end[:16] + (len(others + shown + end)).to_bytes(4, "little") + end[20:]
    return others + shown + end[:-2] + len(hidden).to_bytes(2, "little") + hidden


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (_with_two_lists("in front"), "elsewhere"),
        (_with_two_lists("in the comment"), "elsewhere|damaged"),
        (b"PK\x03\x04" + b"".join(_zipped("m/data.pkl")), "elsewhere"),
        (b"".join(_zipped("m/data.pkl!.txt")).replace(b"!", b"\0"), "two names"),
    ],
)
def test_an_archive_is_read_in_one_way(data: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "m.pt2"
    file.write_bytes(data)
    with pytest.raises(ModelError, match=why):
        require_sound(file)


def test_names_that_pytorch_takes_for_one_another(tmp_path: Path) -> None:
    file = tmp_path / "m.pt2"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("m/models/model.json", "{}")
        archive.writestr("m/models/MODEL.JSON", "{}")
    with pytest.raises(ModelError, match="twice"):
        require_sound(file)


def _is_quick(name: str) -> bool:
    """PyTorch takes seconds for each exported program."""
    is_pickle = any(name.startswith(what) for what in archives.PAYLOADS)
    return "m.pt2" not in name or not is_pickle or name == "posix.mkdir, bare, as .pt in m.pt2"


ARCHIVES = [
    pytest.param(name, marks=[] if _is_quick(name) else [pytest.mark.slow])
    for name in archives.HOSTILE
]


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_runs_no_code(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    file, make = archives.HOSTILE[name]
    (tmp_path / file).write_bytes(make())
    output = "out.pt2" if file == "m.pt2" else "out.onnx"
    arguments = ["optimize", file, "--no-check", "-o", output, "--input", "1x4x8x8", "--quiet"]
    result = run(arguments, tmp_path)
    assert broken_promise(result, 1 << 20, seconds=15 * SLOW) is None
    assert not (tmp_path / archives.MARK).exists()


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_of_the_fuzzers(name: str) -> None:
    read: Callable[[bytes], None] = TARGETS[name]
    files = sorted((CORPUS / name).iterdir())
    assert files
    for file in random.Random(0).sample(files, min(len(files), 150)):  # noqa: S311
        with contextlib.suppress(BnfoldError):
            read(file.read_bytes())
