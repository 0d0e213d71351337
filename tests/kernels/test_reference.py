"""The reference is what every backend is held to, so it is itself held to three nested loops in float64."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from modernbert.kernels import reference
from modernbert.kernels.call import AttentionCall
from tests.kernels.calls import forward_and_gradients, random_call

# fp32 against float64: sums of at most 11 products of numbers near 1, so a few times 2**-24.
TOLERANCE = {"atol": 2e-6, "rtol": 2e-6}


def attend_by_loops(call: AttentionCall) -> torch.Tensor:
    """The formula token by token, key by key, without a matrix product or a mask."""
    q, k, v = call.q.double(), call.k.double(), call.v.double()
    out = torch.zeros_like(q)
    bounds = call.cu_seqlens.tolist()
    for start, end in pairwise(bounds):
        for i in range(start, end):
            seen = [
                j
                for j in range(start, end)
                if call.window_each_side is None or abs(i - j) <= call.window_each_side
            ]
            for head in range(q.shape[1]):
                scores = [
                    call.scale * sum(float(a) * float(b) for a, b in zip(q[i, head], k[j, head], strict=True))
                    for j in seen
                ]
                total = sum(math.exp(score) for score in scores)
                for j, score in zip(seen, scores, strict=True):
                    out[i, head] += math.exp(score) / total * v[j, head]
    return out


@pytest.mark.parametrize("window", [None, 0, 1, 2, 5, 100])
def test_reference_is_the_formula(window):
    call = random_call([1, 7, 2, 11], window_each_side=window, head_dim=4, scale=0.7)
    torch.testing.assert_close(reference.attend(call).double(), attend_by_loops(call), **TOLERANCE)


def test_reference_gradients_are_those_of_finite_differences():
    call = random_call([1, 4], window_each_side=1, num_heads=1, head_dim=2)
    _, *gradients = forward_and_gradients(reference.attend, call)
    weight = torch.randn(call.q.shape, generator=torch.Generator().manual_seed(1)).double()
    step = 1e-6
    for gradient, x in zip(gradients, (call.q, call.k, call.v), strict=True):
        for index in range(x.numel()):
            values = []
            for sign in (1, -1):
                shifted = x.double().clone()
                shifted.view(-1)[index] += sign * step
                q, k, v = (shifted if y is x else y.double() for y in (call.q, call.k, call.v))
                values.append(float((attend_by_loops(replace(call, q=q, k=k, v=v)) * weight).sum()))
            slope = (values[0] - values[1]) / (2 * step)
            assert gradient.view(-1)[index].item() == pytest.approx(slope, abs=1e-5)


def test_reference_computes_in_fp32_and_answers_in_the_dtype_of_the_queries():
    call = random_call([5, 3], dtype=torch.bfloat16)
    out = reference.attend(call)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, attend_by_loops(call).to(torch.bfloat16), atol=0, rtol=2**-7)


def test_reference_drops_attention_weights_with_the_given_probability():
    torch.manual_seed(0)
    call = random_call([200], num_heads=4, head_dim=200, dropout=0.3)
    uniform = AttentionCall(
        q=torch.zeros_like(call.q),
        k=call.k,
        v=torch.eye(200)[:, None, :].expand(200, 4, 200),  # the output is then the row of weights itself
        cu_seqlens=call.cu_seqlens,
        max_seqlen=200,
        window_each_side=None,
        scale=1.0,
        dropout=0.3,
    )
    weights = reference.attend(uniform)
    kept = weights != 0
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.01)
    torch.testing.assert_close(weights[kept], torch.full_like(weights[kept], 1 / 200 / 0.7))
