"""The published encoders, all from the same parts; and the literal tuple of the parts there are.

Sizes are those of the published configurations. A preset is a function, so that nothing is built at import,
and takes no arguments: to change one, use `dataclasses.replace` on what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import ParallelConfig, PostNormConfig, PreNormConfig
from modernbert.encoder.config import Part
from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.init import InitConfig
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.norm import LayerNormConfig, RmsNormConfig
from modernbert.encoder.rotary import RotaryConfig

PARTS: tuple[type[Part], ...] = (
    AttentionConfig,
    EmbeddingConfig,
    EncoderConfig,
    GluConfig,
    InitConfig,
    LayerNormConfig,
    LearnedPositionsConfig,
    MlpConfig,
    ParallelConfig,
    PostNormConfig,
    PreNormConfig,
    RmsNormConfig,
    RotaryConfig,
)


def modernbert_base() -> EncoderConfig:
    """ModernBERT-base: 149 M parameters, 22 layers, English and code."""
    return modernbert_sized(num_layers=22, hidden_size=768, num_heads=12, intermediate_size=1152)


def modernbert_large() -> EncoderConfig:
    """ModernBERT-large: 395 M parameters, 28 layers."""
    return modernbert_sized(num_layers=28, hidden_size=1024, num_heads=16, intermediate_size=2624)


def ettin_17m() -> EncoderConfig:
    """Ettin encoder of 17 M parameters: ModernBERT's parts and tokenizer, open data."""
    return modernbert_sized(num_layers=7, hidden_size=256, num_heads=4, intermediate_size=384)


def ettin_32m() -> EncoderConfig:
    """Ettin encoder of 32 M parameters."""
    return modernbert_sized(num_layers=10, hidden_size=384, num_heads=6, intermediate_size=576)


def ettin_68m() -> EncoderConfig:
    """Ettin encoder of 68 M parameters."""
    return modernbert_sized(num_layers=19, hidden_size=512, num_heads=8, intermediate_size=768)


def ettin_150m() -> EncoderConfig:
    """Ettin encoder of 150 M parameters: the shape of ModernBERT-base."""
    return modernbert_base()


def ettin_400m() -> EncoderConfig:
    """Ettin encoder of 400 M parameters: the shape of ModernBERT-large."""
    return modernbert_large()


def ettin_1b() -> EncoderConfig:
    """Ettin encoder of 1 B parameters."""
    return modernbert_sized(num_layers=28, hidden_size=1792, num_heads=28, intermediate_size=3840)


def mmbert_small() -> EncoderConfig:
    """mmBERT-small: 141 M parameters, 1,800 languages; both thetas are 160,000."""
    return _mmbert(hidden_size=384, num_heads=6)


def mmbert_base() -> EncoderConfig:
    """mmBERT-base: 308 M parameters."""
    return _mmbert(hidden_size=768, num_heads=12)


def bert_base() -> EncoderConfig:
    """BERT-base, uncased: 110 M parameters."""
    return _bert(num_layers=12, hidden_size=768, num_heads=12, intermediate_size=3072)


def minilm_l6() -> EncoderConfig:
    """MiniLM-L6-H384, the encoder of all-MiniLM-L6-v2: 23 M parameters."""
    return _bert(num_layers=6, hidden_size=384, num_heads=12, intermediate_size=1536)


def roberta_base() -> EncoderConfig:
    """RoBERTa-base: 125 M parameters."""
    return _roberta(vocab_size=50_265)


def xlm_roberta_base() -> EncoderConfig:
    """XLM-RoBERTa-base: 278 M parameters, 100 languages."""
    return _roberta(vocab_size=250_002)


def modernbert_sized(
    *,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    intermediate_size: int,
    vocab_size: int = 50_368,
    local_theta: float = 10_000.0,
    pad_token_id: int = 50_283,
) -> EncoderConfig:
    """ModernBERT's design in another size: GeGLU, no biases, and every third layer global.

    The first layer needs no attention norm, as the embeddings have just had theirs.
    """
    everywhere = AttentionConfig(num_heads=num_heads, rotary=RotaryConfig(theta=160_000.0))
    nearby = AttentionConfig(num_heads=num_heads, window_each_side=64, rotary=RotaryConfig(theta=local_theta))
    mlp = GluConfig(intermediate_size=intermediate_size)
    blocks = [
        PreNormConfig(attention=everywhere if i % 3 == 0 else nearby, mlp=mlp) for i in range(num_layers)
    ]
    blocks[0] = replace(blocks[0], attention_norm=None)
    return EncoderConfig(
        vocab_size=vocab_size, hidden_size=hidden_size, blocks=tuple(blocks), pad_token_id=pad_token_id
    )


PRESETS: Mapping[str, Callable[[], EncoderConfig]] = MappingProxyType(
    {
        "modernbert-base": modernbert_base,
        "modernbert-large": modernbert_large,
        "ettin-17m": ettin_17m,
        "ettin-32m": ettin_32m,
        "ettin-68m": ettin_68m,
        "ettin-150m": ettin_150m,
        "ettin-400m": ettin_400m,
        "ettin-1b": ettin_1b,
        "mmbert-small": mmbert_small,
        "mmbert-base": mmbert_base,
        "bert-base": bert_base,
        "minilm-l6": minilm_l6,
        "roberta-base": roberta_base,
        "xlm-roberta-base": xlm_roberta_base,
    }
)


def _mmbert(*, hidden_size: int, num_heads: int) -> EncoderConfig:
    return modernbert_sized(
        num_layers=22,
        hidden_size=hidden_size,
        num_heads=num_heads,
        intermediate_size=1152,
        vocab_size=256_000,
        local_theta=160_000.0,
        pad_token_id=0,
    )


def _bert(
    *,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    intermediate_size: int,
    vocab_size: int = 30_522,
    eps: float = 1e-12,
    positions: LearnedPositionsConfig | None = None,
    num_token_types: int = 2,
    pad_token_id: int = 0,
) -> EncoderConfig:
    """Post-norm blocks with biases and dropout everywhere, learned positions, no last norm."""
    norm = LayerNormConfig(eps=eps, has_bias=True)
    positions = positions or LearnedPositionsConfig(num_positions=512)
    block = PostNormConfig(
        attention=AttentionConfig(
            num_heads=num_heads, has_qkv_bias=True, has_out_bias=True, dropout=0.1, out_dropout=0.1
        ),
        mlp=MlpConfig(
            intermediate_size=intermediate_size, has_in_bias=True, has_out_bias=True, out_dropout=0.1
        ),
        attention_norm=norm,
        mlp_norm=norm,
    )
    return EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        blocks=(block,) * num_layers,
        embedding=EmbeddingConfig(
            norm=norm, positions=positions, num_token_types=num_token_types, dropout=0.1
        ),
        final_norm=None,
        init=InitConfig(family="bert"),
        max_positions=positions.num_positions,
        pad_token_id=pad_token_id,
    )


def _roberta(*, vocab_size: int) -> EncoderConfig:
    """BERT's parts; positions start behind two unused rows, and there is one type of text."""
    return _bert(
        num_layers=12,
        hidden_size=768,
        num_heads=12,
        intermediate_size=3072,
        vocab_size=vocab_size,
        eps=1e-5,
        positions=LearnedPositionsConfig(num_positions=512, offset=2),
        num_token_types=1,
        pad_token_id=1,
    )
