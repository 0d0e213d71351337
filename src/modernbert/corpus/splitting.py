"""Rows in parts: some to learn from, some to choose by, some to test with; the same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from modernbert.corpus.digests import digest_blocks, digests
from modernbert.errors import CorpusError


def split(
    labels: Sequence[str] | None,
    shares: Sequence[float],
    seed: int,
    *,
    num_rows: int,
    groups: Iterable[str] | None = None,
) -> list[np.ndarray]:
    """Row numbers of each part, sorted, int64; `shares` sum to 1, and the first part is to learn from.

    Each label has its share in each part, to a row or two, and all together have theirs; the first part has
    some of every label. Rows of one group (the same text, say) go to one part, and count for the label of the
    first of them. Memory holds a few numbers a row, whatever `groups` yields. CorpusError where a part with a
    share above 0 would be empty.
    """
    if min(shares) < 0 or shares[0] == 0 or not math.isclose(sum(shares), 1.0):
        raise CorpusError(f"shares of a split sum to 1, and the first is above 0; found {list(shares)}")
    first_of_group, group_of_row = _grouped(groups, num_rows)
    sizes = np.bincount(group_of_row, minlength=len(first_of_group))
    draw = np.random.Generator(np.random.PCG64DXSM(seed))
    part_of_group = np.zeros(len(first_of_group), np.int64)
    carried = np.zeros(len(shares))
    for members in _strata(labels, first_of_group):
        members = members[draw.permutation(len(members))]
        total = int(sizes[members].sum())
        wanted = total * np.array(shares) + carried
        bounds = np.cumsum(_whole(wanted, total, np.array(shares)))
        middles = np.cumsum(sizes[members]) - sizes[members] / 2
        found = np.searchsorted(bounds, middles, side="right")
        found[0] = 0  # whatever is tested was learned
        part_of_group[members] = found
        given = np.bincount(found, sizes[members], minlength=len(shares))
        # Labels of a few rows leave too much or too little, which the next label makes up for.
        carried = np.clip(wanted - given, -1, 1)
    part_of_row = part_of_group[group_of_row]
    parts = [np.flatnonzero(part_of_row == part) for part in range(len(shares))]
    for number, (share, part) in enumerate(zip(shares, parts, strict=True)):
        if share > 0 and not len(part):
            alike = f", {len(sizes)} of them different," if len(sizes) < num_rows else ""
            raise CorpusError(
                f"{num_rows} rows{alike} are too few to split: part {number + 1} of {len(parts)}, a share of "
                f"{share:.2f}, would be empty\nhint: give more rows, files of their own, or larger shares"
            )
    return parts


def num_shared(learned: Iterable[str], held: Iterable[str]) -> int:
    """How many of the `held` texts stand in `learned` too, but for case and blanks; 8 bytes a text."""
    seen = np.unique(digests(map(normalised, learned)))
    if not len(seen):
        return 0
    return sum(int(np.isin(each, seen).sum()) for each in digest_blocks(map(normalised, held)))


def normalised(text: str) -> str:
    """The text without what makes no other text of it: case, and how many blanks stand where."""
    return " ".join(text.lower().split())


def _grouped(groups: Iterable[str] | None, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each group [G], in the order of the rows, and the group of each row [rows]."""
    if groups is None:
        return np.arange(num_rows), np.arange(num_rows)
    found = digests(groups)
    if len(found) != num_rows:
        raise CorpusError(f"{len(found)} groups for {num_rows} rows; each row has one")
    _, first, group_of_row = np.unique(found, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[group_of_row]


def _strata(labels: Sequence[str] | None, first_of_group: np.ndarray) -> Iterator[np.ndarray]:
    """The groups of each label, in the order of the labels' names."""
    if labels is None:
        if len(first_of_group):
            yield np.arange(len(first_of_group))
        return
    of_label: dict[str, list[int]] = {}
    for group, row in enumerate(first_of_group.tolist()):
        of_label.setdefault(labels[int(row)], []).append(group)
    for label in sorted(of_label):
        yield np.array(of_label[label])


def _whole(wanted: np.ndarray, total: int, shares: np.ndarray) -> np.ndarray:
    """Whole numbers near `wanted` that sum to `total`: the largest remainders are rounded up."""
    counts = np.floor(np.maximum(wanted, 0)).astype(np.int64)
    while (missing := total - int(counts.sum())) != 0:
        step = 1 if missing > 0 else -1
        may_change = shares > 0 if step > 0 else counts > 0
        counts[np.argmax(np.where(may_change, step * (wanted - counts), -np.inf))] += step
    return counts
