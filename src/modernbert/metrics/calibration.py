"""Whether a probability of 0.8 is right in 80 % of the rows, and the temperature that makes it so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Int

NUM_BINS = 15
_LOWEST, _HIGHEST, _NUM_HALVINGS = 0.05, 20.0, 60


def calibration_error(
    labels: Int[np.ndarray, "N"], probabilities: Float[np.ndarray, "N C"], num_bins: int = NUM_BINS
) -> float:
    """The expected calibration error: |accuracy - confidence| over bins of equal width, by their rows.

    Naeini et al. 2015; Guo et al. 2017 (arXiv 1706.04599, eq. 3) with 15 bins.
    """
    return float(sum(n * abs(a - c) for c, a, n in reliability(labels, probabilities, num_bins))) / max(
        len(labels), 1
    )


def reliability(
    labels: Int[np.ndarray, "N"], probabilities: Float[np.ndarray, "N C"], num_bins: int = NUM_BINS
) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of rows of each bin that has any; bins are (a, b]."""
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    return [
        (
            float(confidence[bins == each].mean()),
            float(is_right[bins == each].mean()),
            int((bins == each).sum()),
        )
        for each in np.unique(bins)
    ]


def brier_score(labels: Int[np.ndarray, "N"], probabilities: Float[np.ndarray, "N C"]) -> float:
    """The mean squared distance of the probabilities to 1 for the label and 0 for the others, from 0 to 2.

    Brier 1950, over all classes. 0 without a row.
    """
    wanted = np.arange(probabilities.shape[1]) == labels[:, None]
    return float(((probabilities - wanted) ** 2).sum()) / max(len(labels), 1)


def fit_temperature(logits: Float[np.ndarray, "N C"], labels: Int[np.ndarray, "N"]) -> float:
    """The T for which softmax(logits / T) has the smallest negative log-likelihood, from 0.05 to 20.

    Guo et al. 2017 (arXiv 1706.04599, section 4.2). The loss is convex in 1 / T, so halving
    finds where its slope is 0. Logits that are right in every row would have T go to 0, and get the lowest;
    without a row it is 1.
    """
    if not len(labels):
        return 1.0
    wanted = logits[np.arange(len(labels)), labels]
    low, high = 1 / _HIGHEST, 1 / _LOWEST
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        scaled = logits * middle
        weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        expected = (weights * logits).sum(axis=1) / weights.sum(axis=1)
        slope = float((expected - wanted).sum())
        low, high = (low, middle) if slope > 0 else (middle, high)
    return 2 / (low + high)
