"""A recipe of twenty-odd steps in two phases, on a model of a few thousand weights."""

from modernbert.encoder.presets import modernbert_sized
from modernbert.training.recipe import Phase, Recipe
from modernbert.training.schedule import Constant, ConstantRate, OneMinusSqrt


def small_recipe() -> Recipe:
    return Recipe(
        name="small",
        encoder=modernbert_sized(num_layers=3, hidden_size=32, num_heads=2, intermediate_size=24),
        phases=(
            Phase(
                name="pretrain",
                tokens=3600,
                seq_len=32,
                row_tokens=64,
                rows=4,
                learning_rate=5e-3,
                schedule=Constant(warmup_tokens=400),
                global_theta=10_000.0,
            ),
            Phase(
                name="decay",
                tokens=1800,
                seq_len=64,
                row_tokens=64,
                rows=3,
                learning_rate=2e-3,
                schedule=OneMinusSqrt(total_tokens=1800, decay_tokens=1800, final=0.1),
                mask_rate=ConstantRate(rate=0.2),
                global_theta=160_000.0,
            ),
        ),
        save_every_tokens=800,
        evaluate_every_tokens=1500,
        evaluation_tokens=1000,
    )
