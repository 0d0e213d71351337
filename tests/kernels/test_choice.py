"""Which backend runs, and what a user reads when none can."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from modernbert.errors import BackendError, InputError
from modernbert.kernels import flash, reference, sdpa
from modernbert.kernels.attention import BACKENDS, attend, choose
from tests.kernels.calls import random_call


def test_auto_takes_the_fastest_backend_that_serves_the_call():
    assert choose(random_call([4])).name == "sdpa"
    assert choose(random_call([4], dropout=0.1)).name == "sdpa"


@pytest.mark.parametrize("name", ["sdpa", "reference"])
def test_a_backend_can_be_named(name):
    assert choose(random_call([4]), name).name == name


def test_an_unknown_backend_is_an_error_that_lists_the_known_ones():
    with pytest.raises(
        BackendError,
        match="unknown attention backend 'fast'; there are: auto, native, flash, tiles, products,",
    ):
        choose(random_call([4]), "fast")


def test_the_error_of_a_backend_that_cannot_serve_gives_all_its_reasons():
    call = random_call([4, 2], head_dim=12, dropout=0.1)
    with pytest.raises(BackendError) as caught:
        attend(call.q, call.k, call.v, call.cu_seqlens, 4, dropout=0.1, backend="flash")
    message = str(caught.value)
    for reason in (
        "needs a CUDA device, the tensors are on cpu",
        "bfloat16 or float16, not torch.float32",
        "head size that 8 divides, at most 256, not 12",
        "has no attention dropout",
    ):
        assert reason in message
    assert "6 tokens in 2 sequences, 2 heads of 12" in message
    assert "hint: pass backend='auto'" in message


def test_the_error_of_auto_gives_the_reasons_of_every_backend(monkeypatch):
    refusing = tuple(
        replace(backend, unsupported=lambda call, name=backend.name: [f"{name} is out today"])
        for backend in BACKENDS
    )
    monkeypatch.setattr("modernbert.kernels.attention.BACKENDS", refusing)
    with pytest.raises(BackendError) as caught:
        choose(random_call([4]))
    for name in ("flash", "tiles", "products", "sdpa", "reference"):
        assert f"  {name}: {name} is out today" in str(caught.value)


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
@pytest.mark.parametrize(
    ("bounds", "max_seqlen"),
    [([0, 3], 3), ([0, 4, 3, 8], 5), ([1, 8], 7), ([0, 8], 3), ([0, 9], 9), ([], 8), ([0], 8)],
    ids=str,
)
def test_bounds_that_do_not_fit_the_tokens_are_an_error(bounds, max_seqlen, backend):
    call = random_call([8])
    cu_seqlens = torch.tensor(bounds, dtype=torch.int32)
    with pytest.raises(InputError, match=r"cu_seqlens must rise from 0 to the 8 tokens of q.*max_seqlen="):
        attend(call.q, call.k, call.v, cu_seqlens, max_seqlen, backend=backend)


def test_bounds_on_a_gpu_are_not_looked_at():
    class OnGpu:
        device = torch.device("cuda")

        def tolist(self):
            raise AssertionError("a look waits for the GPU")

    assert replace(random_call([8]), cu_seqlens=OnGpu()).check_bounds() is None


def test_flash_refuses_heads_larger_than_its_kernels():
    assert any(
        "at most 256, not 264" in reason for reason in flash.unsupported(random_call([2], head_dim=264))
    )
    assert not any("head size" in reason for reason in flash.unsupported(random_call([2], head_dim=256)))


def test_sdpa_refuses_whole_numbers_and_serves_floating_point():
    call = random_call([3])
    assert sdpa.unsupported(call) == []
    assert sdpa.unsupported(replace(call, q=call.q.long())) == ["needs floating point, not torch.int64"]


def test_the_reference_serves_everything():
    assert reference.unsupported(random_call([3], dtype=torch.float16, head_dim=3, dropout=0.9)) == []
