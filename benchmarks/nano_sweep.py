"""Which optimiser, rate, batch and mask rate nano is trained with: short runs of its shape, one change each.

Each run trains nano's first phase for a few tokens, with a decay at its end, and is compared by its loss on
held-out text. Runs are kept in --out and go on where they were stopped; finished ones are only read.

    python benchmarks/nano_sweep.py --data runs/shards --valid runs/shards-valid --tokens 2000000
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from common import description, write_results

from modernbert.recipes.nano import nano
from modernbert.training import journal
from modernbert.training.optim import AdoptConfig, MuonConfig, OptimizerConfig
from modernbert.training.recipe import Phase, Recipe
from modernbert.training.run import pretrain
from modernbert.training.schedule import ConstantRate, WarmupStableDecay

WARMUP_SHARE, DECAY_SHARE = 0.1, 0.2
RATES = {8192: (2e-3, 1e-3, 4e-3), 4096: (2e-3, 1e-3, 5e-4)}
OPTIMIZERS: Mapping[str, OptimizerConfig] = {"adopt": AdoptConfig(), "muon": MuonConfig()}
MASK_RATE, OTHER_MASK_RATES = 0.3, (0.2, 0.4)


def variants(tokens: int) -> dict[str, Recipe]:
    """Names and recipes: steps and rates, then at two of these other optimisers and mask rates."""
    found = {
        f"{step} tokens a step at {rate:g}": short_run(tokens, step, rate)
        for step, rates in RATES.items()
        for rate in rates
    }
    large, small = short_run(tokens, 8192, 2e-3), short_run(tokens, 4096, 1e-3)
    found |= {
        f"{name}, 8192 tokens a step at 0.002": replace(large, optimizer=optimizer)
        for name, optimizer in OPTIMIZERS.items()
    }
    found |= {
        f"4096 tokens a step at 0.001, mask rate {rate:g}": with_phase(
            small, mask_rate=ConstantRate(rate=rate)
        )
        for rate in OTHER_MASK_RATES
    }
    return found


def short_run(tokens: int, step: int, rate: float) -> Recipe:
    recipe = nano()
    schedule = WarmupStableDecay(
        total_tokens=tokens,
        warmup_tokens=round(WARMUP_SHARE * tokens),
        decay_tokens=round(DECAY_SHARE * tokens),
    )
    phase = replace(
        recipe.phases[0],
        tokens=tokens,
        schedule=schedule,
        row_tokens=step,
        learning_rate=rate,
        mask_rate=ConstantRate(rate=MASK_RATE),  # the recipe has the one that was chosen
    )
    return replace(
        recipe, phases=(phase,), evaluate_every_tokens=max(tokens // 4, 1), evaluation_tokens=200_000
    )


def with_phase(recipe: Recipe, **changes: object) -> Recipe:
    (phase,) = recipe.phases
    changed: Phase = replace(phase, **changes)  # pyright: ignore[reportArgumentType]
    return replace(recipe, phases=(changed,))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=2_000_000)
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the runs")
    args = parser.parse_args()
    results = []
    for name, recipe in variants(args.tokens).items():
        if args.only and name not in args.only:
            continue
        folder = args.out / name.replace(" ", "-")
        if pretrain(recipe, args.data, folder, valid=args.valid) is None:
            sys.exit("stopped; the same command goes on")
        last = journal.read(folder / journal.EVALUATIONS)[-1]
        skipped = sum(bool(row["skipped"]) for row in journal.read(folder / journal.STEPS))
        results.append({"run": name, "loss": last["loss"], "accuracy": last["accuracy"], "skipped": skipped})
        print(
            f"{name:<24} loss {last['loss']:.4f}  accuracy {last['accuracy']:.4f}",
            file=sys.stderr,
            flush=True,
        )
    print(description() + f"\n\nnano's shape, {args.tokens:,} tokens a run; on held-out text, 15 % masked\n")
    print(f"{'run':<24}{'loss':>8}{'accuracy':>10}")
    for row in sorted(results, key=lambda each: each["loss"]):
        print(f"{row['run']:<24}{row['loss']:>8.4f}{row['accuracy']:>10.4f}")
    print(f"\nwrote {write_results('nano_sweep', {'tokens': args.tokens, 'results': results})}")


if __name__ == "__main__":
    main()
