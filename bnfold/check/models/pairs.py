"""A reference and a candidate on one provider, and what makes each of them ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bnfold.check.models.model import Array, Model
from bnfold.check.runtimes.installed import runtime_name
from bnfold.check.runtimes.providers import CPU, provider_name
from bnfold.check.runtimes.resident import LARGE, RenewedRunner, Residents
from bnfold.check.runtimes.sessions import (
    REFERENCE_EVALUATOR,
    UNOPTIMIZED,
    OrtRunner,
    ReferenceRunner,
    RunError,
    Runner,
    invalid,
)
from bnfold.errors import ModelError, ProviderError

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
        deployment: The optimization level at which the models will be deployed.
        refusal: Why the runtime does not run the reference, so that the evaluator does; or None.
        residents: The sessions of models that are too large for one session beside the other.
    """

    reference: Model
    candidate: Model
    provider: str
    truth: Runner
    deployment: str
    refusal: str | None = None
    residents: Residents = field(default_factory=Residents, repr=False)

    @property
    def levels(self) -> tuple[str, ...]:
        """The optimization levels; the reference evaluator optimizes nothing."""
        if self.provider == REFERENCE_EVALUATOR or self.deployment == UNOPTIMIZED:
            return (UNOPTIMIZED,)
        return (UNOPTIMIZED, self.deployment)

    @property
    def nodes(self) -> dict[str, int] | None:
        """Number of nodes of the reference by provider, or None where it is not known."""
        return self.truth.nodes if isinstance(self.truth, OrtRunner | RenewedRunner) else None

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
        return _runner(self.residents, model, self.provider, level, overrides)


def _runner(
    residents: Residents,
    model: Model,
    provider: str,
    level: str,
    overrides: Mapping[str, Array] | None = None,
) -> OrtRunner | RenewedRunner:
    if model.nbytes >= LARGE:
        return RenewedRunner(residents, model, provider, level, overrides)
    return OrtRunner(model, provider, level, overrides)


def open_pair(reference: Model, candidate: Model, provider: str, deployment: str) -> Pair:
    """Make the reference ready: by the runtime, else by the ONNX reference evaluator.

    Args:
        reference: The original.
        candidate: What is to be proved equal to it.
        provider: From :func:`bnfold.check.runtimes.providers.resolve_provider`.
        deployment: Optimization level of the deployment.

    Raises:
        ModelError: Neither of the two runs the reference.
    """
    residents = Residents()
    try:
        truth = _runner(residents, reference, provider, UNOPTIMIZED)
        return Pair(reference, candidate, provider, truth, deployment, residents=residents)
    except RunError as error:
        if provider_name(provider) != CPU:
            raise ProviderError(
                f"{reference.label}: the original does not run on {provider}: {error}",
                hint="use --provider cpu for this model",
            ) from error
        try:
            evaluator = ReferenceRunner(reference)
        except RunError:
            raise ModelError(
                f"{reference.label}: the original itself does not run on {provider}: {error}",
                hint=NOT_COMPARABLE,
            ) from error
        return Pair(reference, candidate, REFERENCE_EVALUATOR, evaluator, UNOPTIMIZED, str(error))
