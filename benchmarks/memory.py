"""Peak resident memory, and the time to load, of ModernBERT-base here and where else a user would run it.

Every side and case is a process of its own, which imports what that side needs and no more, loads the model,
reads one batch twice, and says its peak (VmHWM of /proc: mapped files count as far as they were read) and its
private part of it at the end. Ours maps packed weights that an earlier load left in the cache, as every load
but the first does.

    python benchmarks/memory.py                     fifteen minutes on two cores
    python benchmarks/memory.py --sides modernbert  some sides again: their rows take the older ones' place
    python benchmarks/memory.py --model nano --cases 32x16 8x512    to look; writes nothing
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CASES = {
    "1x16": (16,),
    "32x16": (16,) * 32,
    "8x32-512": (238, 512, 32, 375, 169, 443, 101, 306),
    "8x512": (512,) * 8,
    "2x2048": (2048,) * 2,
    "1x8192": (8192,),
}
# What needs scores of 3.2 GB a layer there.
LEFT_OUT = {("ONNX Runtime", "1x8192"), ("OpenVINO", "1x8192")}
LOADS = 5  # the shortest counts: the longer ones waited for something else
PACKAGES = ("modernbert", "transformers", "ONNX", "OpenVINO")
Run = Callable[[list[list[int]]], object]


def main() -> None:
    args = parse_arguments()
    if args.child:
        child(*args.child)
        return
    from common import description, stored_results, write_results
    from inference_models import SUBJECTS
    from inference_sides import export, quantize

    from modernbert.kernels.native_library import has_bf16

    subject = SUBJECTS[args.model]
    cases = [name for name in args.cases if max(CASES[name]) <= subject.max_length]
    with tempfile.TemporaryDirectory() as work:
        folder = subject.save(Path(work) / args.model)
        paths = {"onnx": export(folder), "int8": quantize(folder)}
        os.environ["MODERNBERT_PACKED"] = f"{work}/packed"
        time.sleep(2.5)  # files younger than that are not kept packed
        sides = {
            "modernbert fp32": ("ours", folder),
            "transformers fp32": ("transformers", folder),
            "ONNX Runtime fp32": ("onnxruntime", paths["onnx"]),
            "OpenVINO fp32": ("openvino", paths["onnx"]),
            "modernbert bf16": ("ours-bf16", folder),
            "transformers bf16": ("transformers-bf16", folder),
            "OpenVINO bf16": ("openvino-bf16", paths["onnx"]),
            "modernbert int8": ("ours-int8", folder),
            "ONNX Runtime int8": ("onnxruntime", paths["int8"]),
        }
        if not has_bf16():
            sides = {side: way for side, way in sides.items() if not side.endswith("bf16")}
        order = list(sides)
        sides = {side: way for side, way in sides.items() if side.split()[0] in args.sides}
        stored = stored_results("memory") if args.model == "base" else {}
        rows: list[dict[str, Any]] = [row for row in stored.get("rows", []) if row["side"] not in sides]
        loads: dict[str, list[float]] = {
            side: seconds for side, seconds in stored.get("load_seconds", {}).items() if side not in sides
        }
        for side, (kind, path) in sides.items():
            measure(kind, path, "1x16")  # fills the caches
            for case in cases:
                if (side.rsplit(" ", 1)[0], case) in LEFT_OUT:
                    continue
                found = measure(kind, path, case)
                rows.append({"side": side, "case": case, **found})
                loads.setdefault(side, []).append(found["load_seconds"])
                print(f"{side:<19}{case:<10}{found['peak_mib']:>7,.0f} MiB", file=sys.stderr, flush=True)
            while len(loads[side]) < LOADS:
                loads[side].append(measure(kind, path, "1x16")["load_seconds"])
    loads = {side: loads[side] for side in order if side in loads}
    print(description() + "\n")
    print_table(rows, loads, cases)
    data = {"model": subject.title, "rows": rows, "load_seconds": loads}
    if args.model == "base" and set(args.cases) == set(CASES):
        print(f"wrote {write_results('memory', data)}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="base", choices=("base", "nano", "minilm"))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--sides", nargs="+", choices=PACKAGES, default=PACKAGES)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(kind: str, path: Path, case: str) -> dict[str, float]:
    """What a fresh process says of itself."""
    command = [sys.executable, __file__, "--child", kind, str(path), case]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(said.splitlines()[-1])


def child(kind: str, path: str, case: str) -> None:
    """Load, run, and print the figures as JSON."""
    generator = random.Random(0)
    sequences = [[generator.randrange(1000, 16_000) for _ in range(n)] for n in CASES[case]]
    seconds, run = SIDES[kind](path)
    for _ in range(2):
        run(sequences)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kib = {name: int(status[name].split()[0]) for name in ("VmHWM", "RssAnon")}
    print(
        json.dumps(
            {
                "peak_mib": kib["VmHWM"] / 1024,
                "private_mib": kib["RssAnon"] / 1024,
                "load_seconds": seconds,
            }
        )
    )


def ours(path: str, dtype: str = "float32") -> tuple[float, Run]:
    """The package: seconds from `import torch` to a model that can be asked, and how."""
    import torch

    start = time.perf_counter()
    import modernbert
    from modernbert.text.batch import PackedBatch

    encoder = modernbert.load(path, dtype=dtype).encoder
    seconds = time.perf_counter() - start

    def run(sequences: list[list[int]]) -> object:
        with torch.inference_mode():
            return encoder(PackedBatch.from_sequences(sequences))

    return seconds, run


def transformers(path: str, dtype: str = "float32") -> tuple[float, Run]:
    """transformers with SDPA."""
    import torch

    start = time.perf_counter()
    from transformers import AutoModel

    model = AutoModel.from_pretrained(path, dtype=dtype, attn_implementation="sdpa").eval()
    seconds = time.perf_counter() - start

    def run(sequences: list[list[int]]) -> object:
        ids, mask = padded(sequences)
        with torch.inference_mode():
            return model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))

    return seconds, run


def onnx_runtime(path: str) -> tuple[float, Run]:
    """ONNX Runtime, without torch in the process."""
    start = time.perf_counter()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    seconds = time.perf_counter() - start

    def run(sequences: list[list[int]]) -> object:
        ids, mask = padded(sequences)
        return session.run(None, {"input_ids": ids, "attention_mask": mask})

    return seconds, run


def openvino(path: str, precision: str = "f32") -> tuple[float, Run]:
    """OpenVINO, without torch in the process."""
    start = time.perf_counter()
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    model = openvino.Core().compile_model(path, "CPU", settings)
    seconds = time.perf_counter() - start

    def run(sequences: list[list[int]]) -> object:
        ids, mask = padded(sequences)
        return model({"input_ids": ids, "attention_mask": mask})[0]

    return seconds, run


def padded(sequences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask, each [S, N], as long as the longest."""
    longest = max(map(len, sequences))
    ids = np.array([each + [0] * (longest - len(each)) for each in sequences])
    mask = np.array([[1] * len(each) + [0] * (longest - len(each)) for each in sequences])
    return ids, mask


def print_table(rows: list[dict[str, Any]], loads: dict[str, list[float]], cases: list[str]) -> None:
    """Peaks a case, and the shortest load."""
    print(f"{'peak MiB':<20}" + "".join(f"{case:>10}" for case in cases) + f"{'load, s':>10}{'median':>8}")
    for side, found in loads.items():
        peaks = {row["case"]: row["peak_mib"] for row in rows if row["side"] == side}
        cells = "".join(f"{peaks[case]:>10,.0f}" if case in peaks else f"{'-':>10}" for case in cases)
        print(f"{side:<20}{cells}{min(found):>10.2f}{statistics.median(found):>8.2f}")


SIDES: dict[str, Callable[[str], tuple[float, Run]]] = {
    "ours": ours,
    "ours-bf16": lambda path: ours(path, "bfloat16"),
    "ours-int8": lambda path: ours(path, "int8"),
    "transformers": transformers,
    "transformers-bf16": lambda path: transformers(path, "bfloat16"),
    "onnxruntime": onnx_runtime,
    "openvino": openvino,
    "openvino-bf16": lambda path: openvino(path, "bf16"),
}

if __name__ == "__main__":
    main()
