"""Options from a file and from the environment.

The nearest ``bnfold.toml``, or ``pyproject.toml`` with a table ``[tool.bnfold]``, gives options for
every verb, for single verbs and for single models. What can be configured is what the commands
take: their click options are the schema.
"""

from bnfold.config.find import find_file, read_document
from bnfold.config.layers import Configuration, Setting, read_configuration
from bnfold.config.names import (
    COMMAND_LINE_ONLY,
    configurable,
    environment_names,
    key_of,
    unknown_variables,
)

__all__ = [
    "COMMAND_LINE_ONLY",
    "Configuration",
    "Setting",
    "configurable",
    "environment_names",
    "find_file",
    "key_of",
    "read_configuration",
    "read_document",
    "unknown_variables",
]
