"""Logits to scores, and a few small steps on rows of them, in numpy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from modernbert.errors import WeightsError
from modernbert.heads.classify import Problem

if TYPE_CHECKING:
    from jaxtyping import Float


def unit(vectors: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Each row at length 1; a row of zeros stays one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def softmax(logits: Float[np.ndarray, "... C"]) -> Float[np.ndarray, "... C"]:
    """Probabilities that sum to 1 along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def sigmoid(logits: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """A probability for each number; no overflow for large negative ones."""
    return np.exp(-np.logaddexp(0.0, -logits))


def probabilities(logits: Float[np.ndarray, "C"], problem: Problem) -> Float[np.ndarray, "C"]:
    """What a classifier's logits mean: one label holds, any number hold, or each is a value as it is."""
    if problem == "single_label":
        return softmax(logits)
    return sigmoid(logits) if problem == "multi_label" else logits


def require_finite(results: Iterable[np.ndarray], what: str = "text", first: int = 0) -> None:
    """Raise WeightsError, naming the first of them, where results hold NaN or infinities.

    `first` results came before these.
    """
    for place, numbers in enumerate(results, start=first):
        if not np.isfinite(numbers).all():
            raise WeightsError(
                f"for {what} {place} the model gives NaN or infinite numbers: its weights hold some "
                "(`modernbert info --check` finds them), or its number format is too small; load it with "
                "dtype='float32'"
            )


def mean_row(rows: Float[np.ndarray, "n C"], num_tokens: Sequence[int]) -> Float[np.ndarray, "C"]:
    """The mean of the windows of a text, each counted by its tokens."""
    return np.average(rows, axis=0, weights=num_tokens).astype(rows.dtype)


def best_row(rows: Float[np.ndarray, "n C"], num_tokens: Sequence[int]) -> Float[np.ndarray, "C"]:
    """The best of each column, however long its window is."""
    del num_tokens
    return rows.max(axis=0)
