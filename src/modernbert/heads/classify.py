"""Heads that give one row of scores for each sequence: classes, values, and choices among answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import nn

from modernbert.encoder.config import Part, require_probability
from modernbert.encoder.encoder import Encoder, initialize_like
from modernbert.errors import ConfigError
from modernbert.heads.pooling import POOLINGS, pool
from modernbert.heads.transform import TransformConfig, build_transform

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from modernbert.text.batch import PackedBatch

Problem = Literal["single_label", "multi_label", "regression"]
PROBLEMS: tuple[Problem, ...] = ("single_label", "multi_label", "regression")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifyHeadConfig(Part):
    """One score a label. `problem` says what the scores mean: one label holds, any number hold, or each is a
    value.
    """

    kind: ClassVar[str] = "classify_head"
    labels: tuple[str, ...]
    problem: Problem = "single_label"
    pooling: str = "mean"
    transform: TransformConfig | None = TransformConfig()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_probability(self, "dropout")
        _require_labels(self.labels)
        if self.problem not in PROBLEMS:
            raise ConfigError(f"unknown problem {self.problem!r}; there are: {', '.join(PROBLEMS)}")
        if self.pooling not in POOLINGS:
            raise ConfigError(f"unknown pooling {self.pooling!r}; there are: {', '.join(POOLINGS)}")

    def build(self, encoder: Encoder) -> SequenceClassifier:
        """The encoder with this head on it."""
        return SequenceClassifier(self, encoder)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceHeadConfig(Part):
    """One score a sequence; the choices of a question are sequences, and the best score wins."""

    kind: ClassVar[str] = "choice_head"
    pooling: str = "cls"
    transform: TransformConfig | None = TransformConfig()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_probability(self, "dropout")
        if self.pooling not in POOLINGS:
            raise ConfigError(f"unknown pooling {self.pooling!r}; there are: {', '.join(POOLINGS)}")

    def build(self, encoder: Encoder) -> ChoiceModel:
        """The encoder with this head on it."""
        return ChoiceModel(self, encoder)


class SequenceClassifier(nn.Module):
    """Parameters as published: `model`, `head.dense`, `head.norm`, `classifier`."""

    def __init__(self, config: ClassifyHeadConfig | ChoiceHeadConfig, encoder: Encoder) -> None:
        super().__init__()
        hidden_size = encoder.config.hidden_size
        num_scores = 1 if isinstance(config, ChoiceHeadConfig) else len(config.labels)
        self.pooling = config.pooling
        self.head = build_transform(config.transform, hidden_size)
        self.drop = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(hidden_size, num_scores)
        initialize_like(self, encoder.config)
        self.model = encoder

    def forward(self, batch: PackedBatch, backend: str = "auto") -> Float[Tensor, "S C"]:
        """A score for each sequence and label, before softmax or sigmoid."""
        pooled = pool(self.model(batch, backend), batch.cu_seqlens, self.pooling)  # [S, D]
        return self.scores(pooled)

    def scores(self, pooled: Float[Tensor, "S D"]) -> Float[Tensor, "S C"]:
        """The scores of sequences that are pooled already."""
        return self.classifier(self.drop(self.head(pooled)))


class ChoiceModel(SequenceClassifier):
    """A classifier with one score a sequence; the caller lays the choices of a question side by side."""


def _require_labels(labels: tuple[str, ...]) -> None:
    if not labels or len(set(labels)) != len(labels):
        raise ConfigError(f"labels must be there and differ from each other, found {labels!r}")
