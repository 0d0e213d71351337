"""From lengths to packs: which sequences go through the model together."""

from __future__ import annotations

from collections.abc import Sequence


def pack_by_budget(lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Indices in packs of at most `budget_tokens` tokens, longest first, neighbours of like length.

    A sequence longer than the budget has a pack of its own. Every index is in one pack.

        pack_by_budget([3, 9, 4, 2], budget_tokens=8)    [[1], [2, 0], [3]]
    """
    packs: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not packs or lengths[index] > room:
            packs.append([])
            room = budget_tokens
        packs[-1].append(index)
        room -= lengths[index]
    return packs
