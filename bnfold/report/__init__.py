"""What bnfold found and did, as frozen values: the one source of JSON, tables and exit codes.

``to_dict()`` is the stable JSON form (``schema_version`` 1). Keys are only ever added within one
schema version.
"""

from bnfold.report.checks import (
    CheckReport,
    ExpectedComparison,
    LayerError,
    Localization,
    OracleOpinion,
    OutputComparison,
)
from bnfold.report.folds import BRANCH, REASONS, FoldReport, Reason, Verdict
from bnfold.report.schema import SCHEMA_VERSION, json_schema

__all__ = [
    "BRANCH",
    "REASONS",
    "SCHEMA_VERSION",
    "CheckReport",
    "ExpectedComparison",
    "FoldReport",
    "LayerError",
    "Localization",
    "OracleOpinion",
    "OutputComparison",
    "Reason",
    "Verdict",
    "json_schema",
]
