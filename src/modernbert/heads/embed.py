"""Embeddings: one vector for each text, or one for each token of it.

A chain of dense layers may follow the pooling (or, for token vectors, the encoder itself); normalising comes
last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from modernbert.encoder.activation import build_activation
from modernbert.encoder.config import Part, require_positive
from modernbert.encoder.encoder import Encoder, initialize_like
from modernbert.errors import ConfigError
from modernbert.heads.pooling import POOLINGS, pool
from modernbert.heads.transform import TransformConfig, build_transform

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from modernbert.text.batch import PackedBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseConfig(Part):
    """A product and an activation, from the size before it to `out_features`."""

    kind: ClassVar[str] = "dense"
    out_features: int
    has_bias: bool = True
    activation: str = "identity"

    def __post_init__(self) -> None:
        require_positive(self, "out_features")


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedHeadConfig(Part):
    """One vector a text: the poolings side by side, then dense layers, then length 1 if `is_normalized`.

    The defaults are what a folder without any word on pooling gets: the mean of the token vectors, as it is.
    With `pools_prompt=False` the tokens of a prompt, and the special ones before it, are left out of the
    pooling.
    """

    kind: ClassVar[str] = "embed_head"
    poolings: tuple[str, ...] = ("mean",)
    dense: tuple[DenseConfig, ...] = ()
    is_normalized: bool = False
    pools_prompt: bool = True

    def __post_init__(self) -> None:
        if not self.poolings or any(mode not in POOLINGS for mode in self.poolings):
            raise ConfigError(f"poolings must be some of {', '.join(POOLINGS)}, found {self.poolings!r}")

    def build(self, encoder: Encoder) -> TextEmbedder:
        """The encoder with this head on it."""
        return TextEmbedder(self, encoder)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenEmbedHeadConfig(Part):
    """One vector a token, for late interaction (Khattab and Zaharia 2020, arXiv 2004.12832).

    `skiplist` are vocabulary entries, such as punctuation, of which documents keep no vector: the module
    gives them all the same, and who asks for documents leaves them out.
    """

    kind: ClassVar[str] = "token_embed_head"
    dense: tuple[DenseConfig, ...] = ()
    is_normalized: bool = True
    skiplist: tuple[str, ...] = ()

    def build(self, encoder: Encoder) -> TokenEmbedder:
        """The encoder with this head on it."""
        return TokenEmbedder(self, encoder)


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolerHeadConfig(Part):
    """BERT's pooler as it stands in the published encoders: `tanh(dense(cls))`, trained with the
    next-sentence task.
    """

    kind: ClassVar[str] = "pooler_head"

    def build(self, encoder: Encoder) -> Pooler:
        """The encoder with this head on it."""
        return Pooler(encoder)


class TextEmbedder(nn.Module):
    """Parameters: `model`, and `dense.N.linear` where there are dense layers."""

    def __init__(self, config: EmbedHeadConfig, encoder: Encoder) -> None:
        super().__init__()
        self.poolings = config.poolings
        self.is_normalized = config.is_normalized
        self.dense = _build_dense(config.dense, encoder.config.hidden_size * len(config.poolings))
        initialize_like(self, encoder.config)
        self.model = encoder

    def forward(self, batch: PackedBatch, backend: str = "auto") -> Float[Tensor, "S E"]:
        """One vector for each sequence, in fp32."""
        return self.embed(self.model(batch, backend), batch.cu_seqlens)

    def embed(
        self,
        hidden: Float[Tensor, "T D"],
        cu_seqlens: Int[Tensor, "S+1"],
        num_before: Int[Tensor, "S"] | None = None,
    ) -> Float[Tensor, "S E"]:
        """From the encoder's hidden states to vectors; pooling and what follows run in fp32.

        `num_before` as in `pool`: tokens of each sequence that were seen, but are not among `hidden`.
        """
        hidden = hidden.float()
        return self.finish([pool(hidden, cu_seqlens, mode, num_before) for mode in self.poolings])

    def finish(self, pooled: Sequence[Float[Tensor, "S D"]]) -> Float[Tensor, "S E"]:
        """What follows the poolings, in their order: side by side, dense layers, length 1."""
        return _finish(self.dense, torch.cat(list(pooled), dim=-1), self.is_normalized)


class TokenEmbedder(nn.Module):
    """Parameters: `model`, and `dense.N.linear` where there are dense layers."""

    def __init__(self, config: TokenEmbedHeadConfig, encoder: Encoder) -> None:
        super().__init__()
        self.is_normalized = config.is_normalized
        self.dense = _build_dense(config.dense, encoder.config.hidden_size)
        initialize_like(self, encoder.config)
        self.model = encoder

    def forward(self, batch: PackedBatch, backend: str = "auto") -> Float[Tensor, "T E"]:
        """One vector for each token, in fp32."""
        return self.finish(self.model(batch, backend))

    def finish(self, hidden: Float[Tensor, "... D"]) -> Float[Tensor, "... E"]:
        """What follows the encoder."""
        return _finish(self.dense, hidden.float(), self.is_normalized)


class Pooler(nn.Module):
    """Parameters: `model` and `head.dense`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        config = TransformConfig(activation="tanh", has_bias=True, norm=None)
        self.head = build_transform(config, encoder.config.hidden_size)
        initialize_like(self, encoder.config)
        self.model = encoder

    def forward(self, batch: PackedBatch, backend: str = "auto") -> Float[Tensor, "S D"]:
        """What the pooler makes of the first token of each sequence."""
        return self.head(pool(self.model(batch, backend), batch.cu_seqlens, "cls"))


class Dense(nn.Module):
    """A product and an activation, always in fp32: it is small, and what follows is compared by cosine."""

    def __init__(self, config: DenseConfig, in_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, config.out_features, bias=config.has_bias)
        self.activation = build_activation(config.activation)

    def forward(self, x: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:
        """Vector by vector."""
        return self.activation(self.linear(x.to(self.linear.weight.dtype))).float()


def _build_dense(layers: tuple[DenseConfig, ...], in_features: int) -> nn.ModuleList:
    built = nn.ModuleList()
    for layer in layers:
        built.append(Dense(layer, in_features))
        in_features = layer.out_features
    return built


def _finish(dense: nn.ModuleList, x: Tensor, is_normalized: bool) -> Tensor:
    for layer in dense:
        x = layer(x)
    return nn.functional.normalize(x, dim=-1) if is_normalized else x
