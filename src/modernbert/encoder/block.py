"""One layer of an encoder: attention, an MLP, and where the norms stand around them.

pre-norm   x + attn(norm(x)), then x + mlp(norm(x))        ModernBERT
post-norm  norm(x + attn(x)), then norm(x + mlp(x))        BERT
parallel   x + attn(norm(x)) + mlp(norm(x)), one norm      GPT-J
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import nn

from modernbert.encoder.attention import Attention
from modernbert.encoder.config import Part
from modernbert.encoder.norm import LayerNormConfig

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from modernbert.encoder.embedding import NormPart
    from modernbert.text.batch import PackedBatch


class AttentionPart(Protocol):
    """Attention: `AttentionConfig` or a user's own; its module is called as `module(x, batch, backend)`."""

    def build(self, hidden_size: int) -> nn.Module:
        """The module: [T, D] -> [T, D]."""
        ...


class MlpPart(Protocol):
    """What each token goes through alone: `MlpConfig`, `GluConfig` or a user's own."""

    def build(self, hidden_size: int) -> nn.Module:
        """The module: [T, D] -> [T, D]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PreNormConfig(Part):
    """Norms before attention and MLP; a norm of None is left out (ModernBERT's first layer has no attention
    norm).
    """

    kind: ClassVar[str] = "pre_norm"
    attention: AttentionPart
    mlp: MlpPart
    attention_norm: NormPart | None = LayerNormConfig()
    mlp_norm: NormPart | None = LayerNormConfig()

    def build(self, hidden_size: int) -> PreNormBlock:
        """The module: called as `module(x, batch, backend)`, [T, D] -> [T, D]."""
        return PreNormBlock(self, hidden_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class PostNormConfig(Part):
    """Norms on the sums."""

    kind: ClassVar[str] = "post_norm"
    attention: AttentionPart
    mlp: MlpPart
    attention_norm: NormPart | None = LayerNormConfig()
    mlp_norm: NormPart | None = LayerNormConfig()

    def build(self, hidden_size: int) -> PostNormBlock:
        """The module: called as `module(x, batch, backend)`, [T, D] -> [T, D]."""
        return PostNormBlock(self, hidden_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelConfig(Part):
    """Attention and MLP side by side, behind one norm."""

    kind: ClassVar[str] = "parallel"
    attention: AttentionPart
    mlp: MlpPart
    norm: NormPart | None = LayerNormConfig()

    def build(self, hidden_size: int) -> ParallelBlock:
        """The module: called as `module(x, batch, backend)`, [T, D] -> [T, D]."""
        return ParallelBlock(self, hidden_size)


class Block(nn.Module):
    """A layer that can be asked for some tokens only: all are seen, and the rest of the work is left out.

    Called as `module(x, batch, backend, positions)`, [T, D] -> [M, D]: `positions` are indices into the pack,
    and without them all T tokens are asked for.
    """


class PreNormBlock(Block):
    """`x + attn(norm(x))`, then `x + mlp(norm(x))`."""

    def __init__(self, config: PreNormConfig, hidden_size: int) -> None:
        super().__init__()
        self.attn_norm = _build_norm(config.attention_norm, hidden_size)
        self.attn = config.attention.build(hidden_size)
        self.mlp_norm = _build_norm(config.mlp_norm, hidden_size)
        self.mlp = config.mlp.build(hidden_size)

    def forward(
        self,
        x: Float[Tensor, "T D"],
        batch: PackedBatch,
        backend: str,
        positions: Int[Tensor, "M"] | None = None,
    ) -> Float[Tensor, "T D"]:
        """One layer over the pack."""
        mixed = _attend(self.attn, self.attn_norm(x), batch, backend, positions)
        x = _at(x, positions) + mixed
        return x + self.mlp(self.mlp_norm(x))


class PostNormBlock(Block):
    """`norm(x + attn(x))`, then `norm(x + mlp(x))`."""

    def __init__(self, config: PostNormConfig, hidden_size: int) -> None:
        super().__init__()
        self.attn = config.attention.build(hidden_size)
        self.attn_norm = _build_norm(config.attention_norm, hidden_size)
        self.mlp = config.mlp.build(hidden_size)
        self.mlp_norm = _build_norm(config.mlp_norm, hidden_size)

    def forward(
        self,
        x: Float[Tensor, "T D"],
        batch: PackedBatch,
        backend: str,
        positions: Int[Tensor, "M"] | None = None,
    ) -> Float[Tensor, "T D"]:
        """One layer over the pack."""
        mixed = _attend(self.attn, x, batch, backend, positions)
        x = self.attn_norm(_at(x, positions) + mixed)
        return self.mlp_norm(x + self.mlp(x))


class ParallelBlock(Block):
    """`x + attn(norm(x)) + mlp(norm(x))`."""

    def __init__(self, config: ParallelConfig, hidden_size: int) -> None:
        super().__init__()
        self.norm = _build_norm(config.norm, hidden_size)
        self.attn = config.attention.build(hidden_size)
        self.mlp = config.mlp.build(hidden_size)

    def forward(
        self,
        x: Float[Tensor, "T D"],
        batch: PackedBatch,
        backend: str,
        positions: Int[Tensor, "M"] | None = None,
    ) -> Float[Tensor, "T D"]:
        """One layer over the pack."""
        normed = self.norm(x)
        mixed = _attend(self.attn, normed, batch, backend, positions)
        return _at(x, positions) + mixed + self.mlp(_at(normed, positions))


def _attend(
    attention: nn.Module,
    x: Float[Tensor, "T D"],
    batch: PackedBatch,
    backend: str,
    positions: Int[Tensor, "M"] | None,
) -> Float[Tensor, "M D"]:
    """What attention, ours or a user's own, gives to the tokens at `positions`, or to all T of them."""
    if isinstance(attention, Attention):
        return attention(x, batch, backend, positions)
    return _at(attention(x, batch, backend), positions)


def _at(x: Float[Tensor, "T D"], positions: Int[Tensor, "M"] | None) -> Float[Tensor, "M D"]:
    return x if positions is None else x.index_select(0, positions)


def _build_norm(norm: NormPart | None, hidden_size: int) -> nn.Module:
    return nn.Identity() if norm is None else norm.build(hidden_size)
