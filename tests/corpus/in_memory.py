"""Documents that stand in for shards: their tokens tell which document they are from, and where in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

FIRST_ID = 10
PLACES = 100_000  # more than any document here has tokens


class InMemory:
    """Documents of these lengths, by source."""

    def __init__(self, lengths: Mapping[str, Sequence[int]]) -> None:
        self._lengths = {source: np.array(each, dtype=np.int64) for source, each in lengths.items()}
        self.sources = tuple(sorted(lengths))

    def lengths(self, source: str) -> np.ndarray:
        return self._lengths[source]

    def tokens(self, source: str, document: int, start: int, end: int) -> np.ndarray:
        assert 0 <= start < end <= self._lengths[source][document]
        number = self.sources.index(source) * 1_000_000 + document
        return FIRST_ID + number * PLACES + np.arange(start, end)

    def describe(self, source: str, document: int) -> str:
        return f"{source}, document {document}"


def lognormal(num_documents: int, *, median: int, sigma: float, seed: int = 0) -> list[int]:
    """Lengths as texts have them: many short ones and a few very long."""
    drawn = np.random.default_rng(seed).lognormal(np.log(median), sigma, num_documents)
    return np.clip(drawn, 1, PLACES - 1).astype(np.int64).tolist()
