"""Options from a file and from the environment.

The nearest ``bnfold.toml``, or ``pyproject.toml`` with a table ``[tool.bnfold]``, gives options for
every verb, for single verbs and for single models. What can be configured is what the commands
take: their click options are the schema.

`find` has the file, `layers` what it sets, `values` one value of it, `models` which models a table
means, `names` what options are called.
"""
