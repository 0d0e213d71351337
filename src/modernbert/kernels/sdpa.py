"""Attention through torch's scaled_dot_product_attention: on every device, forward and backward.

Neighbours of equal length run as one call, without a copy. A local layer never forms an n x n score matrix:
queries go in blocks, and each block sees its own keys and `window` more on each side, so work and memory are
O(n * window):

    keys      [ . . . . . . . . . . . . . . . . ]
    block 0   [ q q q q w w ]
    block 1         [ w w q q q q w w ]
    tail                    [ w w q q q q ]

All inner blocks are one call on an overlapping view of the keys; the first block and the tail are one call
each.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from modernbert.kernels.call import AttentionCall


def unsupported(call: AttentionCall) -> list[str]:
    """Reasons why SDPA cannot serve this call."""
    return [] if call.q.dtype.is_floating_point else [f"needs floating point, not {call.q.dtype}"]


def attend(call: AttentionCall) -> Float[Tensor, "T H K"]:
    """Attention, sequence by sequence or in groups of neighbours of equal length."""
    groups = list(_neighbours_of_equal_length(call))
    sizes = [length * num_sequences for length, num_sequences in groups]
    # split, not slices: the gradient of each slice would be a tensor of zeros as large as the pack
    parts = zip(call.q.split(sizes), call.k.split(sizes), call.v.split(sizes), groups, strict=True)
    pieces = [_group(call, q, k, v, num_sequences) for q, k, v, (_, num_sequences) in parts]
    if len(pieces) == 1:
        return pieces[0]
    return torch.cat(pieces) if pieces else call.q


def attend_at(call: AttentionCall, positions: Int[Tensor, "M"]) -> Float[Tensor, "M H K"]:
    """Attention of the tokens at `positions`, indices into the pack; the other queries are not computed.

    They are where a window has the queries go in blocks, and where `positions` are none or do not rise.
    """
    is_rising = len(positions) > 0 and bool((positions[1:] >= positions[:-1]).all())
    if call.window is not None or not is_rising:
        return attend(call)[positions]
    wanted = call.q.index_select(0, positions)  # [M, H, K]
    sizes = torch.searchsorted(positions, call.cu_seqlens.to(positions.dtype)).diff().tolist()
    lengths = call.cu_seqlens.diff().tolist()
    parts = zip(wanted.split(sizes), call.k.split(lengths), call.v.split(lengths), strict=True)
    pieces = [_group(call, *part, num_sequences=1) for part in parts if len(part[0])]
    return torch.cat(pieces)


def _neighbours_of_equal_length(call: AttentionCall) -> Iterator[tuple[int, int]]:
    """A length and how many neighbours of it run together, in the order of the pack."""
    lengths = [end - start for start, end in pairwise(call.cu_seqlens.tolist())]
    for length, group in groupby(lengths):
        num_sequences = len(list(group))
        # a long sequence of a local layer goes alone: only then are its overlapping blocks views, not copies
        is_cut = call.window_each_side is not None and length > call.window_each_side + 1
        together = 1 if is_cut else num_sequences
        for _ in range(num_sequences // together if length else 0):
            yield length, together


def _group(
    call: AttentionCall, q: Tensor, k: Tensor, v: Tensor, num_sequences: int
) -> Float[Tensor, "t H K"]:
    q, k, v = (x.unflatten(0, (num_sequences, -1)).transpose(1, 2) for x in (q, k, v))  # each [B, H, n, K]
    window = call.window_each_side
    if window is None or k.shape[2] <= window + 1:
        mixed = _sdpa(q, k, v, None, call)
    else:
        mixed = _windowed(q, k, v, window, call)
    return mixed.transpose(1, 2).flatten(0, 1)  # [B * n, H, K]


def _windowed(
    q: Float[Tensor, "B H n K"],
    k: Float[Tensor, "B H n K"],
    v: Float[Tensor, "B H n K"],
    window: int,
    call: AttentionCall,
) -> Float[Tensor, "B H n K"]:
    length = q.shape[2]
    block = _block_size(window)
    band = _band(window, block, q.dtype, q.device)  # row i sees columns i to i + 2 * window
    num_inner = max(0, (length - window) // block - 1)
    if num_inner == 0 and length <= block + 2 * window:
        return _sdpa(q, k, v, band[:length, window : window + length], call)
    tail = (num_inner + 1) * block
    end = block + window
    pieces = [_sdpa(q[:, :, :block], k[:, :, :end], v[:, :, :end], band[:block, window : window + end], call)]
    if num_inner:
        pieces.append(_inner_blocks(q, k, v, window, block, num_inner, band, call))
    if tail < length:
        start, num_left = tail - window, length - tail
        mask = band[:num_left, : num_left + window]
        pieces.append(_sdpa(q[:, :, tail:], k[:, :, start:], v[:, :, start:], mask, call))
    return torch.cat(pieces, dim=2)


def _inner_blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    block: int,
    num_inner: int,
    band: Tensor,
    call: AttentionCall,
) -> Float[Tensor, "B H m K"]:
    """Queries `block` to `block * (num_inner + 1)`: each block with `window` keys on both sides."""
    batch = q.shape[0]
    seen = slice(block - window, block * (num_inner + 1) + window)
    queries = q[:, :, block : block * (num_inner + 1)].unflatten(2, (num_inner, block))  # [B, H, N, block, K]
    keys, values = (x[:, :, seen].unfold(2, block + 2 * window, block).transpose(3, 4) for x in (k, v))
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (queries, keys, values))  # each [B * N, H, ..., K]
    mixed = _sdpa(q, k, v, band[:block, : block + 2 * window], call)  # [B * N, H, block, K]
    return mixed.unflatten(0, (batch, num_inner)).transpose(1, 2).flatten(2, 3)  # [B, H, N * block, K]


def _block_size(window: int) -> int:
    """Queries a block: one window, so that two thirds of the scores lie in the band; enough to be fast."""
    return max(window, 32)


@lru_cache(maxsize=16)
def _band(window: int, block: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "rows columns"]:
    """0 where `row <= column <= row + 2 * window`, else -inf; all masks of a local layer are slices of it."""
    with torch.inference_mode(False):  # the cached mask must serve training too, whoever asks for it first
        row = torch.arange(block + 2 * window, device=device)[:, None]
        column = torch.arange(block + 3 * window, device=device)[None, :]
        is_seen = (row <= column) & (column <= row + 2 * window)
        return torch.zeros(is_seen.shape, dtype=dtype, device=device).masked_fill_(~is_seen, float("-inf"))


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: AttentionCall) -> Tensor:
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=call.dropout, scale=call.scale)
