"""What the loss of masked tokens costs in memory and time: chunk by chunk, beside all logits at once.

    python benchmarks/loss_memory.py

Forward and backward of a decoder of 50,368 entries and its cross entropy, for growing numbers of masked
tokens. Each point runs in a process of its own; memory is what its first call adds to the resident size at
the peak, the gradient of the matrix (49 MiB at width 256) included. Time is the fastest of three calls, and
means something only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import torch
from common import description, write_results
from local_attention import bytes_added_by
from torch.nn.functional import cross_entropy, linear

from modernbert.kernels.cross_entropy import linear_cross_entropy

VOCABULARY, HIDDEN = 50_368, 256
NUM_MASKED = (307, 1228, 4915)  # 30 % of 1,024, 4,096 and 16,384 tokens
WAYS = ("chunks", "plain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--point", nargs=2, metavar=("WAY", "TOKENS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        way, num_masked = arguments.point
        print(json.dumps(measure(way, int(num_masked))))
        return
    print(description())
    print(f"\n{'masked':>8} {'chunks MiB':>11} {'plain MiB':>10} {'chunks s':>9} {'plain s':>8}")
    points: list[dict[str, Any]] = []
    for num_masked in NUM_MASKED:
        chunks, plain = (point_in_a_child(way, num_masked) for way in WAYS)
        points += [chunks, plain]
        mib = [each["peak_bytes"] / 2**20 for each in (chunks, plain)]
        print(
            f"{num_masked:>8,} {mib[0]:>11,.0f} {mib[1]:>10,.0f} {chunks['seconds']:>9.2f} "
            f"{plain['seconds']:>8.2f}",
            flush=True,
        )
    data = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "dtype": "float32", "points": points}
    print(f"\nwritten: {write_results('loss_memory', data)}")


def point_in_a_child(way: str, num_masked: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--point", way, str(num_masked)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(way: str, num_masked: int) -> dict[str, Any]:
    """The bytes that the first call adds, and the seconds of the fastest of three more."""
    torch.manual_seed(0)
    hidden = torch.randn(num_masked, HIDDEN, requires_grad=True)
    weight = torch.nn.Parameter(torch.randn(VOCABULARY, HIDDEN) * 0.02)
    bias = torch.nn.Parameter(torch.zeros(VOCABULARY))
    labels = torch.randint(VOCABULARY, (num_masked,))

    def call() -> None:
        hidden.grad = weight.grad = bias.grad = None
        if way == "chunks":
            loss = linear_cross_entropy(hidden, weight, bias, labels).loss
        else:
            loss = cross_entropy(linear(hidden, weight, bias), labels, reduction="sum")
        (loss / num_masked).backward()

    linear(hidden[:8].detach(), weight[:8].detach()).sum()  # loads the libraries, and little else
    peak_bytes, seconds = bytes_added_by(call), []
    for _ in range(3):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return {"way": way, "num_masked": num_masked, "peak_bytes": peak_bytes, "seconds": min(seconds)}


if __name__ == "__main__":
    main()
