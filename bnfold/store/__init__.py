"""Model files. A model is a skeleton and a tensor store.

The skeleton is a small ModelProto, edited in place. The bytes of its big tensors stay in the mapped
file: `TensorStore.array` shows them, `TensorStore.attach` puts others in their place, and `save`
streams them from file to file. What was not touched is written byte for byte as it was.
"""

from __future__ import annotations

from bnfold.store.load import LoadedModel, from_bytes, load
from bnfold.store.save import Staged, save, stage, to_bytes
from bnfold.store.tensors import ArraySource, LazyTensor, TensorStore, iter_tensors

__all__ = [
    "ArraySource",
    "LazyTensor",
    "LoadedModel",
    "Staged",
    "TensorStore",
    "from_bytes",
    "iter_tensors",
    "load",
    "save",
    "stage",
    "to_bytes",
]
