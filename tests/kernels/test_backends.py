"""Every backend against the reference, forward and backward, at the lengths where blocks begin and end."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from modernbert.kernels import products as products_module
from modernbert.kernels import reference
from modernbert.kernels import sdpa as sdpa_module
from modernbert.kernels.attention import BACKENDS, Backend, attend, backend_named, choose
from modernbert.kernels.call import AttentionCall
from tests.kernels.calls import forward_and_gradients, random_call

# fp32 both sides, sums in another order: a few times 2**-24 of numbers that stay below about 10.
FP32_TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
# bf16 keeps 8 bits: inputs are the same, but softmax weights, partial results and the output are rounded on
# the way, 2**-8 each, of outputs near 1 and gradients up to about 4.
BF16_TOLERANCE = {"atol": 3e-2, "rtol": 3e-2}
# SDPA in bf16 rounds the same sums elsewhere: how far one lies from fp32 tells how far the other may.
MOST_OF_SDPA = 1.2

# sdpa.py cuts into blocks of max(window, 32): lengths at, just below and just above every bound of these
WINDOWS_AND_LENGTHS = [
    pytest.param(window, lengths, id=f"window={window}-{name}")
    for window in (None, 0, 1, 2, 7, 16, 17, 64, 10_000)
    for name, lengths in {
        "one token": [1],
        "ones": [1, 1, 1],
        "mixed": [3, 1, 50, 2, 2, 9, 131, 1],
        "equal neighbours": [40, 40, 40, 7, 7, 40, 100, 100],
        "many": [1 + (5 * i) % 23 for i in range(60)],
        "around a window": [window + d for d in (1, 2, 3)] if window and window < 100 else [33, 32, 31],
        "around a block": [31, 32, 33, 63, 64, 65, 96, 97],
    }.items()
]
BLOCK_BOUNDS = [
    (window, multiple * block + offset * window + extra)
    for window, block in ((1, 32), (7, 32), (16, 32), (17, 34), (64, 128))
    for multiple in (1, 2, 3, 4)
    for offset in (0, 1, 2)
    for extra in (-1, 0, 1)
]


def others() -> list[Backend]:
    return [backend for backend in BACKENDS if backend.name != "reference"]


def assert_agrees(backend: Backend, call, tolerance) -> None:
    if reasons := backend.unsupported(call):
        pytest.skip(f"{backend.name}: {'; '.join(reasons)}")
    exact = replace(call, q=call.q.float(), k=call.k.float(), v=call.v.float())
    for found, expected in zip(
        forward_and_gradients(backend.attend, call),
        forward_and_gradients(reference.attend, exact),
        strict=True,
    ):
        assert found.dtype == call.q.dtype
        torch.testing.assert_close(found.float(), expected, **tolerance)


@pytest.mark.parametrize(("window", "lengths"), WINDOWS_AND_LENGTHS)
def test_sdpa_agrees_with_the_reference_in_fp32(window, lengths):
    assert_agrees(sdpa(), random_call(lengths, window_each_side=window), FP32_TOLERANCE)


@pytest.mark.parametrize(("window", "lengths"), WINDOWS_AND_LENGTHS)
def test_sdpa_agrees_with_the_reference_in_bf16(window, lengths):
    assert_agrees(sdpa(), random_call(lengths, window_each_side=window, dtype=torch.bfloat16), BF16_TOLERANCE)


@pytest.mark.parametrize(("window", "length"), BLOCK_BOUNDS)
def test_sdpa_agrees_with_the_reference_where_blocks_end(window, length):
    call = random_call([length, length, length + 1], window_each_side=window, num_heads=1, head_dim=4)
    assert_agrees(sdpa(), call, FP32_TOLERANCE)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, FP32_TOLERANCE), (torch.bfloat16, BF16_TOLERANCE)],
    ids=["fp32", "bf16"],
)
@pytest.mark.parametrize(("window", "lengths"), WINDOWS_AND_LENGTHS)
def test_tiles_agree_with_the_reference(window, lengths, dtype, tolerance):
    call = trained(random_call(lengths, window_each_side=window, dtype=dtype))
    if call.window is None:
        assert "local layers" in str(tiles().unsupported(call))
    else:
        assert_agrees(tiles(), call, tolerance)


@pytest.mark.parametrize(("window", "length"), BLOCK_BOUNDS)
def test_tiles_agree_with_the_reference_where_blocks_end(window, length):
    call = random_call([length, length, length + 1], window_each_side=window, num_heads=3, head_dim=4)
    assert_agrees(tiles(), trained(call), FP32_TOLERANCE)


@pytest.mark.parametrize("cached_scores", [1, 300, 2**18])
@pytest.mark.parametrize("lengths", [[1], [3, 1, 50, 2, 9, 131, 1], [40, 40, 7]], ids=str)
def test_products_agree_with_the_reference(monkeypatch, lengths, cached_scores):
    monkeypatch.setattr(products_module, "CACHED_SCORES", cached_scores)
    call = trained(random_call(lengths, dtype=torch.bfloat16))
    assert products().unsupported(call) == []
    assert_agrees(products(), call, BF16_TOLERANCE)


@pytest.mark.parametrize("lengths", [[1], [3, 1, 50, 2, 9, 131, 1], [40, 40, 7]], ids=str)
@pytest.mark.parametrize("window", [None, 16], ids=["products", "tiles"])
def test_gradients_in_bf16_are_as_near_to_the_reference_as_those_of_sdpa(window, lengths):
    call = trained(random_call(lengths, window_each_side=window, dtype=torch.bfloat16, head_dim=64))
    exact = replace(call, q=call.q.float(), k=call.k.float(), v=call.v.float())
    expected = torch.cat(forward_and_gradients(reference.attend, exact)[1:])
    ours, theirs = (
        (torch.cat(forward_and_gradients(attend, call)[1:]) - expected).norm()
        for attend in (choose(call).attend, sdpa().attend)
    )
    assert ours <= MOST_OF_SDPA * theirs


@pytest.mark.parametrize(
    "positions", [[0, 3, 39, 40, 41, 199], [45, 46, 47], [], [7, 7, 180], [199, 0]], ids=str
)
def test_products_give_some_tokens_what_they_get_among_all(positions):
    call, asked = random_call([40, 1, 159], dtype=torch.bfloat16), torch.tensor(positions, dtype=torch.int64)
    found = forward_and_gradients(lambda some: products_module.attend_at(some, asked), call)
    exact = replace(call, q=call.q.float(), k=call.k.float(), v=call.v.float())
    expected = forward_and_gradients(lambda some: reference.attend(some)[asked], exact)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other, **BF16_TOLERANCE)


def test_products_are_for_training_global_layers_in_bf16_alone():
    call = random_call([100], dtype=torch.bfloat16)
    assert choose(trained(call)).name == "products"
    for refused, reason in (
        (call, "no gradient is asked for"),
        (trained(replace(call, dropout=0.1)), "dropout"),
        (trained(replace(call, window_each_side=8)), "global layers"),
        (trained(random_call([100])), "not torch.float32"),
        (trained(replace(call, q=call.q.to("meta"))), "on meta"),
        (trained(random_call([1025], dtype=torch.bfloat16)), "at most 1024 tokens, found one of 1025"),
    ):
        assert reason in "; ".join(products().unsupported(refused))


def test_tiles_are_for_training_on_a_processor_alone():
    call = random_call([100], window_each_side=8)
    assert tiles().unsupported(trained(call)) == []
    for refused, reason in (
        (call, "no gradient is asked for"),
        (trained(replace(call, dropout=0.1)), "dropout"),
        (trained(random_call([100], window_each_side=8, dtype=torch.float16)), "not torch.float16"),
        (trained(replace(call, q=call.q.to("meta"))), "on meta"),
    ):
        assert reason in "; ".join(tiles().unsupported(refused))
    with torch.no_grad():
        assert choose(trained(call)).name == "sdpa"
    assert choose(trained(call)).name == "tiles"


ASKED = {
    "all": list(range(200)),
    "some of each": [0, 3, 39, 40, 41, 199],
    "of one alone": [45, 46, 47],
    "none": [],
    "one twice": [7, 7, 180],
    "not rising": [199, 0, 41, 3],
}


@pytest.mark.parametrize("positions", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("backend", ["auto", "sdpa", "reference"])
@pytest.mark.parametrize("window", [None, 5, 10_000], ids=["global", "local", "wide"])
def test_some_tokens_get_what_they_get_among_all(window, backend, positions):
    call = random_call([40, 1, 159], window_each_side=window)
    asked = torch.tensor(positions, dtype=torch.int64)

    def at(some: AttentionCall) -> Tensor:
        settings = {"window_each_side": window, "backend": backend, "positions": asked}
        return attend(some.q, some.k, some.v, some.cu_seqlens, some.max_seqlen, **settings)

    found = forward_and_gradients(at, call)
    expected = forward_and_gradients(lambda some: reference.attend(some)[asked], call)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **FP32_TOLERANCE)


def test_queries_that_nobody_asks_for_are_not_computed(monkeypatch):
    num_queries = []

    def counted(q, *args, **kwargs):
        num_queries.append(q.shape[-2])
        return scaled_dot_product_attention(q, *args, **kwargs)

    monkeypatch.setattr(sdpa_module, "scaled_dot_product_attention", counted)
    sdpa_module.attend_at(random_call([40, 1, 159]), torch.tensor([3, 4, 199]))
    assert num_queries == [2, 1]


@pytest.mark.parametrize("window", [None, 3], ids=["global", "local"])
def test_a_scale_of_the_callers_own_is_used(window):
    assert_agrees(sdpa(), random_call([70, 5], window_each_side=window, scale=0.9), FP32_TOLERANCE)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", others(), ids=lambda backend: backend.name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize(("window", "lengths"), WINDOWS_AND_LENGTHS)
def test_backends_agree_with_the_reference_on_cuda(backend, dtype, window, lengths):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and there is none here")
    call = random_call(lengths, window_each_side=window, dtype=dtype, head_dim=64)
    on_device = {name: getattr(call, name).cuda() for name in ("q", "k", "v", "cu_seqlens")}
    assert_agrees(backend, replace(call, **on_device), BF16_TOLERANCE)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
@pytest.mark.parametrize("window", [None, 2], ids=["global", "local"])
def test_packing_does_not_let_sequences_see_each_other(backend, window):
    call = random_call([5, 1, 90, 4], window_each_side=window)
    changed = call.v.clone()
    changed[5:6] = 1e6  # the sequence of one token
    before, after = (
        attend(call.q, call.k, v, call.cu_seqlens, 90, window_each_side=window, backend=backend)
        for v in (call.v, changed)
    )
    assert torch.equal(before[:5], after[:5])
    assert torch.equal(before[6:], after[6:])
    assert not torch.equal(before[5], after[5])


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
@pytest.mark.parametrize("window", [0, 1, 7, 64])
def test_a_token_sees_exactly_its_window_on_each_side(backend, window):
    length = 300
    call = random_call([length], num_heads=1, head_dim=length)
    one_hot = torch.eye(length)[
        :, None, :
    ]  # with these values the output row is the row of attention weights
    weights = attend(
        call.q, call.k, one_hot, call.cu_seqlens, length, window_each_side=window, backend=backend
    )[:, 0]
    position = torch.arange(length)
    is_near = (position[:, None] - position[None, :]).abs() <= window
    assert torch.equal(weights > 0, is_near)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(length))


@pytest.mark.parametrize("window", [0, 3, 64])
def test_the_scores_that_a_local_layer_computes_grow_with_the_text_and_not_with_its_square(
    monkeypatch, window
):
    num_scores = []

    def counted(q, k, *args, **kwargs):
        num_scores.append(q.shape[:-1].numel() * k.shape[-2])
        return scaled_dot_product_attention(q, k, *args, **kwargs)

    monkeypatch.setattr(sdpa_module, "scaled_dot_product_attention", counted)
    for length in (1000, 2000, 4000, 8000):
        num_scores.clear()
        sdpa().attend(random_call([length], window_each_side=window, num_heads=1, head_dim=2))
        # blocks of max(window, 32) queries see window more keys on both sides
        assert sum(num_scores) <= length * (max(window, 32) + 2 * window)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
@pytest.mark.parametrize("window", [None, 2, 64], ids=["global", "local 2", "local 64"])
def test_the_same_pack_twice_is_bit_identical(backend, window):
    call = random_call([200, 3, 1, 77], window_each_side=window)
    arguments = (call.q, call.k, call.v, call.cu_seqlens, call.max_seqlen)
    first, second = (attend(*arguments, window_each_side=window, backend=backend) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
@pytest.mark.parametrize("window", [None, 2], ids=["global", "local"])
def test_dropout_reaches_the_backend(backend, window):
    torch.manual_seed(0)
    call = random_call([64], num_heads=8, head_dim=64, dropout=0.5)
    arguments = (torch.zeros_like(call.q), call.k, torch.eye(64)[:, None, :].expand(64, 8, 64))
    weights = attend(*arguments, call.cu_seqlens, 64, window_each_side=window, dropout=0.5, backend=backend)
    undropped = attend(*arguments, call.cu_seqlens, 64, window_each_side=window, backend=backend)
    kept = weights[undropped > 0] > 0
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(weights[weights > 0], 2 * undropped[weights > 0])


@pytest.mark.parametrize("window", [None, 2], ids=["global", "local"])
def test_scores_so_large_that_they_overflow_give_numbers(window):
    call = random_call([100, 1], window_each_side=window)
    huge = replace(call, q=call.q * 1e4, k=call.k * 1e4)
    for backend in (sdpa().attend, reference.attend):
        assert torch.isfinite(backend(huge)).all()


def test_a_mask_first_made_in_inference_mode_serves_training_afterwards():
    call = random_call(
        [150], window_each_side=11
    )  # a window that no other test uses, so that nothing is cached
    with torch.inference_mode():
        sdpa().attend(call)
    assert_agrees(sdpa(), call, FP32_TOLERANCE)


def test_tensors_that_are_views_of_one_product_agree_with_copies():
    lengths = [37, 200, 1]
    qkv = torch.randn(sum(lengths), 3, 2, 8, generator=torch.Generator().manual_seed(3))
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    views = qkv.unbind(1)
    copies = [x.contiguous() for x in views]
    torch.testing.assert_close(
        attend(*views, bounds, 200, window_each_side=5, backend="sdpa"),
        attend(*copies, bounds, 200, window_each_side=5, backend="reference"),
        **FP32_TOLERANCE,
    )


def trained(call: AttentionCall) -> AttentionCall:
    """The same call, as training makes it: with gradients to come."""
    return replace(call, q=call.q.clone().requires_grad_())


def products() -> Backend:
    return backend_named("products")


def tiles() -> Backend:
    return next(backend for backend in BACKENDS if backend.name == "tiles")


def sdpa() -> Backend:
    return next(backend for backend in BACKENDS if backend.name == "sdpa")
