"""A pretraining run as data: the model, how it learns, and a table of phases.

A recipe is what a function in recipes/ (or in a user's own file) returns. It holds values only, so that a run
can write it down, and compare it with what is asked for when it goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from modernbert.corpus.masking import Unit
from modernbert.corpus.mixture import BY_SIZE, Mixture
from modernbert.encoder.encoder import EncoderConfig
from modernbert.errors import TrainingError
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.training.optim import OptimizerConfig, StableAdamWConfig
from modernbert.training.schedule import BatchWarmup, ConstantRate, MaskRate, Schedule

Precision = Literal["auto", "float32", "bfloat16"]

MAX_SEED = 2**31
# What may differ when a run goes on: none of it changes what the model learns.
FREE_FIELDS = frozenset({"save_every_tokens", "evaluate_every_tokens", "num_kept", "max_skipped_steps"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One stretch of a run: a length of sequences, a mixture of text, and how fast to learn.

    `tokens` counts real tokens, special ones included. A step takes `rows` rows of at most `row_tokens`
    tokens; a row is what goes through the model at once, and may hold several sequences of at most `seq_len`
    tokens. `learning_rate` is the peak, of which `schedule` gives the share by tokens of this phase.
    `global_theta` is the base of the rotary positions of layers that see everything; None leaves it.
    """

    name: str
    tokens: int
    seq_len: int
    row_tokens: int
    rows: int | BatchWarmup
    learning_rate: float
    schedule: Schedule
    mask_rate: MaskRate = ConstantRate(rate=0.3)
    mixture: Mixture = BY_SIZE
    global_theta: float | None = None

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.seq_len < 3 or self.learning_rate <= 0:
            raise TrainingError(
                f"phase {self.name!r} needs tokens of at least 1, seq_len of at least 3 and a learning_rate "
                f"above 0, found {self.tokens}, {self.seq_len} and {self.learning_rate}"
            )
        if self.most_rows < 1:
            raise TrainingError(f"phase {self.name!r} needs steps of at least 1 row, found {self.rows}")
        if self.row_tokens < self.seq_len:
            raise TrainingError(
                f"phase {self.name!r}: a row of {self.row_tokens} tokens cannot hold a sequence of "
                f"{self.seq_len}; raise row_tokens"
            )

    def scaled(self, by: float) -> Phase:
        """The same phase over `by` times as many tokens; its courses stretch along."""
        rows = self.rows if isinstance(self.rows, int) else self.rows.scaled(by)
        tokens = max(1, round(self.tokens * by))
        return replace(self, tokens=tokens, rows=rows, schedule=self.schedule.scaled(by))

    @property
    def most_rows(self) -> int:
        """Rows of the largest step."""
        return self.rows if isinstance(self.rows, int) else self.rows.last

    def rows_at(self, tokens: int) -> int:
        """Rows of the step that begins after so many tokens of this phase."""
        return self.rows if isinstance(self.rows, int) else self.rows(tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A whole run. The vocabulary's size and padding follow the tokenizer of the shards.

    `start_from` names a model folder to go on from, instead of fresh weights; `encoder` is then that of the
    folder, and None here. A step whose loss is not a number, or whose loss and gradient norm are both more
    than `spike_ratio` times their running means, is left out; after `max_skipped_steps` the run stops.
    `num_kept` checkpoints are kept, besides the one at the end of each phase.
    """

    name: str
    encoder: EncoderConfig | None
    phases: tuple[Phase, ...]
    start_from: str | None = None
    head: MlmHeadConfig = MlmHeadConfig()
    optimizer: OptimizerConfig = StableAdamWConfig()
    masking: Unit = "token"
    valid_mask_rate: float = 0.15
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    max_grad_norm: float | None = None
    precision: Precision = "auto"
    seed: int = 17
    spike_ratio: float = 1.5
    max_skipped_steps: int = 10
    save_every_tokens: int = 1_000_000
    evaluate_every_tokens: int = 2_000_000
    evaluation_tokens: int = 100_000
    num_kept: int = 2

    def __post_init__(self) -> None:
        if not self.phases:
            raise TrainingError(f"recipe {self.name!r} has no phases")
        names = [phase.name for phase in self.phases]
        if len(set(names)) != len(names):
            raise TrainingError(f"the phases of recipe {self.name!r} must have names of their own: {names}")
        if (self.encoder is None) == (self.start_from is None):
            raise TrainingError(
                f"recipe {self.name!r} needs an encoder or start_from, and not both: fresh weights, or a "
                "model folder to go on from"
            )
        self._require_ranges()

    def _require_ranges(self) -> None:
        least = {"num_kept": 1, "max_skipped_steps": 0, "save_every_tokens": 1, "evaluate_every_tokens": 1}
        least |= {"evaluation_tokens": 1, "z_loss": 0, "spike_ratio": 1, "seed": 0}
        for name, lowest in least.items():
            value: Any = getattr(self, name)
            if not isinstance(value, int | float) or not value >= lowest:
                raise TrainingError(
                    f"{name} of recipe {self.name!r} must be at least {lowest}, found {value!r}"
                )
        if self.seed >= MAX_SEED:
            raise TrainingError(f"seed of recipe {self.name!r} must be below {MAX_SEED}, found {self.seed}")
        if not 0 < self.valid_mask_rate < 1 or not 0 <= self.label_smoothing < 1:
            raise TrainingError(
                f"recipe {self.name!r} needs a valid_mask_rate above 0 and below 1, and a label_smoothing of "
                f"0 or more and below 1, found {self.valid_mask_rate} and {self.label_smoothing}"
            )

    @property
    def num_tokens(self) -> int:
        """Of all phases together."""
        return sum(phase.tokens for phase in self.phases)

    def scaled_to(self, num_tokens: int) -> Recipe:
        """The same recipe for a run of so many tokens: each phase keeps its share of them."""
        by = num_tokens / self.num_tokens
        return replace(self, phases=tuple(phase.scaled(by) for phase in self.phases))


def as_data(value: Any) -> Any:
    """A recipe, or a value inside one, as plain JSON-ready data; each dataclass with its name."""
    if is_dataclass(value) and not isinstance(value, type):
        content = {field.name: as_data(getattr(value, field.name)) for field in fields(value)}
        return {"is": type(value).__name__} | content
    if isinstance(value, Mapping):
        return {str(key): as_data(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [as_data(item) for item in value]
    if isinstance(value, str | int | float | bool | None):
        return value
    raise TrainingError(f"a recipe holds plain values only, found {value!r} of type {type(value).__name__}")


def require_same(old: Mapping[str, Any], new: Mapping[str, Any], *, phase: int, where: str) -> None:
    """TrainingError naming each field that differs between two recipes (as data) and may not.

    What a run has not come to yet, the phases after number `phase`, may be changed, and so may FREE_FIELDS.
    A phase whose rates do not depend on its length may also be made longer or shorter while it runs.
    """
    open_end = f"phases.{phase}.tokens" if _has_open_end(old.get("phases", ())[phase : phase + 1]) else None
    differences = [
        (path, before, after)
        for path, before, after in _differences(old, new)
        if path.split(".")[0] not in FREE_FIELDS and path != open_end and not _is_to_come(path, phase)
    ]
    if differences:
        shown = "\n".join(f"  {path}: {before} -> {after}" for path, before, after in differences[:10])
        raise TrainingError(
            f"{where} was begun with another recipe; what differs:\n{shown}\n"
            "hint: run the old recipe on, or begin a new folder with --out. "
            f"{', '.join(sorted(FREE_FIELDS))} and phases that have not begun may be changed, and the tokens "
            "of one that runs at constant rates"
        )


def _has_open_end(phases: Sequence[Mapping[str, Any]]) -> bool:
    # none of them: of a fine-tuning
    return all(each["schedule"]["is"] == "Constant" for each in phases) and all(
        each["mask_rate"]["is"] == "ConstantRate" for each in phases
    )


def _is_to_come(path: str, phase: int) -> bool:
    parts = path.split(".")
    return parts[0] == "phases" and len(parts) > 1 and parts[1].isdigit() and int(parts[1]) > phase


def _differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        pairs = [
            (str(key), old.get(key, "absent"), new.get(key, "absent")) for key in old.keys() | new.keys()
        ]
        pairs.sort(key=lambda pair: pair[0])
    elif isinstance(old, list) and isinstance(new, list):
        length = max(len(old), len(new))
        one, other = ([*each, *["absent"] * (length - len(each))] for each in (old, new))
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        if old != new:
            yield path, _short(old), _short(new)
        return
    for name, before, after in pairs:
        yield from _differences(before, after, f"{path}.{name}" if path else name)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
