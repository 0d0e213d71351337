"""Rotary and the gated product: the path with gradients and the one in place, against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from modernbert.kernels.fused import gated, rotary_qkv

# fp32 on both sides, two products and a sum for each number
TOLERANCE = {"atol": 1e-6, "rtol": 1e-6}


def angles_of(num_tokens: int, rotary_size: int) -> torch.Tensor:
    return torch.rand(num_tokens, rotary_size // 2, generator=torch.Generator().manual_seed(4)) * 6


def rotate_by_loops(qkv: torch.Tensor, angle: torch.Tensor, is_interleaved: bool) -> torch.Tensor:
    """Each pair of numbers is a complex number, multiplied by e^(i angle)."""
    out = qkv.clone()
    num_pairs = angle.shape[1]
    for token in range(qkv.shape[0]):
        for pair in range(num_pairs):
            a, b = (2 * pair, 2 * pair + 1) if is_interleaved else (pair, pair + num_pairs)
            turn = complex(math.cos(angle[token, pair]), math.sin(angle[token, pair]))
            for which in (0, 1):  # queries and keys; values stay
                for head in range(qkv.shape[2]):
                    number = complex(qkv[token, which, head, a], qkv[token, which, head, b]) * turn
                    out[token, which, head, a] = number.real
                    out[token, which, head, b] = number.imag
    return out


@pytest.mark.parametrize("rotary_size", [2, 4, 8], ids=["first pair", "half of the head", "whole head"])
@pytest.mark.parametrize("is_interleaved", [False, True], ids=["halves", "interleaved"])
@pytest.mark.parametrize("has_gradient", [False, True], ids=["in place", "with gradient"])
def test_rotary_turns_pairs_of_queries_and_keys(rotary_size, is_interleaved, has_gradient):
    qkv = torch.randn(5, 3, 2, 8, generator=torch.Generator().manual_seed(0))
    angle = angles_of(5, rotary_size)
    expected = rotate_by_loops(qkv, angle, is_interleaved)
    given = qkv.clone().requires_grad_(has_gradient)
    found = rotary_qkv(given, angle.cos(), angle.sin(), is_interleaved=is_interleaved)
    torch.testing.assert_close(found.detach(), expected, **TOLERANCE)
    assert (found.data_ptr() == given.data_ptr()) is not has_gradient


@pytest.mark.parametrize("is_interleaved", [False, True], ids=["halves", "interleaved"])
def test_rotary_keeps_the_length_of_every_head_and_hands_gradients_back(is_interleaved):
    qkv = torch.randn(4, 3, 2, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    angle = angles_of(4, 8)
    turned = rotary_qkv(qkv, angle.cos(), angle.sin(), is_interleaved=is_interleaved)
    torch.testing.assert_close(turned.norm(dim=-1), qkv.norm(dim=-1))
    # a rotation's transpose is its inverse, so the gradient of |turned|^2 / 2 is the input itself
    (gradient,) = torch.autograd.grad(turned.square().sum() / 2, qkv)
    torch.testing.assert_close(gradient, qkv.detach(), **TOLERANCE)


def test_rotary_rounds_once_in_bf16():
    qkv = torch.randn(6, 3, 2, 8, generator=torch.Generator().manual_seed(2)).bfloat16()
    angle = angles_of(6, 8)
    exact = rotary_qkv(qkv.float(), angle.cos(), angle.sin())
    torch.testing.assert_close(rotary_qkv(qkv, angle.cos(), angle.sin()), exact.bfloat16(), atol=0, rtol=0)


@pytest.mark.parametrize("activation", [nn.GELU(), nn.Identity(), nn.ReLU(), nn.Softmin(dim=-1)], ids=str)
def test_gated_is_the_activated_first_half_times_the_second(activation):
    x = torch.randn(7, 10, generator=torch.Generator().manual_seed(3))
    expected = activation(x[:, :5].clone()) * x[:, 5:]
    with_gradient = gated(x.clone().requires_grad_(), activation).detach()
    torch.testing.assert_close(with_gradient, expected, **TOLERANCE)
    torch.testing.assert_close(gated(x.clone(), activation), expected, **TOLERANCE)
