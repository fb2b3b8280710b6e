"""A report in the forms that people and programs read, all made from the one dictionary.

The dictionary is what ``--json`` prints. Nothing here looks at anything else.
"""
