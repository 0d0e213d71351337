"""Rotary positions: query and key heads turned by angles that grow with the position."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from modernbert.encoder.config import Part
from modernbert.errors import ConfigError
from modernbert.kernels.fused import rotary_qkv

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from modernbert.text.batch import PackedBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class RotaryConfig(Part):
    """Rotary positions of base `theta`; `fraction` of each head is turned, the rest passes through."""

    kind: ClassVar[str] = "rotary"
    theta: float = 10_000.0
    fraction: float = 1.0
    is_interleaved: bool = False

    def __post_init__(self) -> None:
        if self.theta <= 0:
            raise ConfigError(f"RotaryConfig.theta must be above 0, found {self.theta}")
        if not 0.0 < self.fraction <= 1.0:
            raise ConfigError(f"RotaryConfig.fraction must lie in (0, 1], found {self.fraction}")

    def build(self, head_dim: int) -> Rotary:
        """The module that turns queries and keys of heads of this size."""
        turned = head_dim * self.fraction
        rotary_size = round(turned)  # a fraction such as 2 / 98 gives 1.9999999999999998
        if rotary_size < 2 or rotary_size % 2 or abs(turned - rotary_size) > 1e-6:
            raise ConfigError(
                f"rotary positions turn pairs of numbers: {self.fraction} of a head of {head_dim} is "
                f"{turned:g}, which must be even and at least 2"
            )
        return Rotary(self.theta, rotary_size, self.is_interleaved)


class Rotary(nn.Module):
    """Turns queries and keys; has no weights."""

    def __init__(self, theta: float, rotary_size: int, is_interleaved: bool) -> None:
        super().__init__()
        self.theta = theta
        self.rotary_size = rotary_size
        self.is_interleaved = is_interleaved

    def forward(self, qkv: Float[Tensor, "T 3 H K"], batch: PackedBatch) -> Float[Tensor, "T 3 H K"]:
        """Turn q and k by the positions in the batch; without gradients, `qkv` itself."""
        cos, sin = angles(
            self.theta, self.rotary_size, num_angles(batch.max_seqlen), qkv.device
        )  # each [N, R/2]
        return rotary_qkv(
            qkv, cos[batch.position_ids], sin[batch.position_ids], is_interleaved=self.is_interleaved
        )


@lru_cache(maxsize=8)
def angles(
    theta: float, rotary_size: int, num_positions: int, device: torch.device
) -> tuple[Float[Tensor, "N R/2"], Float[Tensor, "N R/2"]]:
    """Cosine and sine of `position * theta ** (-2i / R)`, in fp32 step by step as the published models
    compute them.

    The cache is keyed by everything the result depends on, so that a changed theta cannot meet an old table.
    """
    with torch.inference_mode(False), torch.no_grad():
        exponent = torch.arange(0, rotary_size, 2, dtype=torch.float32, device=device) / rotary_size
        inverse_frequency = 1.0 / theta**exponent  # [R/2]
        position = torch.arange(num_positions, dtype=torch.float32, device=device)
        angle = position[:, None] * inverse_frequency[None, :]  # [N, R/2]
        return angle.cos(), angle.sin()


def num_angles(length: int) -> int:
    """Rows of a table for such sequences: the next power of two, so that many lengths share few tables."""
    return max(512, 1 << (length - 1).bit_length())
