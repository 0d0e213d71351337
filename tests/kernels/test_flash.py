"""How our arguments become those of torch's varlen attention, which the reference replaces here."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.nn.attention import varlen

from modernbert.kernels import flash, reference
from modernbert.kernels.call import AttentionCall
from tests.kernels.calls import forward_and_gradients, random_call


class StandIn:
    """Has the signature of `varlen_attn`, notes what it was given, and answers by the reference."""

    def __init__(self) -> None:
        self.seen: list[dict[str, object]] = []

    def __call__(
        self,
        query,
        key,
        value,
        cu_seq_q,
        cu_seq_k,
        max_q,
        max_k,
        *,
        scale,
        window_size=(-1, -1),
        num_splits=None,
    ):
        self.seen.append(
            {"window_size": window_size, "scale": scale, "max_q": max_q, "max_k": max_k}
            | {"num_splits": num_splits, "bounds": (cu_seq_q, cu_seq_k)}
        )
        left, right = window_size
        assert left == right, "a bidirectional window is as wide to the left as to the right"
        return reference.attend(
            AttentionCall(
                q=query,
                k=key,
                v=value,
                cu_seqlens=cu_seq_q,
                max_seqlen=max_q,
                window_each_side=None if left == -1 else left,
                scale=scale,
                dropout=0.0,
            )
        )


@pytest.fixture
def stand_in(monkeypatch):
    replacement = StandIn()
    monkeypatch.setattr(varlen, "varlen_attn", replacement)
    return replacement


@pytest.mark.parametrize("window", [None, 0, 1, 2, 64, 10_000])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_flash_means_what_the_reference_means(stand_in, window, dtype):
    call = random_call([5, 1, 130, 9], window_each_side=window, dtype=dtype, scale=0.3)
    found = forward_and_gradients(flash.attend, call)
    expected = forward_and_gradients(reference.attend, call)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
    assert len(stand_in.seen) == 1


@pytest.mark.parametrize(
    ("window", "sides"),
    [(None, (-1, -1)), (0, (0, 0)), (2, (2, 2)), (8, (8, 8)), (9, (-1, -1)), (10_000, (-1, -1))],
)
def test_both_sides_of_the_window_are_inclusive_and_all_keys_are_minus_one(stand_in, window, sides):
    flash.attend(random_call([10, 4], window_each_side=window, dtype=torch.bfloat16))
    assert stand_in.seen[0]["window_size"] == sides


def test_offsets_are_int32_and_lengths_and_scale_arrive(stand_in):
    call = random_call([10, 4, 7], dtype=torch.bfloat16, scale=0.25)
    wide = AttentionCall(
        q=call.q,
        k=call.k,
        v=call.v,
        cu_seqlens=call.cu_seqlens.long(),
        max_seqlen=10,
        window_each_side=None,
        scale=0.25,
        dropout=0.0,
    )
    flash.attend(wide)
    seen = stand_in.seen[0]
    for bounds in seen["bounds"]:
        assert bounds.dtype == torch.int32
        assert bounds.tolist() == [0, 10, 14, 21]
    assert (seen["max_q"], seen["max_k"], seen["scale"]) == (10, 10, 0.25)


def test_results_are_asked_not_to_depend_on_batch_mates_where_torch_can_be_asked(stand_in):
    flash.attend(random_call([10], dtype=torch.bfloat16))
    assert stand_in.seen[0]["num_splits"] == 1, "this torch is 2.13, whose varlen_attn has num_splits"


def test_the_stand_in_takes_the_arguments_that_torch_takes():
    """What the mapping relies on: these names exist in the real function of the torch installed here."""
    names = list(inspect.signature(varlen.varlen_attn).parameters)
    assert names[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert {"scale", "window_size", "num_splits"} <= set(names)
