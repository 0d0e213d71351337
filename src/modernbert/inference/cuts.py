"""The warning of texts that were cut. It carries its counts, so that a run of many batches tells one total.

Imports nothing heavy: the command line looks at it before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence


class CutWarning(UserWarning):
    """So many of so many texts lost so many tokens at their end."""

    def __init__(self, *, num_cut: int, num_texts: int, limit: int, num_tokens: int) -> None:
        super().__init__(
            f"{num_cut} of {num_texts} texts were cut to {limit} tokens; {num_tokens} tokens were left out"
        )
        self.num_cut = num_cut
        self.limit = limit
        self.num_tokens = num_tokens


def told_as_one(cuts: Sequence[CutWarning]) -> str:
    """What the warnings of one run say together."""
    num_cut, num_tokens = sum(cut.num_cut for cut in cuts), sum(cut.num_tokens for cut in cuts)
    limits = ", ".join(map(str, sorted({cut.limit for cut in cuts})))
    return f"texts cut to {limits} tokens: {num_cut}; {num_tokens} tokens were left out"
