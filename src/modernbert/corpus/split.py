"""A corpus in two: what a model learns from, and a small part that it never sees and is measured on.

Which part a document falls into depends on its place in the shards alone, so that every run on the same
shards holds back the same documents.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from modernbert.errors import CorpusError

# An odd number of 64 bits spreads neighbours far apart (Knuth's multiplicative hashing, by the golden ratio).
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_LEAST_TO_SHARE = 10


class Documents(Protocol):
    """Documents of several sources as token ids: opened shards, or a part of them."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The names, sorted."""
        ...

    def lengths(self, source: str) -> np.ndarray:
        """Tokens of each document, int64 [documents]."""
        ...

    def tokens(self, source: str, document: int, start: int, end: int) -> np.ndarray:
        """Tokens [start, end) of a document, int64."""
        ...

    def describe(self, source: str, document: int) -> str:
        """Where the document came from."""
        ...


class Part:
    """The documents of another that `chosen` names by source."""

    def __init__(self, documents: Documents, chosen: dict[str, np.ndarray]) -> None:
        self._documents = documents
        self._chosen = {source: indices for source, indices in chosen.items() if len(indices)}

    @property
    def sources(self) -> tuple[str, ...]:
        """Those of which any document is here."""
        return tuple(sorted(self._chosen))

    def lengths(self, source: str) -> np.ndarray:
        """Tokens of each document, int64 [documents]."""
        return self._documents.lengths(source)[self._chosen[source]]

    def tokens(self, source: str, document: int, start: int, end: int) -> np.ndarray:
        """Tokens [start, end) of a document, int64."""
        return self._documents.tokens(source, int(self._chosen[source][document]), start, end)

    def describe(self, source: str, document: int) -> str:
        """Where the document came from."""
        return self._documents.describe(source, int(self._chosen[source][document]))


def hold_back(documents: Documents, share: float) -> tuple[Part, Part | None]:
    """The part to learn from, and about this share of each source's documents, held back; None if too few.

    A source of ten documents or more gives at least one of them, unless `share` is 0; it lies between 0 and
    0.5.
    """
    if not 0.0 <= share <= 0.5:
        raise CorpusError(f"the share to hold back must lie between 0 and 0.5, found {share}")
    learned: dict[str, np.ndarray] = {}
    held: dict[str, np.ndarray] = {}
    for source in documents.sources:
        indices = np.arange(len(documents.lengths(source)), dtype=np.uint64)
        drawn = (indices + np.uint64(1)) * _SPREAD  # wraps round
        order = np.argsort(drawn, kind="stable")
        least = 1 if share and len(indices) >= _LEAST_TO_SHARE else 0
        num_held = max(least, round(share * len(indices))) if len(indices) > 1 else 0
        held[source] = np.sort(order[:num_held])
        learned[source] = np.sort(order[num_held:])
    part = Part(documents, held)
    return Part(documents, learned), part if part.sources else None
