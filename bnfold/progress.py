"""What a long operation tells while it runs."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "Step"]


class Step(str):
    """What is being done, in a few words.

    Args:
        text: The words.
        done: How many of the steps are behind, or None where steps cannot be counted.
        total: How many steps there are.
    """

    done: int | None
    total: int | None

    def __new__(cls, text: str, done: int | None = None, total: int | None = None) -> Step:  # noqa: D102
        step = super().__new__(cls, text)
        step.done, step.total = done, total
        return step

    def __reduce__(self) -> tuple[type[Step], tuple[str, int | None, int | None]]:
        return Step, (str(self), self.done, self.total)


Progress = Callable[[str], None]
"""Called with each :class:`Step`; to whom steps do not matter, it is a plain string."""
