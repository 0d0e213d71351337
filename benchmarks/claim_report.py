"""What the runs of the claim have shown so far: results as JSON, tables as markdown, curves as a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claim_models import ABLATIONS, PAIR, SIZES, VARIANTS, Size, mask_rate_of, num_parameters
from claim_runs import OUTCOME, Job, curve, read_outcome
from common import RESULTS, description, machine, results_path

from modernbert.files import write_atomic
from modernbert.plots import INK, colours, new_figure, save
from modernbert.training import journal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Results = dict[str, Any]
NAMES = {"modernbert": "ModernBERT", "bert": "BERT"}
# Ways of claim_speed.py, by the model whose loss goes with them.
WAYS = {
    "modernbert packed": ("modernbert", "ModernBERT, packed"),
    "bert padded": ("bert", "BERT, padded, natural lengths"),
    "bert full rows": ("bert", "BERT, full rows"),
    "bert packed": ("bert", "BERT's blocks, packed, as here"),
}
NOTES = {
    "learned-positions": "rotary -> learned positions (on top)",
    "gelu-mlp": "GeGLU -> GELU MLP of as many parameters",
    "biases": "no biases -> biases everywhere",
    "all-global": "local attention -> all global",
    "no-embedding-norm": "no embedding norm",
    "post-norm": "pre-norm -> post-norm",
    "mask-15": "30 % masking -> 15 %",
    "bert-initialisation": "BERT's initialisation",
    "post-norm-at-bert-rate": "post-norm, at the rate found for BERT",
    "bert": "all of it: BERT",
    "bert-positions-on-top": "BERT, its positions not counted",
    "bert-at-half-rate": "BERT, half the learning rate",
    "modernbert-at-half-rate": "ModernBERT, half the learning rate",
}


def write_report(jobs: Sequence[Job], out: Path, target: Path | None) -> str:
    """Write JSON, tables and, once there are curves, the chart; gives the tables.

    They go to results/, or into the folder `target`.
    """
    results = collect(jobs, out)
    speed = read_speed()
    text = tables(results)
    write_atomic(path_of(".json", target), json.dumps({"machine": machine(), **results}, indent=2) + "\n")
    write_atomic(path_of(".md", target), f"{text}\n")
    if results["sizes"]:
        draw(results, speed, path_of(".png", target))
    return f"{description()}\n\n{text}"


def path_of(suffix: str, target: Path | None) -> Path:
    """What was learned does not depend on the processor: one file for all."""
    path = (RESULTS if target is None else target) / f"claim{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def restore(jobs: Sequence[Job], out: Path) -> None:
    """Take the runs that stand in the stored results, and not in `out`, for done."""
    path = path_of(".json", None)
    stored: Results = json.loads(path.read_text()) if path.exists() else {"rates": {}, "sizes": {}}
    for job in jobs:
        folder = out / job.name
        if job.group == "rates":
            found = stored["rates"].get(job.variant)
        else:
            of_variant = stored["sizes"].get(job.size.name, {}).get(job.variant, {"seeds": {}})
            found = of_variant["seeds"].get(str(job.seed))
        if found is None or (folder / OUTCOME).exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        rows = [json.dumps({"tokens": tokens, "loss": loss}) for tokens, loss in found.get("curve", ())]
        write_atomic(folder / journal.EVALUATIONS, "".join(f"{row}\n" for row in rows))
        content = {name: value for name, value in found.items() if name != "curve"}
        write_atomic(folder / OUTCOME, json.dumps(content, indent=2) + "\n")


def read_speed() -> dict[str, Any]:
    """Tokens a second by size and way, as claim_speed.py measured them here; empty before that."""
    path = results_path("claim_speed")
    return json.loads(path.read_text())["sizes"] if path.exists() else {}


def collect(jobs: Sequence[Job], out: Path) -> Results:
    """All that ended, from the folders: two processes may be at work."""
    rates: dict[str, Any] = {}
    sizes: dict[str, dict[str, Any]] = {}
    for job in jobs:
        found = read_outcome(out / job.name)
        if found is None:
            continue
        if job.group == "rates":
            rates[job.variant] = found
            continue
        of_size = sizes.setdefault(job.size.name, {})
        if job.variant not in of_size:
            of_size[job.variant] = {
                "num_parameters": num_parameters(VARIANTS[job.variant](job.size)),
                "mask_rate": mask_rate_of(job.variant),
                "seeds": {},
            }
        of_size[job.variant]["seeds"][str(job.seed)] = {**found, "curve": curve(out / job.name)}
    return {"rates": rates, "sizes": sizes}


def losses_of(variant: Mapping[str, Any] | None) -> dict[str, float]:
    """By seed, of the runs that did not go astray."""
    seeds = {} if variant is None else variant["seeds"]
    return {seed: each["loss"] for seed, each in seeds.items() if "loss" in each}


def tables(results: Results) -> str:
    """Rates, the two models, and the ablations, as far as there are any."""
    parts = [rates_table(results["rates"])] if results["rates"] else []
    for size in SIZES:
        variants = results["sizes"].get(size.name, {})
        if any(each in variants for each in PAIR):
            parts.append(pair_table(size, variants))
        if losses_of(variants.get("modernbert")) and any(each in variants for each in ABLATIONS):
            parts.append(ablation_table(size, variants))
    return "\n\n".join(parts)


def rates_table(rates: Mapping[str, Any]) -> str:
    columns = sorted({rate for each in rates.values() for rate in each["losses"]}, key=float)
    rows = []
    for variant, each in rates.items():
        cells = [written(each["losses"][rate]) if rate in each["losses"] else "" for rate in columns]
        rows.append([NAMES[variant], *cells])
    return "Held-out loss of short runs by learning rate, small size:\n\n" + markdown(["", *columns], rows)


def pair_table(size: Size, variants: Mapping[str, Any]) -> str:
    rows = []
    for variant in PAIR:
        if variant in variants:
            each = variants[variant]
            losses = losses_of(each)
            rights = [found["accuracy"] for found in each["seeds"].values() if "loss" in found]
            rate = next(iter(each["seeds"].values()))["rate"]
            count = f"{each['num_parameters']:,}"
            right = f"{statistics.mean(rights):.1%}" if rights else ""
            rows.append(
                [NAMES[variant], count, f"{rate:g}", mean(losses), spread(losses), right, len(losses)]
            )
    head = ["", "parameters", "rate", "loss", "spread", "accuracy", "seeds"]
    tokens = max(found["tokens"] for each in variants.values() for found in each["seeds"].values())
    return f"{size.name}, {tokens:,} tokens:\n\n{markdown(head, rows)}"


def ablation_table(size: Size, variants: Mapping[str, Any]) -> str:
    """Differences are taken seed by seed, as runs of a seed have texts and masks in common."""
    whole = losses_of(variants["modernbert"])
    rows = [
        [
            "the whole: ModernBERT",
            parameters(variants["modernbert"]),
            mean(whole),
            "",
            spread(whole),
            len(whole),
        ]
    ]
    for variant, note in NOTES.items():
        if variant not in variants:
            continue
        losses = losses_of(variants[variant])
        worse = {seed: loss - whole[seed] for seed, loss in losses.items() if seed in whole}
        difference = f"{statistics.mean(worse.values()):+.3f}" if worse else ""
        failed = len(variants[variant]["seeds"]) - len(losses)
        seeds = f"{len(losses)}, {failed} went astray" if failed else len(losses)
        rows.append([note, parameters(variants[variant]), mean(losses), difference, spread(worse), seeds])
    head = ["turned back", "parameters", "loss", "difference", "spread", "seeds"]
    note = "spread: standard deviation over seeds, of the whole's loss or of the difference; above 0 is worse"
    return f"Ablations, {size.name}, one at a time ({note}):\n\n{markdown(head, rows)}"


def parameters(variant: Mapping[str, Any]) -> str:
    return f"{variant['num_parameters']:,}"


def mean(losses: Mapping[str, float]) -> str:
    return f"{statistics.mean(losses.values()):.3f}" if losses else "went astray"


def spread(values: Mapping[str, float]) -> str:
    return f"{statistics.stdev(values.values()):.3f}" if len(values) > 1 else ""


def written(loss: float | None) -> str:
    return "went astray" if loss is None else f"{loss:.3f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def draw(results: Results, speed: Mapping[str, Any], path: Path) -> None:
    """A row for each size: held-out loss against tokens, and against seconds where speed was measured."""
    sizes = [size for size in SIZES if PAIR.keys() & results["sizes"].get(size.name, {}).keys()]
    if not sizes:
        return
    figure = new_figure(11.0, 0.6 + 3.8 * len(sizes))
    here = machine()
    figure.suptitle(
        f"ModernBERT's blocks against BERT's; held-out loss, {here['processor']}",
        x=0.01,
        ha="left",
        color=INK,
    )
    for index, size in enumerate(sizes):
        bands = {variant: band(results["sizes"][size.name].get(variant)) for variant in PAIR}
        left = figure.add_subplot(len(sizes), 2, 2 * index + 1)
        for place, variant in enumerate(PAIR):
            draw_band(left, bands[variant], 1.0, NAMES[variant], place)
        dress(left, f"{size.name}: against tokens", "million tokens", scale=1e6)
        rates = speed.get(size.name, {}).get("tokens_per_second", {})
        right = figure.add_subplot(len(sizes), 2, 2 * index + 2)
        for place, (way, (variant, label)) in enumerate(WAYS.items()):
            if way in rates:
                draw_band(right, bands[variant], rates[way], label, place)
        dress(right, f"{size.name}: against seconds of training", "seconds", scale=1.0)
        if not rates:
            right.text(
                0.5, 0.5, "claim_speed.py has not been run here", ha="center", transform=right.transAxes
            )
    save(figure, path)


def band(variant: Mapping[str, Any] | None) -> list[tuple[float, float, float, float]]:
    """Tokens, and the lowest, mean and highest loss over the seeds at each point that all have reached.

    Runs of any variant and seed have their evaluations at the same places, but for the odd tokens of a row.
    """
    curves = [
        each["curve"] for each in ({} if variant is None else variant["seeds"]).values() if "loss" in each
    ]
    points = []
    for together in zip(*curves, strict=False):
        losses = [loss for _, loss in together]
        tokens = statistics.mean(each for each, _ in together)
        points.append((tokens, min(losses), statistics.mean(losses), max(losses)))
    return points


def draw_band(
    axes: Axes, points: Sequence[tuple[float, float, float, float]], rate: float, label: str, place: int
) -> None:
    if not points:
        return
    tokens, lowest, middle, highest = zip(*points, strict=True)
    x = [each / rate for each in tokens]
    colour = colours()[place]
    axes.plot(x, middle, color=colour, linewidth=1.6, label=label)
    axes.fill_between(x, lowest, highest, color=colour, alpha=0.2, linewidth=0)


def dress(axes: Axes, title: str, x_label: str, *, scale: float) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    axes.set_xlabel(x_label, fontsize=9, color=INK)
    axes.set_ylabel("nats a masked token", fontsize=9, color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / scale:,g}")
    axes.tick_params(colors=INK, labelsize=8.5, length=3)
    axes.grid(color="#e4e9ee", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8.5)
