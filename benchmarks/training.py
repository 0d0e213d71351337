"""Training steps beside transformers' ModernBertForMaskedLM: real tokens per second, memory, and the roof.

The 17 M Ettin shape with 50,368 entries; the same weights, texts, masks and optimiser on both sides, in
turns: ours on packs, theirs in a plain loop on padded batches, once as it comes and once with
sparse_prediction=True. All compute in what the machine is fastest in, bfloat16 (autocast) or float32, and
each of the two has goals of its own. Each side has a process of its own, set up as its users have it: ours
keeps freed memory, as `modernbert pretrain` does. Unless the losses of the first step agree, the run ends.
Padding is work for transformers but never counts as tokens. A table goes to stdout, progress to stderr,
results to results/training-PROCESSOR.*

    python benchmarks/training.py             minutes on two cores that nobody else uses
    python benchmarks/training.py --quick     two steps a case; writes nothing

The roofline is 3 x the FLOPs of a forward pass (products, attention inside the window; head, decoder and
what follows the keys of the last layer at masked tokens alone), at the best rate that products of the
model's shapes reach in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import machine, results_path, write_results
from local_attention import bytes_added_by
from torch import Tensor, nn
from transformers import ModernBertConfig, ModernBertForMaskedLM
from transformers.utils import logging as transformers_logging

from modernbert.encoder.presets import ettin_17m
from modernbert.heads.mlm import MaskedLanguageModel, MlmHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.kernels.hardware import keep_freed_memory, resolve_dtype
from modernbert.text.batch import PackedBatch

SEED, MASK_RATE, MASK_ID, IGNORED = 20_241_218, 0.3, 50_284, -100
LOSS_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # bf16 rounds logits near 10 to steps of 2**-4
LEARNING_RATE = 1e-4
PAUSE_SECONDS = 0.1  # threads of the side before spin for a moment, and must not take a core from the next
PRODUCTS = ((256, 768), (256, 256), (256, 768), (384, 256))  # inputs and outputs of a layer's products
HIDDEN, VOCABULARY, NUM_GLOBAL, NUM_LOCAL, WINDOW_KEYS = 256, 50_368, 3, 4, 129
SIDES = ("modernbert", "dense", "sparse")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Texts of these lengths in tokens; goals are ratios to transformers as it comes, and sparse."""

    name: str
    lengths: tuple[int, ...]
    goals: tuple[float, float]
    goals_with_bf16: tuple[float, float]


CASES = (
    Case(name="8 x 512", lengths=(512,) * 8, goals=(2.5, 1.5), goals_with_bf16=(4.0, 2.5)),
    Case(
        name="8 x 32-512",  # even steps, shuffled
        lengths=(238, 512, 32, 375, 169, 443, 101, 306),
        goals=(4.5, 3.0),
        goals_with_bf16=(6.0, 4.0),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """What both sides are given: sequences with masks in them, and the tokens behind the masks."""

    sequences: list[list[int]]
    positions: Tensor
    labels: Tensor

    @classmethod
    def of(cls, case: Case) -> Texts:
        """Random tokens, a share of them masked: the same for every side."""
        generator = torch.Generator().manual_seed(SEED)
        token_ids = torch.randint(1000, 50_000, (sum(case.lengths),), generator=generator)
        chosen = torch.randperm(len(token_ids), generator=generator)[: int(MASK_RATE * len(token_ids))]
        positions = chosen.sort().values
        labels = token_ids[positions].clone()
        token_ids[positions] = MASK_ID
        return cls(
            sequences=[piece.tolist() for piece in token_ids.split(list(case.lengths))],
            positions=positions,
            labels=labels,
        )


class Side:
    """A model and its optimiser; a step goes from lists of token ids to moved weights."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
        self.autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)

    def loss(self, texts: Texts) -> Tensor:
        """The mean loss of the masked tokens."""
        raise NotImplementedError

    def step(self, texts: Texts) -> float:
        """One update; the loss before it."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast:
            loss = self.loss(texts)
        loss.backward()
        self.optimizer.step()
        return loss.item()


class Ours(Side):
    """Packs, and the loss that never holds all logits."""

    model: MaskedLanguageModel

    def loss(self, texts: Texts) -> Tensor:
        """The mean loss of the masked tokens."""
        batch = PackedBatch.from_sequences(texts.sequences)
        return self.model.loss(batch, texts.positions, texts.labels).loss / len(texts.labels)


class Theirs(Side):
    """A padded batch, its mask, and labels of -100 at all tokens that are not guessed."""

    def loss(self, texts: Texts) -> Tensor:
        """The mean loss of the masked tokens."""
        sequences, longest = texts.sequences, max(map(len, texts.sequences))
        input_ids = torch.tensor([each + [0] * (longest - len(each)) for each in sequences])
        mask = torch.tensor([[1] * len(each) + [0] * (longest - len(each)) for each in sequences])
        flat = torch.full((int(mask.sum()),), IGNORED)
        flat[texts.positions] = texts.labels
        labels = torch.full_like(input_ids, IGNORED)
        labels[mask.bool()] = flat
        return self.model(input_ids=input_ids, attention_mask=mask, labels=labels).loss


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtype", default="auto", help="auto (default), float32, bfloat16 (autocast)")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps a side and case")
    parser.add_argument("--quick", action="store_true", help="two steps a case; writes nothing")
    parser.add_argument("--peak", nargs=2, metavar=("SIDE", "CASE"), help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs=2, metavar=("SIDE", "CASE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    transformers_logging.set_verbosity_error()
    dtype = resolve_dtype(args.dtype, torch.device("cpu"))
    if args.peak:
        print(peak_of_this_process(args.peak[0], int(args.peak[1]), dtype))
        return
    if args.serve:
        serve(args.serve[0], int(args.serve[1]), dtype)
        return
    repeats = 2 if args.quick else args.repeats
    rates = [matrix_rate(dtype)]
    times = [measure(number, dtype, repeats) for number in range(len(CASES))]
    rates.append(matrix_rate(dtype))  # again: a busy moment at the start must not lower the roof
    peaks = [{side: peak(side, number, dtype) for side in SIDES} for number in range(len(CASES))]
    results = [finish(*each, max(rates), dtype) for each in zip(CASES, times, peaks, strict=True)]
    print_table(results, max(rates), dtype)
    if not args.quick:
        data = {"dtype": str(dtype), "matrix_flops_per_second": max(rates), "results": results}
        path = write_results("training", data)
        draw(results, results_path("training", ".png"))
        report(f"wrote {path} and its chart")


def build(side: str, dtype: torch.dtype) -> Side:
    """A side with the weights that the seed gives; sizes said aloud are those of ettin_17m."""
    torch.manual_seed(SEED)
    config = ModernBertConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=384,
        num_hidden_layers=NUM_GLOBAL + NUM_LOCAL,
        num_attention_heads=4,
        attn_implementation="sdpa",
        sparse_prediction=side == "sparse",
    )
    theirs = ModernBertForMaskedLM(config)
    if side != "modernbert":
        return Theirs(theirs, dtype)
    ours = ModelConfig(encoder=ettin_17m(), head=MlmHeadConfig()).build()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return Ours(ours, dtype)


def measure(number: int, dtype: torch.dtype, repeats: int) -> dict[str, list[float]]:
    """Seconds of steps of each side in turns, after a first one whose losses must agree."""
    case = CASES[number]
    sides = {
        name: subprocess.Popen(
            command("--serve", name, number, dtype), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in SIDES
    }
    losses = {name: answer(side) for name, side in sides.items()}
    if max(losses.values()) - min(losses.values()) > LOSS_TOLERANCE[dtype]:
        sys.exit(f"the losses of the first step do not agree ({losses}): nothing was measured")
    report(f"{case.name}: first losses {losses}")
    times: dict[str, list[float]] = {name: [] for name in SIDES}
    for i in range(repeats):
        for name, side in sides.items():
            time.sleep(PAUSE_SECONDS)
            times[name].append(answer(side))
        last = "  ".join(f"{name} {each[-1]:.2f} s" for name, each in times.items())
        report(f"{case.name}: {i + 1}/{repeats}  {last}")
    for side in sides.values():
        side.communicate()
    return times


def command(verb: str, side: str, case: int, dtype: torch.dtype) -> list[str]:
    """This script, for one side and case in a process of its own."""
    return [
        sys.executable,
        __file__,
        verb,
        side,
        str(case),
        "--dtype",
        str(dtype).removeprefix("torch."),
    ]


def answer(side: subprocess.Popen[str]) -> float:
    """What a process that serves says to the next line: the loss of its first step, then seconds."""
    assert side.stdin is not None
    assert side.stdout is not None
    print(file=side.stdin, flush=True)
    return float(side.stdout.readline())


def set_up(side: str) -> None:
    """What a run of this side does to its process."""
    if side == "modernbert":
        keep_freed_memory()


def serve(side: str, case: int, dtype: torch.dtype) -> None:
    """Take a step for every line that comes."""
    texts, runner = Texts.of(CASES[case]), build(side, dtype)
    set_up(side)
    for number, _ in enumerate(sys.stdin):
        start = time.perf_counter()
        loss = runner.step(texts)
        print(time.perf_counter() - start if number else loss, flush=True)


def peak(side: str, case: int, dtype: torch.dtype) -> int:
    """The most memory, in bytes, that three steps of a side add to a process of its own."""
    done = subprocess.run(command("--peak", side, case, dtype), check=True, capture_output=True, text=True)
    return int(done.stdout)


def peak_of_this_process(side: str, case: int, dtype: torch.dtype) -> int:
    runner, texts = build(side, dtype), Texts.of(CASES[case])
    set_up(side)  # not earlier: what building leaves free would hide what steps add
    return bytes_added_by(lambda: [runner.step(texts) for _ in range(3)])


def useful_flops(case: Case) -> float:
    """Of a training step: three times those of a forward pass.

    The last layer, a global one, needs keys and values of all tokens, and all else at masked tokens alone.
    """
    num_tokens = sum(case.lengths)
    num_masked = int(MASK_RATE * num_tokens)
    in_all, *others = (2 * i * o for i, o in PRODUCTS)
    num_layers = NUM_GLOBAL + NUM_LOCAL
    layers = num_tokens * num_layers * in_all + (num_tokens * (num_layers - 1) + num_masked) * sum(others)
    num_global = NUM_GLOBAL - 1 + MASK_RATE
    attention = sum(n * 4 * HIDDEN * (num_global * n + NUM_LOCAL * min(n, WINDOW_KEYS)) for n in case.lengths)
    head = num_masked * 2 * HIDDEN * (HIDDEN + VOCABULARY)
    return 3.0 * (layers + attention + head)


@torch.inference_mode()
def matrix_rate(dtype: torch.dtype) -> float:
    """The best rate, in FLOP/s, of products of the model's shapes."""
    best = 0.0
    for inputs, outputs in sorted({*PRODUCTS, (HIDDEN, 1152)}):
        weight = torch.randn(outputs, inputs).to(dtype)
        for rows in (1024, 2048, 4096):
            x = torch.randn(rows, inputs).to(dtype)
            for _ in range(15):
                start = time.perf_counter()
                nn.functional.linear(x, weight)
                best = max(best, 2 * rows * inputs * outputs / (time.perf_counter() - start))
    report(f"matrix products: {best / 1e9:.0f} GFLOP/s")
    return best


def finish(
    case: Case, times: dict[str, list[float]], peaks: dict[str, int], rate: float, dtype: torch.dtype
) -> dict[str, Any]:
    num_tokens = sum(case.lengths)
    seconds = {name: statistics.median(each) for name, each in times.items()}
    ours = times["modernbert"]
    return {
        "case": case.name,
        "num_tokens": num_tokens,
        "tokens_per_second": {name: num_tokens / each for name, each in seconds.items()},
        "ratios": [seconds[name] / seconds["modernbert"] for name in SIDES[1:]],
        "medians_of_paired_ratios": [
            statistics.median(b / a for a, b in zip(ours, times[name], strict=True)) for name in SIDES[1:]
        ],
        "goals": case.goals if dtype == torch.float32 else case.goals_with_bf16,
        "shares_of_roofline": {name: useful_flops(case) / each / rate for name, each in seconds.items()},
        "peak_bytes_added": peaks,
        "all_seconds": times,
    }


def print_table(results: list[dict[str, Any]], rate: float, dtype: torch.dtype) -> None:
    here = machine()
    print(f"Ettin 17 M, {dtype}; {here['processor']}, {here['threads']} threads, {rate / 1e9:.0f} GFLOP/s\n")
    print_row("case", "side", "tokens/s", "ratio", "paired", "goal", "roofline", "peak MiB")
    for r in results:
        columns = zip(r["ratios"], r["medians_of_paired_ratios"], r["goals"], strict=True)
        ratios = dict(zip(SIDES[1:], columns, strict=True))
        for side in SIDES:
            print_row(
                r["case"],
                side,
                f"{r['tokens_per_second'][side]:,.0f}",
                *([f"{x:.2f}x" for x in ratios[side]] if side in ratios else ["", "", ""]),
                f"{r['shares_of_roofline'][side]:.0%}",
                f"{r['peak_bytes_added'][side] / 2**20:,.0f}",
            )
    print("\nReal tokens per second, medians. ratio: their time by ours. peak: added by three steps.")


def print_row(*words: str) -> None:
    widths = (-12, -12, 10, 8, 8, 7, 10, 10)
    print("".join(f"{w:<{-n}}" if n < 0 else f"{w:>{n}}" for w, n in zip(words, widths, strict=True)))


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Three bars a case."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.4), dpi=200, layout="constrained")
    names = ("modernbert", "transformers", "transformers, sparse")
    for i, (side, name, colour) in enumerate(
        zip(SIDES, names, ("#1f6feb", "#b8bfc8", "#8c959f"), strict=True)
    ):
        rates = [r["tokens_per_second"][side] for r in results]
        bars = axes.bar(
            [x + 0.27 * (i - 1) for x in range(len(results))], rates, 0.25, color=colour, label=name
        )
        labels = [f"{rate:,.0f}" for rate in rates]
        if i:
            labels = [
                f"{w}\n({r['ratios'][i - 1]:.1f}x slower)" for w, r in zip(labels, results, strict=True)
            ]
        axes.bar_label(bars, labels, padding=2, fontsize=9)
    axes.set_xticks(range(len(results)), [f"{r['case']}, {r['num_tokens']:,} tokens" for r in results])
    axes.set_ylabel("real tokens per second, training")
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
    here = machine()
    figure.suptitle(f"Ettin 17 M, {here['processor']}, {here['threads']} threads", x=0.02, ha="left")
    figure.savefig(path, facecolor="white")
    plt.close(figure)


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
