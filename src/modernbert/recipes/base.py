"""ModernBERT-base and -large, as their authors trained them (Warner et al. 2024, arXiv 2412.13663, table 3).

1.7 trillion tokens at 1,024, 250 billion at 8,192, and 50 billion of decay: for many GPUs, and for mixtures
of your own. A row is what one GPU of 80 GB takes at once.
"""

from __future__ import annotations

from dataclasses import replace

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import PreNormConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.presets import modernbert_base, modernbert_large
from modernbert.training.optim import StableAdamWConfig
from modernbert.training.recipe import Phase, Recipe
from modernbert.training.schedule import BatchWarmup, Constant, OneMinusSqrt

# The published schedules, in tokens.
PRETRAIN, EXTEND, DECAY = 1_719_000_000_000, 250_000_000_000, 50_000_000_000
OUT_DROPOUT = 0.1  # of attention, in pretraining alone: the released configurations have none


def base() -> Recipe:
    """The 149 M parameters of ModernBERT-base: steps of 4.7 M tokens, grown from 0.8 M over 50 B tokens."""
    return _three_phases(
        "base",
        modernbert_base(),
        row_tokens=98_304,
        rows=BatchWarmup(first=8, last=48, tokens=50_000_000_000, increment=8),
        warmup_tokens=3_000_000_000,
        peaks=(8e-4, 3e-4),
        weight_decay=1e-5,
    )


def large() -> Recipe:
    """The 395 M parameters of ModernBERT-large, without the original run's fall back after 900 B tokens."""
    return _three_phases(
        "large",
        modernbert_large(),
        row_tokens=57_344,
        rows=BatchWarmup(first=8, last=88, tokens=10_000_000_000, increment=8),
        warmup_tokens=2_000_000_000,
        peaks=(5e-4, 5e-5),
        weight_decay=1e-6,
    )


def with_out_dropout(encoder: EncoderConfig, dropout: float) -> EncoderConfig:
    """The same encoder with this dropout on what attention gives out, in every layer."""
    blocks: list[PreNormConfig] = []
    for block in encoder.blocks:
        assert isinstance(block, PreNormConfig)
        assert isinstance(block.attention, AttentionConfig)
        blocks.append(replace(block, attention=replace(block.attention, out_dropout=dropout)))
    return replace(encoder, blocks=tuple(blocks))


def _three_phases(
    name: str,
    encoder: EncoderConfig,
    *,
    row_tokens: int,
    rows: BatchWarmup,
    warmup_tokens: int,
    peaks: tuple[float, float],
    weight_decay: float,
) -> Recipe:
    pretrain, extend = peaks
    return Recipe(
        name=name,
        encoder=with_out_dropout(encoder, OUT_DROPOUT),
        optimizer=StableAdamWConfig(weight_decay=weight_decay),
        phases=(
            Phase(
                name="pretrain",
                tokens=PRETRAIN,
                seq_len=1024,
                row_tokens=row_tokens,
                rows=rows,
                learning_rate=pretrain,
                schedule=Constant(warmup_tokens=warmup_tokens),
                global_theta=10_000.0,
            ),
            Phase(
                name="extend",
                tokens=EXTEND,
                seq_len=8192,
                row_tokens=row_tokens,
                rows=rows.last,
                learning_rate=extend,
                schedule=Constant(),
                global_theta=160_000.0,
            ),
            Phase(
                name="decay",
                tokens=DECAY,
                seq_len=8192,
                row_tokens=row_tokens,
                rows=rows.last,
                learning_rate=extend,
                schedule=OneMinusSqrt(total_tokens=DECAY, decay_tokens=DECAY, final=0.001),
                global_theta=160_000.0,
            ),
        ),
        save_every_tokens=5_000_000_000,
        evaluate_every_tokens=5_000_000_000,
        evaluation_tokens=20_000_000,
        num_kept=3,
    )
