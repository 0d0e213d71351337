"""From token ids to vectors: the token table, learned positions and text types if there are any, a norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import nn

from modernbert.encoder.config import Part, require_positive, require_probability
from modernbert.encoder.norm import LayerNormConfig
from modernbert.errors import ConfigError, InputError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from modernbert.text.batch import PackedBatch


class NormPart(Protocol):
    """A norm: `LayerNormConfig`, `RmsNormConfig`, or a part of a user's own."""

    def build(self, hidden_size: int) -> nn.Module:
        """The module: [..., D] -> [..., D]."""
        ...


class EmbeddingPositions(Protocol):
    """A position scheme that adds to the embeddings; its module is called as `module(batch)` and gives [T,
    D].
    """

    def build(self, hidden_size: int) -> nn.Module:
        """The module for vectors of this size."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedPositionsConfig(Part):
    """One learned vector a position; `offset` rows before position 0 are left unused (2 in RoBERTa)."""

    kind: ClassVar[str] = "learned_positions"
    num_positions: int
    offset: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "num_positions")
        if self.offset < 0:
            raise ConfigError(f"LearnedPositionsConfig.offset must be 0 or more, found {self.offset}")

    def build(self, hidden_size: int) -> LearnedPositions:
        """The module: a batch -> [T, D]."""
        return LearnedPositions(self, hidden_size)


class LearnedPositions(nn.Embedding):
    """A table of positions."""

    def __init__(self, config: LearnedPositionsConfig, hidden_size: int) -> None:
        super().__init__(config.num_positions + config.offset, hidden_size)
        self.offset = config.offset
        self.num_positions = config.num_positions

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # called with a batch, as every scheme is
        self, batch: PackedBatch
    ) -> Float[Tensor, "T D"]:
        """The vector of each token's position."""
        self.check(batch)
        return super().forward(batch.position_ids + self.offset)

    def check(self, batch: PackedBatch) -> None:
        """Raise InputError where a sequence is longer than the table."""
        if batch.max_seqlen > self.num_positions:
            raise InputError(
                f"a sequence of {batch.max_seqlen} tokens is longer than the {self.num_positions} positions "
                "of this model; cut it into windows or use a model with rotary positions"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingConfig(Part):
    """Token vectors, plus positions and types where a model has them; `num_token_types=0` means no types."""

    kind: ClassVar[str] = "embedding"
    norm: NormPart | None = LayerNormConfig()
    positions: EmbeddingPositions | None = None
    num_token_types: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_probability(self, "dropout")
        if self.num_token_types < 0:
            raise ConfigError(
                f"EmbeddingConfig.num_token_types must be 0 or more, found {self.num_token_types}"
            )

    def build(self, vocab_size: int, hidden_size: int) -> Embedding:
        """The module: a batch -> [T, D]."""
        return Embedding(self, vocab_size, hidden_size)


class Embedding(nn.Module):
    """Parameters: `tok_embeddings` as published; `positions`, `token_types` and `norm` where configured."""

    def __init__(self, config: EmbeddingConfig, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(vocab_size, hidden_size)
        self.positions = None if config.positions is None else config.positions.build(hidden_size)
        self.token_types = (
            nn.Embedding(config.num_token_types, hidden_size) if config.num_token_types else None
        )
        self.norm = nn.Identity() if config.norm is None else config.norm.build(hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, batch: PackedBatch) -> Float[Tensor, "T D"]:
        """The vector of each token, before the first block."""
        x = self.tok_embeddings(batch.token_ids)  # [T, D]
        if self.token_types is not None:
            # all tokens are of type 0 where the batch does not say: row 0 is added to every token
            x = x + (
                self.token_types.weight[0]
                if batch.token_types is None
                else self.token_types(batch.token_types)
            )
        if self.positions is not None:
            x = x + self.positions(batch)
        return self.dropout(self.norm(x))
