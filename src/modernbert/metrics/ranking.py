"""How good an order of documents is, as trec_eval counts it. Names are of documents, gains are judgements.

A document without a judgement, or with one of 0 or less, gains nothing and is not relevant. Where nothing is
relevant every figure is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from modernbert.errors import InputError


def ndcg_at(ranked: Sequence[str], gains: Mapping[str, float], k: int = 10) -> float:
    """The discounted gain of the first `k` documents, as a share of the best that any order reaches.

    Jarvelin and Kekalainen 2002, with gains as they are and log2(1 + place), as trec_eval's ndcg_cut.
    """
    best = _discounted(sorted(gains.values(), reverse=True)[:k])
    return _discounted(gains.get(name, 0.0) for name in ranked[:k]) / best if best > 0 else 0.0


def recall_at(ranked: Sequence[str], gains: Mapping[str, float], k: int = 100) -> float:
    """The share of all relevant documents that are among the first `k`."""
    relevant = _relevant(gains)
    return len(relevant.intersection(ranked[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranked: Sequence[str], gains: Mapping[str, float], k: int | None = None) -> float:
    """1 / the place of the first relevant document, counted from 1; 0 where the first `k` have none."""
    return next((1 / place for place, name in enumerate(ranked[:k], 1) if gains.get(name, 0.0) > 0), 0.0)


def average_precision(ranked: Sequence[str], gains: Mapping[str, float]) -> float:
    """The mean, over all relevant documents, of the precision at their places; 0 for those not ranked."""
    relevant = _relevant(gains)
    places = [place for place, name in enumerate(ranked, 1) if name in relevant]
    return sum(found / place for found, place in enumerate(places, 1)) / max(len(relevant), 1)


def evaluate_ranking(
    run: Mapping[str, Sequence[str]], judgements: Mapping[str, Mapping[str, float]], *, k: int = 10
) -> dict[str, float]:
    """Means over queries: nDCG and reciprocal rank at `k`, recall at 100, mean average precision.

    `run` has the documents of each query, best first. A query with something relevant that is not in the run
    counts as 0 (trec_eval -c); one with nothing relevant says nothing about an order and is left out.
    Raises InputError where a document is ranked twice: it would gain twice.
    """
    asked = [query for query, gains in judgements.items() if _relevant(gains)]
    ranked = [(run.get(query, ()), judgements[query]) for query in asked]
    for query, (names, _) in zip(asked, ranked, strict=True):
        if len(set(names)) < len(names):
            twice = next(name for place, name in enumerate(names) if name in names[:place])
            raise InputError(
                f"document {twice!r} is ranked twice for query {query!r}: keep the best place of each"
            )
    return {
        f"ndcg@{k}": _mean(ndcg_at(names, gains, k) for names, gains in ranked),
        "recall@100": _mean(recall_at(names, gains, 100) for names, gains in ranked),
        f"mrr@{k}": _mean(reciprocal_rank(names, gains, k) for names, gains in ranked),
        "map": _mean(average_precision(names, gains) for names, gains in ranked),
    }


def _relevant(gains: Mapping[str, float]) -> set[str]:
    return {name for name, gain in gains.items() if gain > 0}


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept) if kept else 0.0


def _discounted(gains: Iterable[float]) -> float:
    return sum(max(gain, 0.0) / math.log2(place + 2) for place, gain in enumerate(gains))
