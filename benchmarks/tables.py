"""Write the tables of docs/benchmarks.md, and the one in the README, from the stored results.

python benchmarks/tables.py            write
python benchmarks/tables.py --check    fail if what is there is not what the results say
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
BLOCK = re.compile(r"(?<=<!-- written by benchmarks/tables.py -->\n).*?(?=<!-- end -->)", re.DOTALL)
HEAD = """# Benchmarks

What the scripts in [benchmarks](../benchmarks/README.md) measured: that page tells how. This one is written
from their results by `benchmarks/tables.py`, a section a processor. Figures compare within a table, never
across. AMD's family 25 is Zen 3 (model 1) and Zen 4 (model 17).
"""
MODELS = {
    "inference": "ModernBERT-base",
    "inference-nano": "nano",
    "inference-minilm": "all-MiniLM-L6-v2",
}
Result = Mapping[str, Any]


def main() -> None:
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    """The page and the README as they should be."""
    processors = by_processor()
    page = "\n".join([HEAD, *(section(name, found) for name, found in processors.items())])
    best = max(
        (found["inference"] for found in processors.values() if "inference" in found),
        key=lambda data: len(data["machine"]["capabilities"]),
    )
    words = f"\n{picture('inference', best, 'benchmarks')}\n\n{inference(best)}\n"
    readme, num = BLOCK.subn(lambda _: words, README.read_text(encoding="utf-8"))
    if num != 1:
        sys.exit(f"{README} has no place for the table")
    return {PAGE: page, README: readme}


def by_processor() -> dict[str, dict[str, Result]]:
    """Results by processor and by name, those with most extensions first."""
    found: dict[str, dict[str, Result]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if "machine" not in data:
            continue
        processor = data["machine"]["processor"]
        slug = "-" + re.sub(r"[^a-z0-9]+", "-", processor.lower()).strip("-")
        found.setdefault(processor, {})[path.stem.removesuffix(slug)] = data | {"stem": path.stem}
    return dict(sorted(found.items(), key=lambda item: (-extensions(item[1]), item[0])))


def extensions(found: Mapping[str, Result]) -> int:
    return max(len(data["machine"]["capabilities"]) for data in found.values())


def section(processor: str, found: Mapping[str, Result]) -> str:
    """All tables of a processor."""
    machine = next(iter(found.values()))["machine"]
    lines = [
        f"## {processor}",
        "",
        f"{machine['threads']} threads; {', '.join(machine['capabilities'])}.",
        "",
    ]
    for name, model in MODELS.items():
        if data := found.get(name):
            lines += [f"### {model}, real tokens a second", "", picture(name, data, "../benchmarks"), ""]
            lines += [inference(data), *targets(data, model), ""]
    for name, way in (("memory", memory), ("strings", strings), ("scale", scale), ("training", training)):
        if data := found.get(name):
            lines += [*way(data), ""]
    return "\n".join(lines)


def picture(name: str, data: Result, folder: str) -> str:
    return f"![{MODELS[name]}: the table below as bars]({folder}/results/{data['stem']}.png)"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def inference(data: Result) -> str:
    """A row a side, and ours to the best of the others."""
    cases = list(dict.fromkeys(row["case"] for row in data["results"]))
    rows: list[list[str]] = []
    for precision, words in (("full", "ours to the best of them"), ("int8", "ours to the best in 8 bits")):
        of_it = [row for row in data["results"] if row["precision"] == precision]
        for side in sorted({row["side"] for row in of_it}, key=lambda s: (not s.startswith("modernbert"), s)):
            speeds = {row["case"]: row["tokens_per_second"] for row in of_it if row["side"] == side}
            rows.append([side, *(f"{speeds[case]:,.0f}" if case in speeds else "-" for case in cases)])
        ratios = {c["case"]: c["ratio"] for c in data["contests"] if c["precision"] == precision}
        rows.append([words, *(f"**{ratios[case]:.2f}**" if case in ratios else "-" for case in cases)])
    machine = data["machine"]
    versions = ", ".join(
        f"{name} {machine['versions'][name]}"
        for name in ("torch", "transformers", "onnxruntime", "openvino", "xllamacpp")
        if name in machine["versions"]
    )
    extensions = ", ".join(machine["capabilities"])
    under = f"{machine['processor']}, {machine['threads']} threads, {extensions}; {versions}."
    return f"{table(['', *cases], rows)}\n\n{under}"


def targets(data: Result, model: str) -> Iterator[str]:
    """What was aimed at, the other ways to reckon, and the share of the roofline."""
    (dtype, rate), *_ = data["matrix_flops_per_second"].items()
    head = ["", "ratio", "by turns", "at p99", "goal", "of the roofline", "best peer"]
    ours = {row["side"]: {} for row in data["results"]}
    for row in data["results"]:
        ours[row["side"]][row["case"]] = row
    rows: list[list[str]] = []
    for contest in data["contests"]:
        row = ours[contest["ours"]][contest["case"]]
        share = f"{row['share_of_roofline']:.0%}" if contest["precision"] == "full" else ""
        goal = "" if contest["goal"] is None else f"{contest['goal']:.2f}"
        name = f"{contest['case']}, {contest['ours'].split()[-1]}"
        ratios = [f"{contest[key]:.2f}" for key in ("ratio", "median_of_paired_ratios", "ratio_p99")]
        rows.append([name, *ratios, goal, share, contest["best_peer"]])
    alone = [row for row in data["results"] if row["case"] == "1 x 16"]
    yield f"\n{table(head, rows)}\n"
    yield f"Matrix products of {model}'s shapes: {rate / 1e9:,.0f} GFLOP/s in {dtype}, the roofline."
    alone = [
        [row["side"], f"{row['seconds'] * 1e3:.1f}", f"{row['p99'] * 1e3:.1f}"]
        for row in data["results"]
        if row["case"] == "1 x 16"
    ]
    if alone:
        yield f"\n{table(['one text of 16 tokens', 'p50, ms', 'p99, ms'], alone)}"


def memory(data: Result) -> Iterator[str]:
    yield f"### Memory of {data['model']}, peak MiB of a process\n"
    cases = list(dict.fromkeys(row["case"] for row in data["rows"]))
    rows: list[list[str]] = []
    for side, loads in data["load_seconds"].items():
        peaks = {row["case"]: row["peak_mib"] for row in data["rows"] if row["side"] == side}
        cells = [f"{peaks[case]:,.0f}" if case in peaks else "-" for case in cases]
        rows.append([side, *cells, f"{min(loads):.2f}", f"{statistics.median(loads):.2f}"])
    yield table(["", *cases, "load, s", "median"], rows)


def strings(data: Result) -> Iterator[str]:
    yield "### From strings to vectors, texts a second\n"
    for part in ("passages", "documents"):
        rows = [
            [
                row["side"],
                f"{row['texts_per_second']:,.1f}",
                f"{row['texts_per_second'] / data[part][0]['texts_per_second']:.2f}",
                f"{row['median_of_paired_ratios']:.2f}",
            ]
            for row in data[part]
        ]
        head = [f"{data[part][0]['texts']:,} {part}", "texts/s", "ratio", "by turns"]
        yield f"{table(head, rows)}\n"


def scale(data: Result) -> Iterator[str]:
    yield "### Scale\n"
    yield f"![Time against length and number of texts](../benchmarks/results/{data['stem']}.png)\n"
    lengths, numbers = data["lengths"], data["texts"]
    rows = [
        [f"{row['tokens']:,}", f"{row['seconds']:.3f}", f"{row['tokens'] / row['seconds']:,.0f}", slope]
        for row, slope in zip(lengths, exponents(lengths, "tokens"), strict=True)
    ]
    yield f"{table(['tokens of one text, nano', 'seconds', 'tokens/s', 'exponent'], rows)}\n"
    rows = [
        [
            f"{row['texts']:,}",
            f"{row['seconds']:.2f}",
            f"{row['texts'] / row['seconds']:,.0f}",
            f"{row['peak_mib']:,.0f}",
            slope,
        ]
        for row, slope in zip(numbers, exponents(numbers, "texts"), strict=True)
    ]
    yield f"{table(['short texts, MiniLM', 'seconds', 'texts/s', 'peak MiB', 'exponent'], rows)}\n"
    rows = [
        [
            str(row["processes"]),
            f"{row['mib'] / row['processes']:,.0f}",
            f"{row['mib']:,.0f}",
            f"{row['private_mib']:,.0f}",
        ]
        for row in data["processes"]
    ]
    yield table(["processes, ModernBERT-base", "MiB each", "MiB in all", "private MiB"], rows)


def exponents(rows: list[dict[str, float]], size: str) -> list[str]:
    """Of each step from one size to the next: 1 is linear, 2 is quadratic."""
    steps = [
        math.log(after["seconds"] / before["seconds"]) / math.log(after[size] / before[size])
        for before, after in pairwise(rows)
    ]
    return ["", *(f"{step:.2f}" for step in steps)]


def training(data: Result) -> Iterator[str]:
    yield f"### Training, real tokens a second, {data['dtype'].removeprefix('torch.')}\n"
    yield f"![Training: the table below as bars](../benchmarks/results/{data['stem']}.png)\n"
    head = [
        "",
        "modernbert",
        "transformers",
        "sparse",
        "ratio",
        "goal",
        "to sparse",
        "goal",
        "of the roofline",
    ]
    rows = [
        [
            row["case"],
            *(f"{row['tokens_per_second'][side]:,.0f}" for side in ("modernbert", "dense", "sparse")),
            *(f"{each:.2f}" for pair in zip(row["ratios"], row["goals"], strict=True) for each in pair),
            f"{row['shares_of_roofline']['modernbert']:.0%}",
        ]
        for row in data["results"]
    ]
    yield f"{table(head, rows)}\n"
    rows = [
        [row["case"], *(f"{size / 2**20:,.0f}" for size in row["peak_bytes_added"].values())]
        for row in data["results"]
    ]
    yield table(["peak MiB added", "modernbert", "transformers", "sparse"], rows)


if __name__ == "__main__":
    main()
