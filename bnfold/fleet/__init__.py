"""Many models: which, where to, by whom, and what became of each.

- `sources` finds the models, `targets` says where each goes, `places` are paths and URLs alike.
- A `task` is the work on one model as plain data, `work` does it, with `remote` for URLs and a
  `record` of what is up to date; its `outcome` is a report or an error.
- A `child` is a process that may die of a model. `processes` are several of them on this machine,
  a `cluster` has them on its workers (`on_worker`).
"""
