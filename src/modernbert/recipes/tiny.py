"""The smallest run that does everything: three phases in about a minute on two cores, for trying things."""

from __future__ import annotations

from modernbert.encoder.presets import modernbert_sized
from modernbert.training.recipe import Phase, Recipe
from modernbert.training.schedule import Constant, ConstantRate, OneMinusSqrt


def tiny() -> Recipe:
    """0.7 M tokens on a model of three layers of 64; the text is learned a little, and every part has run."""
    return Recipe(
        name="tiny",
        encoder=modernbert_sized(num_layers=3, hidden_size=64, num_heads=2, intermediate_size=96),
        phases=(
            Phase(
                name="pretrain",
                tokens=500_000,
                seq_len=128,
                row_tokens=2048,
                rows=1,
                learning_rate=4e-3,
                schedule=Constant(warmup_tokens=40_000),
                global_theta=10_000.0,
            ),
            Phase(
                name="extend",
                tokens=120_000,
                seq_len=512,
                row_tokens=2048,
                rows=1,
                learning_rate=2e-3,
                schedule=Constant(),
                global_theta=160_000.0,
            ),
            Phase(
                name="decay",
                tokens=80_000,
                seq_len=512,
                row_tokens=2048,
                rows=1,
                learning_rate=2e-3,
                schedule=OneMinusSqrt(total_tokens=80_000, decay_tokens=80_000, final=0.01),
                mask_rate=ConstantRate(rate=0.15),
                global_theta=160_000.0,
            ),
        ),
        save_every_tokens=100_000,
        evaluate_every_tokens=100_000,
        evaluation_tokens=20_000,
    )
