"""The training runs of the claim: which there are, each as a recipe, and what came out, kept with them."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from claim_models import (
    ABLATIONS,
    AT_BERTS_RATE,
    NANO,
    PAIR,
    SEQ_LEN,
    SMALL,
    VARIANTS,
    Size,
    mask_rate_of,
    share_of_rate,
)

from modernbert.corpus.masking import Masker
from modernbert.corpus.shards import Shards
from modernbert.errors import TrainingError
from modernbert.files import write_atomic
from modernbert.heads.mlm import MaskedLanguageModel, MlmHeadConfig
from modernbert.pretrained.folder import read_folder
from modernbert.training import journal
from modernbert.training.parallel import joined
from modernbert.training.pretraining import MaskedLoss, MaskedRows
from modernbert.training.recipe import Phase, Recipe
from modernbert.training.run import pretrain
from modernbert.training.schedule import ConstantRate, WarmupStableDecay
from modernbert.training.validation import Validation

GROUPS = ("rates", "small", "ablations", "nano")
START_RATES, MOST_RATES, RATE_TOKENS = (1e-3, 2e-3, 4e-3), 6, 1_000_000
WARMUP_SHARE, DECAY_SHARE, NUM_EVALUATIONS, NUM_SAVES = 0.1, 0.2, 12, 20
# Held-out tokens: at each point of a curve, and for the tables; runs that are only tried have fewer.
CURVE_TOKENS, OUTCOME_TOKENS = 100_000, 400_000
EVALUATION_MASK_RATE, OUTCOME_SEED = 0.15, 15
OUTCOME = "outcome.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A variant of a size to be trained with one seed; in the group "rates", at one rate after another."""

    group: str
    variant: str
    size: Size
    seed: int
    tokens: int

    @property
    def name(self) -> str:
        """Such as small/bert-1; rates/bert."""
        return (
            f"rates/{self.variant}"
            if self.group == "rates"
            else f"{self.size.name}/{self.variant}-{self.seed}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the runs read and write."""

    data: Path
    valid: Path
    out: Path


def all_jobs(scale: float) -> list[Job]:
    """The most telling first: one seed of everything, then the others."""
    rates = [
        Job(group="rates", variant=each, size=SMALL, seed=1, tokens=round(scale * RATE_TOKENS))
        for each in PAIR
    ]
    small = [
        Job(group=group, variant=each, size=SMALL, seed=seed, tokens=round(scale * SMALL.tokens))
        for seed in SMALL.seeds
        for group, variants in (("small", PAIR), ("ablations", ABLATIONS))
        for each in variants
    ]
    nano = [
        Job(group="nano", variant=each, size=NANO, seed=seed, tokens=round(scale * NANO.tokens))
        for seed in NANO.seeds
        for each in PAIR
    ]
    return [*rates, *small, *nano]


def do(job: Job, place: Place) -> None:
    """Train, or go on, or only see that it is done."""
    if job.group == "rates":
        search_rate(job, place)
        return
    rates = chosen_rates(place.out)
    of = "bert" if job.variant in AT_BERTS_RATE else "modernbert"
    if of not in rates:
        sys.exit(f"{job.name} needs a learning rate: run --only rates first, which finds it")
    rate = rates[of] * share_of_rate(job.variant) * SMALL.hidden_size / job.size.hidden_size
    train(job, rate, place, place.out / job.name)


def search_rate(job: Job, place: Place) -> None:
    """Rates until the best has a worse one on either side."""
    tried: dict[float, float] = {}
    while rates := next_rates(tried):
        for rate in rates:
            tried[rate] = train(job, rate, place, place.out / job.name / f"{rate:g}")
    best = min(tried, key=tried.__getitem__)
    losses = {f"{rate:g}": known(loss) for rate, loss in sorted(tried.items())}
    is_bracketed = min(tried) < best < max(tried)
    content = {"rate": best, "is_bracketed": is_bracketed, "losses": losses}
    write_atomic(place.out / job.name / OUTCOME, json.dumps(content, indent=2) + "\n")


def next_rates(tried: dict[float, float]) -> tuple[float, ...]:
    """What to try after these losses by rate: three, then beyond the edge that the best stands at."""
    if not tried:
        return START_RATES
    best = min(tried, key=tried.__getitem__)
    if len(tried) >= MOST_RATES or min(tried) < best < max(tried):
        return ()
    return (best * 2,) if best == max(tried) else (best / 2,)


def chosen_rates(out: Path) -> dict[str, float]:
    """The small size's rate of each variant whose search is over."""
    found = {variant: read_outcome(out / "rates" / variant) for variant in PAIR}
    return {variant: each["rate"] for variant, each in found.items() if each is not None}


def train(job: Job, rate: float, place: Place, folder: Path) -> float:
    """The held-out loss of one run, infinite where training went astray; finished runs are only read."""
    found = read_outcome(folder)
    if found is None:
        plan = recipe(job, rate)
        found = {"variant": job.variant, "seed": job.seed, "rate": rate, "tokens": job.tokens}
        try:
            model = pretrain(plan, place.data, folder, valid=place.valid)
        except TrainingError as error:
            if len(journal.read(folder / journal.ACCIDENTS)) <= plan.max_skipped_steps:
                raise
            found["failed"] = str(error).splitlines()[0]
        else:
            if model is None:
                sys.exit("stopped; the same command goes on")
            found |= figures(model, place.valid, min(OUTCOME_TOKENS, job.tokens))
        found["skipped"] = len(journal.read(folder / journal.ACCIDENTS))
        write_atomic(folder / OUTCOME, json.dumps(found, indent=2) + "\n")
    loss = found.get("loss", math.inf)
    print(f"{job.name:<36} rate {rate:<8g} loss {loss:.4f}", file=sys.stderr, flush=True)
    return loss


def recipe(job: Job, rate: float) -> Recipe:
    """A run as data: a warm-up, a peak, and a straight line down at the end."""
    config = VARIANTS[job.variant](job.size)
    phase = Phase(
        name="pretrain",
        tokens=job.tokens,
        seq_len=SEQ_LEN,
        row_tokens=job.size.row_tokens,
        rows=1,
        learning_rate=rate,
        schedule=WarmupStableDecay(
            total_tokens=job.tokens,
            warmup_tokens=round(WARMUP_SHARE * job.tokens),
            decay_tokens=round(DECAY_SHARE * job.tokens),
        ),
        mask_rate=ConstantRate(rate=mask_rate_of(job.variant)),
    )
    return Recipe(
        name=f"claim-{job.variant}",
        encoder=config.encoder,
        head=cast(MlmHeadConfig, config.head),
        phases=(phase,),
        valid_mask_rate=EVALUATION_MASK_RATE,
        precision="float32",
        seed=job.seed,
        evaluate_every_tokens=max(1, job.tokens // NUM_EVALUATIONS),
        evaluation_tokens=min(CURVE_TOKENS, max(1, job.tokens // 10)),
        save_every_tokens=max(1, job.tokens // NUM_SAVES),
        num_kept=1,
    )


def figures(model: Path, valid: Path, num_tokens: int) -> dict[str, Any]:
    """Loss and accuracy on held-out text, by source: the same masked tokens for every run and seed."""
    shards = Shards.open(valid)
    tokenizer = shards.tokenizer()
    around = tokenizer.template.single
    module = cast(MaskedLanguageModel, read_folder(model, dtype=torch.float32).module)
    validation = Validation(
        documents=shards,
        rows=MaskedRows(masker=Masker.of(tokenizer), seed=(OUTCOME_SEED,)),
        prefix=tuple(around.prefix.token_ids),
        suffix=tuple(around.suffix.token_ids),
        seq_len=SEQ_LEN,
        row_tokens=SMALL.row_tokens,
        mask_rate=EVALUATION_MASK_RATE,
        num_tokens=num_tokens,
        precision=torch.float32,
    )
    with joined("cpu") as group:
        return validation.figures(MaskedLoss(module), group)


def curve(folder: Path) -> list[tuple[int, float]]:
    """Tokens and held-out loss at the evaluations of a run."""
    return [(row["tokens"], row["loss"]) for row in journal.read(folder / journal.EVALUATIONS)]


def read_outcome(folder: Path) -> dict[str, Any] | None:
    """What a run left when it ended; None before that."""
    path = folder / OUTCOME
    return json.loads(path.read_text()) if path.exists() else None


def known(loss: float) -> float | None:
    """JSON has no infinity."""
    return loss if math.isfinite(loss) else None
