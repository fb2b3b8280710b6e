"""Coverage-guided fuzzing of everything that reads a file: see ``docs/guarantees.md``.

``targets.py`` has one function for each reader, ``corpus/`` the inputs that they began with and
those that found something new. ``python -m fuzz TARGET --minutes 10`` goes on from there; the suite
replays the corpus (``tests/hostile/test_corpus.py``).
"""
