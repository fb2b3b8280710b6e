"""The fixtures of the command line serve here too."""

from tests.cli.conftest import digits, run, wrong_fold

__all__ = ["digits", "run", "wrong_fold"]
