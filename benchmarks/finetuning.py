"""Fine-tuning beside a plain loop of transformers: the same model, rows, seeds and numbers, scores and speed.

Both sides train with AdamW at the same rate, in batches of as many rows, with the same warm-up and decay, for
as many epochs, and take the last weights; theirs pads each batch to its longest row, as everybody's loop
does. Runs take turns, seed by seed. Only training steps are timed, and only real tokens count.

    python benchmarks/finetuning.py --model MODEL --data DATA/data/classification
    python benchmarks/finetuning.py --model MODEL --data ... --sets trec --seeds 1 --most-rows 300     a try
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import description, write_results
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup
from transformers.utils import logging as transformers_logging

from modernbert.metrics.classification import classes
from modernbert.training import journal
from modernbert.training.finetune_run import Sources, finetune
from modernbert.training.finetuning import Finetuning
from modernbert.training.optim import AdamWConfig
from modernbert.training.tasks.classify import Classify

SETS = {"sst2": ("text", None), "trec": ("text", None), "cinexio_bg": ("text", None)}
EPOCHS, BATCH, RATE, WARMUP, MOST_TOKENS = 2, 16, 1e-4, 0.1, 256
METRICS = ("accuracy", "macro_f1")
GOAL = 2.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Scores on the test rows, and the real tokens and seconds of the training steps."""

    scores: dict[str, float]
    num_tokens: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a folder that both sides read")
    parser.add_argument("--data", type=Path, required=True, help="the folder of the sets")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most-rows", type=int, help="of each part, for a try; writes nothing")
    arguments = parser.parse_args()
    transformers_logging.set_verbosity_error()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.sets:
            parts = read(arguments.data / name, Path(folder) / name, arguments.most_rows)
            runs: dict[str, list[Outcome]] = {"modernbert": [], "transformers": []}
            for seed in range(arguments.seeds):
                runs["modernbert"].append(ours(arguments.model, parts, Path(folder), seed))
                runs["transformers"].append(theirs(arguments.model, parts, seed))
                for side, outcomes in runs.items():
                    print(f"{name} seed {seed} {side}: {outcomes[-1]}", file=sys.stderr, flush=True)
            results.append(summary(name, runs))
    show(results)
    if arguments.most_rows is None:
        data = {"epochs": EPOCHS, "batch": BATCH, "rate": RATE, "max_length": MOST_TOKENS, "results": results}
        print(f"wrote {write_results('finetuning', data)}")


def read(source: Path, target: Path, most_rows: int | None) -> dict[str, Path]:
    """The parts as files that both sides read."""
    target.mkdir(parents=True)
    found: dict[str, Path] = {}
    for part in ("train", "test"):
        lines = (source / f"{part}.jsonl").read_text(encoding="utf-8").split("\n")[:most_rows]
        found[part] = target / f"{part}.jsonl"
        found[part].write_text("\n".join(line for line in lines if line) + "\n", encoding="utf-8")
    return found


def ours(model: str, parts: dict[str, Path], folder: Path, seed: int) -> Outcome:
    """`modernbert finetune classify`, without a dev part: the last weights are tested."""
    settings = Finetuning(
        epochs=EPOCHS,
        batch_size=BATCH,
        learning_rate=RATE,
        warmup_share=WARMUP,
        max_length=MOST_TOKENS,
        optimizer=AdamWConfig(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01),
        seed=seed,
    )
    out = folder / f"{parts['train'].parent.name}-{seed}"
    sources = Sources(train=str(parts["train"]), test=str(parts["test"]), dev_share=0.0)
    finetune(Classify(), sources, model=model, out=out, settings=settings)
    steps = journal.read(out / journal.STEPS)
    sizes = np.diff([0, *(row["tokens"] for row in steps)])
    seconds = sum(size / row["tokens_per_second"] for size, row in zip(sizes, steps, strict=True))
    scores = json.loads((out / "results.json").read_text())["test"]
    return Outcome(
        scores={each: scores[each] for each in METRICS}, num_tokens=int(sizes.sum()), seconds=float(seconds)
    )


def theirs(model: str, parts: dict[str, Path], seed: int) -> Outcome:
    """The loop that everybody writes: padded batches, AdamW, a linear schedule."""
    torch.manual_seed(seed)
    rows = {name: [json.loads(line) for line in path.open(encoding="utf-8")] for name, path in parts.items()}
    labels = sorted({row["label"] for row in rows["train"]})
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=len(labels), dtype=torch.float32
    )
    decaying = [each for name, each in network.named_parameters() if each.ndim > 1 and "bias" not in name]
    others = [each for name, each in network.named_parameters() if each.ndim <= 1 or "bias" in name]
    optimizer = torch.optim.AdamW(
        [{"params": decaying, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=RATE,
        fused=True,
    )
    num_batches = -(-len(rows["train"]) // BATCH)
    total = EPOCHS * num_batches
    schedule = get_linear_schedule_with_warmup(optimizer, round(WARMUP * total), total)
    generator = torch.Generator().manual_seed(seed)
    num_tokens, seconds = 0, 0.0
    network.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(rows["train"]), generator=generator).tolist()
        for start in range(0, len(order), BATCH):
            members = [rows["train"][place] for place in order[start : start + BATCH]]
            batch = encode(tokenizer, members)
            begun = time.perf_counter()
            loss = network(**batch, labels=torch.tensor([labels.index(row["label"]) for row in members])).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            seconds += time.perf_counter() - begun
            num_tokens += int(batch["attention_mask"].sum())
    network.eval()
    probabilities: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, len(rows["test"]), 32):
            logits = network(**encode(tokenizer, rows["test"][start : start + 32])).logits
            probabilities.append(logits.softmax(dim=-1).numpy())
    numbers = {label: number for number, label in enumerate(labels)}
    wanted = np.array([numbers.get(row["label"], -1) for row in rows["test"]])
    scores = classes(wanted, np.concatenate(probabilities))
    return Outcome(scores={each: scores[each] for each in METRICS}, num_tokens=num_tokens, seconds=seconds)


def encode(tokenizer: Any, rows: Sequence[dict[str, Any]]) -> Any:
    texts = [row["text"] for row in rows]
    return tokenizer(texts, padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt")


def summary(name: str, runs: dict[str, list[Outcome]]) -> dict[str, Any]:
    found: dict[str, Any] = {"set": name}
    for side, outcomes in runs.items():
        rates = [each.num_tokens / each.seconds for each in outcomes]
        found[side] = {
            metric: {
                "mean": statistics.mean(each.scores[metric] for each in outcomes),
                "spread": statistics.stdev(each.scores[metric] for each in outcomes)
                if len(outcomes) > 1
                else 0.0,
            }
            for metric in METRICS
        } | {"tokens_per_second": statistics.median(rates)}
    pairs = zip(runs["modernbert"], runs["transformers"], strict=True)
    ratios = [(a.num_tokens / a.seconds) / (b.num_tokens / b.seconds) for a, b in pairs]
    return found | {"ratio": statistics.median(ratios)}


def show(results: Sequence[dict[str, Any]]) -> None:
    print(description() + "\n")
    print(
        f"{'set':<14}{'side':<14}"
        + "".join(f"{metric:>22}" for metric in METRICS)
        + f"{'tokens/s':>12}{'ratio':>8}"
    )
    for row in results:
        for side in ("modernbert", "transformers"):
            scores = "".join(
                f"{row[side][metric]['mean']:>14.4f} +-{row[side][metric]['spread']:.4f}"
                for metric in METRICS
            )
            ratio = f"{row['ratio']:.2f}x" if side == "modernbert" else ""
            print(f"{row['set']:<14}{side:<14}{scores}{row[side]['tokens_per_second']:>12,.0f}{ratio:>8}")
    print(f"\nAt least {GOAL}x is asked. Spreads are standard deviations over seeds.")


if __name__ == "__main__":
    main()
