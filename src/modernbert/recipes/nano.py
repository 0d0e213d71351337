"""The model that ships with the package: 8 M parameters, 8,192 tokens, trained on a laptop's processor."""

from __future__ import annotations

from modernbert.corpus.mixture import Mixture
from modernbert.encoder.presets import modernbert_sized
from modernbert.training.recipe import Phase, Recipe
from modernbert.training.schedule import Constant, ConstantRate, OneMinusSqrt

NUM_TOKENS = 100_000_000


def nano() -> Recipe:
    """ModernBERT's design in seven layers of 256, and its three phases over 100 M tokens.

    Optimiser, rate, mask rate and the 4,096 tokens of a step are those that learned most in short runs
    (benchmarks/nano_sweep.py). A sequence of 8,192 tokens makes a step of its own.
    """
    shares = {"pretrain": 0.80, "extend": 0.10, "decay": 0.10}
    tokens = {name: round(share * NUM_TOKENS) for name, share in shares.items()}
    return Recipe(
        name="nano",
        encoder=modernbert_sized(num_layers=7, hidden_size=256, num_heads=4, intermediate_size=384),
        phases=(
            Phase(
                name="pretrain",
                tokens=tokens["pretrain"],
                seq_len=1024,
                row_tokens=4096,
                rows=1,
                learning_rate=1e-3,
                schedule=Constant(warmup_tokens=2_000_000),
                mask_rate=ConstantRate(rate=0.20),
                global_theta=10_000.0,
            ),
            Phase(
                name="extend",
                tokens=tokens["extend"],
                seq_len=8192,
                row_tokens=8192,
                rows=1,
                learning_rate=1e-3,
                schedule=Constant(),
                mask_rate=ConstantRate(rate=0.20),
                mixture=Mixture(long_share=0.6),
                global_theta=160_000.0,
            ),
            Phase(
                name="decay",
                tokens=tokens["decay"],
                seq_len=8192,
                row_tokens=8192,
                rows=1,
                learning_rate=1e-3,
                schedule=OneMinusSqrt(
                    total_tokens=tokens["decay"], decay_tokens=tokens["decay"], final=0.001
                ),
                mask_rate=ConstantRate(rate=0.15),
                mixture=Mixture(long_share=0.4),
                global_theta=160_000.0,
            ),
        ),
        save_every_tokens=500_000,
        evaluate_every_tokens=2_000_000,
    )
