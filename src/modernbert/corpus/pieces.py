"""Documents as pieces that fit into one sequence, and the order in which they come.

A document longer than a sequence is cut into pieces of the most tokens that fit and a last one of the rest:
nothing is left out. The pieces of a source are shuffled, not its documents: otherwise a book of a hundred
pieces would fill a hundred places with one author's words, and an order that is not quite by chance is what
made ModernBERT's loss diverge (Warner et al. 2024, arXiv 2412.13663, appendix C.1). Their remedy is ours: a
true permutation by PCG64DXSM, a new one every epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AT_ONCE = 1024  # pieces looked up together, as a lookup costs more than a piece


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Tokens [start, end) of a document; special tokens go around them."""

    source: str
    document: int
    start: int
    end: int


@final
class PieceTable:
    """All pieces of some documents of a source, numbered; those of one document follow each other.

    `name` tells this table from others of the same source, `documents` are the documents' numbers there.
    """

    def __init__(
        self, *, name: str, source: str, documents: NDArray[Any], lengths: NDArray[Any], max_tokens: int
    ) -> None:
        self.name = name
        self._source = source
        self._documents = _smallest(documents)
        self._lengths = _smallest(lengths)
        self._max_tokens = max_tokens
        counts = -(-lengths.astype(np.int64) // max_tokens)
        self._firsts = np.concatenate([[0], np.cumsum(counts)])  # number of the first piece of each document
        self.num_tokens = int(lengths.sum(dtype=np.int64))

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def pieces(self, numbers: NDArray[Any] | Sequence[int]) -> list[Piece]:
        """The pieces of these numbers, in their order."""
        wanted = np.asarray(numbers, dtype=np.int64)
        rows = np.searchsorted(self._firsts, wanted, side="right") - 1
        starts = (wanted - self._firsts[rows]) * self._max_tokens
        ends = np.minimum(starts + self._max_tokens, self._lengths[rows].astype(np.int64))
        found = zip(self._documents[rows].tolist(), starts.tolist(), ends.tolist(), strict=True)
        return [
            Piece(source=self._source, document=document, start=start, end=end)
            for document, start, end in found
        ]


@final
class PieceOrder:
    """Draws the numbers of a table's pieces, each once an epoch, epoch after epoch without end.

    What is drawn next follows from the seed, the table's name, `epoch` and `position` alone.
    """

    def __init__(self, table: PieceTable, *, seed: int, epoch: int = 0, position: int = 0) -> None:
        self.table = table
        self.epoch = epoch
        self.position = position
        self._seed = seed
        self._permutation = permutation(len(table), seed, table.name, epoch)
        self._ahead: list[tuple[int, Piece]] = []  # the next to be drawn is the last

    def draw(self) -> tuple[int, Piece]:
        """The next piece and its number."""
        if not self._ahead:
            self._look_ahead()
        self.position += 1
        return self._ahead.pop()

    def _look_ahead(self) -> None:
        if self.position == len(self.table):
            self.epoch += 1
            self.position = 0
            self._permutation = permutation(len(self.table), self._seed, self.table.name, self.epoch)
        numbers = self._permutation[self.position : self.position + _AT_ONCE]
        self._ahead = list(zip(numbers.tolist(), self.table.pieces(numbers), strict=True))[::-1]


def permutation(count: int, seed: int, name: str, epoch: int) -> NDArray[Any]:
    """The numbers below `count`, shuffled, in the smallest dtype that holds them, [count]."""
    words = (seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]), epoch)
    generator = np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(words)))
    numbers = np.arange(count, dtype=_smallest_dtype(count))
    generator.shuffle(numbers)
    return numbers


def _smallest(numbers: NDArray[Any]) -> NDArray[Any]:
    return numbers.astype(_smallest_dtype(int(numbers.max(initial=0))))


def _smallest_dtype(largest: int) -> type[np.unsignedinteger[Any]] | type[np.int64]:
    fitting = (kind for kind in (np.uint8, np.uint16, np.uint32) if largest <= np.iinfo(kind).max)
    return next(fitting, np.int64)
