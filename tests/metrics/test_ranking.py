import pytest
from sklearn.metrics import ndcg_score

from modernbert.metrics.ranking import ndcg_at


def test_the_best_order_has_1_and_the_wrong_documents_0():
    gains = {"a": 3.0, "b": 1.0}
    assert ndcg_at(["a", "b", "c"], gains) == 1.0
    assert ndcg_at(["c", "d"], gains) == 0.0


def test_graded_gains_count_as_they_are():
    """By hand, as trec_eval: gains 1 and 3 at places 1 and 3, of 3 and 1 at places 1 and 2."""
    found = ndcg_at(["b", "x", "a"], {"a": 3.0, "b": 1.0})
    assert found == pytest.approx((1 + 3 / 2) / (3 + 1 / 1.5849625007211562))


def test_documents_that_were_not_found_lower_the_score():
    assert ndcg_at(["a"], {"a": 1.0, "b": 1.0}) < 1.0


def test_only_the_first_k_count():
    gains = {name: 1.0 for name in "abc"}
    assert ndcg_at(["x", "a"], gains, k=1) == 0.0
    assert ndcg_at(["a", "x", "x"], gains, k=1) == 1.0


def test_no_gain_to_reach_is_0_and_negative_gains_are_none():
    assert ndcg_at(["a"], {}) == 0.0
    assert ndcg_at(["a", "b"], {"a": -2.0, "b": 1.0}) == pytest.approx(0.6309297535714575)


def test_a_random_order_equals_scikit_learn():
    gains = {"a": 2.0, "b": 0.0, "c": 3.0, "d": 1.0, "e": 0.0, "f": 2.0}
    ranked = ["e", "c", "a", "f", "d", "b"]
    expected = ndcg_score([[gains[name] for name in ranked]], [[6, 5, 4, 3, 2, 1]], k=4)
    assert ndcg_at(ranked, gains, k=4) == pytest.approx(expected)
