"""Packed only: what a text gets does not depend on its batch mates, and no padded tensor is on the way."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modernbert.text.batch import PackedBatch
from tests.encoder.small import VOCAB_SIZE, built, random_sequences, small_config
from tests.parity import padded

# The project's own bound for fp32 on the CPU; hidden states here are of size 1 to 4.
TOLERANCE = {"atol": 1e-5, "rtol": 0.0}


@pytest.fixture(scope="module")
def encoder():
    return built(small_config())


def run(encoder, sequences: list[list[int]]) -> list[torch.Tensor]:
    batch = PackedBatch.from_sequences(sequences)
    with torch.inference_mode():
        return batch.split(encoder(batch))


def test_a_text_gets_the_same_alone_and_among_others_in_any_order(encoder):
    sequences = random_sequences([1, 5, 300, 2, 5, 40, 64, 65, 1, 17, 17, 128])
    alone = [run(encoder, [sequence])[0] for sequence in sequences]
    shuffled = list(range(len(sequences)))
    for seed in range(3):
        random.Random(seed).shuffle(shuffled)
        together = run(encoder, [sequences[index] for index in shuffled])
        for index, found in zip(shuffled, together, strict=True):
            torch.testing.assert_close(found, alone[index], **TOLERANCE)


@pytest.mark.parametrize("num_packs", [2, 3, 7])
def test_how_texts_are_cut_into_packs_changes_nothing(encoder, num_packs):
    sequences = random_sequences([9, 1, 33, 120, 2, 2, 70, 8, 8, 5])
    whole = run(encoder, sequences)
    size = -(-len(sequences) // num_packs)
    cut = [
        out
        for start in range(0, len(sequences), size)
        for out in run(encoder, sequences[start : start + size])
    ]
    for one, other in zip(cut, whole, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


def test_the_same_pack_twice_is_bit_identical(encoder):
    sequences = random_sequences([9, 1, 333, 20])
    for first, second in zip(run(encoder, sequences), run(encoder, sequences), strict=True):
        assert torch.equal(first, second)


def test_other_tokens_in_one_text_leave_the_others_bit_identical(encoder):
    sequences = random_sequences([50, 20, 60])
    changed = [sequences[0], [(token + 1) % VOCAB_SIZE for token in sequences[1]], sequences[2]]
    before, after = run(encoder, sequences), run(encoder, changed)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    assert not torch.allclose(before[1], after[1], atol=1e-2)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_backends_give_the_same_hidden_states(encoder, backend):
    batch = PackedBatch.from_sequences(random_sequences([9, 1, 133, 20, 20]))
    with torch.inference_mode():
        torch.testing.assert_close(encoder(batch, backend), encoder(batch, "auto"), **TOLERANCE)


def test_one_token_alone_gets_numbers(encoder):
    (out,) = run(encoder, [[7]])
    assert out.shape == (1, 32)
    assert torch.isfinite(out).all()


def test_8192_tokens_forward_and_backward(encoder):
    batch = PackedBatch.from_sequences(random_sequences([8192]))
    out = encoder(batch)
    out.square().mean().backward()
    assert out.shape == (8192, 32)
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())
    encoder.zero_grad()


def test_300_mixed_sequences_in_a_pack_forward_and_backward(encoder):
    sequences = random_sequences([1 + (37 * index) % 129 for index in range(300)])
    batch = PackedBatch.from_sequences(sequences)
    out = encoder(batch)
    out.square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())
    encoder.zero_grad()
    for index in (0, 150, 299):
        torch.testing.assert_close(
            batch.split(out.detach())[index], run(encoder, [sequences[index]])[0], **TOLERANCE
        )


class Shapes(TorchDispatchMode):
    """Notes the shape of every tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen |= {tuple(leaf.shape) for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)}
        return out


def padded_shapes(seen: set[tuple[int, ...]], num_sequences: int, longest: int) -> set[tuple[int, ...]]:
    """Shapes with the number of sequences beside the longest, or with as many entries as that needs."""
    return {
        shape
        for shape in seen
        if (num_sequences, longest) in pairwise(shape)
        or torch.Size(shape).numel() >= num_sequences * longest * 8  # a quarter of the hidden size
    }


@pytest.mark.parametrize("has_gradient", [False, True], ids=["inference", "forward and backward"])
def test_no_tensor_of_the_padded_size_exists_on_the_way(encoder, has_gradient):
    lengths = [997, *(1 + index % 3 for index in range(160))]
    batch = PackedBatch.from_sequences(random_sequences(lengths))
    with Shapes() as shapes, torch.set_grad_enabled(has_gradient):
        out = encoder(batch)
        if has_gradient:
            out.sum().backward()
    encoder.zero_grad()
    assert (batch.num_tokens, 32) in shapes.seen
    assert padded_shapes(shapes.seen, len(lengths), 997) == set()


def test_a_padded_model_would_be_noticed():
    config = small_config()
    weights = {name: weight.detach() for name, weight in built(config).named_parameters()}
    lengths = [50, *(1 + index % 3 for index in range(20))]
    with Shapes() as shapes:
        padded.hidden_states(config, weights, padded.pad(random_sequences(lengths)))
    assert (21, 50, 32) in padded_shapes(shapes.seen, 21, 50)
