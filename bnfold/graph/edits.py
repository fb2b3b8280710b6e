"""Carries out the edits of a plan on a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from onnx import TensorProto, helper

from bnfold.graph import shapes
from bnfold.graph.constants import Constant, Constants
from bnfold.graph.index import Graph, Node, Scope, Use, Value
from bnfold.graph.plan import (
    AppendAdd,
    Become,
    Bypass,
    DropOperands,
    Edit,
    Plan,
    Reroute,
    SetAttributes,
    SetConstant,
    SetShape,
)
from bnfold.graph.shapes import Dims
from bnfold.graph.writeback import UNIFORM_FROM, fill_tensors, write_back
from bnfold.lazy import Scaled, Unrounded
from bnfold.store import ArraySource, TensorStore

__all__ = ["Editor"]

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
RELEASE_FROM = 1 << 25
FRESH_SUFFIX = "_folded"


class Editor:
    """Applies plans, and writes the constants they made at the end.

    Args:
        graph: The model.
        constants: Told about every constant that changes.
        tensors: Takes the data of new tensors when :meth:`finish` is called.
    """

    def __init__(self, graph: Graph, constants: Constants, tensors: TensorStore) -> None:
        self.graph = graph
        self.constants = constants
        self.tensors = tensors
        self._read = 0
        self._made: dict[Value, None] = {}
        self._copies: dict[Value, list[Value]] = {}
        self._dead: list[Value | None] = []
        self._unread: list[Node] = []

    def apply(self, plan: Plan) -> None:
        """Carry out all edits of a plan."""
        names = {value.name for value in plan.changed}
        constants = [edit for edit in plan.edits if isinstance(edit, SetConstant)]
        for edit in plan.edits:
            self._apply(edit, plan, constants)
        for value in plan.reshaped:
            _set_shape(value, self._shape_of_sum(value))
        for value in plan.changed:
            # an old name, its own or that of a node that went, would have another meaning
            if value.name in names and value.scope.values.get(value.name) is value:
                self.graph.rename(value, self.graph.fresh(f"{value.name}{FRESH_SUFFIX}"))
        self._sweep()
        self._release(constants)

    def _shape_of_sum(self, value: Value) -> Dims | None:
        """The shape of what an addition computes from what is left of its operands."""
        node = value.producer
        operands: list[Dims] = []
        for operand in () if node is None else node.inputs:
            constant = self.constants.get(operand)
            dims = None if operand is None else operand.shape
            if constant is not None and not constant.any_shape:
                dims = constant.shape
            if dims is None:
                return None
            operands.append(dims)
        return shapes.joint(operands, f"{value.scope.label}.{value.name}")

    def _release(self, constants: Sequence[SetConstant]) -> None:
        """Give back the pages of the weights whose range the plan has looked at."""
        self._read += sum(
            edit.data.nbytes for edit in constants if isinstance(edit.data, Unrounded)
        )
        if self._read > RELEASE_FROM:
            self.tensors.release()
            self._read = 0

    def _apply(self, edit: Edit, plan: Plan, constants: Sequence[SetConstant]) -> None:
        match edit:
            case SetConstant():
                self._set_constant(edit, constants)
            case SetAttributes():
                _set_attributes(edit.node, edit.values)
            case SetShape():
                _set_shape(edit.node.outputs[0], edit.shape)
            case Become():
                _set_attributes(edit.node, dict.fromkeys(edit.node.attributes))
                edit.node.proto.op_type = edit.op_type
            case AppendAdd():
                self._append_add(edit)
            case Bypass():
                self._bypass(edit, plan)
            case DropOperands():
                self._drop_operands(edit, plan)
            case Reroute():
                self._reroute(edit)

    # --- nodes

    def _bypass(self, edit: Bypass, plan: Plan) -> None:
        node = edit.node
        source, result = node.inputs[edit.index], node.outputs[0]
        assert source is not None and result is not None  # noqa: S101, PT018 - a rule has seen both
        alone = set(source.uses) == {Use(node, edit.index)} or source in plan.changed
        named = source.producer is None or source.is_output or source.is_protected
        fixed = named or not alone or source.scope is not node.scope
        if fixed and (result.is_output or result.is_protected):
            self._become_identity(node, edit.index)
            return
        source.shape = source.shape if source.shape is not None else result.shape
        readers = list(result.uses)
        for use in readers:
            self.graph.connect(use.node, use.index, source)
        name, is_output, described = result.name, result.is_output, result.described_as
        self._drop_inputs(node)
        self.graph.remove(node)
        other_meaning = result in plan.changed and source not in plan.changed
        if not fixed and (is_output or (plan.direction == "backward" and not other_meaning)):
            source.described_as = described
            source.is_output, source.is_protected = is_output, result.is_protected
            self.graph.rename(source, name)

    def cancel_reshapes(self, node: Node) -> None:
        """Take ``node`` and a reshape beside it out, where together they change nothing.

        A normalization written by hand reshapes to (N, C, -1) and back; nothing is left between.
        """
        for first, last in _pairs(node):
            if not _undo(first, last):
                continue
            self._dead.append(first.outputs[0])
            self.graph.connect(last, 0, first.inputs[0])
            self._bypass(Bypass(last), Plan("forward"))
            self._sweep()
            return

    def _become_identity(self, node: Node, index: int) -> None:
        """The output keeps its name, and what computed it is gone."""
        source, result = node.inputs[index], node.outputs[0]
        assert source is not None and result is not None  # noqa: S101, PT018 - _bypass has seen both
        proto = helper.make_node("Identity", [], [""], name=node.proto.name)
        self._drop_inputs(node)
        self.graph.insert(proto, [source], result, before=node)
        self.graph.retire(node)

    def _drop_operands(self, edit: DropOperands, plan: Plan) -> None:
        node = edit.node
        self._dead += [node.inputs[index] for index in edit.indices]
        kept = [index for index in range(len(node.inputs)) if index not in edit.indices]
        if len(kept) > 1:
            self.graph.keep_inputs(node, kept)
            return
        if node.op == "Sub" and kept == [1]:
            self.graph.keep_inputs(node, kept)
            _set_attributes(node, dict.fromkeys(node.attributes))
            node.proto.op_type = "Neg"
            return
        direction = "backward" if edit.keeps_name else "forward"
        self._bypass(Bypass(node, kept[0]), Plan(direction, changed=plan.changed))

    def _reroute(self, edit: Reroute) -> None:
        """The node computes the output of another one, or a new value that is read elsewhere."""
        node = edit.node
        self._dead.append(node.inputs[edit.index])
        self.graph.connect(node, edit.index, edit.source)
        old = node.outputs[0]
        assert old is not None  # noqa: S101 - a merge has seen it
        if edit.instead_of is node:
            return
        if edit.instead_of is not None:
            new = edit.instead_of.outputs[0]
            assert new is not None  # noqa: S101 - a merge has seen it
            self._drop_inputs(edit.instead_of)
            self.graph.retire(edit.instead_of)
        else:
            new = self.graph.new_value(node.scope, f"{old.name}{FRESH_SUFFIX}")
        self.graph.produce(node, new)
        if edit.at is not None:
            replaced = edit.at.node.inputs[edit.at.index]
            assert replaced is not None  # noqa: S101 - a merge has seen it
            new.shape, new.elem_type = replaced.shape, replaced.elem_type
            self._dead.append(replaced)
            self.graph.connect(edit.at.node, edit.at.index, new)

    def _append_add(self, edit: AppendAdd) -> None:
        node = edit.node
        result = node.outputs[0]
        assert result is not None  # noqa: S101 - a rule has seen it
        scope = node.scope
        product = self.graph.new_value(scope, f"{result.name}_product", like=result)
        product.described_as = ""
        product.producer = node
        node.outputs[0] = product
        node.proto.output[0] = product.name
        constant = self._new_constant(scope, f"{node.name}_shift", edit.data, edit.elem_type, node)
        name = self.graph.fresh(f"{node.name}_shift_add")
        proto = helper.make_node("Add", [], [""], name=name)
        self.graph.insert(proto, [product, constant], result, after=node)

    # --- constants

    def _set_constant(self, edit: SetConstant, together: Sequence[SetConstant]) -> None:
        node, index = edit.node, edit.index
        old = node.input(index)
        twin = self._twin(old, edit.data)
        if twin is not None and twin.scope is node.scope:
            self._dead.append(old)
            self.graph.connect(node, index, twin)
            return
        if old is not None and self._may_change_in_place(old, edit, together):
            self._store(old, edit.data, edit.elem_type)
            return
        base = f"{node.name}_{edit.role}" if old is None else f"{old.name}{FRESH_SUFFIX}"
        new = self._new_constant(node.scope, base, edit.data, edit.elem_type, node)
        if old is not None:
            self._dead.append(old)
            self._copies.setdefault(old, []).append(new)
        self.graph.connect(node, index, new)

    def _twin(self, old: Value | None, data: Unrounded | NDArray[Any]) -> Value | None:
        """A copy of a shared constant that an earlier plan has made and that holds the same."""
        copies = [] if old is None else self._copies.get(old, [])
        return next(
            (
                copy
                for copy in copies
                if copy.tensor is not None and copy.uses and _same_data(copy.lazy, data)
            ),
            None,
        )

    def _may_change_in_place(
        self, old: Value, edit: SetConstant, together: Sequence[SetConstant]
    ) -> bool:
        """An initializer keeps its name if every use of it changes alike."""
        if old.tensor is None or old.is_output or old.is_protected:
            return False
        if old.tensor.data_type != edit.elem_type:
            return False
        if tuple(old.tensor.dims) != edit.data.shape:
            return False  # what describes the old shape elsewhere would be wrong
        same = {
            Use(other.node, other.index) for other in together if _same_data(other.data, edit.data)
        }
        return set(old.uses) <= same

    def _new_constant(
        self, scope: Scope, base: str, data: Unrounded | NDArray[Any], elem_type: int, reader: Node
    ) -> Value:
        value = self.graph.new_value(scope, base)
        self._store(value, data, elem_type)
        uniform = isinstance(data, Scaled) and data.is_uniform and data.base.size >= UNIFORM_FROM
        if scope.is_function or self.graph.constants_as_nodes or uniform:
            name = self.graph.fresh(f"{value.name}_node")
            proto = helper.make_node("Constant", [], [""], name=name)
            self.graph.insert(proto, [], value, before=reader)
        else:
            value.tensor = TensorProto(name=value.name, dims=data.shape, data_type=elem_type)
        return value

    def _store(self, value: Value, data: Unrounded | NDArray[Any], elem_type: int) -> None:
        if isinstance(data, Unrounded):
            value.lazy = data
            self.constants.set(value, Constant.of(data, elem_type))
        else:
            value.lazy = ArraySource(data)
            self.constants.set(value, Constant(elem_type, data))
        value.elem_type, value.shape = elem_type, data.shape
        self._made[value] = None

    def finish(self) -> None:
        """Give every new tensor its data and write the graph back."""
        fill_tensors(self.graph, self._made, self.tensors)
        write_back(self.graph)

    # --- what nothing reads any more

    def _drop_inputs(self, node: Node) -> None:
        self._dead += [value for value in node.inputs if value is not None]

    def _sweep(self) -> None:
        while self._dead:
            value = self._dead.pop()
            if value is None or value.uses or value.is_output or value.is_protected:
                continue
            known = value.scope.values.get(value.name) is value
            if value.tensor is not None and known and not self.constants.is_overridable(value):
                self.graph.drop_initializer(value)
            node = value.producer
            if node is None or not node.alive or any(_is_read(v) for v in node.outputs):
                continue
            if not any(attribute.HasField("g") for attribute in node.attributes.values()):
                self._drop_inputs(node)
                self.graph.remove(node)
                self._unread.append(node)

    def taken_unread(self) -> list[Node]:
        """The nodes that went since the last call because nothing reads them."""
        unread, self._unread = self._unread, []
        return unread


def _pairs(node: Node) -> list[tuple[Node, Node]]:
    """``node`` with the node before it, and with its only reader."""
    source, result = node.input(0), node.output()
    pairs: list[tuple[Node, Node]] = []
    if source is not None and source.producer is not None:
        pairs.append((source.producer, node))
    if result is not None and len(result.uses) == 1:
        pairs.append((node, next(iter(result.uses)).node))
    return [pair for pair in pairs if all(n.alive and n.op in _RESHAPES for n in pair)]


def _undo(first: Node, last: Node) -> bool:
    """True if ``last`` alone reads ``first`` and provably gives back the shape it was given."""
    before, middle, after = first.inputs[0], first.outputs[0], last.outputs[0]
    if before is None or middle is None or after is None or last.inputs[0] is not middle:
        return False
    alone = len(middle.uses) == 1 and not middle.is_output and not middle.is_protected
    together = first.scope is last.scope and before.scope is first.scope
    return alone and together and before.shape is not None and before.shape == after.shape


def _is_read(value: Value | None) -> bool:
    return value is not None and bool(value.uses or value.is_output or value.is_protected)


def _same_data(left: object, right: object) -> bool:
    if left is right:
        return True
    return isinstance(left, Unrounded) and isinstance(right, Unrounded) and left.same_as(right)


def _set_shape(value: Value | None, shape: Dims | None) -> None:
    if value is not None:
        value.shape, value.described_as = shape, ""


def _set_attributes(node: Node, values: Any) -> None:
    for name, value in values.items():
        kept = [attribute for attribute in node.proto.attribute if attribute.name != name]
        if value is not None:
            kept.append(helper.make_attribute(name, value))
        del node.proto.attribute[:]
        node.proto.attribute.extend(kept)
    node.attributes = {attribute.name: attribute for attribute in node.proto.attribute}
