"""Local attention for training on a processor: all sequences of a pack at once, in tiles.

In go queries, keys and values; out comes what `sdpa` gives, with a gradient of its own. A tile is a block of
neighbouring queries, whatever sequences they belong to, and the keys of a window more on each side; a mask
keeps sequences apart. Heads lie end to end, so that every product is one batch over all tiles of all heads:

    pack      [ a a a a a b b c c c c c c c . . ]
    tile 0  [ . . q q q q w w ]
    tile 1          [ w w q q q q w w ]
    tile 2                  [ w w q q q q w w ]

`sdpa` has a call or three for each sequence, each with gradients to be filled, added and joined, and its
backward pass computes the scores again. Here the weights are kept, T * H * (block + 2 * window) numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from modernbert.kernels.call import AttentionCall

# Queries of a tile: fewer make small products, which are slow; more see too many keys outside their window.
SMALLEST_BLOCK = 32


def unsupported(call: AttentionCall) -> list[str]:
    """Reasons why tiles cannot serve this call, or are no gain."""
    reasons: list[str] = []
    if call.window is None:
        reasons.append("is for local layers with sequences longer than the window")
    if call.q.device.type != "cpu":
        reasons.append(f"is for processors, the tensors are on {call.q.device}")
    if call.q.dtype not in (torch.float32, torch.bfloat16):
        reasons.append(f"computes in float32 or bfloat16, not {call.q.dtype}")
    if call.dropout:
        reasons.append("has no attention dropout")
    if not call.wants_gradients:
        reasons.append("is for training, and no gradient is asked for")
    return reasons


def attend(call: AttentionCall) -> Float[Tensor, "T H K"]:
    """Local attention of all sequences at once."""
    window = call.window
    assert window is not None
    num_tokens, num_heads, _ = call.q.shape
    tiling = Tiling.of(num_tokens, num_heads, window)
    mask = _mask(tuple(call.cu_seqlens.diff().tolist()), window)
    return _TiledAttention.apply(call.q, call.k, call.v, mask, tiling, call.scale)  # pyright: ignore[reportReturnType]  # a tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """How the rows of all heads lie: a window of padding, then each head's tokens with padding after them.

    `num_tiles` are those of a head, the one that holds only padding included.
    """

    num_tokens: int
    num_heads: int
    num_tiles: int
    block: int
    window: int

    @classmethod
    def of(cls, num_tokens: int, num_heads: int, window: int) -> Tiling:
        """Blocks of one window; a head ends with at least a window of padding."""
        block = max(window, SMALLEST_BLOCK)
        num_tiles = -(-num_tokens // block) + -(-window // block)
        return cls(
            num_tokens=num_tokens, num_heads=num_heads, num_tiles=num_tiles, block=block, window=window
        )

    @property
    def num_keys(self) -> int:
        """Keys that a tile sees."""
        return self.block + 2 * self.window

    def lay_out(self, x: Float[Tensor, "T H K"]) -> Float[Tensor, "rows K"]:
        """The heads end to end, zeros between them."""
        rows = x.new_empty(self._num_rows, x.shape[-1])
        rows[: self.window] = 0
        rows[self.window + self.num_heads * self.num_tiles * self.block :] = 0
        heads = self._heads(rows)
        heads[:, self.num_tokens :] = 0
        heads[:, : self.num_tokens] = x.transpose(0, 1)
        return rows

    def queries(self, rows: Float[Tensor, "rows K"]) -> Float[Tensor, "N block K"]:
        """Each tile's own rows."""
        num_tiles = self.num_heads * self.num_tiles
        return rows[self.window : self.window + num_tiles * self.block].unflatten(0, (num_tiles, self.block))

    def keys(self, rows: Float[Tensor, "rows K"]) -> Float[Tensor, "N keys K"]:
        """Each tile's rows and a window more on both sides: an overlapping view."""
        seen = rows[: self.num_heads * self.num_tiles * self.block + 2 * self.window]
        return seen.unfold(0, self.num_keys, self.block).transpose(1, 2)

    def tokens(self, rows: Float[Tensor, "rows K"]) -> Float[Tensor, "T H K"]:
        """What `lay_out` laid out."""
        return self._heads(rows)[:, : self.num_tokens].transpose(0, 1)

    def sums(self, by_keys: Float[Tensor, "N keys K"]) -> Float[Tensor, "T H K"]:
        """For every token the sum over the tiles that saw it."""
        num_tiles = len(by_keys)
        rows = by_keys.new_zeros(self._num_rows, by_keys.shape[-1])
        for start in range(0, self.num_keys, self.block):
            part = by_keys[:, start : start + self.block]
            whole = rows[start : start + num_tiles * self.block].unflatten(0, (num_tiles, self.block))
            whole[:, : part.shape[1]] += part
        return self.tokens(rows)

    @property
    def _num_rows(self) -> int:
        """Enough for the keys of the last tile, in whole blocks."""
        return (self.num_heads * self.num_tiles + -(-2 * self.window // self.block)) * self.block

    def _heads(self, rows: Tensor) -> Float[Tensor, "H n K"]:
        body = rows[self.window : self.window + self.num_heads * self.num_tiles * self.block]
        return body.unflatten(0, (self.num_heads, -1))


@lru_cache(maxsize=2)
def _mask(lengths: tuple[int, ...], window: int) -> Float[Tensor, "n block keys"]:
    """For the tiles of one head 0 where a query sees a key, else -inf; layers of a model share it.

    Padding is a sequence of its own, so that every query sees a key at least.
    """
    tiling = Tiling.of(sum(lengths), 1, window)
    with torch.inference_mode(False):  # the cached mask must serve training, whoever asks for it first
        sequence = torch.repeat_interleave(torch.tensor(lengths))  # [T]
        numbers = tiling.lay_out(sequence[:, None, None] + 1)  # [rows, 1], 0 for padding
        queries, keys = tiling.queries(numbers), tiling.keys(numbers).transpose(1, 2)
        row, column = torch.arange(tiling.block)[:, None], torch.arange(tiling.num_keys)[None, :]
        is_near = (row <= column) & (column <= row + 2 * window)
        is_seen = (queries == keys) & is_near  # [n, block, keys]
        return torch.zeros(is_seen.shape).masked_fill_(~is_seen, float("-inf"))


class _TiledAttention(torch.autograd.Function):
    """Scores, and the gradients by the weights, are products in float32 whatever the dtype of q, k and v: a
    softmax makes much of what rounding loses. All that is summed with weights is in that dtype.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, tiling: Tiling, scale: float
    ) -> Float[Tensor, "T H K"]:
        q, k, v = (tiling.lay_out(x) for x in (q, k, v))  # each [rows, K]
        scores = mask.repeat(tiling.num_heads, 1, 1)  # [N, block, keys]
        scores.baddbmm_(tiling.queries(q.float()), tiling.keys(k.float()).transpose(1, 2), alpha=scale)
        weights = torch.softmax(scores, dim=-1, out=scores).to(v.dtype)
        mixed = torch.bmm(weights, tiling.keys(v))  # [N, block, K]
        mixed = mixed.unflatten(0, (tiling.num_heads, -1)).flatten(1, 2)[:, : tiling.num_tokens]  # [H, T, K]
        out = mixed.transpose(0, 1).contiguous()
        ctx.save_for_backward(q, k, v, weights, out)
        ctx.tiling, ctx.scale = tiling, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides names
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        """With P the weights and D the sum of grad * out over a head: dS = P * (grad V^T - D)."""
        q, k, v, weights, out = ctx.saved_tensors
        tiling: Tiling = ctx.tiling
        inner = (grad.float() * out.float()).sum(dim=-1, keepdim=True)
        inner = tiling.queries(tiling.lay_out(inner))  # [N, block, 1]
        grad = tiling.queries(tiling.lay_out(grad))  # [N, block, K]
        by_scores = torch.bmm(grad.float(), tiling.keys(v.float()).transpose(1, 2))  # [N, block, keys]
        by_scores = by_scores.sub_(inner).mul_(weights.float()).mul_(ctx.scale).to(q.dtype)
        by_v = tiling.sums(torch.bmm(weights.transpose(1, 2), grad))
        by_k = tiling.sums(torch.bmm(by_scores.transpose(1, 2), tiling.queries(q)))
        by_q = torch.bmm(by_scores, tiling.keys(k))  # [N, block, K]
        by_q = by_q.unflatten(0, (tiling.num_heads, -1)).flatten(1, 2)[:, : tiling.num_tokens].transpose(0, 1)
        return by_q, by_k, by_v, None, None, None
