"""Where two models part: the first tensor beyond noise, and the error of every layer.

Tensors of the same name stand in both models, and cut them into parts. Both models are run node by
node (:mod:`bnfold.check.stepwise`), side by side, and at each such tensor they are compared:

1. While they agree, the candidate goes on with the *reference's* value. So every part is judged by
   itself: what it does to values that are the same to the last bit. Neither the noise nor the
   errors of the layers before come into it, and a small fault stands out in a deep network.
2. Where they part, the candidate keeps its own value, and the tensor is an *origin*. What follows
   from it and differs too belongs to the same origin. If a difference vanishes again before it
   reaches an output, its origin is no fault: a tool gave the old name to another value, or nothing
   depends on it. The first origin whose difference reaches an output is the answer.

Noise is measured in the same way: neighbours of the reference get, at the beginning of each part,
its values moved by one unit in the last place. Inside of a part their weights, and what each node
computes, are moved too: the roundings of a part are few, and a runtime's own are among them.

This is one pass, whatever is found. A bisection runs the model again at each of its steps, finds
nothing about the layers that it does not look at, and needs a difference that stays once it is
there; a search in one pass needs none of that, and no more memory than the values that are still
to be read, with the weights of one node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bnfold.check.feeds import Feed
from bnfold.check.hints import Hint
from bnfold.check.pairs import Pair
from bnfold.check.sessions import UNOPTIMIZED, RunError
from bnfold.check.stepwise import Step, Stepper
from bnfold.check.sweep import Row, Sweep
from bnfold.report import LayerError, Localization

__all__ = ["localize"]

_FEW_DRAWS = 3
_MANY_DRAWS = 9
# A difference of this many times what is allowed is beyond noise however often that is measured.
_CLEAR = 16.0


def localize(
    pair: Pair,
    feed: Feed,
    hints: Mapping[str, Hint],
    *,
    level: str = UNOPTIMIZED,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Localization:
    """Find the first tensor in which two models part.

    Args:
        pair: The models and the provider that runs them.
        feed: On which values: best those on which the outputs differ most.
        hints: Advice by input name.
        level: At which optimization level the outputs differ. The tensors are compared as the
            models are written, which is ``disable_all``.
        seed: Where the random numbers of the noise start.
        tell: Called with what is being done, in a few words.

    Returns:
        The tensor, with the node that produces it in each model, and the errors of all tensors
        that both models have. Nothing is raised for models that do not run: ``detail`` says so.
    """
    models = (
        Stepper(pair.reference, pair.provider),
        Stepper(pair.candidate, pair.provider),
    )

    def sweep(draws: int, *, pinned: bool = True) -> Sweep:
        what = "localizing" if pinned else "localizing errors that add up"
        found = Sweep(*models, feed, hints, seed=seed, draws=draws, pinned=pinned)
        found.go(lambda text: tell(f"{what}: {text}"))
        return found

    try:
        found = sweep(_FEW_DRAWS)
        first = found.first
        if first is not None and first.used < _CLEAR:
            found = sweep(_MANY_DRAWS)
            first = found.first
        if first is not None:
            return _report(models, found, first, None)
        together = sweep(_MANY_DRAWS, pinned=False)
        if together.first is not None:
            why = "no layer by itself is beyond noise: their errors add up"
            return _report(models, together, together.first, why)
    except RunError as error:
        return Localization(None, (), f"the models cannot be run node by node: {error}")
    why = "the two models agree within noise at every tensor that both have"
    if level != UNOPTIMIZED:
        why += f", as they are written; what differs is what the runtime makes of them at {level}"
    return _report(models, found, None, why)


def _report(
    models: tuple[Stepper, Stepper], found: Sweep, first: Row | None, detail: str | None
) -> Localization:
    parts = _Parts(*models, {row.name for row in found.rows})
    shown = None
    if first is not None:
        shown, opened = _behind_names(models, found, first)
        parts.open(opened)
    rows = []
    named: LayerError | None = None
    for row in found.rows:
        layer = parts.layer(row, consequence=row.name in found.effective or row is shown)
        rows.append(layer)
        if row is shown:
            named = layer
    return Localization(named, tuple(rows), detail)


def _behind_names(
    models: tuple[Stepper, Stepper], found: Sweep, first: Row
) -> tuple[Row, str | None]:
    """Return the tensor to name, and one before it whose name stands for something else, or None.

    Where a tool has given a tensor's name to another value, other nodes read it than before, and
    the tensor that shows the fault is the next one.
    """
    readers = [
        {(step.node.op_type, tuple(step.node.output)) for step in model.readers.get(first.name, ())}
        for model in models
    ]
    if readers[0] == readers[1] or first.name in models[0].outputs:
        return first, None
    for row in found.rows:
        if row is not first and row.beyond and first.name in row.origins:
            return row, first.name
    return first, None


class _Parts:
    """Which nodes lie between tensors that both models have.

    Args:
        reference: The original.
        candidate: What should compute the same.
        joints: Tensors that both have.
    """

    def __init__(self, reference: Stepper, candidate: Stepper, joints: set[str]) -> None:
        self._reference = reference
        self._candidate = candidate
        self._joints = joints

    def open(self, name: str | None) -> None:
        """Take a tensor for one that the models do not have in common."""
        self._joints = self._joints - {name}

    def layer(self, row: Row, *, consequence: bool) -> LayerError:
        """Return the report's form of one row."""
        ours, theirs = (
            self._culprit(model, other, row.name) if row.beyond else model.producers.get(row.name)
            for model, other in (
                (self._reference, self._candidate),
                (self._candidate, self._reference),
            )
        )
        named = row.judgement.finding.named(row.name)
        detail = named.detail
        if row.beyond and not consequence:
            detail = "no output depends on the difference: the name may stand for another value"
        return LayerError(
            tensor=row.name,
            reference_node=ours.label if ours else None,
            reference_operator=ours.node.op_type if ours else None,
            candidate_node=theirs.label if theirs else None,
            candidate_operator=theirs.node.op_type if theirs else None,
            difference=named.difference,
            noise=named.noise,
            ratio=named.ratio,
            allowed=named.allowed,
            beyond=row.beyond,
            detail=detail,
        )

    def _culprit(self, model: Stepper, other: Stepper, name: str) -> Step | None:
        """Return the last node before a tensor that the other model does not have likewise."""
        last = model.producers.get(name)
        if last is None:
            return None
        part: dict[int, Step] = {}
        waiting = [last]
        while waiting:
            step = waiting.pop()
            if step.index not in part:
                part[step.index] = step
                waiting += [
                    model.producers[read]
                    for read in step.reads
                    if read in model.producers and read not in self._joints
                ]
        if len(part) == 1:
            return last
        for index in sorted(part, reverse=True):
            if not _has_twin(model, other, part[index]):
                return part[index]
        return last


def _has_twin(model: Stepper, other: Stepper, step: Step) -> bool:
    twin = other.producers.get(next(filter(None, step.node.output)))
    return twin is not None and step.is_like(twin) and model.same_constants(step, other, twin)
