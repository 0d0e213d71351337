"""A model beside what else a user would run it with: real tokens a second, and how far from the roof.

All sides hold the same random weights and run in one process, in turns, with the same threads. Those that
compute in full (fp32, bf16 where the processor has it) are compared with each other, and so are those in 8
bits. Unless the hidden states of a side agree with transformers' in fp32, the run ends. Padding is work for
those that pad but never counts as tokens. A table goes to stdout, progress to stderr, results to
results/inference-PROCESSOR.json and .png, of a small model to results/inference-MODEL-PROCESSOR.

    python benchmarks/inference.py                   ModernBERT-base: about twenty minutes on two cores
    python benchmarks/inference.py --model nano      the small ones, nano or minilm: two minutes each
    python benchmarks/inference.py --quick           short cases alone; writes only with --out
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import machine, results_path, write_results
from inference_chart import draw
from inference_models import SEED, SUBJECTS, Subject
from inference_sides import Side, report, short, sides_for
from torch import Tensor
from torch.nn import functional

from modernbert.files import write_atomic
from modernbert.kernels.hardware import resolve_device, resolve_dtype

FP32_TOLERANCE = 1e-4  # the promise of the package: same numbers as transformers at every real token
ROUNDED_COSINE = 0.98  # rounding in 22 layers of random weights moves a token's vector, it must not turn it
SECONDS_A_CASE = 150  # long cases repeat less often, but never less than MIN_REPEATS times
MIN_REPEATS = 3
PAUSE_SECONDS = 0.02  # threads of the side before spin for a moment, and must not take a core from the next
NEEDS = {"onnxruntime": "onnxruntime", "openvino": "openvino", "xllamacpp": "xllamacpp"}

ROWS = (256, 512, 1024, 2048, 4096)  # of the products by which the machine's rate is measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Texts of these lengths, in tokens.

    `goals` are how many times as fast as the best peer we mean to be with ModernBERT-base, in full and in
    8 bits, and `goals_with_bf16` the same on a processor with AVX-512 BF16. `leaves_out` names sides that do
    not run, for want of memory.
    """

    name: str
    lengths: tuple[int, ...]
    repeats: int = 7
    goals: tuple[float | None, float | None] = (None, None)
    goals_with_bf16: tuple[float | None, float | None] = (None, None)
    leaves_out: tuple[str, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Real ones."""
        return sum(self.lengths)


SHUFFLED = (238, 512, 32, 375, 169, 443, 101, 306)  # even steps from 32 to 512
CASES = (
    Case(name="1 x 16", lengths=(16,), repeats=200, goals=(1.0, 1.0), goals_with_bf16=(1.0, 1.0)),
    Case(name="32 x 16", lengths=(16,) * 32, repeats=15, goals=(1.0, 1.0), goals_with_bf16=(1.0, 1.3)),
    Case(name="8 x 32-512", lengths=SHUFFLED, goals=(2.0, 2.0), goals_with_bf16=(2.0, 2.0)),
    Case(name="8 x 512", lengths=(512,) * 8, goals=(1.05, 1.1), goals_with_bf16=(1.25, 2.0)),
    Case(name="2 x 2048", lengths=(2048,) * 2, goals=(1.3, 1.3), goals_with_bf16=(1.25, 2.0)),
    Case(
        name="1 x 8192",
        lengths=(8192,),
        goals=(1.6, None),
        goals_with_bf16=(3.5, None),
        # scores of 3.2 GB a layer: out of memory at 24 GB
        leaves_out=("ONNX Runtime", "OpenVINO", "llama.cpp"),
    ),
)
GOAL_OF_SMALL_MODELS = 1.5
QUICK_CASES = ("1 x 16", "32 x 16", "8 x 32-512", "8 x 512")


def main() -> None:
    args = parse_arguments()
    device = resolve_device(args.device)
    dtype = resolve_dtype(args.dtype, device)
    subject = SUBJECTS[args.model]
    rows: list[dict[str, Any]] = []
    data: dict[str, Any] = {
        "model": subject.title,
        "device": str(device),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "results": rows,
        "contests": [],
    }
    with tempfile.TemporaryDirectory() as work, torch.inference_mode(False):
        os.environ["MODERNBERT_PACKED"] = f"{work}/packed"
        sides = build(subject.save(Path(work) / args.model), device, dtype, args.sides)
        with torch.inference_mode():
            rate = 0.0
            for case in args.cases:
                # anew at each case: a busy moment must not lower the roof
                rate = max(rate, matrix_rate(subject, device, dtype))
                rows += measure(case, subject, sides, args.repeats)
                data["contests"] += decide(case, goals_of(case, args.model, device, dtype), rows)
                data["matrix_flops_per_second"] = {short(dtype): rate}
                for row in rows:
                    row["share_of_roofline"] = row["useful_flops"] / row["seconds"] / rate
                save(data, device, args)  # a case too large for the machine must not lose those before it
    print_tables(data)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = {case.name.replace(" ", ""): case for case in CASES}
    parser.add_argument("--model", choices=SUBJECTS, default="base", help="base (default), nano or minilm")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:N or auto")
    parser.add_argument("--dtype", default="auto", help="of ours in full: auto (default), float32, bfloat16")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help=f"some of: {', '.join(known)}")
    parser.add_argument("--sides", nargs="+", metavar="SIDE", help="some of the sides; transformers always")
    parser.add_argument("--repeats", type=int, help="timed passes of each case, instead of its own number")
    parser.add_argument(
        "--quick", action="store_true", help="short cases, few repeats; nothing is written without --out"
    )
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="write PATH.json and PATH.png instead of results/inference-*"
    )
    args = parser.parse_args()
    longest = SUBJECTS[args.model].max_length
    known = {name: case for name, case in known.items() if max(case.lengths) <= longest}
    wanted = [name.replace(" ", "") for name in args.cases or (QUICK_CASES if args.quick else known)]
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"{args.model} has no case {', '.join(unknown)}; there are: {', '.join(known)}")
    args.is_partial = args.quick or args.sides is not None or len(wanted) < len(known)
    args.cases = [known[name] for name in wanted]
    if args.quick and args.repeats is None:
        args.repeats = MIN_REPEATS
    if args.repeats is not None and args.repeats < 1:
        parser.error(f"--repeats must be at least 1, found {args.repeats}")
    return args


def build(folder: Path, device: torch.device, dtype: torch.dtype, wanted: list[str] | None) -> list[Side]:
    """The sides that are asked for and installed."""
    ways = sides_for(folder, device, dtype)
    if unknown := [name for name in wanted or () if name not in ways]:
        sys.exit(f"unknown side {', '.join(unknown)}; there are: {', '.join(ways)}")
    found: list[Side] = []
    for name, way in ways.items():
        package = NEEDS.get(name.split("-")[0])
        if wanted and name not in wanted and name != "transformers":
            continue
        if package and importlib.util.find_spec(package) is None:
            report(f"{name} is left out: {package} is not installed")
            continue
        report(f"building {name}")
        found.append(way())
    return found


def measure(case: Case, subject: Subject, sides: list[Side], repeats: int | None) -> list[dict[str, Any]]:
    """A row for each side that runs: its times in turns, after a warm-up whose hidden states must agree."""
    generator = torch.Generator().manual_seed(SEED)
    sequences = [torch.randint(1000, 16_000, (n,), generator=generator).tolist() for n in case.lengths]
    running = [side for side in sides if not side.name.startswith(case.leaves_out)]
    if len(running) < len(sides):
        report(f"{case.name}: without {', '.join(case.leaves_out)}, which would run out of memory")
    truth = next(side for side in running if side.name == "transformers fp32").run(sequences).cpu()
    agreements, once = {}, 0.0
    for side in running:
        seconds, hidden = timed(lambda side=side: side.run(sequences))
        wanted = means(truth, case.lengths) if side.is_pooled else truth
        agreements[side.name] = agreement(side, hidden.cpu(), wanted)
        report(f"{case.name}: {side.name} warm-up {seconds:.2f} s; {agreements[side.name]}")
        once += seconds
    num_passes = repeats or min(case.repeats, max(MIN_REPEATS, int(SECONDS_A_CASE / once)))
    times: dict[str, list[float]] = {side.name: [] for side in running}
    for turn in range(num_passes):
        first = turn % len(running)
        for side in running[first:] + running[:first]:
            time.sleep(PAUSE_SECONDS)
            times[side.name].append(timed(lambda side=side: side.run(sequences))[0])
        if num_passes < 50:
            shown = ", ".join(f"{name} {found[-1]:.2f}" for name, found in times.items())
            report(f"{case.name}: {turn + 1}/{num_passes}  {shown}")
    useful_flops = subject.useful_flops(case.lengths)
    return [
        {"useful_flops": useful_flops, **row_of(case, side, times[side.name], agreements[side.name])}
        for side in running
    ]


def means(hidden: Tensor, lengths: Sequence[int]) -> Tensor:
    """The mean of each text, [S, D]."""
    return torch.stack([each.mean(dim=0) for each in hidden.split(list(lengths))])


def row_of(case: Case, side: Side, times: list[float], words: str) -> dict[str, Any]:
    median = statistics.median(times)
    return {
        "case": case.name,
        "side": side.name,
        "precision": side.precision,
        "num_tokens": case.num_tokens,
        "num_padded_tokens": len(case.lengths) * max(case.lengths),
        "repeats": len(times),
        "seconds": median,
        "p99": sorted(times)[min(len(times) - 1, int(0.99 * len(times)))],
        "tokens_per_second": case.num_tokens / median,
        "all_seconds": times,
        "agreement": words,
    }


def goals_of(
    case: Case, model: str, device: torch.device, dtype: torch.dtype
) -> tuple[float | None, float | None]:
    """In full and in 8 bits."""
    if device.type != "cpu":
        return None, None
    if model != "base":
        return GOAL_OF_SMALL_MODELS, GOAL_OF_SMALL_MODELS
    return case.goals_with_bf16 if dtype == torch.bfloat16 else case.goals


def decide(
    case: Case, goals: tuple[float | None, float | None], results: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Ours against the best peer of the same precision: the ratio of medians and the median of pairs."""
    found = []
    for precision, goal in zip(("full", "int8"), goals, strict=True):
        rows = [row for row in results if (row["case"], row["precision"]) == (case.name, precision)]
        ours = next((row for row in rows if row["side"].startswith("modernbert")), None)
        peers = [row for row in rows if row is not ours]
        if ours is None or not peers:
            continue
        best = min(peers, key=lambda row: row["seconds"])
        pairs = zip(ours["all_seconds"], best["all_seconds"], strict=True)
        found.append(
            {
                "case": case.name,
                "precision": precision,
                "ours": ours["side"],
                "best_peer": best["side"],
                "ratio": best["seconds"] / ours["seconds"],
                "median_of_paired_ratios": statistics.median(theirs / mine for mine, theirs in pairs),
                "ratio_p99": min(row["p99"] for row in peers) / ours["p99"],
                "goal": goal,
            }
        )
    return found


def timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds from lists of token ids to hidden states, and these."""
    synchronize()
    start = time.perf_counter()
    hidden = work()
    synchronize()
    return time.perf_counter() - start, hidden


def agreement(side: Side, hidden: Tensor, truth: Tensor) -> str:
    """How near a side came to transformers in fp32 at the real tokens; too far, and the run ends here."""
    if side.precision == "full" and side.name.endswith("fp32"):
        difference = (hidden - truth).abs().max().item()
        words, is_same = f"largest difference {difference:.1e}", difference <= FP32_TOLERANCE
    else:
        cosine = functional.cosine_similarity(hidden, truth, dim=-1).mean().item()
        words, is_same = f"mean cosine {cosine:.4f}", cosine >= ROUNDED_COSINE
    if not is_same:
        sys.exit(f"{side.name} does not compute the same hidden states ({words}): nothing was measured")
    return words


def matrix_rate(subject: Subject, device: torch.device, dtype: torch.dtype) -> float:
    """The roof: the best rate, in FLOP/s, of any product of the model's shapes, weights packed or not."""
    best = 0.0
    for inputs, outputs in sorted(set(subject.products)):
        weight = torch.randn(outputs, inputs, device=device).to(dtype)
        for rows in ROWS:
            x = torch.randn(rows, inputs, device=device).to(dtype)
            for product in ways_to_multiply(x, weight):
                best = max(best, 2 * rows * inputs * outputs / shortest(product))
    report(f"matrix products in {short(dtype)}: {best / 1e9:.0f} GFLOP/s")
    return best


def ways_to_multiply(x: Tensor, weight: Tensor) -> list[Callable[[], Tensor]]:
    """The product as the model asks for it, and with a weight laid out beforehand for this number of rows."""
    ways: list[Callable[[], Tensor]] = [lambda: functional.linear(x, weight)]
    if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkl.is_available():
        packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, x.shape[0])
        ways.append(lambda: torch.ops.mkl._mkl_linear(x, packed, weight, None, x.shape[0]))
    if x.device.type == "cpu" and x.dtype == torch.bfloat16 and torch.backends.mkldnn.is_available():
        blocked = torch.ops.mkldnn._reorder_linear_weight(weight, x.shape[0])
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(x, blocked, None, "none", [], ""))
    return ways


def shortest(work: Callable[[], Any], seconds: float = 0.15) -> float:
    """The shortest of as many runs as fit in `seconds`, at least three, after one that does not count."""
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        times.append(timed(work)[0])
    return min(times)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def print_tables(data: dict[str, Any]) -> None:
    here = machine()
    names = ("modernbert", "torch", "transformers", "onnxruntime", "openvino", "xllamacpp", "python")
    versions = ", ".join(f"{name} {here['versions'][name]}" for name in names if name in here["versions"])
    roofs = ", ".join(
        f"{rate / 1e9:,.0f} GFLOP/s in {d}" for d, rate in data["matrix_flops_per_second"].items()
    )
    print(f"{data['model']}, random weights; {here['processor']}, {here['threads']} threads")
    print(f"{versions}; {' '.join(here['capabilities'])}")
    print(f"matrix products of the model's shapes: {roofs}\n")
    cases = list(dict.fromkeys(row["case"] for row in data["results"]))
    print(f"{'real tokens a second':<22}" + "".join(f"{case:>14}" for case in cases))
    for side in dict.fromkeys(row["side"] for row in data["results"]):
        rows = {row["case"]: row for row in data["results"] if row["side"] == side}
        cells = (f"{rows[case]['tokens_per_second']:,.0f}" if case in rows else "-" for case in cases)
        print(f"{side:<22}" + "".join(f"{cell:>14}" for cell in cells))
    in_full = [row for row in data["results"] if row["precision"] == "full"]
    ours = {row["case"]: row for row in in_full if row["side"].startswith("modernbert")}
    shares = (f"{ours[case]['share_of_roofline']:.0%}" if case in ours else "-" for case in cases)
    print(f"{'ours, of the roofline':<22}" + "".join(f"{share:>14}" for share in shares))
    print(f"\n{'case':<12}{'':<7}{'ratio':>7}{'paired':>8}{'p99':>7}{'goal':>7}  best peer")
    for c in data["contests"]:
        goal = "" if c["goal"] is None else f"{c['goal']:.2f}"
        print(
            f"{c['case']:<12}{c['precision']:<7}{c['ratio']:>7.2f}{c['median_of_paired_ratios']:>8.2f}"
            f"{c['ratio_p99']:>7.2f}{goal:>7}  {c['best_peer']}"
        )
    print(
        "\nMedians. ratio: ours to the best peer of the same precision. paired: median over pairs of passes."
    )


def save(data: dict[str, Any], device: torch.device, args: argparse.Namespace) -> None:
    """JSON and chart; a part of the cases replaces nothing that a whole run has written."""
    if args.is_partial and args.out is None:
        report("only a part: nothing written (give --out PATH)")
        return
    name = "-".join(
        [
            "inference",
            *([args.model] if args.model != "base" else []),
            *([device.type] if device.type != "cpu" else []),
        ]
    )
    if args.out is None:
        json_path, chart_path = write_results(name, data), results_path(name, ".png")
    else:
        json_path, chart_path = (args.out.with_name(args.out.name + suffix) for suffix in (".json", ".png"))
        json_path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(json_path, json.dumps({"machine": machine(), **data}, indent=2) + "\n")
    here = machine()
    where = data["accelerator"] or f"{here['processor']}, {here['threads']} threads"
    draw(data["results"], data["contests"], f"{data['model']}, {where}: real tokens a second", chart_path)
    report(f"wrote {json_path} and {chart_path}")


if __name__ == "__main__":
    main()
