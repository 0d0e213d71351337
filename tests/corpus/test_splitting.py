"""Splits: shares of every label, groups whole, the same for a seed; texts on both sides."""

from collections import Counter

import numpy as np
import pytest

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


def test_texts_on_both_sides_are_counted_but_for_case_and_blanks():
    assert num_shared(["A good  film", "x"], ["a good film ", "another", "X"]) == 2
