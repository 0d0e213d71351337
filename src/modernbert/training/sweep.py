"""Several settings tried one after another: which they are, and the table and picture of how they did."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from modernbert.errors import TrainingError
from modernbert.training.finetuning import Finetuning

# What may be tried, by the words of the command line; the data must be the same for every trial.
FIELDS: Mapping[str, str] = {
    "lr": "learning_rate",
    "epochs": "epochs",
    "batch-size": "batch_size",
    "layer-decay": "layer_decay",
    "warmup": "warmup_share",
    "freeze": "num_frozen_layers",
    "seed": "seed",
}
# Those that are never 0, and so have a place on a logarithmic axis.
FACTORS = frozenset({"lr", "batch-size", "layer-decay"})
_WHOLE = frozenset({"epochs", "batch_size", "num_frozen_layers", "seed"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """Values to try, by the name of a field of Finetuning; of several fields, every combination.

    Sweep(values={"learning_rate": (1e-5, 3e-5, 5e-5, 8e-5)})
    """

    values: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.values) - set(FIELDS.values()))
        if unknown or not self.values or not all(self.values.values()):
            raise TrainingError(
                f"a sweep needs values for some of {', '.join(FIELDS.values())}; found {dict(self.values)}"
            )


def trials(settings: Finetuning, sweep: Sweep | None) -> dict[str, Finetuning]:
    """The settings to try, by a name that can be a folder's; the given ones, without a name, for None."""
    if sweep is None:
        return {"": settings}
    words = {name: word for word, name in FIELDS.items()}
    found: dict[str, Finetuning] = {}
    for values in itertools.product(*sweep.values.values()):
        chosen = {
            name: int(value) if name in _WHOLE else value
            for name, value in zip(sweep.values, values, strict=True)
        }
        label = ",".join(f"{words[name]}={value:g}" for name, value in chosen.items())
        found[label] = replace(settings, **chosen)
    return found


def by_value(scores: Mapping[str, float]) -> tuple[str, dict[str, list[tuple[float, float]]]]:
    """The first setting's word, and its points (value, score) for each choice of the others."""
    setting, lines = "", dict[str, list[tuple[float, float]]]()
    for label, score in scores.items():
        first, _, rest = label.partition(",")
        setting, _, value = first.partition("=")
        lines.setdefault(rest, []).append((float(value), score))
    return setting, lines


def parse_sweep(words: Sequence[str]) -> Sweep | None:
    """From `lr=1e-5,3e-5` and the like; TrainingError says what may be tried."""
    values: dict[str, tuple[float, ...]] = {}
    for each in words:
        name, _, listed = each.partition("=")
        try:
            numbers = tuple(float(value) for value in listed.split(","))
        except ValueError:
            numbers = ()
        if name not in FIELDS or not numbers:
            raise TrainingError(
                f"--sweep {each!r} is not NAME=VALUE,VALUE with a name of {', '.join(FIELDS)}, such as "
                "lr=1e-5,3e-5,5e-5"
            )
        values[FIELDS[name]] = numbers
    return Sweep(values=values) if values else None
