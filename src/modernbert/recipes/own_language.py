"""An encoder for a language or a field of your own, from tens of megabytes of its text, in an afternoon."""

from __future__ import annotations

from modernbert.encoder.presets import modernbert_sized
from modernbert.training.recipe import Phase, Recipe
from modernbert.training.schedule import Constant, ConstantRate, OneMinusSqrt

NUM_TOKENS = 30_000_000


def own_language() -> Recipe:
    """Six layers of 256 over 30 M tokens: short sequences first, where most is learned, then 2,048 tokens.

    Steps are small, 4,096 tokens, as so short a run has few of them. Rate and mask rate are those that served
    nano best in short runs (benchmarks/nano_sweep.py).
    """
    pretrain, decay = round(0.8 * NUM_TOKENS), round(0.2 * NUM_TOKENS)
    return Recipe(
        name="own_language",
        encoder=modernbert_sized(num_layers=6, hidden_size=256, num_heads=4, intermediate_size=384),
        phases=(
            Phase(
                name="pretrain",
                tokens=pretrain,
                seq_len=512,
                row_tokens=4096,
                rows=1,
                learning_rate=1e-3,
                schedule=Constant(warmup_tokens=1_000_000),
                mask_rate=ConstantRate(rate=0.20),
                global_theta=10_000.0,
            ),
            Phase(
                name="decay",
                tokens=decay,
                seq_len=2048,
                row_tokens=4096,
                rows=1,
                learning_rate=1e-3,
                schedule=OneMinusSqrt(total_tokens=decay, decay_tokens=decay, final=0.001),
                mask_rate=ConstantRate(rate=0.15),
                global_theta=160_000.0,
            ),
        ),
    )
