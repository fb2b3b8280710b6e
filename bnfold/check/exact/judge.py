"""The second judge: do the two files say the same, whatever a runtime makes of them?

The outputs of a deep network on a runtime can hide a small fault: every rounding of float32 is
multiplied on its way to them, and what noise may do a fault may do. So where the outputs pass, both
models are compared part by part in float64 (:mod:`.parts`) on a few of the same feeds.

The judge convicts only on evidence that it can be trusted with: its evaluator has to compute, for
both models, what the runtime computes. It acquits where rounding decides by a jump, such as which
of two almost equal scores is the larger: if all parts agree, and from the same scores on both
models choose the same, the few choices that differ on the runtime are nobody's fault.

How much it may work is a number of multiplications, so that the same models get the same verdict on
every machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from bnfold.check.exact.evaluator import ExactRunner
from bnfold.check.exact.flow import reachable
from bnfold.check.exact.parts import PartChecker
from bnfold.check.feeds.draws import is_float
from bnfold.check.feeds.feed import Feed
from bnfold.check.models.model import Model
from bnfold.check.runtimes.sessions import RunError, Runner, Value
from bnfold.check.verdict.compare import Truth

__all__ = ["Objection", "excused", "object_to"]

# Multiplications for one evaluation of a model, and for all feeds but the first: ResNet-152 at
# 224 x 224 takes 1.2e10.
_WORK = 2.5e10
_WORK_OF_ALL = 3e10
_MAX_FEEDS = 4
# Elements of one weight: half a gigabyte in float64.
_LARGEST = 2**26
# A backstop in seconds, for operators whose cost is not foreseen.
_PATIENCE = 300.0


@dataclass(frozen=True)
class Objection:
    """What the judge found.

    Attributes:
        feed: On which feed.
        tensor: The first tensor, in the candidate's order, that does not follow from those before.
        node: The candidate's node that computes it.
        times: How many times what rounding explains it differs by.
        limit: How many times would have passed.
        outputs: Names of the outputs that depend on the tensor.
    """

    feed: Feed
    tensor: str
    node: str
    times: float
    limit: float
    outputs: frozenset[str]

    @property
    def sentence(self) -> str:
        """What was found, for a report."""
        how = "has another shape or type, or other NaN or infinity"
        if math.isfinite(self.times):
            how = f"differs by {self.times:.3g} times what rounding its weights explains"
        return (
            f"the models differ inside: in float64, from the same values on, '{self.tensor}' "
            f"({self.node}) {how} ({self.limit:g} times would have passed)"
        )


def object_to(
    reference: Model,
    candidate: Model,
    feeds: Sequence[Feed],
    *,
    seed: int,
    runners: Callable[[], tuple[Runner, Runner]],
    neighbours: Callable[[Feed], Sequence[list[Value]]],
) -> Objection | None:
    """Look for a part of the candidate that is wrong.

    Args:
        reference: The original.
        candidate: What passes so far.
        feeds: On which it passes; the first few are used.
        seed: Where the random numbers of the neighbours start.
        runners: Makes reference and candidate ready on the runtime, unoptimized.
        neighbours: Gives the outputs of neighbours of the reference on the runtime.

    Returns:
        The first objection; None if there is none, or if the judge cannot say anything: types or
        operators that it does not know, too much work.
    """
    if not _within_reach(reference) or not _within_reach(candidate):
        return None
    deadline = time.monotonic() + _PATIENCE
    try:
        checker = PartChecker(reference, candidate, seed=seed, work=_WORK, deadline=deadline)
    except RunError:
        return None
    left = _WORK_OF_ALL
    for index, feed in enumerate(feeds[:_MAX_FEEDS]):
        if index and checker.work > left:
            break
        try:
            found = checker.disagreements(feed)
            if found and _trusted(reference, candidate, feed, runners(), neighbours(feed)):
                outputs = reachable(candidate.graph, [part.tensor for part in found])
                first = found[0]
                if outputs:
                    return Objection(
                        feed, first.tensor, first.node, first.times, first.limit, outputs
                    )
        except RunError:
            continue
        left -= checker.work
    return None


def excused(reference: Model, candidate: Model, feed: Feed, *, seed: int) -> frozenset[str]:
    """Return the outputs behind jumps that are the same in both models, as far as files say.

    Args:
        reference: The original.
        candidate: What differs from it on the runtime.
        feed: On which feed.
        seed: Where the random numbers of the neighbours start.
    """
    if not _within_reach(reference) or not _within_reach(candidate):
        return frozenset()
    deadline = time.monotonic() + _PATIENCE
    try:
        checker = PartChecker(reference, candidate, seed=seed, work=_WORK, deadline=deadline)
        if checker.disagreements(feed):
            return frozenset()
    except RunError:
        return frozenset()
    return frozenset(spec.name for spec in reference.outputs if spec.name in checker.agreeing)


def _within_reach(model: Model) -> bool:
    """True unless the model is in float64 itself, or has a weight that is large in float64."""
    graph = model.graph
    sizes = {tensor.data_type: 0 for tensor in graph.initializer}
    for tensor in graph.initializer:
        sizes[tensor.data_type] = max(sizes[tensor.data_type], math.prod(tensor.dims))
    types = {kind for kind, size in sizes.items() if size > 1}
    types.update(spec.elem_type for spec in model.inputs)
    doubles = {onnx.TensorProto.DOUBLE, onnx.TensorProto.COMPLEX128}
    return not types & doubles and max(sizes.values(), default=0) <= _LARGEST


def _trusted(
    reference: Model,
    candidate: Model,
    feed: Feed,
    runners: tuple[Runner, Runner],
    neighbours: Sequence[list[Value]],
) -> bool:
    """True if the evaluator computes what the runtime computes, for both models."""
    truths: list[Truth] = []
    for model, runner in zip((reference, candidate), runners, strict=True):
        found = runner.run(feed.arrays)
        exact = ExactRunner(model).run(feed.arrays)
        if not truths:
            truths = [Truth(value) for value in found]
            for outputs in neighbours:
                for truth, value in zip(truths, outputs, strict=True):
                    truth.add_neighbour(value)
        for truth, value, double in zip(truths, found, exact, strict=True):
            if isinstance(value, np.ndarray) and is_float(value.dtype):
                with np.errstate(all="ignore"):
                    rounded = np.asarray(double).astype(value.dtype)
                if not truth.rebased(value).compare(rounded).equivalent:
                    return False
    return True
