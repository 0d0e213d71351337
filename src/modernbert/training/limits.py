"""Bounds of settings, checked where a setting is made, so that a wrong one costs no training."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modernbert.errors import TrainingError

_BOUNDS: Mapping[str, Callable[[float], bool]] = {
    "0 or more": lambda value: 0 <= value < float("inf"),
    "1 or more": lambda value: 1 <= value < float("inf"),
    "above 0": lambda value: 0 < value < float("inf"),
    "above 0 and at most 1": lambda value: 0 < value <= 1,
    "0 or more and below 1": lambda value: 0 <= value < 1,
}


def require(bound: str, **values: float | None) -> None:
    """Raise TrainingError for the first of the values that is not what `bound` says; None is absent.

    require("1 or more", epochs=epochs, batch_size=batch_size)
    """
    for name, value in values.items():
        if value is not None and not _BOUNDS[bound](value):
            raise TrainingError(f"{name}={value} cannot be: it must be {bound}")
