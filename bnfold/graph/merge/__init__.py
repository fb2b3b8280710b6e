"""Merges: linear operators that are added, or follow one another, become one operator.

``parallel.py``, ``series.py`` and ``remainder.py`` plan, ``merger.py`` goes through a model. Below
them: ``trees.py`` (additions), ``branches.py`` (runs of linear nodes), ``readers.py`` (one table:
what each operator is as a linear one), ``operators.py`` and ``windows.py`` (the mathematics),
``cost.py`` (whether it pays), ``emit.py`` (the edits).
"""
