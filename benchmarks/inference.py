"""Our encoder beside transformers' ModernBERT: real tokens per second, and how near both come to the roof.

Both hold the same random ModernBERT-base weights and run in one process, in turns, with the same threads,
each at its best dtype. Unless their hidden states agree, the run ends. Padding is work for transformers but
never counts as tokens. A table goes to stdout, progress to stderr, results to results/inference-PROCESSOR.*

    python benchmarks/inference.py             about ten minutes on two cores
    python benchmarks/inference.py --quick     the short cases, under two minutes; writes only with --out
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from common import machine, results_path, write_results
from torch import Tensor
from torch.nn import functional
from transformers import ModernBertConfig, ModernBertModel
from transformers.utils import logging as transformers_logging

from modernbert.encoder.encoder import Encoder
from modernbert.encoder.presets import modernbert_base
from modernbert.files import write_atomic
from modernbert.kernels.hardware import resolve_device, resolve_dtype
from modernbert.text.batch import PackedBatch

SEED = 20_241_218
FP32_TOLERANCE = 1e-4  # the promise of the package: same numbers as transformers at every real token
BF16_COSINE = 0.99  # rounding to 8 bits in 22 layers moves a token's vector, it must not turn it
SECONDS_A_CASE = 70  # long cases repeat less often, but never less than MIN_REPEATS times
MIN_REPEATS = 2

# ModernBERT-base: inputs and outputs of the products of one layer: Wqkv, Wo, then Wi and Wo of the MLP.
PRODUCTS = ((768, 2304), (768, 768), (768, 2304), (1152, 768))
HIDDEN_SIZE, NUM_GLOBAL, NUM_LOCAL, WINDOW_KEYS = 768, 8, 14, 129
ROWS = (256, 512, 1024, 2048, 4096)  # of the products by which the machine's rate is measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Texts of these lengths, in tokens. `goal` is how many times as fast as transformers we mean to be."""

    name: str
    lengths: tuple[int, ...]
    goal: float | None = None
    goal_with_bf16: float | None = None

    @property
    def num_tokens(self) -> int:
        """Real ones."""
        return sum(self.lengths)

    @property
    def useful_flops(self) -> float:
        """FLOPs of the matrix products, and of attention inside the window; none for padding."""
        a_token = (NUM_GLOBAL + NUM_LOCAL) * sum(2 * inputs * outputs for inputs, outputs in PRODUCTS)
        attention = sum(
            n * 4 * HIDDEN_SIZE * (NUM_GLOBAL * n + NUM_LOCAL * min(n, WINDOW_KEYS)) for n in self.lengths
        )
        return self.num_tokens * a_token + attention


CASES = (
    Case(name="8 x 512", lengths=(512,) * 8, goal=1.0),
    Case(
        name="8 x 32-512", lengths=(238, 512, 32, 375, 169, 443, 101, 306), goal=1.8
    ),  # even steps, shuffled
    Case(name="32 x 16", lengths=(16,) * 32),
    Case(name="2 x 2048", lengths=(2048,) * 2),
    Case(name="1 x 8192", lengths=(8192,), goal=1.5, goal_with_bf16=2.5),
)
QUICK_CASES = ("8 x 512", "8 x 32-512", "32 x 16")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What one case gave: times are medians, rates count real tokens, shares are of the roofline."""

    case: str
    num_tokens: int
    num_padded_tokens: int
    repeats: int
    dtype: str
    transformers_dtype: str
    seconds: float
    transformers_seconds: float
    tokens_per_second: float
    transformers_tokens_per_second: float
    ratio: float
    median_of_paired_ratios: float
    goal: float | None
    share_of_roofline: float
    transformers_share_of_roofline: float
    all_seconds: list[float]
    all_transformers_seconds: list[float]
    agreement: str


class Ours:
    """The package: real tokens end to end through Encoder."""

    def __init__(self, weights: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
        encoder = modernbert_base().build().eval()
        encoder.load_state_dict(weights, strict=True)
        self.encoder: Encoder = encoder.to(device, dtype)
        self.encoder.native.is_on = True  # as for every model that is loaded to be asked
        self.device = device

    def run(self, sequences: list[list[int]]) -> Tensor:
        """Hidden states of all real tokens, [T, D]."""
        return self.encoder(PackedBatch.from_sequences(sequences).to(self.device))


class Theirs:
    """transformers with SDPA: a padded batch and its mask, as a tokenizer gives them."""

    def __init__(self, weights: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
        model = ModernBertModel(transformers_config()).eval()
        model.load_state_dict(weights, strict=True)
        self.model = model.to(device, dtype)
        self.device = device

    def run(self, sequences: list[list[int]]) -> Tensor:
        """Hidden states of the padded batch, [B, N, D]."""
        longest = max(len(sequence) for sequence in sequences)
        rows = [sequence + [0] * (longest - len(sequence)) for sequence in sequences]
        mask = [[1] * len(sequence) + [0] * (longest - len(sequence)) for sequence in sequences]
        input_ids, attention_mask = (torch.tensor(x, device=self.device) for x in (rows, mask))
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


@dataclass(frozen=True, kw_only=True, slots=True)
class Contest:
    """Both sides, ready to run: one of ours, and one of transformers for each dtype that may be its best."""

    device: torch.device
    dtype: torch.dtype
    ours: Ours
    theirs: dict[torch.dtype, Theirs]
    goes_with_bf16: bool


def main() -> None:
    args = parse_arguments()
    contest = build_contest(resolve_device(args.device), args.dtype)
    report(f"{contest.device}, ours in {name_of(contest.dtype)}, {torch.get_num_threads()} threads")
    dtypes = {contest.dtype, *contest.theirs}
    with torch.inference_mode():
        rates = {dtype: matrix_rate(contest.device, dtype) for dtype in dtypes}
        if contest.dtype != torch.float32:
            check_in_fp32(contest.device)
        measured = [measure(contest, case, args.repeats) for case in args.cases]
        for dtype in dtypes:  # again: a busy moment at the start must not lower the roof
            rates[dtype] = max(rates[dtype], matrix_rate(contest.device, dtype))
    results = [finish(case, contest, rates, *times) for case, times in zip(args.cases, measured, strict=True)]
    print_table(results, rates)
    save(results, rates, contest, args)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(case.name.replace(" ", "") for case in CASES)
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:N or auto")
    parser.add_argument("--dtype", default="auto", help="for both sides: auto (default), float32, bfloat16")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help=f"some of: {names}")
    parser.add_argument(
        "--repeats", type=int, default=7, help=f"timed passes a case; fewer, but {MIN_REPEATS}, for long ones"
    )
    parser.add_argument(
        "--quick", action="store_true", help="short cases, few repeats; nothing is written without --out"
    )
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="write PATH.json and PATH.png instead of results/inference-*"
    )
    args = parser.parse_args()
    known = {case.name.replace(" ", ""): case for case in CASES}
    wanted = [name.replace(" ", "") for name in args.cases or (QUICK_CASES if args.quick else known)]
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"unknown case {', '.join(unknown)}; there are: {names}")
    args.is_partial = args.quick or len(wanted) < len(known)
    args.cases = [known[name] for name in wanted]
    args.repeats = min(args.repeats, MIN_REPEATS) if args.quick else args.repeats
    if args.repeats < 1:
        parser.error(f"--repeats must be at least 1, found {args.repeats}")
    return args


def build_contest(device: torch.device, dtype_name: str) -> Contest:
    """The same random weights on both sides; where we run in bf16, transformers may choose fp32."""
    transformers_logging.set_verbosity_error()
    weights = random_weights()
    dtype = resolve_dtype(dtype_name, device)
    candidates = {dtype, torch.float32} if dtype_name == "auto" else {dtype}
    return Contest(
        device=device,
        dtype=dtype,
        ours=Ours(weights, device, dtype),
        theirs={candidate: Theirs(weights, device, candidate) for candidate in candidates},
        goes_with_bf16=resolve_dtype("auto", device) == torch.bfloat16,
    )


def transformers_config() -> ModernBertConfig:
    """Its defaults are ModernBERT-base; said aloud is what decides the speed."""
    return ModernBertConfig(attn_implementation="sdpa", max_position_embeddings=8192)


def random_weights() -> dict[str, Tensor]:
    report("building ModernBERT-base with random weights")
    torch.manual_seed(SEED)
    return ModernBertModel(transformers_config()).state_dict()


def random_sequences(case: Case) -> list[list[int]]:
    generator = torch.Generator().manual_seed(SEED)
    return [torch.randint(1000, 50_000, (n,), generator=generator).tolist() for n in case.lengths]


def check_in_fp32(device: torch.device) -> None:
    """Where neither side may be timed in fp32, still show that both compute the same model."""
    sequences = random_sequences(CASES[1])
    weights = random_weights()
    ours, theirs = (side(weights, device, torch.float32) for side in (Ours, Theirs))
    report("in fp32: " + agreement(ours.run(sequences), theirs.run(sequences), sequences, is_fp32=True))


def measure(contest: Contest, case: Case, repeats: int) -> tuple[torch.dtype, list[float], list[float], str]:
    """transformers' dtype, then times of both sides in turns, after a warm-up whose results must agree."""
    sequences = random_sequences(case)
    seconds, ours = timed(contest.ours, sequences, contest.device)
    their_dtype, their_seconds, theirs = fastest(contest, sequences)
    words = agreement(ours, theirs, sequences, is_fp32=contest.dtype == their_dtype == torch.float32)
    del ours, theirs
    repeats = min(repeats, max(MIN_REPEATS, int(SECONDS_A_CASE / (seconds + their_seconds))))
    report(f"{case.name}: warm-up {seconds:.2f} s, transformers {their_seconds:.2f} s; {words}")
    times, their_times = [], []
    for i in range(repeats):
        times.append(timed(contest.ours, sequences, contest.device)[0])
        their_times.append(timed(contest.theirs[their_dtype], sequences, contest.device)[0])
        report(f"{case.name}: {i + 1}/{repeats}  {times[-1]:.2f} s, transformers {their_times[-1]:.2f} s")
    return their_dtype, times, their_times, words


def fastest(contest: Contest, sequences: list[list[int]]) -> tuple[torch.dtype, float, Tensor]:
    """transformers' best dtype for these texts, of two tries each, with its time and its hidden states."""
    found = []
    for dtype, model in contest.theirs.items():
        tries = [timed(model, sequences, contest.device) for _ in range(2 if len(contest.theirs) > 1 else 1)]
        found.append((dtype, *min(tries, key=lambda one: one[0])))
    return min(found, key=lambda one: one[1])


def timed(model: Ours | Theirs, sequences: list[list[int]], device: torch.device) -> tuple[float, Tensor]:
    """Seconds from lists of token ids to hidden states, and these."""
    synchronize(device)
    start = time.perf_counter()
    hidden = model.run(sequences)
    synchronize(device)
    return time.perf_counter() - start, hidden


def agreement(packed: Tensor, padded: Tensor, sequences: list[list[int]], *, is_fp32: bool) -> str:
    """How near both came at the real tokens, in words; without agreement the run ends here."""
    real = torch.cat([row[: len(sequence)] for row, sequence in zip(padded, sequences, strict=True)]).float()
    if is_fp32:
        difference = (packed - real).abs().max().item()
        found, is_same = f"largest difference {difference:.1e}", difference <= FP32_TOLERANCE
    else:
        cosine = functional.cosine_similarity(packed.float(), real, dim=-1).min().item()
        found, is_same = f"smallest cosine {cosine:.4f}", cosine >= BF16_COSINE
    if not is_same:
        sys.exit(f"the two sides do not compute the same hidden states ({found}): nothing was measured")
    return found


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The roof: the best rate, in FLOP/s, of any product of the model's shapes, weights packed or not."""
    best = 0.0
    for inputs, outputs in sorted(set(PRODUCTS)):
        weight = torch.randn(outputs, inputs, device=device).to(dtype)
        for rows in ROWS:
            x = torch.randn(rows, inputs, device=device).to(dtype)
            for product in ways_to_multiply(x, weight):
                best = max(best, 2 * rows * inputs * outputs / shortest(product, device))
    report(f"matrix products in {name_of(dtype)}: {best / 1e9:.0f} GFLOP/s")
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


def shortest(work: Callable[[], Any], device: torch.device, seconds: float = 0.15) -> float:
    """The shortest of as many runs as fit in `seconds`, at least three, after one that does not count."""
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def finish(
    case: Case,
    contest: Contest,
    rates: dict[torch.dtype, float],
    their_dtype: torch.dtype,
    times: list[float],
    their_times: list[float],
    words: str,
) -> Result:
    seconds, their_seconds = statistics.median(times), statistics.median(their_times)
    return Result(
        case=case.name,
        num_tokens=case.num_tokens,
        num_padded_tokens=len(case.lengths) * max(case.lengths),
        repeats=len(times),
        dtype=name_of(contest.dtype),
        transformers_dtype=name_of(their_dtype),
        seconds=seconds,
        transformers_seconds=their_seconds,
        tokens_per_second=case.num_tokens / seconds,
        transformers_tokens_per_second=case.num_tokens / their_seconds,
        ratio=their_seconds / seconds,
        median_of_paired_ratios=statistics.median(b / a for a, b in zip(times, their_times, strict=True)),
        goal=case.goal_with_bf16 or case.goal if contest.goes_with_bf16 else case.goal,
        share_of_roofline=case.useful_flops / seconds / rates[contest.dtype],
        transformers_share_of_roofline=case.useful_flops / their_seconds / rates[their_dtype],
        all_seconds=times,
        all_transformers_seconds=their_times,
        agreement=words,
    )


def print_table(results: Sequence[Result], rates: dict[torch.dtype, float]) -> None:
    print("\n".join(description(rates)), end="\n\n")
    print_row("case", "tokens", "modernbert", "transformers", "ratio", "paired", "goal", "share of roofline")
    for r in results:
        print_row(
            r.case,
            f"{r.num_tokens:,}",
            f"{r.tokens_per_second:,.0f}/s {short(r.dtype)}",
            f"{r.transformers_tokens_per_second:,.0f}/s {short(r.transformers_dtype)}",
            f"{r.ratio:.2f}x",
            f"{r.median_of_paired_ratios:.2f}x",
            "" if r.goal is None else f"{r.goal:.1f}x",
            f"{r.share_of_roofline:.0%} / {r.transformers_share_of_roofline:.0%}",
        )
    print("\nReal tokens per second, medians. ratio: of the medians. paired: median over pairs of passes.")
    print(
        "Roofline: FLOPs of products and of attention inside the window, at the rate of the products above."
    )


def print_row(first: str, *rest: str) -> None:
    widths = (7, 16, 16, 7, 7, 6, 18)
    print(f"{first:<11}" + "  ".join(f"{word:>{width}}" for word, width in zip(rest, widths, strict=True)))


def description(rates: dict[torch.dtype, float]) -> list[str]:
    """The machine, the versions and the roof, a line each."""
    here = machine()
    versions = here["versions"]
    names = ("modernbert", "torch", "transformers", "python")
    roofs = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name_of(dtype)}" for dtype, rate in rates.items())
    return [
        f"ModernBERT-base, random weights; {here['processor']}, {here['threads']} threads",
        f"{', '.join(f'{name} {versions[name]}' for name in names if name in versions)}; "
        + " ".join(here["capabilities"]),
        f"matrix products of the model's shapes: {roofs}",
    ]


def save(
    results: list[Result], rates: dict[torch.dtype, float], contest: Contest, args: argparse.Namespace
) -> None:
    """JSON and chart; a part of the cases replaces nothing that a whole run has written."""
    if args.is_partial and args.out is None:
        report("only some cases: nothing written (give --out PATH)")
        return
    data = {
        "device": str(contest.device),
        "accelerator": torch.cuda.get_device_name(contest.device) if contest.device.type == "cuda" else None,
        "matrix_flops_per_second": {name_of(dtype): rate for dtype, rate in rates.items()},
        "results": [asdict(result) for result in results],
    }
    name = "inference" if contest.device.type == "cpu" else f"inference-{contest.device.type}"
    if args.out is None:
        json_path, chart_path = write_results(name, data), results_path(name, ".png")
    else:
        json_path, chart_path = (args.out.with_name(args.out.name + suffix) for suffix in (".json", ".png"))
        json_path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(json_path, json.dumps({"machine": machine(), **data}, indent=2) + "\n")
    draw(results, contest, chart_path)
    report(f"wrote {json_path} and {chart_path}")


def draw(results: Sequence[Result], contest: Contest, path: Path) -> None:
    """Two bars a case, with the ratio above ours: made to be read at 800 pixels."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    blue, grey, ink = "#1f6feb", "#b8bfc8", "#57606a"
    figure, axes = plt.subplots(figsize=(8, 4.4), dpi=200, layout="constrained")
    rates = [r.tokens_per_second for r in results]
    their_rates = [r.transformers_tokens_per_second for r in results]
    places = range(len(results))
    ours = axes.bar([i - 0.2 for i in places], rates, 0.38, color=blue, label="modernbert")
    theirs = axes.bar([i + 0.2 for i in places], their_rates, 0.38, color=grey, label="transformers (SDPA)")
    ratios = [f"{r.ratio:.1f}x" for r in results]
    axes.bar_label(ours, ratios, padding=16, fontsize=13, fontweight="bold", color=blue)
    for bars, values in ((ours, rates), (theirs, their_rates)):
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=2, fontsize=9.5, color=ink)
    axes.set_xticks(range(len(results)), [f"{r.case}\n{r.num_tokens:,} tokens" for r in results])
    axes.set_ylim(0, 1.17 * max(rates + their_rates))
    axes.set_ylabel("real tokens per second")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0, labelsize=11)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, fontsize=11, borderpad=0)
    figure.suptitle(chart_title(contest, results), fontsize=12, x=0.02, ha="left", color="#24292f")
    figure.savefig(path, facecolor="white")
    plt.close(figure)


def chart_title(contest: Contest, results: Sequence[Result]) -> str:
    here = machine()
    if contest.device.type == "cuda":
        where = torch.cuda.get_device_name(contest.device)
    else:
        where = f"{here['processor']}, {here['threads']} threads"
    dtypes = {r.transformers_dtype for r in results} | {name_of(contest.dtype)}
    return f"ModernBERT-base, {where}, {' / '.join(sorted(dtypes))}"


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def short(dtype_name: str) -> str:
    return dtype_name.replace("bfloat", "bf").replace("float", "fp")


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
