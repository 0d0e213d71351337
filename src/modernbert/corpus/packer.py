"""Filling rows of a fixed number of tokens from a buffer of items, wasting next to nothing.

Each row begins with the item that has waited longest, so that none waits for ever, and is filled with the
largest that still fits, again and again. With about a thousand items to choose from, nearly always one fits
well.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import Generic, TypeVar, final

Item = TypeVar("Item")


@final
class Packer(Generic[Item]):
    """A buffer of items with lengths of at most `row_tokens`, and the rows that it gives.

        row_tokens=10, waiting  6 2 5 3 4 1   (oldest first)
        rows                    [6 4] [2 5 3] [1]

    Only the order of arrival counts: adding `items()` to a new packer gives the same rows.
    """

    def __init__(self, row_tokens: int) -> None:
        self.row_tokens = row_tokens
        self.num_tokens = 0
        self._waiting: dict[int, tuple[Item, int]] = {}  # by number of arrival, oldest first
        self._by_length: list[
            tuple[int, int]
        ] = []  # (length, -arrival): of one length, the oldest is the last
        self._num_arrived = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: Item, length: int) -> None:
        """Let an item wait for its row."""
        assert length <= self.row_tokens
        self._waiting[self._num_arrived] = item, length
        insort(self._by_length, (length, -self._num_arrived))
        self._num_arrived += 1
        self.num_tokens += length

    def row(self) -> list[Item]:
        """Take the items of the next row out of the buffer, which must not be empty."""
        oldest, (_, length) = next(iter(self._waiting.items()))
        place = bisect_left(self._by_length, (length, -oldest))
        taken: list[Item] = []
        room = self.row_tokens
        while place >= 0:
            length, minus_arrival = self._by_length.pop(place)
            item, _ = self._waiting.pop(-minus_arrival)
            taken.append(item)
            room -= length
            place = bisect_right(self._by_length, (room, 1)) - 1
        self.num_tokens -= self.row_tokens - room
        return taken

    def items(self) -> list[Item]:
        """What waits, oldest first."""
        return [item for item, _ in self._waiting.values()]
