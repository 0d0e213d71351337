"""How right classes, sets of labels and values are. Everything comes from counts; nothing divides by zero.

A precision, recall or F1 without a row to count is 0. A mean over classes goes over those that occur in the
rows or were predicted, as scikit-learn has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from modernbert.metrics.similarity import pearson, spearman

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassFigures:
    """One class: precision, recall, F1, and the number of rows that have it."""

    precision: float
    recall: float
    f1: float
    support: int


def of_counts(right: int, given: int, real: int) -> ClassFigures:
    """Figures of what was right, of what was given, and of what there really is."""
    return ClassFigures(
        precision=right / given if given else 0.0,
        recall=right / real if real else 0.0,
        f1=2 * right / (given + real) if given + real else 0.0,
        support=real,
    )


def confusion(
    labels: Int[np.ndarray, "N"], predicted: Int[np.ndarray, "N"], num: int
) -> Int[np.ndarray, "C C"]:
    """How many rows of each class (down) were given each class (across)."""
    return np.bincount(labels * num + predicted, minlength=num * num).reshape(num, num)


def per_class(counts: Int[np.ndarray, "C C"]) -> list[ClassFigures]:
    """Figures of each class from the table of `confusion`."""
    right, given, real = counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
    return [of_counts(int(r), int(g), int(n)) for r, g, n in zip(right, given, real, strict=True)]


def classes(labels: Int[np.ndarray, "N"], probabilities: Float[np.ndarray, "N C"]) -> dict[str, float]:
    """Accuracy, F1 (macro and weighted), Matthews' correlation and the area under the ROC curve.

    F1 over all rows together (micro) is the accuracy. A label of -1 is one that the model does not know: the
    row counts as wrong, and not towards any class.
    """
    predicted, num = probabilities.argmax(axis=1), probabilities.shape[1]
    is_known = labels >= 0
    counts = confusion(labels[is_known], predicted[is_known], num)
    each = per_class(counts)
    seen = [one for one, given in zip(each, counts.sum(axis=0), strict=True) if one.support or given]
    supports = np.array([one.support for one in seen], float)
    scores = np.array([one.f1 for one in seen])
    return {
        "accuracy": float((predicted == labels).mean()) if len(labels) else 0.0,
        "macro_f1": float(scores.mean()) if len(scores) else 0.0,
        "weighted_f1": float(scores @ supports / max(supports.sum(), 1.0)),
        "mcc": matthews(counts),
        "auc": area_under_roc(labels[is_known], probabilities[is_known]),
    }


def matthews(counts: Int[np.ndarray, "C C"]) -> float:
    """Matthews' correlation of classes, 0 where it is undefined (Gorodkin 2004, eq. 8)."""
    total, right = float(counts.sum()), float(np.trace(counts))
    real, given = counts.sum(axis=1).astype(float), counts.sum(axis=0).astype(float)
    below = np.sqrt((total**2 - given @ given) * (total**2 - real @ real))
    return float((right * total - real @ given) / below) if below > 0 else 0.0


def area_under_roc(labels: Int[np.ndarray, "N"], probabilities: Float[np.ndarray, "N C"]) -> float:
    """How often a row of a class scores higher than another row: for the second of two, else on average.

    By ranks (Hand and Till 2001); classes without a row of their own, or of another, are left out. 0.5 where
    none is left.
    """
    columns = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    areas = [_area(labels == column, probabilities[:, column]) for column in columns]
    found = [area for area in areas if area is not None]
    return float(np.mean(found)) if found else 0.5


def average_precision(is_right: Bool[np.ndarray, "N"], scores: Float[np.ndarray, "N"]) -> float:
    """The mean of the precisions at the right rows, best score first; ties count together."""
    precision, recall, _ = precision_recall(is_right, scores)
    return float(np.diff(recall, prepend=0.0) @ precision)


def precision_recall(
    is_right: Bool[np.ndarray, "N"], scores: Float[np.ndarray, "N"]
) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K"], Float[np.ndarray, "K"]]:
    """Precision, recall and threshold at every different score, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(is_right[order])
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1)
    return hits[last] / (last + 1), hits[last] / max(int(is_right.sum()), 1), sorted_scores[last]


def label_sets(labels: Bool[np.ndarray, "N C"], predicted: Bool[np.ndarray, "N C"]) -> dict[str, float]:
    """Micro and macro F1 over labels, and the share of rows with the whole set right."""
    right = int((labels & predicted).sum())
    each = set_figures(labels, predicted)
    return {
        "micro_f1": of_counts(right, int(predicted.sum()), int(labels.sum())).f1,
        "macro_f1": float(np.mean([one.f1 for one in each])),
        "subset_accuracy": float((labels == predicted).all(axis=1).mean()) if len(labels) else 0.0,
    }


def set_figures(labels: Bool[np.ndarray, "N C"], predicted: Bool[np.ndarray, "N C"]) -> list[ClassFigures]:
    """Figures of each label where any number of them may hold."""
    triples = zip((labels & predicted).sum(axis=0), predicted.sum(axis=0), labels.sum(axis=0), strict=True)
    return [of_counts(int(right), int(given), int(real)) for right, given, real in triples]


def best_threshold(is_right: Bool[np.ndarray, "N"], scores: Float[np.ndarray, "N"]) -> float:
    """The threshold with the best F1 for scores at or above it; of equals the one nearest to 0.5.

    It lies halfway between two scores. 0.5 where no row is right.
    """
    if not is_right.any():
        return 0.5
    precision, recall, found = precision_recall(is_right, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    below = np.append(found[1:], max(0.0, 2 * found[-1] - 1.0) if len(found) == 1 else 0.0)
    middles = (found + below) / 2
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(middles[best[np.argmin(np.abs(middles[best] - 0.5))]])


def values(wanted: Float[np.ndarray, "N"], given: Float[np.ndarray, "N"]) -> dict[str, float]:
    """Spearman's and Pearson's correlation, errors, and the share of the variance that is explained (R2)."""
    error = given - wanted
    spread = float(((wanted - wanted.mean()) ** 2).sum())
    return {
        "spearman": spearman(given, wanted),
        "pearson": pearson(given, wanted),
        "mse": float((error**2).mean()),
        "mae": float(np.abs(error).mean()),
        "r2": 1.0 - float((error**2).sum()) / spread if spread > 0 else 0.0,
    }


def _area(is_of_class: Bool[np.ndarray, "N"], scores: Float[np.ndarray, "N"]) -> float | None:
    num, others = int(is_of_class.sum()), int((~is_of_class).sum())
    if not num or not others:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[place]
    return float((ranks[is_of_class].sum() - num * (num + 1) / 2) / (num * others))


def report_rows(
    names: Sequence[str], figures: Sequence[ClassFigures]
) -> list[tuple[str, float, float, float, int]]:
    """A row of a table for each class, the most common first."""
    rows = [(name, f.precision, f.recall, f.f1, f.support) for name, f in zip(names, figures, strict=True)]
    return sorted(rows, key=lambda row: (-row[4], row[0]))
