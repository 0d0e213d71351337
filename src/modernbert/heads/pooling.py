"""From token vectors to one vector for each sequence. Bounds come from the pack: no padding leaks in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from modernbert.errors import ConfigError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def pool(
    x: Float[Tensor, "T D"],
    cu_seqlens: Int[Tensor, "S+1"],
    mode: str,
    num_before: Int[Tensor, "S"] | None = None,
) -> Float[Tensor, "S D"]:
    """Pool each sequence by `mode`, one of POOLINGS; sums run in fp32 whatever the dtype of `x`, which the
    result keeps.

    `num_before` says how many tokens of each sequence (those of a prompt) stand before the ones in `x`: the
    weights of "weightedmean" count through them.
    """
    if mode not in POOLINGS:
        raise ConfigError(f"unknown pooling {mode!r}; there are: {', '.join(POOLINGS)}")
    if mode == "weightedmean":
        return _weighted_mean(x, cu_seqlens, num_before).to(x.dtype)
    return POOLINGS[mode](x, cu_seqlens).to(x.dtype)


def _first(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    return x[cu_seqlens[:-1].long()]


def _last(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    return x[cu_seqlens[1:].long() - 1]


def _mean(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    return _sum(x, cu_seqlens) / cu_seqlens.diff()[:, None]


def _mean_sqrt(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    return _sum(x, cu_seqlens) / cu_seqlens.diff()[:, None].sqrt()


def _weighted_mean(x: Tensor, cu_seqlens: Tensor, num_before: Tensor | None = None) -> Tensor:
    """Later tokens count more: weights 1, 2, 3, ... (Muennighoff 2022, arXiv 2202.08904)."""
    lengths = cu_seqlens.diff().long()  # the sum of 1 to n outgrows 32 bits
    before = torch.zeros_like(lengths) if num_before is None else num_before.long()
    starts = (cu_seqlens[:-1] - before).repeat_interleave(lengths)
    weight = 1.0 + torch.arange(x.shape[0], device=x.device) - starts  # [T]
    total = lengths * (lengths + 1) / 2 + lengths * before
    return _sum(x.float() * weight[:, None], cu_seqlens) / total[:, None]


def _max(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    return torch.stack([sequence.amax(dim=0) for sequence in x.split(cu_seqlens.diff().tolist())])


def _sum(x: Tensor, cu_seqlens: Tensor) -> Tensor:
    return torch.stack([sequence.float().sum(dim=0) for sequence in x.split(cu_seqlens.diff().tolist())])


POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "cls": _first,
        "mean": _mean,
        "max": _max,
        "mean_sqrt_len_tokens": _mean_sqrt,
        "weightedmean": _weighted_mean,
        "lasttoken": _last,
    }
)
