"""All feeds of a check, one after the other: a caller's own first, then drawn ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from bnfold.check.data import load_feeds
from bnfold.check.feeds.drawing import random_feeds
from bnfold.check.feeds.feed import Feed, sizes_of
from bnfold.check.feeds.hints import Hints
from bnfold.check.models.model import ValueSpec
from bnfold.check.request import Request
from bnfold.errors import InputError

__all__ = ["FeedSource"]


class FeedSource(Iterable[Feed]):
    """Feeds that are read or drawn when their turn comes, anew for each iteration.

    Nothing is drawn, and no sizes are searched, where ``samples`` feeds are given. Where a caller's
    own feeds are there, drawing may fail: data is what a caller gives where nothing can be drawn.

    Args:
        request: Which data, how many samples, and the seed.
        specs: Inputs, with the sizes that a caller asks for.
        output_specs: Outputs as declared.
        hints: Advice, from :func:`bnfold.check.feeds.hints.find_hints`.
        attempt: Runs the reference; returns None, or why it failed.
        quick: True for a slow runtime.
        translate: What to raise in place of the error that says that nothing can be drawn.

    Raises:
        InputError: While iterating: data that cannot be used, or without data, inputs that cannot
            be drawn.
    """

    def __init__(
        self,
        request: Request,
        specs: Sequence[ValueSpec],
        output_specs: Sequence[ValueSpec],
        hints: Hints,
        attempt: Callable[[Feed], str | None],
        *,
        quick: bool = False,
        translate: Callable[[InputError], InputError] = lambda error: error,
    ) -> None:
        self._request = request
        self._specs = specs
        self._output_specs = output_specs
        self._hints = hints
        self._attempt = attempt
        self._quick = quick
        self._translate = translate
        self._total = request.samples or 0
        self._found: Sequence[Feed] | None = None

    def __length_hint__(self) -> int:
        """How many feeds there will be in all, as far as is known; 0 where it is not."""
        return self._total

    def __iter__(self) -> Iterator[Feed]:
        count = 0
        specs = self._specs
        request = self._request
        given = load_feeds(
            request.data,
            specs,
            self._output_specs,
            loader=request.loader,
            samples=request.samples,
        )
        for feed in given:
            if count == 0:
                specs = sizes_of(feed, specs)
            count += 1
            yield feed
        if self._found is None:
            self._found = self._drawn(specs, count)
        self._total = count + len(self._found)
        yield from self._found

    def _drawn(self, specs: Sequence[ValueSpec], count: int) -> Sequence[Feed]:
        samples = None if self._request.samples is None else self._request.samples - count
        if samples == 0:
            return []
        try:
            return random_feeds(
                specs,
                self._hints,
                self._request.seed,
                self._attempt,
                quick=self._quick,
                samples=samples,
            )
        except InputError as error:
            if count:
                return []
            raise self._translate(error) from error
