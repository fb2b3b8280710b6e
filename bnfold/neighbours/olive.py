"""A fold as a pass of Olive (``olive-ai``), between its other passes.

Olive finds the pass through a package configuration (:func:`package_config`)::

    from olive.workflows import run
    from bnfold.neighbours.olive import package_config

    run(workflow, package_config=package_config())

with ``{"passes": {"fold": {"type": "FoldBatchNorm"}}}`` in the workflow.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bnfold.errors import MissingPackageError
from bnfold.pipeline import optimize
from bnfold.store.load import external_locations

try:
    from olive.model import ONNXModelHandler
    from olive.model.utils import resolve_onnx_path
    from olive.package_config import OlivePackageConfig
    from olive.passes import Pass
    from olive.passes.pass_config import PassConfigParam
except ModuleNotFoundError as error:
    raise MissingPackageError(
        f"a pass of Olive needs the package '{error.name}', which is not installed",
        hint="pip install olive-ai",
    ) from error

__all__ = ["FoldBatchNorm", "package_config"]


class FoldBatchNorm(Pass):  # type: ignore[misc]  # Olive has no types
    """Fold the batch normalizations of an ONNX model, and prove that it computes the same."""

    @classmethod
    def _default_config(cls, accelerator_spec: Any) -> dict[str, PassConfigParam]:
        def param(type_: Any, default: Any, description: str) -> PassConfigParam:
            return PassConfigParam(type_=type_, default_value=default, description=description)

        return {
            "check": param(bool, True, "Prove the result on the provider of the workflow."),
            "keep": param(list[str], [], "Globs of the sites to leave alone."),
            "freeze_initializers": param(
                bool, False, "Take initializers that a caller could override for constants."
            ),
            "merge": param(bool, True, "Merge linear operators that are added or consecutive."),
            "ones_channel": param(bool, False, "Fold in front of padded convolutions too."),
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: Any, output_model_path: str
    ) -> ONNXModelHandler:
        source = Path(model.model_path)
        target = Path(resolve_onnx_path(output_model_path, source.name))
        optimize(
            source,
            target,
            providers=self.accelerator_spec.execution_provider or "cpu",
            **{name: getattr(config, name) for name in self._default_config(None)},
        )
        if external_locations(target):  # Olive keeps a model and its data together as a folder
            return ONNXModelHandler(model_path=str(target.parent), onnx_file_name=target.name)
        return ONNXModelHandler(model_path=str(target))


def package_config() -> dict[str, Any]:
    """Return Olive's own package configuration with ``FoldBatchNorm`` in it."""
    own = OlivePackageConfig.get_default_config_path()
    config: dict[str, Any] = json.loads(Path(own).read_text(encoding="utf-8"))
    everywhere = ["*"]
    config["passes"]["FoldBatchNorm"] = {
        "module_path": f"{FoldBatchNorm.__module__}.{FoldBatchNorm.__qualname__}",
        "supported_providers": everywhere,
        "supported_accelerators": everywhere,
        "supported_precisions": everywhere,
    }
    return config
