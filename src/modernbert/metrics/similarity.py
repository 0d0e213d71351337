"""How well the similarities that a model gives agree with those that people gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped


def pearson(given: Shaped[np.ndarray, "N"], wanted: Shaped[np.ndarray, "N"]) -> float:
    """Pearson's correlation; 0 where one side is constant, or has fewer than two numbers."""
    if len(given) < 2 or np.ptp(given) == 0 or np.ptp(wanted) == 0:
        return 0.0
    return float(np.corrcoef(given, wanted)[0, 1])


def spearman(given: Shaped[np.ndarray, "N"], wanted: Shaped[np.ndarray, "N"]) -> float:
    """Spearman's correlation: Pearson's over ranks, where equal numbers share the mean of their ranks."""
    return pearson(_ranks(given), _ranks(wanted))


def _ranks(values: Shaped[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[place]
