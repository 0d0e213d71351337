"""Attention written from its formula, in fp32, one sequence at a time: slow, and the truth for every other
backend.

    out_i = sum_j softmax_j(scale * q_i . k_j) v_j      over the j that token i may see

Scores of a whole sequence are held at once, O(n^2) in time and memory whatever the window.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from modernbert.kernels.call import AttentionCall


def unsupported(call: AttentionCall) -> list[str]:
    """Nothing: this backend serves every call."""
    del call
    return []


def attend(call: AttentionCall) -> Float[Tensor, "T H K"]:
    """Attention in fp32, given back in the dtype of the queries."""
    bounds = call.cu_seqlens.tolist()
    pieces = [_one_sequence(call, slice(start, end)) for start, end in pairwise(bounds)]
    return torch.cat(pieces).to(call.q.dtype) if pieces else call.q


def _one_sequence(call: AttentionCall, rows: slice) -> Float[Tensor, "n H K"]:
    q, k, v = (x[rows].float().transpose(0, 1) for x in (call.q, call.k, call.v))  # each [H, n, K]
    scores = call.scale * q @ k.transpose(1, 2)  # [H, n, n]
    if call.window_each_side is not None:
        position = torch.arange(scores.shape[-1], device=scores.device)
        is_far = (position[:, None] - position[None, :]).abs() > call.window_each_side
        scores = scores.masked_fill(is_far, float("-inf"))
    weights = torch.nn.functional.dropout(scores.softmax(dim=-1), p=call.dropout, training=call.dropout > 0)
    return (weights @ v).transpose(0, 1)  # [n, H, K]
