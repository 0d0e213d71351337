"""Self-attention over a pack: one product for q, k and v, positions, the kernel, one product out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import nn

from modernbert.encoder.config import Part, require_positive, require_probability
from modernbert.errors import ConfigError
from modernbert.kernels.attention import attend

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from modernbert.text.batch import PackedBatch


class HeadPositions(Protocol):
    """A position scheme that acts on queries and keys: `RotaryConfig`, or a part of a user's own.

    Its module is called as `module(qkv, batch)`, with qkv [T, 3, H, K], and returns the same shape.
    """

    def build(self, head_dim: int) -> nn.Module:
        """The module for heads of this size."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionConfig(Part):
    """Multi-head self-attention, global (`window_each_side=None`) or local (64: a token sees 129 keys).

    `dropout` acts on the attention weights, `out_dropout` on what comes out of the last product.
    """

    kind: ClassVar[str] = "attention"
    num_heads: int
    window_each_side: int | None = None
    rotary: HeadPositions | None = None
    has_qkv_bias: bool = False
    has_out_bias: bool = False
    dropout: float = 0.0
    out_dropout: float = 0.0

    def __post_init__(self) -> None:
        require_positive(self, "num_heads")
        require_probability(self, "dropout", "out_dropout")
        if self.window_each_side is not None and self.window_each_side < 0:
            raise ConfigError(
                f"AttentionConfig.window_each_side must be 0 or more, found {self.window_each_side}"
            )

    def build(self, hidden_size: int) -> Attention:
        """The module: [T, D] -> [T, D]."""
        return Attention(self, hidden_size)


class Attention(nn.Module):
    """Parameters as published: `Wqkv` (all queries, then keys, then values; each heads-major) and `Wo`."""

    def __init__(self, config: AttentionConfig, hidden_size: int) -> None:
        super().__init__()
        if hidden_size % config.num_heads:
            raise ConfigError(f"hidden_size {hidden_size} cannot be shared out to {config.num_heads} heads")
        self.num_heads = config.num_heads
        self.window_each_side = config.window_each_side
        self.dropout = config.dropout
        self.Wqkv = nn.Linear(hidden_size, 3 * hidden_size, bias=config.has_qkv_bias)
        self.Wo = nn.Linear(hidden_size, hidden_size, bias=config.has_out_bias)
        self.out_dropout = nn.Dropout(config.out_dropout)
        self.positions = (
            None if config.rotary is None else config.rotary.build(hidden_size // config.num_heads)
        )

    def forward(
        self,
        x: Float[Tensor, "T D"],
        batch: PackedBatch,
        backend: str,
        positions: Int[Tensor, "M"] | None = None,
    ) -> Float[Tensor, "T D"]:
        """Mix the tokens of each sequence of the pack; `backend` names the kernel.

        With `positions`, indices into the pack, [M, D]: what these tokens get.
        """
        qkv = self.Wqkv(x).unflatten(-1, (3, self.num_heads, -1))  # [T, 3, H, K]
        if self.positions is not None:
            qkv = self.positions(qkv, batch)
        q, k, v = qkv.unbind(1)  # each [T, H, K]
        mixed = attend(
            q,
            k,
            v,
            batch.cu_seqlens,
            batch.max_seqlen,
            window_each_side=self.window_each_side,
            dropout=self.dropout if self.training else 0.0,
            backend=backend,
            positions=positions,
        )
        return self.out_dropout(self.Wo(mixed.flatten(1)))  # [T, H, K] -> [T, D]
