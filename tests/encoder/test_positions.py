"""An encoder that is asked for some tokens gives them what it gives them among all, gradients included."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from modernbert.encoder.attention import Attention, AttentionConfig
from modernbert.encoder.block import ParallelConfig, PostNormConfig, PreNormConfig
from modernbert.encoder.config import Part
from modernbert.encoder.encoder import Encoder, EncoderConfig
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.rotary import RotaryConfig
from modernbert.text.batch import PackedBatch
from tests.encoder.small import built, random_sequences, small_config

# fp32 through three layers, sums in another order; hidden states are of size 1 to 4, gradients up to about 30
TOLERANCE = {"atol": 1e-4, "rtol": 1e-5}
BATCH = PackedBatch.from_sequences(random_sequences([40, 1, 70, 9]))
POSITIONS = torch.tensor([0, 3, 17, 39, 40, 100, 119])
ATTENTION = AttentionConfig(num_heads=2, rotary=RotaryConfig())


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnAttentionConfig(Part):
    """A user's attention, which knows nothing of positions."""

    kind: ClassVar[str] = "own_attention"

    def build(self, hidden_size: int) -> nn.Module:
        return OwnAttention(hidden_size)


class OwnAttention(nn.Module):
    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.inner = Attention(ATTENTION, hidden_size)

    def forward(self, x: Tensor, batch: PackedBatch, backend: str) -> Tensor:
        return self.inner(x, batch, backend)


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnBlockConfig(Part):
    """A user's layer, which knows nothing of positions."""

    kind: ClassVar[str] = "own_block"

    def build(self, hidden_size: int) -> nn.Module:
        return OwnAttention(hidden_size)


LAST = {
    "pre-norm global": PreNormConfig(attention=ATTENTION, mlp=GluConfig(intermediate_size=24)),
    "pre-norm local": PreNormConfig(
        attention=replace(ATTENTION, window_each_side=8), mlp=GluConfig(intermediate_size=24)
    ),
    "no norms": PreNormConfig(
        attention=ATTENTION, mlp=GluConfig(intermediate_size=24), attention_norm=None, mlp_norm=None
    ),
    "post-norm": PostNormConfig(attention=ATTENTION, mlp=MlpConfig(intermediate_size=24)),
    "parallel": ParallelConfig(attention=ATTENTION, mlp=GluConfig(intermediate_size=24)),
    "own attention": PreNormConfig(attention=OwnAttentionConfig(), mlp=GluConfig(intermediate_size=24)),
    "own block": OwnBlockConfig(),
}


def encoder_with(last: object) -> Encoder:
    config: EncoderConfig = small_config()
    return built(replace(config, blocks=(*config.blocks[:2], last)))


def result_and_gradients(encoder: Encoder, hidden: Tensor) -> list[Tensor]:
    weight = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    return [hidden.detach(), *torch.autograd.grad((hidden * weight).sum(), list(encoder.parameters()))]


@pytest.mark.parametrize("last", LAST.values(), ids=LAST)
@pytest.mark.parametrize("recomputes_layers", [False, True], ids=["kept", "recomputed"])
def test_some_tokens_get_what_they_get_among_all(last, recomputes_layers):
    encoder = encoder_with(last)
    expected = result_and_gradients(encoder, encoder(BATCH)[POSITIONS])
    encoder.recomputes_layers = recomputes_layers
    found = result_and_gradients(encoder, encoder(BATCH, positions=POSITIONS))
    assert found[0].shape == (len(POSITIONS), 32)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


@pytest.mark.parametrize("last", [LAST["pre-norm global"], LAST["post-norm"], LAST["parallel"]])
def test_the_last_mlp_sees_no_token_that_nobody_asks_for(last):
    encoder = encoder_with(last)
    seen: list[int] = []
    encoder.layers[-1].mlp.register_forward_hook(lambda module, inputs, out: seen.append(len(out)))
    with torch.inference_mode():
        encoder(BATCH, positions=POSITIONS)
        encoder(BATCH)
    assert seen == [len(POSITIONS), BATCH.num_tokens]


def test_no_tokens_asked_for_give_nothing_and_gradients_of_zero():
    encoder = encoder_with(LAST["pre-norm global"])
    found = encoder(BATCH, positions=POSITIONS[:0])
    assert found.shape == (0, 32)
    for gradient in torch.autograd.grad(found.sum(), list(encoder.parameters())):
        assert not gradient.any()
