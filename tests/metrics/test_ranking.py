"""Orders of documents score what trec_eval says, and what a reader works out by hand."""

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, RR, R, nDCG
from sklearn.metrics import ndcg_score

from modernbert.errors import InputError
from modernbert.metrics.ranking import (
    average_precision,
    evaluate_ranking,
    ndcg_at,
    recall_at,
    reciprocal_rank,
)

# trec_eval prints its figures from fp64 sums in another order.
TOLERANCE = 1e-9


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
    assert recall_at(["a", "x", "b"], gains, k=2) == pytest.approx(1 / 3)
    assert reciprocal_rank(["x", "a"], gains, k=1) == 0.0


def test_no_gain_to_reach_is_0_and_negative_gains_are_none():
    assert ndcg_at(["a"], {}) == 0.0
    assert ndcg_at(["a", "b"], {"a": -2.0, "b": 1.0}) == pytest.approx(0.6309297535714575)
    nothing = {"a": 0.0, "b": -1.0}
    assert [each(["a", "b"], nothing) for each in (recall_at, reciprocal_rank, average_precision)] == [
        0.0
    ] * 3


def test_a_random_order_equals_scikit_learn():
    gains = {"a": 2.0, "b": 0.0, "c": 3.0, "d": 1.0, "e": 0.0, "f": 2.0}
    ranked = ["e", "c", "a", "f", "d", "b"]
    expected = ndcg_score([[gains[name] for name in ranked]], [[6, 5, 4, 3, 2, 1]], k=4)
    assert ndcg_at(ranked, gains, k=4) == pytest.approx(expected)


def test_precision_is_averaged_over_all_relevant_documents():
    """By hand: 1 of 1 and 2 of 3, of three relevant ones."""
    assert average_precision(["a", "x", "b"], {"a": 1.0, "b": 2.0, "c": 1.0}) == pytest.approx(
        (1 + 2 / 3) / 3
    )


@pytest.mark.parametrize("seed", range(5))
def test_means_over_queries_are_those_of_trec_eval(seed):
    numbers = np.random.default_rng(seed)
    documents = [f"d{number}" for number in range(400)]
    judgements = {
        f"q{query}": {
            str(name): int(numbers.integers(0, 4)) for name in numbers.choice(documents, 25, replace=False)
        }
        for query in range(30)
    }
    run = {
        query: [str(name) for name in numbers.permutation(documents)[: int(numbers.integers(1, 300))]]
        for query in judgements
    }
    scores = {
        query: {name: float(-place) for place, name in enumerate(names)} for query, names in run.items()
    }
    wanted = ir_measures.calc_aggregate([nDCG @ 10, R @ 100, RR @ 10, AP], judgements, scores)
    assert evaluate_ranking(run, judgements) == pytest.approx(
        {
            "ndcg@10": wanted[nDCG @ 10],
            "recall@100": wanted[R @ 100],
            "mrr@10": wanted[RR @ 10],
            "map": wanted[AP],
        },
        abs=TOLERANCE,
    )


def test_a_query_that_was_not_answered_counts_and_one_without_relevant_documents_does_not():
    judgements = {"q1": {"a": 1.0}, "q2": {"b": 1.0}, "q3": {"c": 0.0}}
    assert evaluate_ranking({"q1": ["a"]}, judgements)["ndcg@10"] == 0.5
    assert set(evaluate_ranking({}, {}).values()) == {0.0}


def test_a_document_may_be_ranked_once_only():
    with pytest.raises(InputError, match="document 'a' is ranked twice for query 'q'"):
        evaluate_ranking({"q": ["a", "b", "a"]}, {"q": {"a": 1.0}})
