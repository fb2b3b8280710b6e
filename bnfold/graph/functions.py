"""Model-local functions: a body whose weights come from its callers is specialised by inlining.

Inlining is exact, and runtimes do it anyway. It makes the weights of each call visible, so that
every call can be folded with its own. The caller keeps the result only if less of it is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from onnx import GraphProto, ModelProto, NodeProto, inliner

__all__ = ["executed", "inline"]

Key = tuple[str, str]


def inline(model: ModelProto, scopes: Iterable[str]) -> ModelProto | None:
    """A copy of the skeleton without some of its functions.

    Args:
        model: The skeleton; it is not changed.
        scopes: Labels ``function <domain>::<name>`` of the functions to inline; those that call
            them are inlined too.

    Returns:
        The copy, or None where there is nothing to inline or the inliner refuses.
    """
    wanted = {label.removeprefix("function ").split("/")[0] for label in scopes}
    chosen = {(f.domain, f.name) for f in model.functions if f"{f.domain}::{f.name}" in wanted}
    if not chosen:
        return None
    calls = {(f.domain, f.name): set(_calls(f.node)) for f in model.functions}
    while True:
        callers = {key for key, called in calls.items() if called & chosen} - chosen
        if not callers:
            break
        chosen |= callers
    copy = ModelProto()
    copy.CopyFrom(model)
    try:
        result: ModelProto = inliner.inline_selected_functions(copy, sorted(chosen))
    except Exception:  # noqa: BLE001 - what the inliner cannot do is not done
        return None
    return result


def executed(model: ModelProto) -> tuple[int, int]:
    """How much a model runs.

    Returns:
        Batch normalizations, and nodes, those of a function once for each call.
    """
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    known: dict[Key, Counter[bool]] = {}

    def count(nodes: Iterable[NodeProto]) -> Counter[bool]:
        total: Counter[bool] = Counter()
        for key in _calls(nodes):
            if key in bodies and key not in known:
                known[key] = count(bodies[key])
            total += known[key] if key in bodies else Counter([key[1] == "BatchNormalization"])
        return total

    total = count(model.graph.node)
    return total[True], total.total()


def _calls(nodes: Iterable[NodeProto]) -> Iterable[Key]:
    for node in nodes:
        yield node.domain, node.op_type
        for attribute in node.attribute:
            graphs: list[GraphProto] = [*attribute.graphs]
            if attribute.HasField("g"):
                graphs.append(attribute.g)
            for graph in graphs:
                yield from _calls(graph.node)
