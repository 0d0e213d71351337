"""How good an order of documents is, as trec_eval counts it. Names are of documents, gains are judgements."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence


def ndcg_at(ranked: Sequence[str], gains: Mapping[str, float], k: int = 10) -> float:
    """The discounted gain of the first `k` documents, as a share of the best that any order reaches.

    A document without a judgement, or with one of 0 or less, gains nothing; with no gain to reach it is 0.
    """
    best = _discounted(sorted(gains.values(), reverse=True)[:k])
    return _discounted(gains.get(name, 0.0) for name in ranked[:k]) / best if best > 0 else 0.0


def _discounted(gains: Iterable[float]) -> float:
    return sum(max(gain, 0.0) / math.log2(place + 2) for place, gain in enumerate(gains))
