"""What each token goes through alone: a plain two-layer MLP (BERT) or a gated linear unit (ModernBERT's
GeGLU).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from modernbert.encoder.activation import build_activation
from modernbert.encoder.config import Part, require_positive, require_probability
from modernbert.kernels.fused import gated

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class MlpConfig(Part):
    """`Wo(activation(Wi(x)))`: `dropout` acts on the inner numbers, `out_dropout` on the result."""

    kind: ClassVar[str] = "mlp"
    intermediate_size: int
    activation: str = "gelu"
    has_in_bias: bool = False
    has_out_bias: bool = False
    dropout: float = 0.0
    out_dropout: float = 0.0

    def __post_init__(self) -> None:
        require_positive(self, "intermediate_size")
        require_probability(self, "dropout", "out_dropout")

    def build(self, hidden_size: int) -> Mlp:
        """The module: [T, D] -> [T, D]."""
        return Mlp(self, hidden_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class GluConfig(Part):
    """`Wo(activation(u) * g)`, where `Wi(x)` gives u and g side by side; `intermediate_size` is the size of
    each.
    """

    kind: ClassVar[str] = "glu"
    intermediate_size: int
    activation: str = "gelu"
    has_in_bias: bool = False
    has_out_bias: bool = False
    dropout: float = 0.0
    out_dropout: float = 0.0

    def __post_init__(self) -> None:
        require_positive(self, "intermediate_size")
        require_probability(self, "dropout", "out_dropout")

    def build(self, hidden_size: int) -> Glu:
        """The module: [T, D] -> [T, D]."""
        return Glu(self, hidden_size)


class Mlp(nn.Module):
    """Two products with an activation between them."""

    def __init__(self, config: MlpConfig, hidden_size: int) -> None:
        super().__init__()
        self.Wi = nn.Linear(hidden_size, config.intermediate_size, bias=config.has_in_bias)
        self.activation = build_activation(config.activation)
        self.Wo = nn.Linear(config.intermediate_size, hidden_size, bias=config.has_out_bias)
        self.dropout = nn.Dropout(config.dropout)
        self.out_dropout = nn.Dropout(config.out_dropout)

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """Token by token."""
        return self.out_dropout(self.Wo(self.dropout(self.activation(self.Wi(x)))))


class Glu(nn.Module):
    """Two products with a gate between them; `Wi` holds the activated half first."""

    def __init__(self, config: GluConfig, hidden_size: int) -> None:
        super().__init__()
        self.Wi = nn.Linear(hidden_size, 2 * config.intermediate_size, bias=config.has_in_bias)
        self.activation = build_activation(config.activation)
        self.Wo = nn.Linear(config.intermediate_size, hidden_size, bias=config.has_out_bias)
        self.dropout = nn.Dropout(config.dropout)
        self.out_dropout = nn.Dropout(config.out_dropout)

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """Token by token."""
        return self.out_dropout(self.Wo(self.dropout(gated(self.Wi(x), self.activation))))
