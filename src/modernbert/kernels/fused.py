"""The memory-bound neighbours of attention, each as one function: rotary on q and k, and the gated product.

The plain torch forms here serve every device. Without gradients they work in place on the buffers that the
matrix products before them have just written: the traffic they save is most of what these steps cost. With
gradients a rotation is undone by the opposite one, so that nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Tokens whose intermediate results stay in a core's cache between the steps of a rotation.
CACHED_ROWS = 256


def rotary_qkv(
    qkv: Float[Tensor, "T 3 H K"],
    cos: Float[Tensor, "T R/2"],
    sin: Float[Tensor, "T R/2"],
    *,
    is_interleaved: bool = False,
) -> Float[Tensor, "T 3 H K"]:
    """Rotate the first R numbers of each query and key head by its position's angles; the values pass
    through.

    Pairs are (i, i + R/2), or (2i, 2i + 1) where interleaved; each pair (a, b) becomes (a cos - b sin, b cos
    + a sin), in fp32 (Su et al. 2021, arXiv 2104.09864, eq. 34). Without gradients `qkv` itself is changed
    and returned.
    """
    if torch.is_grad_enabled() and qkv.requires_grad:
        return _Rotation.apply(qkv, cos, sin, is_interleaved)  # pyright: ignore[reportReturnType]  # a tensor
    return _rotated(qkv, cos, sin, is_interleaved)


class _Rotation(torch.autograd.Function):
    """A rotation of a copy; its gradient is the gradient turned back."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, is_interleaved: bool) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.is_interleaved = is_interleaved
        return _rotated(qkv.clone(), cos, sin, is_interleaved)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides names
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _rotated(grad.clone(), cos, -sin, ctx.is_interleaved), None, None, None


def _rotated(qkv: Tensor, cos: Tensor, sin: Tensor, is_interleaved: bool) -> Tensor:
    """The same tensor, queries and keys turned."""
    qk = qkv[:, :2, :, : 2 * cos.shape[-1]]  # [T, 2, H, R]
    first, second = (qk[..., 0::2], qk[..., 1::2]) if is_interleaved else qk.chunk(2, dim=-1)
    cos, sin = cos[:, None, None, :], sin[:, None, None, :]
    for tensors in zip(*(x.split(CACHED_ROWS) for x in (first, second, cos, sin)), strict=True):
        _rotate_in_place(*tensors)
    return qkv


def _rotate_in_place(first: Tensor, second: Tensor, cos: Tensor, sin: Tensor) -> None:
    a, b = first.float(), second.float()
    rotated_first = torch.addcmul(a * cos, b, sin, value=-1)
    second.copy_(torch.addcmul(b * cos, a, sin))
    first.copy_(rotated_first)


def gated(x: Float[Tensor, "T 2F"], activation: Callable[[Tensor], Tensor]) -> Float[Tensor, "T F"]:
    """`activation(first half) * second half`: a gated linear unit (Shazeer 2020, arXiv 2002.05202)."""
    value, gate = x.chunk(2, dim=-1)
    activated = activation(value)
    if torch.is_grad_enabled() and x.requires_grad:
        return activated * gate
    return activated.mul_(gate) if activated is not value else activated * gate
