"""Global attention for training on a processor in bfloat16: explicit products, some queries at a time.

In go queries, keys and values; out comes what `sdpa` gives, with a gradient of its own. Scores are products
in float32, and go through the softmax for as many queries as a core's cache holds:

    sequence  [ q q q q q q q q ]      weights  [ w w w w w w w w ]   kept, in bfloat16
    block 0   [ q q q ]                         [ w w w ]
    block 1         [ q q q ]                         [ w w w ]

torch's own kernel computes the scores a second time in its backward pass, in small products. The weights are
kept here, H * n * n numbers for a sequence of n tokens, so long sequences are left to `sdpa`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from modernbert.kernels.call import AttentionCall

# Tokens of the longest sequence whose weights are kept.
LONGEST = 1024
# Scores in float32 that a core's cache holds from one step over them to the next.
CACHED_SCORES = 2**18


def unsupported(call: AttentionCall) -> list[str]:
    """Reasons why explicit products cannot serve this call, or are no gain."""
    reasons: list[str] = []
    if call.window is not None:
        reasons.append("is for global layers")
    if call.max_seqlen > LONGEST:
        reasons.append(f"is for sequences of at most {LONGEST} tokens, found one of {call.max_seqlen}")
    if call.q.device.type != "cpu":
        reasons.append(f"is for processors, the tensors are on {call.q.device}")
    if call.q.dtype != torch.bfloat16:
        reasons.append(f"computes in bfloat16, not {call.q.dtype}")
    if call.dropout:
        reasons.append("has no attention dropout")
    if not call.wants_gradients:
        reasons.append("is for training, and no gradient is asked for")
    return reasons


def attend(call: AttentionCall) -> Float[Tensor, "T H K"]:
    """Attention, sequence by sequence."""
    lengths = call.cu_seqlens.diff().tolist()
    return _Products.apply(call.q, call.k, call.v, lengths, lengths, call.scale)  # pyright: ignore[reportReturnType]  # a tensor


def attend_at(call: AttentionCall, positions: Int[Tensor, "M"]) -> Float[Tensor, "M H K"]:
    """Attention of the tokens at `positions`, indices into the pack; the other queries are not computed.

    They are where `positions` do not rise.
    """
    if not bool((positions[1:] >= positions[:-1]).all()):
        return attend(call)[positions]
    num_queries = torch.searchsorted(positions, call.cu_seqlens.to(positions.dtype)).diff().tolist()
    lengths = call.cu_seqlens.diff().tolist()
    queries = call.q.index_select(0, positions)
    return _Products.apply(queries, call.k, call.v, num_queries, lengths, call.scale)  # pyright: ignore[reportReturnType]  # a tensor


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        num_queries: Sequence[int],
        lengths: Sequence[int],
        scale: float,
    ) -> Float[Tensor, "M H K"]:
        q, k, v = (x.transpose(0, 1).contiguous() for x in (q, k, v))  # [H, M, K], [H, T, K], [H, T, K]
        exact_q, exact_k = q.float().mul_(scale), k.float()
        out, kept = torch.empty_like(q), []
        for at, seen in _sequences(num_queries, lengths):
            keys = exact_k[:, seen].transpose(1, 2)
            weights = q.new_empty(len(q), at.stop - at.start, keys.shape[2])
            for queries, into in _blocks(exact_q[:, at], weights):
                scores = torch.bmm(queries, keys)  # [H, m, n]
                into.copy_(torch.softmax(scores, dim=-1, out=scores))
            out[:, at] = torch.bmm(weights, v[:, seen])
            kept.append(weights)
        ctx.save_for_backward(q, k, v, out, *kept)
        ctx.num_queries, ctx.lengths, ctx.scale = num_queries, lengths, scale
        return out.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides names
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        """With P the weights and D the sum of grad * out over a head: dS = P * (grad V^T - D)."""
        q, k, v, out, *kept = ctx.saved_tensors
        grad = grad.transpose(0, 1).contiguous()  # [H, M, K]
        exact_grad, exact_v = grad.float(), v.float()
        inner = (exact_grad * out.float()).sum(dim=-1, keepdim=True)  # [H, M, 1]
        by_q, by_k, by_v = (torch.empty_like(x) for x in (q, k, v))
        for (at, seen), weights in zip(_sequences(ctx.num_queries, ctx.lengths), kept, strict=True):
            values = exact_v[:, seen].transpose(1, 2)
            by_scores = torch.empty_like(weights)
            for some, subtrahend, each, into in _blocks(exact_grad[:, at], inner[:, at], weights, by_scores):
                into.copy_(torch.bmm(some, values).sub_(subtrahend).mul_(each.float()).mul_(ctx.scale))
            by_q[:, at] = torch.bmm(by_scores, k[:, seen])
            by_k[:, seen] = torch.bmm(by_scores.transpose(1, 2), q[:, at])
            by_v[:, seen] = torch.bmm(weights.transpose(1, 2), grad[:, at])
        return *(x.transpose(0, 1) for x in (by_q, by_k, by_v)), None, None, None


def _sequences(num_queries: Sequence[int], lengths: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Where the queries of each sequence lie, and where its keys."""
    bounds = (pairwise(accumulate(sizes, initial=0)) for sizes in (num_queries, lengths))
    for queries, keys in zip(*bounds, strict=True):
        yield slice(*queries), slice(*keys)


def _blocks(*tensors: Float[Tensor, "H m _"]) -> Iterator[tuple[Float[Tensor, "H b _"], ...]]:
    """The same queries of each; the last tensor is as wide as there are keys."""
    num_heads, _, num_keys = tensors[-1].shape
    size = max(1, CACHED_SCORES // max(1, num_heads * num_keys))
    return zip(*(x.split(size, dim=1) for x in tensors), strict=True)
