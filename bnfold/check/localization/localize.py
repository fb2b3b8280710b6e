"""Where two models part: the first tensor beyond noise, and the error of every layer.

Tensors of the same name stand in both models, and cut them into parts. Both models are run node by
node (:mod:`.stepwise`), side by side, and at each such tensor they are compared:

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

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import onnx

from bnfold.check.exact.parts import PartChecker
from bnfold.check.feeds.feed import Feed
from bnfold.check.feeds.hints import Hint
from bnfold.check.localization.joints import Judgement
from bnfold.check.localization.stepwise import Step, Stepper
from bnfold.check.localization.sweep import Row, Sweep
from bnfold.check.models.pairs import Pair
from bnfold.check.runtimes.sessions import UNOPTIMIZED, RunError
from bnfold.check.verdict.compare import Finding
from bnfold.report import LayerError, Localization

__all__ = ["localize"]

_FEW_DRAWS = 3
_MANY_DRAWS = 9
# A difference of this many times what is allowed is beyond noise however often that is measured.
_CLEAR = 16.0
# For one evaluation in float64: multiplications, and seconds for operators whose cost is not known.
_WORK = 5e10
_PATIENCE = 60.0
# Nodes of a part that a message names.
_LISTED = 6


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

    def confirmed(*, pinned: bool) -> Sweep:
        found = sweep(_FEW_DRAWS, pinned=pinned)
        if found.first is not None and found.first.used < _CLEAR:
            return sweep(_MANY_DRAWS, pinned=pinned)
        return found

    try:
        found = confirmed(pinned=True)
        if found.first is not None:
            return _report(models, found, found.first, None)
        tell("localizing: once more in float64")
        row = _in_float64(pair, feed, seed)
        if row is not None:
            return _report(models, found, row, None)
        together = confirmed(pinned=False)
        if together.first is not None:
            why = "no layer by itself is beyond noise: their errors add up"
            return _report(models, together, together.first, why)
    except RunError as error:
        return Localization(None, (), f"the models cannot be run node by node: {error}")
    why = "the two models agree within noise at every tensor that both have"
    if level != UNOPTIMIZED:
        why += f", as they are written; what differs is what the runtime makes of them at {level}"
    return _report(models, found, None, why)


def _in_float64(pair: Pair, feed: Feed, seed: int) -> Row | None:
    """Return the first tensor that is wrong where nothing is rounded but weights, or None.

    Activations in a coarse type hide a fault that float64 shows, and so does the noise of many
    weights.
    """
    types = {tensor.data_type for tensor in pair.reference.graph.initializer}
    if onnx.TensorProto.DOUBLE in types:
        return None  # the runtime is as exact
    try:
        checker = PartChecker(
            pair.reference,
            pair.candidate,
            seed=seed,
            work=_WORK,
            deadline=time.monotonic() + _PATIENCE,
        )
        found = checker.disagreements(feed)
    except RunError:
        return None
    if not found:
        return None
    worst = found[0]
    detail = (
        f"in float64, where only weights are rounded, it differs by {worst.times:.3g} times what "
        f"rounding explains ({worst.limit:g} times would have passed)"
    )
    finding = Finding(equivalent=False, detail=detail)
    used = worst.times / worst.limit
    return Row(worst.tensor, Judgement(finding, used), True, frozenset({worst.tensor}))


def _report(
    models: tuple[Stepper, Stepper], found: Sweep, first: Row | None, detail: str | None
) -> Localization:
    joints = {row.name for row in found.rows}
    joints.update(row.stands_for for row in found.rows if row.stands_for)
    parts = _Parts(*models, joints)
    rows = list(found.rows)
    named = None
    if first is not None:
        # What float64 has shown takes the place of what the runtime did not show.
        rows = [_with_evidence(row, first) if row.name == first.name else row for row in rows]
        if all(row.name != first.name for row in rows):
            rows.append(first)
        named = first.name
    effective = found.effective | {first.name if first is not None else ""}
    layers = tuple(parts.layer(row, effective, named=row.name == named) for row in rows)
    return Localization(
        next((layer for layer in layers if layer.tensor == named), None), layers, detail
    )


def _with_evidence(row: Row, shown: Row) -> Row:
    """Return a row with the numbers of the runtime and the verdict of another row."""
    if row is shown:
        return row
    finding = dataclasses.replace(
        row.judgement.finding,
        equivalent=False,
        allowed=row.judgement.finding.difference / max(shown.used, 1.0),
        detail=shown.judgement.finding.detail,
    )
    return dataclasses.replace(shown, judgement=Judgement(finding, shown.used))


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

    def layer(self, row: Row, effective: frozenset[str], *, named: bool) -> LayerError:
        """Return the report's form of one row.

        Args:
            row: What was found.
            effective: The origins of differences that reach an output.
            named: True for the tensor that is the answer.
        """
        meant = row.stands_for or row.name
        ours = self._part(self._reference, meant) if row.beyond else []
        theirs = self._part(self._candidate, row.name) if row.beyond else []
        original = self._culprit(self._reference, self._candidate, meant, ours)
        changed = self._culprit(self._candidate, self._reference, row.name, theirs)
        shown = row.judgement.finding.named(row.name)
        said = [shown.detail] if shown.detail else []
        if row.stands_for:
            said.append(f"its name stands for '{row.stands_for}' of the reference")
        if row.beyond and not row.origins & effective:
            said = ["no output depends on the difference: the name may stand for another value"]
        elif named and len(ours) + len(theirs) > 2:
            said.append(
                f"the part is {_listed(ours)} in the reference, {_listed(theirs)} in the candidate"
            )
        return LayerError(
            tensor=row.name,
            reference_node=original.label if original else None,
            reference_operator=original.node.op_type if original else None,
            candidate_node=changed.label if changed else None,
            candidate_operator=changed.node.op_type if changed else None,
            difference=shown.difference,
            noise=shown.noise,
            ratio=shown.ratio,
            allowed=shown.allowed,
            beyond=row.beyond,
            detail="; ".join(said) or None,
        )

    def _part(self, model: Stepper, name: str) -> list[Step]:
        """Return the nodes between a tensor and those before it that both models have."""
        part: dict[int, Step] = {}
        waiting = [name]
        while waiting:
            step = model.producers.get(waiting.pop())
            if step is not None and step.index not in part:
                part[step.index] = step
                waiting += [read for read in step.reads if read not in self._joints]
        return [part[index] for index in sorted(part)]

    def _culprit(
        self, model: Stepper, other: Stepper, name: str, part: Sequence[Step]
    ) -> Step | None:
        """Return the last node before a tensor that the other model does not have likewise."""
        if len(part) > 1:
            for step in reversed(part):
                if not _has_twin(model, other, step):
                    return step
        return model.producers.get(name)


def _listed(part: Sequence[Step]) -> str:
    names = [f"'{step.label}' ({step.node.op_type})" for step in part]
    if len(names) > _LISTED:
        return f"{', '.join(names[:_LISTED])} and {len(names) - _LISTED} more"
    return ", ".join(names) or "a constant"


def _has_twin(model: Stepper, other: Stepper, step: Step) -> bool:
    twin = other.producers.get(next(filter(None, step.node.output)))
    return twin is not None and step.is_like(twin) and model.same_constants(step, other, twin)
