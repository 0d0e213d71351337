"""Rows with padding, and what the packed model gives for them under the names of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import ParallelConfig, PreNormConfig
from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig
from modernbert.encoder.encoder import BlockPart, EncoderConfig
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.norm import RmsNormConfig
from modernbert.encoder.rotary import RotaryConfig
from modernbert.heads.classify import ChoiceHeadConfig
from modernbert.heads.embed import EmbedHeadConfig, PoolerHeadConfig, TokenEmbedHeadConfig
from modernbert.heads.tokens import SpanHeadConfig
from modernbert.pretrained.folder import Pretrained
from modernbert.text.batch import PackedBatch
from tests.inference.tiny import MAX_LENGTH

# An even number: each two are the choices of a question. One token; at the edge of a window of 4, just inside
# and just outside; longer than the 16 that a graph is traced with; the longest there is.
LENGTHS = (1, 2, 5, 6, 9, 10, 33, MAX_LENGTH)
# The project's own bound in fp32. What is seen is 2.5e-5 and below, from sums in another order.
TOLERANCE = 1e-4


OTHER_PARTS = {
    "interleaved": PreNormConfig(
        attention=AttentionConfig(num_heads=2, rotary=RotaryConfig(is_interleaved=True), window_each_side=3),
        mlp=GluConfig(intermediate_size=24, activation="silu"),
        attention_norm=RmsNormConfig(),
    ),
    "half of a head": ParallelConfig(
        attention=AttentionConfig(num_heads=2, rotary=RotaryConfig(fraction=0.5), has_qkv_bias=True),
        mlp=MlpConfig(intermediate_size=24, activation="quick_gelu"),
    ),
    "no positions, no window": PreNormConfig(
        attention=AttentionConfig(num_heads=4, window_each_side=0), mlp=MlpConfig(intermediate_size=24)
    ),
}


def encoder_of(block: BlockPart) -> EncoderConfig:
    """Two such blocks, on learned positions that begin behind two rows, as RoBERTa's."""
    positions = LearnedPositionsConfig(num_positions=MAX_LENGTH, offset=2)
    return EncoderConfig(
        vocab_size=420,
        hidden_size=32,
        blocks=(block, block),
        embedding=EmbeddingConfig(positions=positions, num_token_types=1),
        max_positions=MAX_LENGTH,
    )


def rows(lengths: Sequence[int], *, side: str = "right", seed: int = 0) -> dict[str, Tensor]:
    """The inputs of a graph for random texts of these lengths, of two types; padding is token 3."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    is_real = torch.arange(shape[1])[None, :] < torch.tensor(lengths)[:, None]
    if side == "left":
        is_real = is_real.flip(1)
    token_ids = torch.randint(5, 150, shape, generator=generator)
    return {
        "input_ids": token_ids.where(is_real, 3),
        "attention_mask": is_real.long(),
        "token_type_ids": torch.randint(0, 2, shape, generator=generator).where(is_real, 0),
    }


def names_of(model: Pretrained) -> list[str]:
    """The third input is for models that tell two types of text apart."""
    has_two_types = model.config.encoder.embedding.num_token_types == 2  # pyright: ignore
    return ["input_ids", "attention_mask", *["token_type_ids"] * has_two_types]


def inputs_of(model: Pretrained, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs that this model's graph has: [B, N], or [B, 2, N] for one that chooses."""
    names = names_of(model)
    is_choice = isinstance(model.config.head, ChoiceHeadConfig)
    return {name: inputs[name].unflatten(0, (-1, 2)) if is_choice else inputs[name] for name in names}


@torch.no_grad()
def expected(model: Pretrained, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What our own modules give for the same tokens in a pack: [T, ...] for tokens, [S, ...] for texts."""
    batch = PackedBatch.from_padded(*(inputs[name] for name in names_of(model)))
    module, head = model.module.eval(), model.config.head
    scores, hidden = module(batch, "sdpa"), module.model(batch, "sdpa")
    if isinstance(head, SpanHeadConfig):
        return {"start_logits": scores[:, 0], "end_logits": scores[:, 1]}
    if isinstance(head, EmbedHeadConfig):
        return {"last_hidden_state": hidden, "token_embeddings": hidden, "sentence_embedding": scores}
    if isinstance(head, TokenEmbedHeadConfig):
        return {"last_hidden_state": hidden, "token_embeddings": scores}
    if isinstance(head, PoolerHeadConfig):
        return {"last_hidden_state": hidden, "pooler_output": scores}
    return {"logits": scores}


def assert_same(found: Mapping[str, Any], wanted: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> None:
    """The same names in the same order, and at real tokens the same numbers."""
    assert list(found) == list(wanted)
    is_real = inputs["attention_mask"].bool().numpy()
    num_tokens = int(is_real.sum())
    for name, each in wanted.items():
        given = np.asarray(found[name])
        given = given[is_real] if len(each) == num_tokens else given.reshape(each.shape)  # [B, 2] is [S, 1]
        assert given.shape == tuple(each.shape), name
        assert each.std() > 0.1, f"{name}: numbers too small to compare"
        gap = np.abs(given - each.numpy()).max()
        assert gap <= TOLERANCE, f"{name}: the largest difference is {gap:.2g}"
