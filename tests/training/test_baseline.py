"""Baselines learn what words can tell, keep to their bounds, and reach the known floors of real sets."""

import json
import sys

import numpy as np
import pytest

from modernbert.errors import ModernBertError
from modernbert.metrics import classification
from modernbert.training import baseline
from modernbert.training.baseline import (
    class_baseline,
    reading_limit,
    sample,
    set_baseline,
    value_baseline,
)

GOOD, BAD, PLAIN = "a wonderful film", "a dreadful film", "a film about ships"
TEXTS = [f"{text}, seen {number} times" for number in range(20) for text in (GOOD, BAD, PLAIN)]
HELD = ["wonderful ships", "dreadful film"]

# Published with the data: TF-IDF of words 1-2 and characters 2-4, C=10, learned from train and asked of test.
FLOORS = {
    ("sst2", "label", "accuracy"): 0.823,
    ("trec", "label", "accuracy"): 0.878,
    ("trec", "label_fine", "accuracy"): 0.792,
    ("sms_spam", "label", "macro_f1"): 0.960,
    ("cinexio_bg", "label", "accuracy"): 0.823,
    ("cinexio_bg", "label", "macro_f1"): 0.695,
}
# Hashes and solvers differ: up to a row in a hundred of the smallest test part, 500 rows.
FLOOR_TOLERANCE = 0.01


def test_classes_are_told_by_their_words_and_one_without_rows_has_probability_0():
    found = class_baseline(TEXTS, np.tile([0, 1, 3], 20), HELD, 4)
    assert found.scores.argmax(axis=1).tolist() == [0, 1]
    assert found.scores.sum(axis=1) == pytest.approx([1.0, 1.0])
    assert found.scores[:, 2].tolist() == [0.0, 0.0]
    assert found.constant.tolist() == [pytest.approx([1 / 3, 1 / 3, 0.0, 1 / 3])] * 2
    assert (found.num_rows, found.read) == (60, (None, None))


def test_one_class_alone_is_certain():
    found = class_baseline(TEXTS, np.zeros(60, int), HELD, 2)
    assert found.scores.tolist() == found.constant.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_sets_are_told_label_by_label_and_a_label_of_all_or_none_keeps_its_share():
    labels = np.tile(
        [[True, False, True, False], [False, True, True, False], [False, False, True, False]], (20, 1)
    )
    found = set_baseline(TEXTS, labels, HELD)
    assert found.scores[0, 0] > 0.5 > found.scores[0, 1]
    assert found.scores[1, 1] > 0.5 > found.scores[1, 0]
    assert found.scores[:, 2].tolist() == [1.0, 1.0]
    assert found.scores[:, 3].tolist() == [0.0, 0.0]


def test_values_are_told_by_their_words():
    found = value_baseline(TEXTS, np.tile([5.0, 1.0, 3.0], 20), HELD)
    assert found.scores[0, 0] > 3.5 > 2.5 > found.scores[1, 0]
    assert found.constant.tolist() == [[3.0], [3.0]]


def test_texts_without_a_word_are_no_error():
    found = class_baseline(["\u2764", "?!", "  "], np.array([0, 1, 0]), ["", "!"], 2)
    assert found.scores.shape == (2, 2)
    assert np.isfinite(found.scores).all()


@pytest.mark.parametrize("size", [1.0, 0.1], ids=["to the end", "by rounds"])
def test_the_same_rows_give_the_same_scores(monkeypatch, size):
    monkeypatch.setattr(baseline, "_MOST_EXACT_COUNTS", 8_000_000 if size == 1.0 else 0)
    labels = np.tile([0, 1, 2], 20)
    first, again = (class_baseline(TEXTS, labels, HELD, 3) for _ in range(2))
    assert np.array_equal(first.scores, again.scores)
    assert first.scores.argmax(axis=1).tolist() == [0, 1]


def test_counting_in_blocks_changes_nothing(monkeypatch):
    whole = class_baseline(TEXTS, np.tile([0, 1, 2], 20), TEXTS, 3)
    monkeypatch.setattr(baseline, "_BLOCK", 7)
    parts = class_baseline(TEXTS, np.tile([0, 1, 2], 20), TEXTS, 3)
    assert np.array_equal(whole.scores, parts.scores)


def test_the_most_frequent_features_are_kept(monkeypatch):
    monkeypatch.setattr(baseline, "_MOST_FEATURES", 4)
    counts = baseline._Counts(["aa bb", "aa cc", "aa bb"], 2)
    assert counts.learned.shape == (3, 8)
    # "aa" and "bb" and "aa bb" are most frequent of all words; every text has one of them
    assert (counts.learned[:, :4].getnnz(axis=1) >= 1).all()


@pytest.mark.parametrize(
    ("lengths", "budget", "limit"),
    [
        ([10, 20, 30], 60, None),
        ([10, 20, 30], 59, 29),
        ([10, 20, 30], 45, 17),
        ([10, 20, 30], 30, 10),
        ([100, 100], 7, 3),
        ([], 5, None),
    ],
)
def test_long_texts_are_read_as_far_as_all_have_room(lengths, budget, limit):
    assert reading_limit(lengths, budget) == limit
    if limit is not None:
        assert sum(min(each, limit) for each in lengths) <= budget
        assert sum(min(each, limit + 1) for each in lengths) > budget


def test_long_texts_are_read_at_their_beginning_and_the_result_says_so(monkeypatch):
    monkeypatch.setattr(baseline, "_VIEWS", ((1200, baseline._VIEWS[0][1]), baseline._VIEWS[1]))
    texts = [f"{text} {'ships ' * 100}" for text in (GOOD, BAD) for _ in range(20)]
    found = class_baseline(texts, np.repeat([0, 1], 20), HELD, 2)
    assert found.read == (30, None)
    assert found.scores.argmax(axis=1).tolist() == [0, 1]


def test_a_sample_is_sorted_without_repeats_and_fixed_by_its_seed():
    assert sample(3, 0) == [0, 1, 2]
    found = sample(200_000, 5)
    assert len(set(found)) == len(found) == baseline.MOST_ROWS
    assert found == sorted(found) == sample(200_000, 5) != sample(200_000, 6)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(ModernBertError, match=r"pip install 'modernbert\[train\]'"):
        class_baseline(TEXTS, np.tile([0, 1, 2], 20), HELD, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "column", "figure"), FLOORS, ids=str)
def test_known_floors_are_reached(data_root, name, column, figure):
    train, test = (
        [json.loads(line) for line in (data_root / "classification" / name / part).read_bytes().splitlines()]
        for part in ("train.jsonl", "test.jsonl")
    )
    number = {label: place for place, label in enumerate(sorted({row[column] for row in (*train, *test)}))}
    labels, wanted = (np.array([number[row[column]] for row in rows]) for rows in (train, test))
    found = class_baseline([row["text"] for row in train], labels, [row["text"] for row in test], len(number))
    score = classification.classes(wanted, found.scores)[figure]
    assert score == pytest.approx(FLOORS[name, column, figure], abs=FLOOR_TOLERANCE)
