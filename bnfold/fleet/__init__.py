"""Many models: which, where to, by whom, and what became of each.

`sources` finds the models, `targets` says where each goes, and a `task` is the work on one of them
as plain data.
"""
