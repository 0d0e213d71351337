"""ModernBERT's blocks against BERT's: equal parameters, tokens, texts and masks; then each ingredient alone.

    rates       the learning rate of each of the two: 1 M tokens a rate, until the best has a worse one on
                either side
    small       four layers of 128, 5 M tokens, three seeds, each of the two
    ablations   the same, ModernBERT with one ingredient turned back
    nano        nano's shape, 20 M tokens, one seed, each of the two

All learn from the same sequences of at most 1,024 tokens, in the same order and with the same masks, and are
asked for the same masked tokens of held-out text, 15 % of them, whatever share they learned from. A run is
kept in --out and goes on where SIGTERM or Ctrl-C stopped it; results/claim.* are written anew after each that
ends, and what stands there is not run again. Two processes may share the work by --only.

    python benchmarks/claim.py --data runs/shards --valid runs/shards-valid --list
    python benchmarks/claim.py --data runs/shards --valid runs/shards-valid --only rates small

Nano has half the small size's rate, as it is twice as wide (Yang et al. 2022, arXiv 2203.03466). The axis of
seconds needs claim_speed.py, which times both in turns on a quiet machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from claim_models import SEQ_LEN, VARIANTS, mask_rate_of, num_parameters
from claim_report import restore, write_report
from claim_runs import GROUPS, OUTCOME, START_RATES, Job, Place, all_jobs, do

from modernbert.training.optim import StableAdamWConfig, set_learning_rate
from modernbert.training.pretraining import MaskedLoss, packed

TIMED_STEPS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/claim"))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the groups or of the runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="tokens of each run; below 1 to try things")
    parser.add_argument("--list", action="store_true", help="the runs and how long they take; trains nothing")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    jobs = all_jobs(args.scale)
    chosen = choose(jobs, args.only)
    place = Place(data=args.data, valid=args.valid, out=args.out)
    # what was only tried must not pass for a result
    target = None if args.scale == 1 else args.out
    if target is None:
        restore(jobs, args.out)
    if args.list:
        print_list(chosen, args.out, args.threads)
        return
    for job in chosen:
        do(job, place)
        write_report(jobs, args.out, target)
    print(write_report(jobs, args.out, target))


def choose(jobs: Sequence[Job], only: Sequence[str] | None) -> list[Job]:
    """The runs that are named, by themselves or by their group, in the order of all."""
    names = set(only or GROUPS)
    if unknown := names - set(GROUPS) - {job.name for job in jobs}:
        sys.exit(f"no run or group is called {', '.join(sorted(unknown))}: --list names them")
    return [job for job in jobs if names & {job.name, job.group}]


def print_list(jobs: Sequence[Job], out: Path, threads: int) -> None:
    """Runs, their size, and the hours that each would take at the speed measured now."""
    rates: dict[tuple[str, str], float] = {}
    total = 0.0
    print(f"{'run':<36}{'group':<11}{'parameters':>11}{'tokens':>12}{'tokens/s':>10}{'hours':>7}")
    for job in jobs:
        key = (job.size.name, job.variant)
        if key not in rates:
            rates[key] = training_rate(job)
        # a search tries three rates and may need more
        tokens = job.tokens * (len(START_RATES) if job.group == "rates" else 1)
        is_done = (out / job.name / OUTCOME).exists()
        hours = 0.0 if is_done else tokens / rates[key] / 3600
        total += hours
        size = num_parameters(VARIANTS[job.variant](job.size))
        words = f"{job.name:<36}{job.group:<11}{size:>11,}{tokens:>12,}{rates[key]:>10,.0f}"
        print(words + ("   done" if is_done else f"{hours:>7.2f}"), flush=True)
    print(
        f"\n{total:.1f} hours to go, evaluations not counted, with {threads} thread(s) that no one else uses"
    )


def training_rate(job: Job) -> float:
    """Tokens a second of training steps on random tokens in full sequences: the median of a few.

    Seconds are the processor's, so that others at work beside it count for little.
    """
    config = VARIANTS[job.variant](job.size)
    torch.manual_seed(job.seed)
    loss = MaskedLoss(config.build()).train()
    optimizer = StableAdamWConfig().build(loss)
    set_learning_rate(optimizer, 1e-3, 1.0)
    num_tokens = job.size.row_tokens
    token_ids = np.random.default_rng(job.seed).integers(10, config.encoder.vocab_size, num_tokens)
    batch = packed(token_ids, (SEQ_LEN,) * (num_tokens // SEQ_LEN))
    positions = torch.arange(0, num_tokens)[: round(mask_rate_of(job.variant) * num_tokens)]
    seconds: list[float] = []
    for _ in range(1 + TIMED_STEPS):
        start = time.process_time()
        optimizer.zero_grad(set_to_none=True)
        (loss(batch, positions, batch.token_ids[positions])[0] / len(positions)).backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
    return num_tokens * torch.get_num_threads() / statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
