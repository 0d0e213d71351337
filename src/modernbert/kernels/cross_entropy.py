"""Cross entropy behind a decoder, without the logits: hidden states, the decoder's matrix and labels in; the
summed loss, its parts and the gradients out.

All logits at once are M * V numbers, more than the rest of a small model's training step together. Here they
live a few rows at a time: a chunk's logits become its losses and, in the same place, the gradient by the
logits, which goes into the gradients of hidden states, matrix and bias before the next chunk begins.

    hidden [M, D]  -->  logits [m, V]  -->  losses, softmax - label [m, V]  -->  gradients [m, D], += [V, D]

So gradients are computed with the loss, in the forward pass: computing them in the backward pass would need
every logit a second time, a third more work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from modernbert.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

# Logits of a chunk: enough rows that the passes over the matrix and its gradient do not count.
CHUNK_BYTES = 64 * 2**20
# Numbers for each thread that a core's cache holds from one step over them to the next.
CACHED_LOGITS = 2**18
# Rows of the matrix whose gradient is added at once, where products are rounded: as many as a cache holds.
CACHED_ROWS = 2**13


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossEntropySums:
    """Sums over the M tokens, each a tensor of one number. Only `loss` has a gradient.

    `loss` is what to minimise, with label smoothing and the z part; `nll` is the plain negative
    log-likelihood in nats; `z` is the z part of the loss; `num_correct` counts the tokens whose label no
    other entry beats.
    """

    loss: Float[Tensor, ""]
    nll: Float[Tensor, ""]
    z: Float[Tensor, ""]
    num_correct: Int[Tensor, ""]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Settings:
    label_smoothing: float
    z_loss: float
    chunk_tokens: int
    dtype: torch.dtype
    wants_gradients: bool

    @property
    def exact(self) -> torch.dtype:
        """Of all that is no product."""
        return torch.promote_types(self.dtype, torch.float32)

    def rows_at_once(self, logits: Tensor) -> int:
        """Rows of a chunk that are made exact together: on a processor few, whose copy stays in a cache."""
        if self.dtype == self.exact or logits.device.type != "cpu":
            return len(logits)
        return max(1, CACHED_LOGITS * torch.get_num_threads() // logits.shape[1])


def linear_cross_entropy(
    hidden: Float[Tensor, "M D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"] | None,
    labels: Int[Tensor, "M"],
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    chunk_tokens: int | None = None,
) -> CrossEntropySums:
    """Cross entropy of the logits `hidden @ weight.T + bias`, never more than `chunk_tokens` rows of them at
    once.

    For logits x, their log-sum-exp z and a label y, a token's loss is `z - (1 - s) x_y - s mean(x) + c z^2`:
    s is `label_smoothing` (Szegedy et al. 2016, arXiv 1512.00567), c is `z_loss`, which keeps the logits from
    drifting (Chowdhery et al. 2022, arXiv 2204.02311). Products run in autocast's dtype where it is on, and
    log-sum-exp, losses and the sum of the matrix's gradient in fp32. Divide the sums by the number of tokens
    of the whole batch, over all micro-batches and processes.

    Raises InputError where there is not one label for each row.
    """
    if labels.shape != hidden.shape[:1]:
        raise InputError(
            f"one label is needed for each hidden state: found labels {tuple(labels.shape)} "
            f"for hidden states {tuple(hidden.shape)}"
        )
    dtype = _product_dtype(hidden)
    settings = _Settings(
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        chunk_tokens=chunk_tokens or max(1, CHUNK_BYTES // (len(weight) * dtype.itemsize)),
        dtype=dtype,
        wants_gradients=torch.is_grad_enabled(),
    )
    sums: Any = _LinearCrossEntropy.apply(hidden, weight, bias, labels, settings)
    loss, nll, z, num_correct = sums
    return CrossEntropySums(loss=loss, nll=nll, z=z, num_correct=num_correct)


class _Found(NamedTuple):
    """Of each row: the log-sum-exp, its label's logit, the mean logit, and 1 where no logit is higher."""

    log_sum: Float[Tensor, "M"]
    picked: Float[Tensor, "M"]
    mean: Float[Tensor, "M"]
    is_right: Float[Tensor, "M"]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, settings: _Settings
    ) -> tuple[Tensor, ...]:
        wanted = tuple(flag and settings.wants_gradients for flag in ctx.needs_input_grad[:3])
        sums, gradients = _by_chunks(hidden, weight, bias, labels, settings, wanted)
        ctx.save_for_backward(hidden, weight, bias, labels)
        ctx.settings, ctx.gradients = settings, gradients
        ctx.mark_non_differentiable(*sums[1:])
        return sums

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides names
        ctx: Any, *by_sums: Tensor
    ) -> tuple[Tensor | None, ...]:
        """The gradients are handed over, not copied; a second backward pass computes them again."""
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            hidden, weight, bias, labels = ctx.saved_tensors
            wanted = ctx.needs_input_grad[:3]
            _, gradients = _by_chunks(hidden, weight, bias, labels, ctx.settings, wanted)
        scaled = (None if each is None else each.mul_(by_sums[0].to(each.dtype)) for each in gradients)
        return *scaled, None, None


def _by_chunks(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    settings: _Settings,
    wanted: tuple[bool, ...],
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """The four sums, and the gradients of the loss by hidden states, matrix and bias that are wanted."""
    with torch.autocast(hidden.device.type, enabled=False):
        h, w = hidden.to(settings.dtype), weight.to(settings.dtype)
        found = torch.zeros(len(_Found._fields), len(labels), dtype=settings.exact, device=h.device)
        gradients = [
            torch.zeros(x.shape, dtype=settings.exact, device=x.device) if x is not None and flag else None
            for x, flag in zip((hidden, weight, bias), wanted, strict=True)
        ]
        num_rows = min(len(labels), settings.chunk_tokens)
        space = torch.empty(num_rows, len(w), dtype=settings.dtype, device=h.device)
        for start in range(0, len(labels), settings.chunk_tokens):
            rows = slice(start, start + settings.chunk_tokens)
            logits = _logits(h[rows], w, bias, space)
            step = settings.rows_at_once(logits)
            parts = (logits.split(step), labels[rows].split(step), found[:, rows].split(step, dim=1))
            for part, label, place in zip(*parts, strict=True):
                torch.stack(_take(part, bias, label[:, None], settings, gradients), out=place)
            if any(wanted):
                _add_gradients(logits, h[rows], w, rows, gradients)
    return _sums(_Found(*found), settings), tuple(gradients)


def _logits(h: Tensor, w: Tensor, bias: Tensor | None, space: Tensor) -> Float[Tensor, "m V"]:
    """A chunk's logits, in memory that all chunks share; a bias in a finer format joins them later."""
    out = space[: len(h)]
    if bias is None or bias.dtype != h.dtype:
        return torch.mm(h, w.t(), out=out)
    return torch.addmm(bias, h, w.t(), out=out)


def _take(
    logits: Float[Tensor, "m V"],
    bias: Tensor | None,
    label: Int[Tensor, "m 1"],
    settings: _Settings,
    gradients: list[Tensor | None],
) -> _Found:
    """What is asked of some rows. Where gradients are wanted their logits become the gradient by them, and
    that of the bias is added.
    """
    exact = logits.to(settings.exact)
    if bias is not None and bias.dtype != logits.dtype:
        exact += bias
    picked = exact.gather(1, label)[:, 0]
    mean = exact.mean(dim=1) if settings.label_smoothing else torch.zeros_like(picked)
    highest = exact.amax(dim=1)
    probabilities = torch.softmax(exact, dim=1, out=exact)
    # the likeliest entry is never below 1 / V: its logarithm has no rounding to fear
    log_sum = highest - probabilities.amax(dim=1).log()
    if any(each is not None for each in gradients):
        by_logits = _by_logits(probabilities, label, log_sum, settings)
        if gradients[2] is not None:
            gradients[2] += by_logits.sum(dim=0)
        logits.copy_(by_logits)
    return _Found(log_sum, picked, mean, (picked >= highest).to(picked.dtype))


def _by_logits(
    probabilities: Float[Tensor, "m V"],
    label: Int[Tensor, "m 1"],
    log_sum: Float[Tensor, "m"],
    settings: _Settings,
) -> Float[Tensor, "m V"]:
    """The gradient of the losses by the logits, in the place of the probabilities."""
    smoothing = settings.label_smoothing
    if settings.z_loss:
        probabilities.mul_(1 + 2 * settings.z_loss * log_sum[:, None])
    if smoothing:
        probabilities.sub_(smoothing / probabilities.shape[1])
    share = torch.full(label.shape, smoothing - 1.0, dtype=probabilities.dtype, device=label.device)
    return probabilities.scatter_add_(1, label, share)


def _add_gradients(
    by_logits: Tensor, h: Tensor, w: Tensor, rows: slice, gradients: list[Tensor | None]
) -> None:
    by_hidden, by_weight, _ = gradients
    if by_hidden is not None:
        by_hidden[rows] = by_logits @ w
    if by_weight is not None and by_weight.dtype == h.dtype:
        by_weight.addmm_(by_logits.t(), h)
    elif by_weight is not None:
        for part, logits in zip(
            by_weight.split(CACHED_ROWS), by_logits.split(CACHED_ROWS, dim=1), strict=True
        ):
            part += logits.t() @ h


def _sums(found: _Found, settings: _Settings) -> tuple[Tensor, ...]:
    smoothing = settings.label_smoothing
    z = settings.z_loss * found.log_sum.square().sum()
    nll = (found.log_sum - found.picked).sum()
    loss = (1 - smoothing) * nll + smoothing * (found.log_sum - found.mean).sum() + z
    return loss, nll, z, found.is_right.sum().long()


def _product_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
