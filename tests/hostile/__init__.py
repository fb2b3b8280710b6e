"""Files that strangers made to break a reader: ``python -m tests.hostile --count 20000``.

``graphs.py`` and ``places.py`` have ONNX files and folders that are hostile by design,
``archives.py`` PyTorch files; ``mutate.py`` damages files at random, the same way for the same
seed. ``trial.py`` runs a verb on one of them in a process of its own and says which promise it
broke.
"""
