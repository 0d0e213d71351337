"""What a backend is asked to do: the tensors of one attention call and its settings, in one value."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from modernbert.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionCall:
    """Attention over a pack. T tokens, S sequences, H heads, K head size; see `attention.attend` for the
    fields.
    """

    q: Float[Tensor, "T H K"]
    k: Float[Tensor, "T H K"]
    v: Float[Tensor, "T H K"]
    cu_seqlens: Int[Tensor, "S+1"]
    max_seqlen: int
    window_each_side: int | None
    scale: float
    dropout: float

    @property
    def window(self) -> int | None:
        """The window, or None where it is so wide that every sequence fits inside it."""
        if self.window_each_side is None or self.window_each_side >= self.max_seqlen - 1:
            return None
        return self.window_each_side

    @property
    def wants_gradients(self) -> bool:
        """Whether a backward pass may follow."""
        return torch.is_grad_enabled() and any(x.requires_grad for x in (self.q, self.k, self.v))

    def check_bounds(self) -> None:
        """Raise InputError unless the bounds cut all tokens into sequences of at most `max_seqlen`.

        Looks at bounds on the CPU only: on a GPU a look would stop the stream at every layer.
        """
        if self.cu_seqlens.device.type != "cpu":
            return
        bounds, num_tokens = self.cu_seqlens.tolist(), self.q.shape[0]
        lengths = [end - start for start, end in pairwise(bounds)]
        is_whole = bounds[:1] == [0] and bounds[-1] == num_tokens
        if not is_whole or min(lengths, default=0) < 0 or max(lengths, default=0) > self.max_seqlen:
            raise InputError(
                f"cu_seqlens must rise from 0 to the {num_tokens} tokens of q, in steps of at most "
                f"max_seqlen={self.max_seqlen}; found {bounds[:8]}" + (" and more" if len(bounds) > 8 else "")
            )

    def description(self) -> str:
        """The call in a few words, for error messages."""
        num_tokens, num_heads, head_dim = self.q.shape
        return (
            f"{num_tokens} tokens in {len(self.cu_seqlens) - 1} sequences, {num_heads} heads of {head_dim}, "
            f"{self.q.dtype} on {self.q.device}, window {self.window_each_side}, dropout={self.dropout}"
        )
