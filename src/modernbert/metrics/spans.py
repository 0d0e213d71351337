"""Exact match and F1 of answers, and the threshold for "no answer", as SQuAD's official scripts have them.

Rajpurkar et al. 2016 (arXiv 1606.05250) and 2018 (arXiv 1806.03822); evaluate-v2.0.py. All are from 0 to 1.
An advantage says by how much "no answer" is likelier than the best stretch: any number that orders questions.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """Lower case, without punctuation of ASCII and the articles, one blank between words."""
    return " ".join(_ARTICLE.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(given: str, wanted: Sequence[str]) -> float:
    """1 where it is one of the wanted answers, both normalized; where none is wanted, 1 for an empty one."""
    return float(any(normalized(given) == normalized(each) for each in _wanted(wanted)))


def f1(given: str, wanted: Sequence[str]) -> float:
    """The best F1 of its words and those of a wanted answer; where none is wanted, 1 for an empty one."""
    return max(_f1(normalized(given).split(), normalized(each).split()) for each in _wanted(wanted))


def best_threshold(
    scores: Float[np.ndarray, "N"], has_answer: Bool[np.ndarray, "N"], advantages: Float[np.ndarray, "N"]
) -> float:
    """The threshold above which "no answer" had best be given, for the highest mean score.

    `scores` are those of the answers, which are given up to the threshold; above it a question scores 1 where
    it has no answer, and 0 where it has one. The lowest of equally good thresholds;
    0 without a question.
    """
    if not len(scores):
        return 0.0
    order = np.argsort(advantages, kind="stable")
    change = (scores - ~has_answer)[order]
    sorted_advantages = advantages[order]
    last = np.append(np.flatnonzero(np.diff(sorted_advantages)), len(order) - 1)  # of equal ones
    totals = np.append(0.0, np.cumsum(change)[last])
    thresholds = np.append(sorted_advantages[0] - 1.0, sorted_advantages[last])  # the first: none for all
    return float(thresholds[totals.argmax()])


def at_threshold(
    scores: Float[np.ndarray, "N"],
    has_answer: Bool[np.ndarray, "N"],
    advantages: Float[np.ndarray, "N"],
    threshold: float | None,
) -> Float[np.ndarray, "N"]:
    """What each question scores with "no answer" given above the threshold; None: never."""
    if threshold is None:
        return scores
    return np.where(advantages > threshold, ~has_answer, scores).astype(float)


def answer_figures(
    f1_scores: Float[np.ndarray, "N"], exact: Float[np.ndarray, "N"], has_answer: Bool[np.ndarray, "N"]
) -> dict[str, float]:
    """Means over all questions, and apart over those with and without an answer where some have none.

    Without an answer, F1 and exact match are one thing: the share that was given none (NoAns_exact).
    """
    found = {"f1": _mean(f1_scores), "exact": _mean(exact)}
    if not has_answer.all():
        found |= {
            "f1_with_answer": _mean(f1_scores[has_answer]),
            "exact_with_answer": _mean(exact[has_answer]),
            "right_without_answer": _mean(exact[~has_answer]),
        }
    return found


def _wanted(wanted: Sequence[str]) -> Sequence[str]:
    """Without answers that are nothing when normalized, as the official script leaves them out."""
    return [each for each in wanted if normalized(each)] or [""]


def _f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    num_shared = (Counter(given) & Counter(wanted)).total()
    return 2 * num_shared / (len(given) + len(wanted))


def _mean(values: Float[np.ndarray, "N"]) -> float:
    return float(values.mean()) if len(values) else 0.0
