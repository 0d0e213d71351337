"""A small ModernBERT for the tests of this folder: a global and two local layers, and packs for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import PreNormConfig
from modernbert.encoder.encoder import Encoder, EncoderConfig
from modernbert.encoder.mlp import GluConfig
from modernbert.encoder.rotary import RotaryConfig

VOCAB_SIZE = 101


def small_config(window: int = 8) -> EncoderConfig:
    everywhere = AttentionConfig(num_heads=2, rotary=RotaryConfig(theta=160_000.0))
    nearby = replace(everywhere, window_each_side=window, rotary=RotaryConfig(theta=10_000.0))
    blocks = tuple(
        PreNormConfig(attention=attention, mlp=GluConfig(intermediate_size=24))
        for attention in (everywhere, nearby, nearby)
    )
    return EncoderConfig(vocab_size=VOCAB_SIZE, hidden_size=32, blocks=blocks)


def built(config: EncoderConfig) -> Encoder:
    """In evaluation mode, its matrices ten times as large as drawn, so that attention is far from uniform."""
    torch.manual_seed(0)
    encoder = config.build().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.dim() == 2:
                parameter.mul_(10)
    return encoder


def random_sequences(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCAB_SIZE, (length,), generator=generator).tolist() for length in lengths]
