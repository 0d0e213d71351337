"""What attention costs as a text gets longer: time and memory a token of a local and of a global layer.

    python benchmarks/local_attention.py
    python benchmarks/local_attention.py --backward --threads 1

A local layer (64 tokens each side) must cost the same for a token of a long text as for one of a short text,
so that doubling the text doubles the whole; in a global layer a token pays for the length. The time is the
fastest of several runs (the median is in the results too). Memory is what the first call adds to the resident
size of a process of its own at its peak, the output included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import processor_name, results_path, write_results

from modernbert.kernels.attention import attend

NUM_HEADS, HEAD_DIM, WINDOW = 12, 64, 64  # ModernBERT-base
LAYERS = {"local": WINDOW, "global": None}
LENGTHS = {"local": [1024 << i for i in range(7)], "global": [1024 << i for i in range(5)]}
NUM_RUNS, SHORTEST_S = 3, 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="sdpa")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--backward", action="store_true", help="time forward and backward")
    parser.add_argument("--point", nargs=2, metavar=("LAYER", "TOKENS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.point:
        layer, num_tokens = arguments.point
        print(json.dumps(measure(layer, int(num_tokens), arguments.backend, arguments.backward)))
        return
    points = [point for layer in LAYERS for point in measure_all(layer, arguments)]
    name = "local_attention_backward" if arguments.backward else "local_attention"
    data = {
        "backend": arguments.backend,
        "heads": NUM_HEADS,
        "head_dim": HEAD_DIM,
        "window_each_side": WINDOW,
    }
    print(f"\nwritten: {write_results(name, {**data, 'dtype': 'float32', 'points': points})}")
    print(f"written: {plot(points, name)}")


def measure_all(layer: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every length of one kind of layer, each in a process of its own, printed as it comes."""
    print(f"\n{layer} layer, {arguments.backend}, {arguments.threads} threads, float32, {processor_name()}")
    print(f"{'tokens':>8} {'us/token':>10} {'bytes/token':>12} {'time x':>8} {'memory x':>9}")
    points: list[dict[str, Any]] = []
    for num_tokens in LENGTHS[layer]:
        command = [sys.executable, __file__, "--point", layer, str(num_tokens)]
        command += ["--backend", arguments.backend, "--threads", str(arguments.threads)]
        command += ["--backward"] if arguments.backward else []
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        points.append(json.loads(done.stdout))
        print_row(points[-1], points[-2] if len(points) > 1 else None)
    return points


def print_row(point: dict[str, Any], half: dict[str, Any] | None) -> None:
    """One point, and what doubling the text to get there did to time and memory: 2 is linear, 4 quadratic."""
    num_tokens, seconds, added = point["num_tokens"], point["seconds"], point["peak_bytes"]
    row = f"{num_tokens:>8,} {1e6 * seconds / num_tokens:>10.2f} {added / num_tokens:>12,.0f}"
    if half is not None:
        row += f" {seconds / half['seconds']:>8.2f} {added / half['peak_bytes']:>9.2f}"
    print(row, flush=True)


def measure(layer: str, num_tokens: int, backend: str, is_backward: bool) -> dict[str, Any]:
    """The time of a call on one text, and the bytes that its first run adds at the peak."""
    call = make_call(layer, num_tokens, backend, is_backward)
    make_call(layer, 200, backend, is_backward)()  # loads the libraries, and little else
    added = bytes_added_by(call)
    seconds: list[float] = []
    while len(seconds) < NUM_RUNS or sum(seconds) < SHORTEST_S:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return {
        "layer": layer,
        "num_tokens": num_tokens,
        "seconds": min(seconds),
        "median_seconds": statistics.median(seconds),
        "num_runs": len(seconds),
        "peak_bytes": added,
    }


def make_call(layer: str, num_tokens: int, backend: str, is_backward: bool) -> Callable[[], None]:
    """A call of `attend` on one text of that length."""
    torch.manual_seed(0)
    qkv = torch.randn(num_tokens, 3, NUM_HEADS, HEAD_DIM, requires_grad=is_backward)
    bounds = torch.tensor([0, num_tokens], dtype=torch.int32)

    def call() -> None:
        q, k, v = qkv.unbind(1)  # as a model's attention cuts it
        out = attend(q, k, v, bounds, num_tokens, window_each_side=LAYERS[layer], backend=backend)
        if is_backward:
            qkv.grad = None
            out.backward(out.detach())

    return call


def bytes_added_by(call: Callable[[], None]) -> int:
    """What the call adds at its peak to the resident size of this process."""
    if sys.platform != "linux":  # the only peak there is covers the whole life of the process
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        call()
        added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        return added if sys.platform == "darwin" else added * 1024
    Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is resident now (man 5 proc)
    before = resident_kib("VmRSS")
    call()
    return 1024 * (resident_kib("VmHWM") - before)


def resident_kib(field: str) -> int:
    """A size of this process from /proc: VmRSS is now, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def plot(points: list[dict[str, Any]], name: str) -> str:
    """Time and memory a token against the length, one line a layer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    columns = (("seconds", 1e6, "microseconds a token"), ("peak_bytes", 1 / 1024, "KiB a token"))
    for axis, (key, scale, label) in zip(axes, columns, strict=True):
        for layer in LAYERS:
            chosen = [point for point in points if point["layer"] == layer]
            lengths = [point["num_tokens"] for point in chosen]
            values = [scale * point[key] / point["num_tokens"] for point in chosen]
            axis.plot(lengths, values, marker="o", label=f"{layer} layer")
        axis.set_xscale("log", base=2)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("tokens in the text")
        axis.set_ylabel(label)
        axis.legend()
    figure.suptitle(f"Attention of one layer, {NUM_HEADS} heads of {HEAD_DIM}, float32, {processor_name()}")
    path = results_path(name, ".png")
    figure.savefig(path, dpi=120)
    return str(path)


if __name__ == "__main__":
    main()
