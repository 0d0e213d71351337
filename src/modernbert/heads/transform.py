"""The small layer that many heads share: a product, an activation, and often a norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from modernbert.encoder.activation import build_activation
from modernbert.encoder.config import Part
from modernbert.encoder.norm import LayerNormConfig

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from modernbert.encoder.embedding import NormPart


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformConfig(Part):
    """`norm(activation(dense(x)))`. The defaults are ModernBERT's prediction head; BERT's pooler is tanh
    without a norm.
    """

    kind: ClassVar[str] = "transform"
    activation: str = "gelu"
    has_bias: bool = False
    norm: NormPart | None = LayerNormConfig()

    def build(self, hidden_size: int) -> Transform:
        """The module: [..., D] -> [..., D]."""
        return Transform(self, hidden_size)


class Transform(nn.Module):
    """Parameters as published: `dense` and `norm`."""

    def __init__(self, config: TransformConfig, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size, bias=config.has_bias)
        self.activation = build_activation(config.activation)
        self.norm = nn.Identity() if config.norm is None else config.norm.build(hidden_size)

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Vector by vector."""
        return self.norm(self.activation(self.dense(x)))


def build_transform(config: TransformConfig | None, hidden_size: int) -> nn.Module:
    """The transform, or nothing where a head has none."""
    return nn.Identity() if config is None else config.build(hidden_size)
