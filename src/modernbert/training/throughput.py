"""How much work a token is, and how fast this machine could do it: for the share that a bar shows.

FLOPs of the matrix products, three times those of a forward pass for a step of training (the gradients of
inputs and weights are a product each), and of attention inside the window, counted in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import nn

from modernbert.encoder.attention import Attention
from modernbert.heads.mlm import MaskedLanguageModel

_ROWS = 2048
_SECONDS = 0.2


def training_flops(model: MaskedLanguageModel, lengths: Sequence[int], mask_rate: float) -> float:
    """FLOPs of training on sequences of these lengths; the head runs on masked tokens only."""
    encoder = model.model
    products = sum(2.0 * each.weight.numel() for each in encoder.modules() if isinstance(each, nn.Linear))
    head = [
        each
        for name, each in model.named_modules()
        if isinstance(each, nn.Linear) and not name.startswith("model.")
    ]
    head_products = sum(2.0 * each.weight.numel() for each in head)
    num_tokens, attention = sum(lengths), 0.0
    for layer in encoder.modules():
        if isinstance(layer, Attention):
            window = layer.window_each_side
            most = max(lengths) if window is None else 2 * window + 1
            num_scores = sum(length * min(length, most) for length in lengths)
            attention += 4.0 * num_scores * layer.Wo.in_features
    return 3.0 * (num_tokens * (products + mask_rate * head_products) + attention)


def matrix_rate(hidden_size: int, inner_size: int, device: torch.device, dtype: torch.dtype) -> float:
    """The best rate, in FLOP/s, of products of a model's own shapes on this device, measured now."""
    best = 0.0
    x = torch.randn(_ROWS, hidden_size, device=device).to(dtype)
    for outputs in (3 * hidden_size, inner_size):
        weight = torch.randn(outputs, hidden_size, device=device).to(dtype)
        seconds = _shortest(x, weight)
        best = max(best, 2.0 * _ROWS * hidden_size * outputs / seconds)
    return best


@torch.inference_mode()
def _shortest(x: torch.Tensor, weight: torch.Tensor) -> float:
    times: list[float] = []
    while len(times) < 4 or sum(times) < _SECONDS:
        start = time.perf_counter()
        nn.functional.linear(x, weight)
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        times.append(time.perf_counter() - start)
    return min(times)
