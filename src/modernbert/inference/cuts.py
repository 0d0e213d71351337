"""The warning of texts that were cut. It carries its counts, so that a run of many batches tells one total.

Imports nothing heavy: the command line looks at it before a model is loaded.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence


class CutWarning(UserWarning):
    """So many of so many texts lost so many tokens at their end."""

    def __init__(self, *, num_cut: int, num_texts: int, limit: int, num_tokens: int) -> None:
        super().__init__(
            f"{num_cut} of {num_texts} texts were cut to {limit} tokens; {num_tokens} tokens were left out"
        )
        self.num_cut = num_cut
        self.num_texts = num_texts
        self.limit = limit
        self.num_tokens = num_tokens


class Cuts:
    """What the windows of one call were cut, told as one warning when `tell` is called."""

    def __init__(self) -> None:
        self._num_cut = self._num_texts = self._num_tokens = 0
        self._limit: int | None = None

    def add(self, cut: CutWarning | None, num_texts: int) -> None:
        """Count a window of so many texts, with what was cut of them."""
        self._num_texts += num_texts
        if cut is not None:
            self._num_cut += cut.num_cut
            self._num_tokens += cut.num_tokens
            self._limit = cut.limit

    def tell(self) -> bool:
        """Warn the caller of what was counted, if any of it was cut, and begin at 0 again; whether it was."""
        if self._limit is None:
            return False
        warning = CutWarning(
            num_cut=self._num_cut, num_texts=self._num_texts, limit=self._limit, num_tokens=self._num_tokens
        )
        self._num_cut = self._num_texts = self._num_tokens = 0
        self._limit = None
        _warn_caller(warning)
        return True


def told_as_one(cuts: Sequence[CutWarning]) -> str:
    """What the warnings of one run say together."""
    num_cut, num_tokens = sum(cut.num_cut for cut in cuts), sum(cut.num_tokens for cut in cuts)
    limits = ", ".join(map(str, sorted({cut.limit for cut in cuts})))
    return f"texts cut to {limits} tokens: {num_cut}; {num_tokens} tokens were left out"


def _warn_caller(warning: Warning) -> None:
    """Warn at the line outside this package that asked, however many calls lie between, and at every call:
    Python's default filter tells the same words of the same line once only, which would hide later cuts.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("modernbert."):
        frame = frame.f_back
    place = ("modernbert", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)
    warnings.warn_explicit(warning, type(warning), *place, registry=None)
