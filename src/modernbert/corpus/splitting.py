"""Rows in parts: some to learn from, some to choose by, some to test with; the same for the same seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np

from modernbert.errors import CorpusError


def split(
    labels: Sequence[str] | None,
    shares: Sequence[float],
    seed: int,
    *,
    num_rows: int,
    groups: Sequence[str] | None = None,
) -> list[np.ndarray]:
    """Row numbers of each part, sorted, int64; `shares` sum to 1, and the first part is the one to learn from.

    Each label has its share in each part, to the nearest row, and a label of few rows is in the first part
    before any other. Rows of one group (the same text, say) go to one part, and count for the label of the
    first of them. CorpusError where a part with a share above 0 would be empty.
    """
    if min(shares) < 0 or not math.isclose(sum(shares), 1.0):
        raise CorpusError(f"shares of a split are not negative and sum to 1, found {list(shares)}")
    draw = np.random.Generator(np.random.PCG64DXSM(seed))
    parts: list[list[int]] = [[] for _ in shares]
    strata = _strata(labels, num_rows, groups)
    wanted = np.zeros(len(shares))
    for label in sorted(strata):
        members = strata[label]
        num_of_label = sum(map(len, members))
        # What earlier labels were given too much or too little is made up for by later ones.
        wanted += num_of_label * np.array(shares)
        room = _whole(wanted - [len(part) for part in parts], num_of_label)
        for place in draw.permutation(len(members)):
            rows = members[int(place)]
            part = int(np.argmax(room >= min(len(rows), room.max())))
            parts[part] += rows
            room[part] -= len(rows)
    for number, (share, part) in enumerate(zip(shares, parts, strict=True)):
        if share > 0 and not part:
            raise CorpusError(
                f"{num_rows} rows are too few to split: part {number + 1} of {len(parts)}, a share of "
                f"{share:.2f}, would be empty\nhint: give more rows, files of their own, or larger shares"
            )
    return [np.array(sorted(part), np.int64) for part in parts]
