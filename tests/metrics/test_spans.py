"""Answers score as the rules of SQuAD's official script say, which are written down here once more."""

import collections
import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert.metrics import spans

WORDS = st.lists(
    st.sampled_from(["the", "The", "a", "an", "cat", "Cat,", "sat", "co-op", "...", "caf\u00e9"]), max_size=6
)
TEXTS = WORDS.map(" ".join)


def official_normal_form(text):
    """Lower case; no punctuation; no articles; one blank: in this order."""
    text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())


def official_f1(wanted, predicted):
    gold, found = official_normal_form(wanted).split(), official_normal_form(predicted).split()
    num_same = sum((collections.Counter(gold) & collections.Counter(found)).values())
    if len(gold) == 0 or len(found) == 0:
        return int(gold == found)
    if num_same == 0:
        return 0
    precision, recall = num_same / len(found), num_same / len(gold)
    return 2 * precision * recall / (precision + recall)


def official_best(predictions, scores, advantages, has_answer):
    """find_best_thresh of the script: the best sum, and the advantage at which it stands."""
    best = current = sum(not each for each in has_answer)
    threshold = 0.0
    for place in sorted(range(len(advantages)), key=lambda each: advantages[each]):
        change = scores[place] if has_answer[place] else (-1 if predictions[place] else 0)
        current += change
        if current > best:
            best, threshold = current, advantages[place]
    return best / len(scores), threshold


@pytest.mark.parametrize(
    ("given_text", "normal"),
    [
        ("The Cat, sat!", "cat sat"),
        ("a  an\tthe", ""),
        ("A-team", "ateam"),
        ("theatre", "theatre"),
        ("L'\u00e9t\u00e9 \u2013 1999", "l\u00e9t\u00e9 \u2013 1999"),  # a dash beyond ASCII stays
    ],
)
def test_the_normal_form_is_the_official_one(given_text, normal):
    assert spans.normalized(given_text) == normal == official_normal_form(given_text)


@settings(deadline=None)
@given(TEXTS, st.lists(TEXTS, max_size=4))
def test_scores_are_the_official_ones_over_several_wanted_answers(predicted, wanted):
    golds = [each for each in wanted if official_normal_form(each)] or [""]
    assert spans.f1(predicted, wanted) == pytest.approx(max(official_f1(each, predicted) for each in golds))
    assert spans.exact_match(predicted, wanted) == float(
        official_normal_form(predicted) in map(official_normal_form, golds)
    )


def test_nothing_is_right_where_nothing_is_wanted():
    assert spans.f1("", []) == spans.exact_match("", []) == 1.0
    assert spans.f1("cat", []) == spans.f1("", ["cat"]) == spans.exact_match("", ["cat"]) == 0.0


@pytest.mark.parametrize("seed", range(10))
def test_the_threshold_is_the_official_one(seed):
    numbers = np.random.default_rng(seed)
    has_answer, advantages = numbers.random(60) < 0.5, numbers.standard_normal(60)
    scores = np.where(has_answer, np.round(numbers.random(60), 1), 0.0)
    best, threshold = official_best(["x"] * 60, scores, advantages, has_answer)
    found = spans.best_threshold(scores, has_answer, advantages)
    assert spans.at_threshold(scores, has_answer, advantages, found).mean() == pytest.approx(best)
    if best > 1 - has_answer.mean():  # else the script keeps 0, which need not be the place of its best
        assert found == threshold


def test_questions_with_equal_advantages_get_one_answer_together():
    """The official script stops between them, at a score that its threshold does not give."""
    has_answer, advantages = np.array([True, False, True]), np.array([1.0, 1.0, 2.0])
    scores = np.array([1.0, 0.0, 1.0])
    found = spans.best_threshold(scores, has_answer, advantages)
    given_scores = [
        spans.at_threshold(scores, has_answer, advantages, each).sum() for each in (0.0, 1.0, 2.0)
    ]
    assert given_scores == [1.0, 1.0, 2.0]
    assert found == 2.0


def test_without_a_threshold_every_answer_is_given():
    scores = np.array([0.5, 0.0])
    assert np.array_equal(spans.at_threshold(scores, np.array([True, False]), np.zeros(2), None), scores)


def test_no_question_has_a_threshold_of_0():
    assert spans.best_threshold(np.zeros(0), np.zeros(0, bool), np.zeros(0)) == 0.0


def test_parts_with_and_without_an_answer_stand_apart():
    has_answer = np.array([True, True, False, False])
    f1, exact = np.array([0.5, 1.0, 1.0, 0.0]), np.array([0.0, 1.0, 1.0, 0.0])
    assert spans.answer_figures(f1, exact, has_answer) == {
        "f1": 0.625,
        "exact": 0.5,
        "f1_with_answer": 0.75,
        "exact_with_answer": 0.5,
        "right_without_answer": 0.5,
    }
    assert spans.answer_figures(f1[:2], exact[:2], has_answer[:2]) == {"f1": 0.75, "exact": 0.5}
    assert spans.answer_figures(f1[:0], exact[:0], has_answer[:0]) == {"f1": 0.0, "exact": 0.0}
