"""Splits: shares of every label, groups whole, the same for a seed; texts on both sides."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.corpus.splitting import num_shared, split
from modernbert.errors import CorpusError


def test_every_label_has_its_share_in_every_part():
    labels = ["a"] * 100 + ["b"] * 50 + ["c"] * 10
    parts = split(labels, [0.8, 0.1, 0.1], 3, num_rows=160)
    assert sorted(np.concatenate(parts).tolist()) == list(range(160))
    counts = [Counter(labels[row] for row in part) for part in parts]
    assert counts == [{"a": 80, "b": 40, "c": 8}, {"a": 10, "b": 5, "c": 1}, {"a": 10, "b": 5, "c": 1}]


def test_a_rare_label_is_learned_before_it_is_tested():
    parts = split(["a"] * 30 + ["b"], [0.8, 0.2], 0, num_rows=31)
    assert 30 in parts[0]


def test_many_rare_labels_leave_every_part_its_share():
    labels = [str(row // 5) for row in range(750)]  # 150 labels of 5 rows
    parts = split(labels, [0.8, 0.1, 0.1], 11, num_rows=750)
    assert [len(part) for part in parts] == [600, 75, 75]
    assert {labels[row] for row in parts[0]} == set(labels), "each label is learned"


def test_a_label_of_one_row_is_learned_even_where_the_first_part_is_small():
    parts = split([str(row) for row in range(5)] + ["b"] * 100, [0.2, 0.4, 0.4], 0, num_rows=105)
    assert set(range(5)) <= set(parts[0].tolist())


@given(
    labels=st.lists(st.sampled_from("abcdefgh"), min_size=40, max_size=200),
    seed=st.integers(0, 2**32),
    num_groups=st.integers(30, 400),
)
@settings(max_examples=60, deadline=None)
def test_every_row_is_in_one_part_and_groups_are_whole(labels, seed, num_groups):
    groups = [str(hash((row, seed)) % num_groups) for row in range(len(labels))]
    parts = split(labels, [0.5, 0.3, 0.2], seed, num_rows=len(labels), groups=iter(groups))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    where = [{groups[row] for row in part} for part in parts]
    assert not where[0] & where[1]
    assert not where[0] & where[2]
    assert not where[1] & where[2]


def test_the_order_of_numpys_global_state_changes_nothing():
    np.random.seed(1)
    one = split(None, [0.5, 0.5], 4, num_rows=50)[0].tolist()
    np.random.seed(2)
    assert split(None, [0.5, 0.5], 4, num_rows=50)[0].tolist() == one


def test_a_split_is_the_same_on_every_machine():
    assert split(list("aabbaabb"), [0.5, 0.5], 7, num_rows=8)[0].tolist() == [2, 4, 5, 6]


@pytest.mark.parametrize("shares", [[0.5, 0.4], [0.0, 1.0], [1.2, -0.2]])
def test_shares_that_make_no_sense_are_refused(shares):
    with pytest.raises(CorpusError, match="shares of a split sum to 1"):
        split(None, shares, 0, num_rows=10)


def test_groups_of_another_number_than_rows_are_refused():
    with pytest.raises(CorpusError, match="2 groups for 3 rows"):
        split(None, [0.5, 0.5], 0, num_rows=3, groups=["a", "b"])


def test_a_seed_gives_one_split_and_another_seed_another():
    labels = ["a", "b"] * 50
    one, again, other = (split(labels, [0.5, 0.5], seed, num_rows=100)[0].tolist() for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_a_group_is_in_one_part():
    groups = [str(row // 4) for row in range(200)]
    parts = split(None, [0.7, 0.3], 5, num_rows=200, groups=groups)
    assert not {groups[row] for row in parts[0]} & {groups[row] for row in parts[1]}
    assert abs(len(parts[1]) - 60) <= 4


def test_too_few_rows_to_split_are_told():
    with pytest.raises(CorpusError, match=r"2 rows are too few to split: part 2 of 2, a share of 0.10"):
        split(None, [0.9, 0.1], 0, num_rows=2)
    with pytest.raises(CorpusError, match=r"30 rows, 1 of them different, are too few to split"):
        split(None, [0.9, 0.1], 0, num_rows=30, groups=["same"] * 30)


def test_texts_on_both_sides_are_counted_but_for_case_and_blanks():
    assert num_shared(["A good  film", "x"], ["a good film ", "another", "X"]) == 2
    assert num_shared([], ["a"]) == 0
    assert num_shared(["a"], []) == 0
