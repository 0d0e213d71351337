"""The models of the claim: ModernBERT's blocks, BERT's, and ModernBERT's with one ingredient turned back.

A size gives the width and the depth; a variant is a function from a size to a model, as data. BERT's MLP gets
the inner size at which both have as many parameters, learned positions included. Nothing has dropout: no run
sees a text twice, and BERT's 10 % would only cost it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import PostNormConfig, PreNormConfig
from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.init import InitConfig
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.norm import LayerNormConfig
from modernbert.encoder.presets import modernbert_sized
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.heads.transform import TransformConfig
from modernbert.training.context import with_global_theta

SEQ_LEN, VOCABULARY = 1024, 16_384
MASK_RATE, BERT_MASK_RATE = 0.3, 0.15
THETA = 10_000.0  # what ModernBERT's first phase, of 1,024 tokens, has in every layer
INNER_STEP = 8  # BERT's inner size is a multiple of it, as matrix kernels like


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A shape, and how long it is trained: `tokens` for each seed, `row_tokens` a step."""

    name: str
    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    tokens: int
    row_tokens: int
    seeds: tuple[int, ...]


SMALL = Size(
    name="small",
    num_layers=4,
    hidden_size=128,
    num_heads=2,
    intermediate_size=192,
    tokens=5_000_000,
    row_tokens=4096,
    seeds=(1, 2, 3),
)
NANO = Size(
    name="nano",
    num_layers=7,
    hidden_size=256,
    num_heads=4,
    intermediate_size=384,
    tokens=20_000_000,
    row_tokens=8192,
    seeds=(1,),
)
SIZES = (SMALL, NANO)


def modernbert(size: Size) -> ModelConfig:
    """ModernBERT's parts, as it begins its pretraining."""
    encoder = modernbert_sized(
        num_layers=size.num_layers,
        hidden_size=size.hidden_size,
        num_heads=size.num_heads,
        intermediate_size=size.intermediate_size,
        vocab_size=VOCABULARY,
        pad_token_id=0,
    )
    encoder = replace(encoder, max_positions=SEQ_LEN)
    return ModelConfig(encoder=with_global_theta(encoder, THETA), head=MlmHeadConfig())


def bert(size: Size) -> ModelConfig:
    """BERT's parts, with as many parameters as ModernBERT: what positions take, the MLP gives."""
    inner = matching_inner_size(size, num_parameters(modernbert(size)))
    return bert_sized(size, inner)


def bert_with_positions_on_top(size: Size) -> ModelConfig:
    """BERT's parts with an MLP as large as GeGLU's; the table of positions comes on top."""
    return bert_sized(size, 3 * size.intermediate_size // 2)


def bert_sized(size: Size, intermediate_size: int) -> ModelConfig:
    """Learned positions, a GELU MLP, biases, norms on the sums, every layer global, BERT's initialisation."""
    norm = LayerNormConfig(eps=1e-12, has_bias=True)
    block = PostNormConfig(
        attention=AttentionConfig(num_heads=size.num_heads, has_qkv_bias=True, has_out_bias=True),
        mlp=MlpConfig(intermediate_size=intermediate_size, has_in_bias=True, has_out_bias=True),
        attention_norm=norm,
        mlp_norm=norm,
    )
    encoder = EncoderConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.hidden_size,
        blocks=(block,) * size.num_layers,
        embedding=EmbeddingConfig(norm=norm, positions=LearnedPositionsConfig(num_positions=SEQ_LEN)),
        final_norm=None,
        init=InitConfig(family="bert"),
        max_positions=SEQ_LEN,
        pad_token_id=0,
    )
    return ModelConfig(
        encoder=encoder, head=MlmHeadConfig(transform=TransformConfig(has_bias=True, norm=norm))
    )


def matching_inner_size(size: Size, wanted: int) -> int:
    """The inner size at which BERT's parts have nearest to `wanted` parameters, which grow in a line."""
    smallest = num_parameters(bert_sized(size, INNER_STEP))
    step = num_parameters(bert_sized(size, 2 * INNER_STEP)) - smallest
    return max(INNER_STEP, INNER_STEP * (1 + round((wanted - smallest) / step)))


def num_parameters(config: ModelConfig) -> int:
    """Of encoder and head; the tied matrix once."""
    with torch.device("meta"):
        return sum(each.numel() for each in config.build().parameters())


def learned_positions(size: Size) -> ModelConfig:
    """A table of positions instead of rotary ones; it comes on top."""
    whole = on_blocks(modernbert(size), lambda block: on_attention(block, rotary=None))
    return on_encoder(
        whole, embedding=EmbeddingConfig(positions=LearnedPositionsConfig(num_positions=SEQ_LEN))
    )


def gelu_mlp(size: Size) -> ModelConfig:
    """A plain MLP of as many parameters: two matrices, half as large again, instead of three."""
    mlp = MlpConfig(intermediate_size=3 * size.intermediate_size // 2)
    return on_blocks(modernbert(size), lambda block: replace(block, mlp=mlp))


def biases(size: Size) -> ModelConfig:
    """Biases in every product and norm, the head's too."""
    norm = LayerNormConfig(has_bias=True)
    mlp = GluConfig(intermediate_size=size.intermediate_size, has_in_bias=True, has_out_bias=True)

    def with_biases(block: PreNormConfig) -> PreNormConfig:
        changed = on_attention(block, has_qkv_bias=True, has_out_bias=True)
        first = None if block.attention_norm is None else norm
        return replace(changed, mlp=mlp, attention_norm=first, mlp_norm=norm)

    whole = on_blocks(modernbert(size), with_biases)
    head = MlmHeadConfig(transform=TransformConfig(has_bias=True, norm=norm))
    return replace(
        on_encoder(whole, embedding=EmbeddingConfig(norm=norm), final_norm=norm),
        head=head,
    )


def all_global(size: Size) -> ModelConfig:
    """Every layer sees the whole sequence."""
    return on_blocks(modernbert(size), lambda block: on_attention(block, window_each_side=None))


def no_embedding_norm(size: Size) -> ModelConfig:
    """The first layer's attention norm, which the embedding norm stood in for, is back in its place."""
    encoder = modernbert(size).encoder
    first, *rest = encoder.blocks
    blocks = (replace(cast(PreNormConfig, first), attention_norm=LayerNormConfig()), *rest)
    return on_encoder(modernbert(size), embedding=EmbeddingConfig(norm=None), blocks=blocks)


def post_norm(size: Size) -> ModelConfig:
    """Norms on the sums, and so none after the last layer."""
    blocks = tuple(
        PostNormConfig(attention=each.attention, mlp=each.mlp) for each in pre_norm_blocks(modernbert(size))
    )
    return on_encoder(modernbert(size), blocks=blocks, final_norm=None)


def berts_initialisation(size: Size) -> ModelConfig:
    """Weights drawn as BERT's are: not a part, but what the two models differ in as well."""
    return on_encoder(modernbert(size), init=InitConfig(family="bert"))


# Each alone, in the order of the table. Only tables of positions change how many parameters there are by more
# than 1 %. The last ones ask whether the comparison was fair to BERT.
ABLATIONS: Mapping[str, Callable[[Size], ModelConfig]] = {
    "learned-positions": learned_positions,
    "gelu-mlp": gelu_mlp,
    "biases": biases,
    "all-global": all_global,
    "no-embedding-norm": no_embedding_norm,
    "post-norm": post_norm,
    "mask-15": modernbert,
    "bert-initialisation": berts_initialisation,
    "post-norm-at-bert-rate": post_norm,
    "bert-positions-on-top": bert_with_positions_on_top,
    "bert-at-half-rate": bert,
    "modernbert-at-half-rate": modernbert,
}
PAIR: Mapping[str, Callable[[Size], ModelConfig]] = {"modernbert": modernbert, "bert": bert}
VARIANTS: Mapping[str, Callable[[Size], ModelConfig]] = {**PAIR, **ABLATIONS}
AT_BERTS_RATE = ("bert", "post-norm-at-bert-rate", "bert-positions-on-top", "bert-at-half-rate")


def share_of_rate(variant: str) -> float:
    """Of the rate that the short runs found, which may be too high for a long one."""
    return 0.5 if variant.endswith("-at-half-rate") else 1.0


def mask_rate_of(variant: str) -> float:
    """The share of tokens that a variant is trained to guess."""
    return BERT_MASK_RATE if variant == "mask-15" else MASK_RATE


def pre_norm_blocks(config: ModelConfig) -> tuple[PreNormConfig, ...]:
    return tuple(cast(PreNormConfig, block) for block in config.encoder.blocks)


def on_blocks(config: ModelConfig, change: Callable[[PreNormConfig], PreNormConfig]) -> ModelConfig:
    return on_encoder(config, blocks=tuple(change(block) for block in pre_norm_blocks(config)))


def on_attention(block: PreNormConfig, **changes: object) -> PreNormConfig:
    attention = cast(AttentionConfig, block.attention)
    return replace(block, attention=replace(attention, **changes))  # pyright: ignore[reportArgumentType]


def on_encoder(config: ModelConfig, **changes: object) -> ModelConfig:
    return replace(config, encoder=replace(config.encoder, **changes))  # pyright: ignore[reportArgumentType]
