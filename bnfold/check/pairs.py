"""A reference and a candidate on one provider, and what makes each of them ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bnfold.check.model import Array, Model
from bnfold.check.sessions import (
    LEVELS,
    REFERENCE_EVALUATOR,
    OrtRunner,
    ReferenceRunner,
    RunError,
    Runner,
    invalid,
    runtime_name,
)
from bnfold.errors import ModelError

__all__ = ["NOT_COMPARABLE", "Pair", "open_pair"]

NOT_COMPARABLE = "what cannot run cannot be compared; --no-check folds without a proof"


@dataclass(frozen=True)
class Pair:
    """Both models on one provider.

    Attributes:
        reference: The original.
        candidate: What is to be proved equal to it.
        provider: Execution provider, or ``onnx.reference``.
        truth: The reference at the first level, ready to run.
        refusal: Why the runtime does not run the reference, so that the evaluator does; or None.
    """

    reference: Model
    candidate: Model
    provider: str
    truth: Runner
    refusal: str | None = None

    @property
    def levels(self) -> tuple[str, ...]:
        """The optimization levels; the reference evaluator optimizes nothing."""
        return LEVELS[:1] if self.provider == REFERENCE_EVALUATOR else LEVELS

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader has to know about how the models run."""
        if self.refusal is None:
            return ()
        return (
            f"{runtime_name()} cannot run the reference ({self.refusal}); the ONNX reference "
            "evaluator ran both models instead",
        )

    def open(
        self, model: Model, level: str, overrides: Mapping[str, Array] | None = None
    ) -> Runner:
        """Make a model ready on the provider.

        Raises:
            RunError: It cannot be made ready.
        """
        if self.provider == REFERENCE_EVALUATOR:
            # The evaluator runs much that is not valid: only a runtime would have said so.
            if model is self.candidate and invalid(self.reference) is None:
                why = invalid(model)
                if why is not None:
                    raise RunError(f"it is not a valid model: {why}")
            return ReferenceRunner(model, overrides)
        return OrtRunner(model, self.provider, level, overrides)


def open_pair(reference: Model, candidate: Model, provider: str) -> Pair:
    """Make the reference ready: by the runtime, else by the ONNX reference evaluator.

    Raises:
        ModelError: Neither of the two runs the reference.
    """
    try:
        return Pair(reference, candidate, provider, OrtRunner(reference, provider, LEVELS[0]))
    except RunError as error:
        try:
            evaluator = ReferenceRunner(reference)
        except RunError:
            raise ModelError(
                f"{reference.label}: the original itself does not run on {provider}: {error}",
                hint=NOT_COMPARABLE,
            ) from error
        return Pair(reference, candidate, REFERENCE_EVALUATOR, evaluator, str(error))
