"""The one entry to attention: picks a backend, or says why none fits.

In go queries, keys and values of sequences laid end to end, `[T, H, K]`, and the bounds between them; out
comes `[T, H, K]`. A token sees the keys of its own sequence only, and in local layers only those with `|i -
j| <= window_each_side`. Which backend runs is a choice of the moment and never part of a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modernbert.errors import BackendError
from modernbert.kernels import flash, products, reference, sdpa, tiles
from modernbert.kernels.call import AttentionCall

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """A way to compute attention, and the reasons why it cannot serve a call (none: it can)."""

    name: str
    attend: Callable[[AttentionCall], Tensor]
    unsupported: Callable[[AttentionCall], list[str]]
    # at some of the tokens; None: all are computed and the rest is dropped
    attend_at: Callable[[AttentionCall, Tensor], Tensor] | None = None


# In the order in which "auto" tries them: the fastest first.
BACKENDS = (
    Backend(name="flash", attend=flash.attend, unsupported=flash.unsupported),
    Backend(name="tiles", attend=tiles.attend, unsupported=tiles.unsupported),
    Backend(
        name="products",
        attend=products.attend,
        unsupported=products.unsupported,
        attend_at=products.attend_at,
    ),
    Backend(name="sdpa", attend=sdpa.attend, unsupported=sdpa.unsupported, attend_at=sdpa.attend_at),
    Backend(name="reference", attend=reference.attend, unsupported=reference.unsupported),
)


def attend(
    q: Float[Tensor, "T H K"],
    k: Float[Tensor, "T H K"],
    v: Float[Tensor, "T H K"],
    cu_seqlens: Int[Tensor, "S+1"],
    max_seqlen: int,
    *,
    window_each_side: int | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
    positions: Int[Tensor, "M"] | None = None,
) -> Float[Tensor, "T H K"]:
    """Softmax attention inside each sequence of a pack.

    `cu_seqlens` holds the S + 1 bounds of the sequences, from 0 to T; `max_seqlen` is the longest of them in
    tokens. `window_each_side=64` lets a token see 129 keys; None means all of its sequence. `scale` defaults
    to K ** -0.5. `dropout` is the probability of dropping an attention weight: pass 0 outside training.
    Differentiable in q, k, v. `positions` are indices into the pack: only these M tokens are asked for, and
    the result is [M, H, K], in their order.

    Raises BackendError, with every backend's reasons, where none can serve the call, and InputError where
    bounds on the CPU do not fit the tokens; on a GPU they are not looked at.
    """
    call = AttentionCall(
        q=q,
        k=k,
        v=v,
        cu_seqlens=cu_seqlens,
        max_seqlen=max_seqlen,
        window_each_side=window_each_side,
        scale=q.shape[-1] ** -0.5 if scale is None else scale,
        dropout=dropout,
    )
    call.check_bounds()
    chosen = choose(call, backend)
    if positions is None:
        return chosen.attend(call)
    if chosen.attend_at is None:
        return chosen.attend(call)[positions]
    return chosen.attend_at(call, positions)


def choose(call: AttentionCall, name: str = "auto") -> Backend:
    """The backend of that name, or for "auto" the first that serves the call; BackendError says why none
    does.
    """
    tried = BACKENDS if name == "auto" else (backend_named(name),)
    for backend in tried:
        if not backend.unsupported(call):
            return backend
    reasons = "\n".join(f"  {b.name}: {'; '.join(b.unsupported(call))}" for b in tried)
    raise BackendError(
        f"no attention backend can run this call ({call.description()}):\n{reasons}\n"
        "hint: pass backend='auto', or 'reference', which is slow and serves every call"
    )


def backend_named(name: str) -> Backend:
    """The backend of that name; BackendError lists the names there are."""
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    if name == "native":
        raise BackendError(
            "the native backend runs whole encoders: name it to the encoder or to load(), not to attention"
        )
    known = ", ".join(["auto", "native", *(b.name for b in BACKENDS)])
    raise BackendError(f"unknown attention backend {name!r}; there are: {known}")
