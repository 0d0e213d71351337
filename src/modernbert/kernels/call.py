"""What a backend is asked to do: the tensors of one attention call and its settings, in one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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

    def description(self) -> str:
        """The call in a few words, for error messages."""
        num_tokens, num_heads, head_dim = self.q.shape
        return (
            f"{num_tokens} tokens in {len(self.cu_seqlens) - 1} sequences, {num_heads} heads of {head_dim}, "
            f"{self.q.dtype} on {self.q.device}, window {self.window_each_side}, dropout={self.dropout}"
        )
