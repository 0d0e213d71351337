"""Flash attention on CUDA, through the variable-length form that is part of torch: no package to install.

Only the mapping of arguments is ours. torch counts a window as (keys to the left, keys to the right), with -1
for all of them, and wants int32 offsets; both ends of the window are inclusive there as here. The module is
imported by the first call: it takes over a second, which nobody without a GPU should wait for.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from modernbert.kernels.call import AttentionCall

LARGEST_HEAD_DIM = 256


def unsupported(call: AttentionCall) -> list[str]:
    """Reasons why flash attention cannot serve this call."""
    reasons: list[str] = []
    head_dim = call.q.shape[-1]
    if call.q.device.type != "cuda":
        reasons.append(f"needs a CUDA device, the tensors are on {call.q.device}")
    elif torch.cuda.get_device_capability(call.q.device) < (8, 0):
        reasons.append("needs a GPU of compute capability 8.0 (Ampere) or newer")
    if call.q.dtype not in (torch.bfloat16, torch.float16):
        reasons.append(f"computes in bfloat16 or float16, not {call.q.dtype}")
    if head_dim % 8 or head_dim > LARGEST_HEAD_DIM:
        reasons.append(f"needs a head size that 8 divides, at most {LARGEST_HEAD_DIM}, not {head_dim}")
    if call.dropout:
        reasons.append("has no attention dropout")
    return reasons


def attend(call: AttentionCall) -> Float[Tensor, "T H K"]:
    """Attention by torch's own varlen kernel."""
    from torch.nn.attention import varlen

    window = call.window
    bounds = call.cu_seqlens.to(torch.int32)
    out = varlen.varlen_attn(
        call.q,
        call.k,
        call.v,
        bounds,
        bounds,
        call.max_seqlen,
        call.max_seqlen,
        scale=call.scale,
        window_size=(-1, -1) if window is None else (window, window),
        **_batch_invariant(),
    )
    assert isinstance(out, torch.Tensor)  # a tuple comes only where return_aux was asked for
    return out


@cache
def _batch_invariant() -> dict[str, Any]:
    """One split of the keys keeps a text's result independent of its batch mates; old releases cannot be
    asked.
    """
    from torch.nn.attention import varlen

    return {"num_splits": 1} if "num_splits" in inspect.signature(varlen.varlen_attn).parameters else {}
