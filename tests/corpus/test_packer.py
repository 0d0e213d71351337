from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from modernbert.corpus.packer import Packer

ROW = 50


def filled(lengths: list[int], row_tokens: int = ROW) -> Packer[tuple[int, int]]:
    """A packer of items that know their number and length."""
    packer: Packer[tuple[int, int]] = Packer(row_tokens)
    for item in enumerate(lengths):
        packer.add(item, item[1])
    return packer


def all_rows(packer: Packer) -> list[list]:
    rows = []
    while len(packer):
        rows.append(packer.row())
    return rows


def test_rows_are_as_the_picture_says():
    rows = all_rows(filled([6, 2, 5, 3, 4, 1], row_tokens=10))
    assert [[length for _, length in row] for row in rows] == [[6, 4], [2, 5, 3], [1]]


@given(st.lists(st.integers(1, ROW), max_size=60))
def test_every_item_is_in_one_row_and_no_row_is_too_full(lengths):
    rows = all_rows(filled(lengths))
    assert all(sum(length for _, length in row) <= ROW for row in rows)
    assert Counter(item for row in rows for item in row) == Counter(enumerate(lengths))


@given(st.lists(st.integers(1, ROW), min_size=1, max_size=60))
def test_a_row_begins_with_the_oldest_and_leaves_nothing_that_would_fit(lengths):
    packer = filled(lengths)
    while len(packer):
        oldest = packer.items()[0]
        waited = packer.num_tokens
        row = packer.row()
        assert row[0] == oldest
        taken = sum(length for _, length in row)
        assert packer.num_tokens == waited - taken
        assert all(length > ROW - taken for _, length in packer.items())
        for place in range(
            1, len(row)
        ):  # what came next was the largest that fitted, the oldest of its length
            room = ROW - sum(length for _, length in row[:place])
            others = [*row[place + 1 :], *packer.items()]
            number, length = row[place]
            assert all(other < length or each > number for each, other in others if length <= other <= room)


@given(st.lists(st.integers(1, ROW), max_size=60), st.integers(0, 20))
def test_only_the_order_of_arrival_counts(lengths, num_rows):
    packer = filled(lengths)
    for _ in range(min(num_rows, len(packer))):
        if len(packer):
            packer.row()
    again: Packer[tuple[int, int]] = Packer(ROW)
    for item in packer.items():
        again.add(item, item[1])
    assert again.num_tokens == packer.num_tokens
    assert all_rows(again) == all_rows(packer)


def test_nothing_waits_longer_than_those_before_it():
    packer = filled([30] * 20)  # of which no two fit together
    waiting = len(packer)
    packer.add((-1, 21), 21)
    for _ in range(200):  # small ones, always a better fit, keep coming
        if (-1, 21) in packer.row():
            break
        waiting -= 1
        packer.add((0, 20), 20)
    assert waiting >= 0
