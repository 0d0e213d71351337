"""Heads that score every token: tags (entities, parts of speech) and the two ends of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from modernbert.encoder.config import Part, require_probability
from modernbert.encoder.encoder import Encoder, initialize_like
from modernbert.errors import ConfigError
from modernbert.heads.transform import TransformConfig, build_transform

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from modernbert.text.batch import PackedBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class TagHeadConfig(Part):
    """One score a token and label."""

    kind: ClassVar[str] = "tag_head"
    labels: tuple[str, ...]
    transform: TransformConfig | None = TransformConfig()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_probability(self, "dropout")
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ConfigError(f"labels must be there and differ from each other, found {self.labels!r}")

    def build(self, encoder: Encoder) -> TokenClassifier:
        """The encoder with this head on it."""
        return TokenClassifier(encoder, len(self.labels), self.transform, self.dropout)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanHeadConfig(Part):
    """Two scores a token: how well an answer starts here, and how well it ends here."""

    kind: ClassVar[str] = "span_head"
    transform: TransformConfig | None = TransformConfig()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_probability(self, "dropout")

    def build(self, encoder: Encoder) -> TokenClassifier:
        """The encoder with this head on it; column 0 of its scores is the start, column 1 the end."""
        return TokenClassifier(encoder, 2, self.transform, self.dropout)


class TokenClassifier(nn.Module):
    """Parameters as published: `model`, `head.dense`, `head.norm`, `classifier`."""

    def __init__(
        self, encoder: Encoder, num_scores: int, transform: TransformConfig | None, dropout: float
    ) -> None:
        super().__init__()
        hidden_size = encoder.config.hidden_size
        self.head = build_transform(transform, hidden_size)
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_size, num_scores)
        initialize_like(self, encoder.config)
        self.model = encoder

    def forward(self, batch: PackedBatch, backend: str = "auto") -> Float[Tensor, "T C"]:
        """A score for each token and label, before softmax."""
        return self.scores(self.model(batch, backend))

    def scores(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... C"]:
        """The scores from hidden states."""
        return self.classifier(self.drop(self.head(hidden)))
