"""Encoders for the tests of the native kernels: presets made small, and compositions drawn at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import ParallelConfig, PostNormConfig, PreNormConfig
from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig
from modernbert.encoder.encoder import Encoder, EncoderConfig
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.norm import LayerNormConfig, RmsNormConfig
from modernbert.encoder.presets import PRESETS
from modernbert.encoder.rotary import RotaryConfig
from modernbert.kernels import native_library
from modernbert.text.batch import PackedBatch

VOCAB_SIZE = 101
# Sizes are multiples of 32 so that every instruction set can serve them.
HIDDEN_SIZE, NUM_HEADS = 64, 2
NATIVE_ACTIVATIONS = tuple(native_library.ACTIVATIONS)

needs_native = pytest.mark.skipif(
    native_library.library() is None, reason=f"the native backend {native_library.missing()}"
)


def small_preset(name: str) -> EncoderConfig:
    """A preset's parts, at most three layers of them, 64 wide, with heads of 32 and a vocabulary of 101."""
    whole = PRESETS[name]()
    blocks = tuple(
        replace(
            block,
            attention=replace(block.attention, num_heads=NUM_HEADS),
            mlp=replace(block.mlp, intermediate_size=96),
        )
        for block in whole.blocks[:3]
    )
    return replace(whole, hidden_size=HIDDEN_SIZE, vocab_size=VOCAB_SIZE, blocks=blocks, pad_token_id=None)


def random_config(seed: int) -> EncoderConfig:
    """Any parts that a plan can express, a block of each its own."""
    draw = random.Random(seed)

    def norm() -> LayerNormConfig | RmsNormConfig | None:
        return draw.choice(
            (None, LayerNormConfig(), LayerNormConfig(has_bias=True, eps=1e-12), RmsNormConfig(eps=1e-6))
        )

    def attention() -> AttentionConfig:
        rotary = RotaryConfig(
            theta=draw.choice((100.0, 10_000.0)),
            fraction=draw.choice((1.0, 1.0, 0.5)) if native_library.lanes() < 16 else 1.0,
            is_interleaved=draw.random() < 0.5,
        )
        return AttentionConfig(
            num_heads=draw.choice((1, 2)),
            window_each_side=draw.choice((None, 0, 3, 8, 40)),
            rotary=draw.choice((None, rotary, rotary)),
            has_qkv_bias=draw.random() < 0.5,
            has_out_bias=draw.random() < 0.5,
        )

    def mlp() -> GluConfig | MlpConfig:
        return draw.choice((GluConfig, MlpConfig))(
            intermediate_size=draw.choice((32, 48 if native_library.lanes() <= 16 else 64, 96)),
            activation=draw.choice(NATIVE_ACTIVATIONS),
            has_in_bias=draw.random() < 0.5,
            has_out_bias=draw.random() < 0.5,
        )

    def block() -> PreNormConfig | PostNormConfig | ParallelConfig:
        kind = draw.choice((PreNormConfig, PostNormConfig, ParallelConfig))
        if kind is ParallelConfig:
            return ParallelConfig(attention=attention(), mlp=mlp(), norm=norm())
        return kind(attention=attention(), mlp=mlp(), attention_norm=norm(), mlp_norm=norm())

    return EncoderConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=HIDDEN_SIZE,
        blocks=tuple(block() for _ in range(3)),
        embedding=EmbeddingConfig(
            norm=norm(),
            positions=draw.choice((None, LearnedPositionsConfig(num_positions=600, offset=2))),
            num_token_types=draw.choice((0, 2)),
        ),
        final_norm=LayerNormConfig(),
    )


def built(config: EncoderConfig, seed: int = 0, products: str = "float32") -> Encoder:
    """In evaluation mode, with matrices so large that attention is far from uniform, and norms that show."""
    torch.manual_seed(seed)
    encoder = config.build().eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            noise = torch.randn_like(parameter)
            if parameter.dim() == 2:
                parameter.copy_(1.2 * parameter.shape[1] ** -0.5 * noise)
            else:
                parameter.copy_(float(name.endswith("weight")) + 0.3 * noise)
    encoder.native.is_int8 = products == "int8"
    return encoder.bfloat16() if products == "bfloat16" else encoder


def random_batch(lengths: Sequence[int], seed: int = 0, *, has_types: bool = False) -> PackedBatch:
    generator = torch.Generator().manual_seed(seed)

    def rows(most: int) -> list[list[int]]:
        return [torch.randint(most, (length,), generator=generator).tolist() for length in lengths]

    return PackedBatch.from_sequences(rows(VOCAB_SIZE), rows(2) if has_types else None)


def hidden(encoder: Encoder, batch: PackedBatch, backend: str = "native") -> Tensor:
    with torch.no_grad():
        return encoder(batch, backend)
