"""Random attention calls for the tests of this folder, and how to run one forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from modernbert.kernels.call import AttentionCall


def random_call(
    lengths: Sequence[int],
    *,
    window_each_side: int | None = None,
    dtype: torch.dtype = torch.float32,
    num_heads: int = 2,
    head_dim: int = 8,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> AttentionCall:
    generator = torch.Generator().manual_seed(seed)
    shape = (sum(lengths), num_heads, head_dim)
    q, k, v = (torch.randn(shape, generator=generator).to(dtype) for _ in range(3))
    return AttentionCall(
        q=q,
        k=k,
        v=v,
        cu_seqlens=torch.tensor([0, *accumulate(lengths)], dtype=torch.int32),
        max_seqlen=max(lengths),
        window_each_side=window_each_side,
        scale=head_dim**-0.5 if scale is None else scale,
        dropout=dropout,
    )


def forward_and_gradients(
    attend: Callable[[AttentionCall], Tensor], call: AttentionCall
) -> tuple[Tensor, ...]:
    """The output, and the gradients of a random weighted sum of it with respect to q, k and v."""
    q, k, v = (x.clone().requires_grad_() for x in (call.q, call.k, call.v))
    out = attend(replace(call, q=q, k=k, v=v))
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return out.detach(), *torch.autograd.grad((out * weight).sum(), (q, k, v))
