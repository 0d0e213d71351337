"""The native forward beside our own modules: fp32 and 8 bits, with one thread, in processor time.

For a machine that is not quiet: processor time leaves out what other processes take, and one thread waits for
no other. The comparison with other packages, with all threads and by the clock, is inference.py. The three
take turns; shown is the median of each, as real tokens a second.

    python benchmarks/native.py [--models nano minilm-l6] [--cases 1x16 8x512] [--seconds 4]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from modernbert.encoder.encoder import Encoder, EncoderConfig
from modernbert.encoder.presets import PRESETS, modernbert_sized
from modernbert.text.batch import PackedBatch

CASES = {
    "1x16": (16,),
    "4x64": (64,) * 4,
    "32x16": (16,) * 32,
    "8x32-512": (238, 512, 32, 375, 169, 443, 101, 306),
    "8x512": (512,) * 8,
    "2x2048": (2048,) * 2,
    "1x8192": (8192,),
}


def nano() -> EncoderConfig:
    """The size of the small model that comes with the package."""
    return modernbert_sized(
        num_layers=7,
        hidden_size=256,
        num_heads=4,
        intermediate_size=384,
        vocab_size=16_384,
        pad_token_id=0,
    )


MODELS: dict[str, Callable[[], EncoderConfig]] = {"nano": nano, **PRESETS}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=["nano", "minilm-l6", "modernbert-base"]
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["1x16", "32x16", "8x32-512", "8x512"])
    parser.add_argument("--seconds", type=float, default=4, help="for each case; at least three passes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("model            case       native  modules  int8    native/modules  int8/modules")
    for name in args.models:
        torch.manual_seed(0)
        encoders = [MODELS[name]().build().eval() for _ in range(2)]
        encoders[1].load_state_dict(encoders[0].state_dict())
        encoders[1].native.is_int8 = True
        for case in args.cases:
            if max(CASES[case]) <= encoders[0].config.max_positions:
                measure(name, case, *encoders, seconds=args.seconds)


def measure(name: str, case: str, exact: Encoder, small: Encoder, seconds: float) -> None:
    """One line of the table."""
    sequences = [torch.randint(exact.config.vocab_size, (n,)).tolist() for n in CASES[case]]
    batch = PackedBatch.from_sequences(sequences)
    ways = [lambda: exact(batch, "native"), lambda: exact(batch, "sdpa"), lambda: small(batch, "native")]
    times: list[list[float]] = [[], [], []]
    with torch.inference_mode():
        for way in ways:
            way()
        end = time.perf_counter() + seconds
        while len(times[-1]) < 3 or time.perf_counter() < end:
            for way, found in zip(ways, times, strict=True):
                start = time.process_time()
                way()
                found.append(time.process_time() - start)
    native, modules, int8 = (statistics.median(found) for found in times)
    rates = "".join(f"{batch.num_tokens / each:<9,.0f}" for each in (native, modules, int8))
    print(f"{name:<17}{case:<11}{rates}{modules / native:<16.2f}{modules / int8:.2f}", flush=True)


if __name__ == "__main__":
    main()
