"""The two norms: layer norm (ModernBERT, BERT) and RMS norm. A user's own norm is a part with the same
`build(hidden_size)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from modernbert.encoder.config import Part, require_at_least


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerNormConfig(Part):
    """Layer norm with a learned weight (Ba et al. 2016): BERT has a bias and eps 1e-12."""

    kind: ClassVar[str] = "layer_norm"
    eps: float = 1e-5
    has_bias: bool = False

    def __post_init__(self) -> None:
        require_at_least(self, 0, "eps")

    def build(self, hidden_size: int) -> nn.Module:
        """The module: [..., D] -> [..., D]."""
        return nn.LayerNorm(hidden_size, eps=self.eps, bias=self.has_bias)


@dataclass(frozen=True, kw_only=True, slots=True)
class RmsNormConfig(Part):
    """Root-mean-square norm with a learned weight (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    kind: ClassVar[str] = "rms_norm"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        require_at_least(self, 0, "eps")

    def build(self, hidden_size: int) -> nn.Module:
        """The module: [..., D] -> [..., D]."""
        return nn.RMSNorm(hidden_size, eps=self.eps)
