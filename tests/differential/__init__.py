"""Attacks the folds with random legal models: ``python -m tests.differential --minutes 10``.

Every model is folded, and every promise of a fold is tested: ``attack.py``. Two evaluations say
what a model computes, neither of which shares code with bnfold: ``opinions.py``. What fails is made
small (``shrink.py``) and written to ``cases/`` (``saved.py``), which the suite replays.
"""

from tests.differential.attack import Different, Outcome, attack

__all__ = ["Different", "Outcome", "attack"]
