"""Logits to scores, and a few small steps on rows of them, in numpy."""

from __future__ import annotations

import numpy as np


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each row at length 1; a row of zeros stays one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities that sum to 1 along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """A probability for each number; no overflow for large negative ones."""
    return np.exp(-np.logaddexp(0.0, -logits))


def probabilities(logits: np.ndarray, problem: str) -> np.ndarray:
    """What a classifier's logits [N, C] mean: one label holds, any number hold, or each is a value as it is."""
    if problem == "single_label":
        return softmax(logits)
    return sigmoid(logits) if problem == "multi_label" else logits


def best_row(rows: list[np.ndarray], axis: int, weights: list[int]) -> np.ndarray:
    """The best of each column; has the form of numpy.average, so that either can join the windows of a text."""
    del weights
    return np.max(rows, axis=axis)
