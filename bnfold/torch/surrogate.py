"""The graph that is planned on: traces written as ONNX nodes, with the same algebra and planner.

Only what decides how an affine passes is translated: the operator, its axes, pads and constants. A
call that is not understood becomes a node of an operator that no rule knows, so nothing passes it.

A :class:`Slot` is a tensor of the module that may change. Every use of it gets a value of its own,
so that a plan may change one use; in the end all uses of a slot must have changed alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from bnfold.graph.constants import Constant, Constants
from bnfold.graph.facts import Facts
from bnfold.graph.index import Graph, Node, Use, Value
from bnfold.graph.plan import Bypass, Plan, SetConstant
from bnfold.lazy import Unrounded
from bnfold.store import TensorStore
from bnfold.torch.trace import Call, Datum, Trace

__all__ = ["Slot", "SlotUse", "Surrogate", "array_of"]

OPSET = 21
KINDS: dict[torch.dtype | None, int] = {
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.int32: TensorProto.INT32,
    torch.int64: TensorProto.INT64,
    torch.bool: TensorProto.BOOL,
}
MAX_EVALUATED = 1 << 26


@dataclass(eq=False)
class SlotUse:
    """One node input that reads a slot.

    Attributes:
        node: The reader.
        index: Which input.
        transposed: It reads the two axes swapped.
        call: The call that the node belongs to.
        datum: What the call reads there; None for a bias that is yet to be created.
    """

    node: Node
    index: int
    transposed: bool
    call: Call
    datum: Datum | None


@dataclass(eq=False)
class Slot:
    """A parameter or buffer, or a bias that can be created.

    Attributes:
        key: The same for names of the same tensor.
        name: Name in the module.
        original: Its values; zeros for a bias that can be created.
        uses: Where it is read as what it is: a weight, a bias, an operand.
        blocked: Why it must not change, or None.
        is_new: True for a bias that the module lacks.
    """

    key: Hashable
    name: str
    original: Constant
    uses: list[SlotUse] = field(default_factory=list)
    blocked: str | None = None
    is_new: bool = False


class Surrogate:
    """All traces of a module in one graph.

    Args:
        key_of: The slot of a parameter or buffer, from its name.
        new_bias: The slot of a bias that the module of a call lacks, or None if it must not be
            created: called with the call and the weight that it reads.
        copies: Each use may get a tensor of its own, so no other use is in its way (an exported
            program, where one more parameter can be had).
    """

    def __init__(
        self,
        key_of: Callable[[str], Hashable],
        new_bias: Callable[[Call, Datum], tuple[Hashable, str] | None],
        *,
        copies: bool = False,
    ) -> None:
        self.graph = Graph(_empty_model())
        self.constants = Constants(self.graph, TensorStore("module"))
        self.facts = Facts(self.constants)
        self.key_of = key_of
        self.new_bias = new_bias
        self.copies = copies
        self.slots: dict[Hashable, Slot] = {}
        self.slot_at: dict[tuple[Node, int], Slot] = {}
        self.nodes_of: dict[Call, list[Node]] = {}
        self.values: dict[Datum, Value] = {}
        self.label: Callable[[Call], str] = lambda call: call.name
        self._call: Call | None = None
        self._numbers = itertools.count()

    # --- building

    def add(self, trace: Trace, operators: dict[str, Callable[..., None]]) -> None:
        """Append a trace.

        Args:
            trace: Its calls become nodes.
            operators: A translator for each operator; see ``operators``.
        """
        for call in trace.calls:
            self._call = call
            self.nodes_of[call] = []
            if self._evaluate(call):
                continue
            translate = operators.get(call.op)
            if translate is None or call.target is None or not self._translated(translate, call):
                self.opaque(call)
        self._call = None
        for datum in trace.outputs:
            if datum.owner is not None:
                self.block(datum, "is also returned")
            self.value(datum).is_output = True

    def _translated(self, translate: Callable[..., None], call: Call) -> bool:
        try:
            translate(self, call)
        except NotUnderstood:
            nodes = self.nodes_of[call]
            if any(node.outputs for node in nodes):
                for node in nodes:
                    self._forget(node)
            self.nodes_of[call] = []
            return False
        return True

    def _forget(self, node: Node) -> None:
        for index, value in enumerate(node.inputs):
            slot = self.slot_at.pop((node, index), None)
            if slot is not None:
                slot.uses = [use for use in slot.uses if use.node is not node]
            if value is not None:
                value.uses.pop(Use(node, index), None)
        for value in node.outputs:
            if value is not None:
                value.producer = None
        node.alive = False

    def opaque(self, call: Call) -> None:
        """A node that nothing passes; the parameters that it reads must not change."""
        for datum in call.inputs():
            self.block(datum, f'is also read by "{call.name}" ({call.op})')
        inputs: list[Value | None] = [self.value(datum) for datum in dict.fromkeys(call.inputs())]
        self.node(f"aten.{call.op}", inputs, call.outputs)

    def block(self, datum: Datum, why: str) -> None:
        """Forbid every change of a parameter or buffer."""
        if datum.owner is not None and datum.tensor is not None and not self.copies:
            slot = self._slot(datum)
            slot.blocked = slot.blocked or why

    def node(
        self,
        op: str,
        inputs: Sequence[Value | None],
        outputs: Sequence[Datum | Value | None],
        **attributes: Any,
    ) -> Node:
        """Append a node for the call that is being translated."""
        call = self._call
        assert call is not None  # noqa: S101 - only add() leads here
        proto = NodeProto(op_type=op, name=self.label(call))
        node = Node(proto, self.graph.main, len(self.graph.main.nodes))
        for name, attribute in attributes.items():
            if attribute is not None and attribute != []:
                node.attributes[name] = helper.make_attribute(name, attribute)
        for index, value in enumerate(inputs):
            node.inputs.append(value)
            proto.input.append("" if value is None else value.name)
            if value is not None:
                value.uses[Use(node, index)] = None
        for item in outputs:
            result = self.value(item) if isinstance(item, Datum) else item
            if result is not None:
                result.producer = node
            node.outputs.append(result)
        self.graph.main.nodes.append(node)
        self.nodes_of[call].append(node)
        return node

    def value(self, datum: Datum) -> Value:
        """The value of a datum; a constant where its tensor is known."""
        if datum not in self.values:
            value = Value(datum.name, self.graph.main, shape=datum.shape)
            value.elem_type = KINDS.get(datum.dtype, 0)
            value.is_input = datum.is_input
            constant = _constant(datum)
            if constant is not None:
                self.constants.set(value, constant)
            self.values[datum] = value
        return self.values[datum]

    def between(self, like: Datum, shape: Sequence[int | str] | None, part: str) -> Value:
        """A value inside the translation of one call."""
        value = Value(f"{like.name}.{part}", self.graph.main)
        value.shape = None if shape is None else tuple(shape)
        value.elem_type = KINDS.get(like.dtype, 0)
        return value

    def constant(self, array: NDArray[Any], kind: int) -> Value:
        """A constant that is none of the module's tensors."""
        value = Value(f"constant_{next(self._numbers)}", self.graph.main, shape=array.shape)
        value.elem_type = kind
        self.constants.set(value, Constant(kind, array))
        return value

    def integers(self, numbers: Sequence[int]) -> Value:
        """A constant vector of int64."""
        return self.constant(np.array(numbers, np.int64), TensorProto.INT64)

    def parameter(self, node: Node, index: int, datum: Datum, *, transposed: bool = False) -> None:
        """Make a datum the input ``index`` of a node, as a slot if it is one of the module's.

        Args:
            node: The reader.
            index: Input; one past the last adds one.
            datum: The weight, bias or operand.
            transposed: The node reads the two axes swapped.
        """
        constant = _constant(datum)
        if constant is None:
            if transposed:
                raise NotUnderstood
            self.graph.connect(node, index, self.value(datum))
            return
        array = constant.data.T if transposed else constant.data
        value = self.constant(array, constant.elem_type)
        value.name = datum.owner or datum.name
        self.graph.connect(node, index, value)
        if self.copies:
            key = (datum.name, node.position, index)
            array = constant.data
            slot = Slot(key, datum.owner or datum.name, Constant(constant.elem_type, array))
            self.slots[key] = slot
            self._use(slot, node, index, datum, transposed=transposed)
        elif datum.owner is not None:
            self._use(self._slot(datum), node, index, datum, transposed=transposed)

    def created(self, node: Node, index: int, weight: Datum, length: int, *, zeros: bool) -> None:
        """Offer a bias that the module lacks at input ``index``.

        Args:
            node: The reader.
            index: Input.
            weight: What the call reads as weight; its type becomes that of the bias.
            length: Number of output channels.
            zeros: Put zeros there (an Add needs an operand); else leave the input absent.
        """
        call = self._call
        assert call is not None  # noqa: S101 - only add() leads here
        found = self.new_bias(call, weight)
        kind = KINDS.get(weight.dtype, 0)
        original = Constant(kind, np.zeros(length, helper.tensor_dtype_to_np_dtype(kind)))
        if zeros:
            value = self.constant(original.data, kind)
            value.name = "bias" if found is None else found[1]
            self.graph.connect(node, index, value)
        if found is not None:
            key, name = found
            slot = self.slots.setdefault(key, Slot(key, name, original, is_new=True))
            self._use(slot, node, index, None, transposed=False)

    def _use(
        self, slot: Slot, node: Node, index: int, datum: Datum | None, *, transposed: bool
    ) -> None:
        call = self._call
        assert call is not None  # noqa: S101 - only add() leads here
        slot.uses.append(SlotUse(node, index, transposed, call, datum))
        self.slot_at[node, index] = slot

    def _slot(self, datum: Datum) -> Slot:
        name = datum.owner
        assert name is not None  # noqa: S101 - callers have asked
        key = self.key_of(name)
        if key not in self.slots:
            constant = _constant(datum)
            if constant is None:
                constant = Constant(0, np.zeros(0))
            self.slots[key] = Slot(key, name, constant)
        return self.slots[key]

    def _evaluate(self, call: Call) -> bool:
        """A call on constants alone is a constant; what it reads must not change."""
        data = list(call.inputs())
        if not data or call.target is None or call.op.startswith("sym_"):
            return False
        if any(datum.tensor is None or datum.tensor.numel() > MAX_EVALUATED for datum in data):
            return False
        if call.op in _RANDOM or any(d is None or d.dtype is None for d in call.outputs):
            return False
        try:
            with torch.no_grad():
                results = call.target(*_wide(call.args), **_wide(call.kwargs))
        except (RuntimeError, TypeError, ValueError, NotImplementedError):
            return False
        parts = results if isinstance(results, (tuple, list)) else [results]
        if len(parts) != len(call.outputs):
            return False
        for datum in data:
            self.block(datum, f'is also read by "{call.name}" ({call.op})')
        for output, part in zip(call.outputs, parts, strict=True):
            if output is not None:
                output.tensor = part
        return True

    # --- changing

    def apply(self, plan: Plan) -> None:
        """Carry out a plan: constants at slots, and nodes that go."""
        for edit in plan.edits:
            if isinstance(edit, Bypass):
                self._bypass(edit)
            elif isinstance(edit, SetConstant) and not isinstance(edit.data, np.ndarray):
                value = Value(f"{edit.node.name}.{edit.role}", self.graph.main)
                value.shape, value.elem_type = edit.data.shape, edit.elem_type
                self.constants.set(value, Constant.of(edit.data, edit.elem_type))
                self.graph.connect(edit.node, edit.index, value)

    def _bypass(self, edit: Bypass) -> None:
        source, result = edit.node.inputs[edit.index], edit.node.outputs[0]
        assert source is not None and result is not None  # noqa: S101, PT018 - a site has both
        for use in list(result.uses):
            self.graph.connect(use.node, use.index, source)
        source.is_output = source.is_output or result.is_output
        self.graph.retire(edit.node)

    def final(self, use: SlotUse, slot: Slot) -> Unrounded:
        """What a slot would have to hold for one of its uses, in its own orientation."""
        value = use.node.input(use.index)
        found = None if value is None else self.constants.get(value)
        if found is None:
            return slot.original.lazy()
        return found.lazy().swapped() if use.transposed else found.lazy()


class NotUnderstood(Exception):  # noqa: N818 - a signal between a translator and `Surrogate.add`
    """A translator met an argument that it does not know: the call becomes opaque."""


_RANDOM = {"rand_like", "randn_like", "randint_like", "bernoulli", "dropout", "native_dropout"}


def _empty_model() -> ModelProto:
    model = ModelProto(ir_version=10)
    model.opset_import.add(domain="", version=OPSET)
    return model


def _wide(value: Any) -> Any:
    """Arguments with their tensors, floats in float64."""
    if isinstance(value, Datum):
        tensor = value.tensor
        assert tensor is not None  # noqa: S101 - _evaluate has seen it
        return tensor.double() if tensor.is_floating_point() else tensor
    if isinstance(value, tuple):
        return [_wide(item) for item in value]
    if isinstance(value, dict):
        return {key: _wide(item) for key, item in value.items()}
    return value


def _constant(datum: Datum) -> Constant | None:
    kind = KINDS.get(datum.dtype)
    if datum.tensor is None or kind is None:
        return None
    array = array_of(datum.tensor)
    return None if array is None else Constant(kind, array)


def array_of(tensor: torch.Tensor) -> NDArray[Any] | None:
    """A NumPy view of a dense CPU tensor, or None."""
    tensor = tensor.detach()
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return None
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return None
    if tensor.dtype is torch.bfloat16:
        bits: NDArray[Any] = tensor.view(torch.int16).numpy()
        floats: NDArray[Any] = bits.view(ml_dtypes.bfloat16)
        return floats
    array: NDArray[Any] = tensor.numpy()
    return array
