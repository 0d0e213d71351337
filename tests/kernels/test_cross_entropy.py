"""The loss by chunks against the plain one: sums, gradients, options, dtypes, and what it never holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from modernbert.errors import InputError
from modernbert.kernels import cross_entropy as module
from modernbert.kernels.cross_entropy import linear_cross_entropy

M, D, V = 13, 8, 50
# fp32 on both sides, the same products with sums in another order
FP32_TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}
# bf16 keeps 8 bits: the plain way rounds its logits and gradients in the same places, but not their sums
BF16_TOLERANCE = {"rtol": 3e-2, "atol": 3e-2}
OPTIONS = pytest.mark.parametrize(
    ("smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1e-2), (0.1, 1e-2)], ids=str
)
CHUNKS = pytest.mark.parametrize("chunk_tokens", [1, 5, 13, 100])


def inputs(dtype: torch.dtype = torch.float32, *, has_bias: bool = True) -> tuple[list[Tensor], Tensor]:
    """Hidden states, matrix and perhaps a bias, all with gradients; and labels."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(M, D), (V, D), (V,)][: 3 if has_bias else 2]
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return [x.requires_grad_() for x in drawn], torch.randint(V, (M,), generator=generator)


def chunked(tensors: list[Tensor], labels: Tensor, **options) -> module.CrossEntropySums:
    hidden, weight, bias = (*tensors, None)[:3]
    return linear_cross_entropy(hidden, weight, bias, labels, **options)


def plain(tensors: list[Tensor], labels: Tensor, smoothing: float = 0.0, z_loss: float = 0.0) -> Tensor:
    logits = F.linear(*tensors).float() if tensors[0].dtype != torch.float64 else F.linear(*tensors)
    z = z_loss * logits.logsumexp(dim=1).square().sum()
    return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum") + z


@OPTIONS
@CHUNKS
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no bias"])
def test_loss_and_gradients_are_those_of_the_plain_way(smoothing, z_loss, chunk_tokens, has_bias):
    tensors, labels = inputs(has_bias=has_bias)
    found = chunked(tensors, labels, label_smoothing=smoothing, z_loss=z_loss, chunk_tokens=chunk_tokens).loss
    expected = plain(tensors, labels, smoothing, z_loss)
    torch.testing.assert_close(found, expected, **FP32_TOLERANCE)
    for ours, theirs in zip(
        torch.autograd.grad(found / M, tensors), torch.autograd.grad(expected / M, tensors), strict=True
    ):
        torch.testing.assert_close(ours, theirs, **FP32_TOLERANCE)


@OPTIONS
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no bias"])
def test_gradients_are_those_of_finite_differences_in_fp64(smoothing, z_loss, has_bias):
    tensors, labels = inputs(torch.float64, has_bias=has_bias)

    def loss(*given: Tensor) -> Tensor:
        options = {"label_smoothing": smoothing, "z_loss": z_loss, "chunk_tokens": 5}
        return chunked(list(given), labels, **options).loss

    assert torch.autograd.gradcheck(loss, tensors)


def test_the_parts_are_told_apart():
    tensors, labels = inputs()
    found = chunked(tensors, labels, label_smoothing=0.1, z_loss=0.01)
    logits = F.linear(*tensors)
    torch.testing.assert_close(found.nll, plain(tensors, labels), **FP32_TOLERANCE)
    torch.testing.assert_close(found.z, 0.01 * logits.logsumexp(1).square().sum(), **FP32_TOLERANCE)
    assert found.num_correct == (logits.argmax(dim=1) == labels).sum()
    assert found.loss.requires_grad
    assert not any(x.requires_grad for x in (found.nll, found.z, found.num_correct))


def test_right_guesses_are_counted():
    tensors, _ = inputs()
    best = F.linear(*tensors).argmax(dim=1)
    best[:4] = (best[:4] + 1) % V
    assert chunked(tensors, best, chunk_tokens=3).num_correct == M - 4


def test_a_second_backward_pass_gives_the_same_gradients():
    tensors, labels = inputs()
    loss = chunked(tensors, labels, chunk_tokens=4).loss
    first = [x.clone() for x in torch.autograd.grad(loss / 7, tensors, retain_graph=True)]
    second = torch.autograd.grad(loss / 7, tensors)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_only_what_is_asked_for_has_a_gradient():
    tensors, labels = inputs()
    frozen = [tensors[0], tensors[1].detach(), tensors[2].detach()]
    (found,) = torch.autograd.grad(chunked(frozen, labels).loss, frozen[:1])
    (expected,) = torch.autograd.grad(plain(tensors, labels), tensors[:1])
    torch.testing.assert_close(found, expected, **FP32_TOLERANCE)


def test_without_gradients_no_gradient_is_computed(monkeypatch):
    def never(*arguments):
        pytest.fail("a gradient was computed")

    monkeypatch.setattr(module, "_add_gradients", never)
    tensors, labels = inputs()
    with torch.no_grad():
        loss = chunked(tensors, labels).loss
    torch.testing.assert_close(loss, plain(tensors, labels).detach(), **FP32_TOLERANCE)


def test_no_more_rows_of_logits_than_a_chunk_exist_at_once(monkeypatch):
    rows = []
    whole = module._logits

    def counted(*arguments):
        found = whole(*arguments)
        rows.append((len(found), found.untyped_storage().size() // found.element_size() // V))
        return found

    monkeypatch.setattr(module, "_logits", counted)
    tensors, labels = inputs()
    chunked(tensors, labels, chunk_tokens=4)
    assert [num for num, _ in rows] == [4, 4, 4, 1]
    assert {space for _, space in rows} == {4}


def test_bf16_autocast_gives_fp32_gradients_near_those_of_the_plain_way():
    tensors, labels = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = chunked(tensors, labels, chunk_tokens=5).loss
        expected = plain(tensors, labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, **BF16_TOLERANCE)
    for ours, theirs in zip(
        torch.autograd.grad(found / M, tensors), torch.autograd.grad(expected / M, tensors), strict=True
    ):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, **BF16_TOLERANCE)


def test_bf16_gives_the_same_however_many_rows_are_made_exact_at_once(monkeypatch):
    tensors, labels = inputs()

    def found() -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = chunked(tensors, labels, label_smoothing=0.1, z_loss=1e-2, chunk_tokens=5).loss
        return [loss.detach(), *torch.autograd.grad(loss, tensors)]

    whole = found()
    monkeypatch.setattr(module, "CACHED_LOGITS", 2 * V)
    monkeypatch.setattr(module, "CACHED_ROWS", 7)
    for one, other in zip(found(), whole, strict=True):
        torch.testing.assert_close(one, other, **FP32_TOLERANCE)


def test_logits_far_from_zero_give_numbers():
    tensors, labels = inputs()
    large = [x.detach() * 100 for x in tensors]
    torch.testing.assert_close(chunked(large, labels).loss, plain(large, labels), rtol=1e-6, atol=0)


def test_no_masked_token_is_a_loss_of_zero():
    (hidden, weight, bias), labels = inputs()
    loss = linear_cross_entropy(hidden[:0], weight, bias, labels[:0]).loss
    assert loss == 0
    assert torch.autograd.grad(loss, weight)[0].abs().sum() == 0


def test_a_label_for_each_hidden_state_is_asked_for():
    tensors, labels = inputs()
    with pytest.raises(InputError, match="one label is needed for each hidden state"):
        chunked(tensors, labels[:-1])
