"""Where the time of a training step goes, for each side and case of training.py: processor time by operation.

In the dtype that is the fastest here, as there. Products are told apart by whether the vocabulary, or a slice
of it, is one of their sides. One thread, so that nothing waits. Softmax and sums of attention are among the
other operations. The last line of a case says how much faster than transformers' sparse step a step of ours
would be that did these products and nothing else: the bound of what can still be won without faster products.

    python benchmarks/training_profile.py       a minute
"""

from __future__ import annotations

import re
import sys
from collections import Counter

import torch
from common import description, write_results
from torch.profiler import ProfilerActivity, profile
from transformers.utils import logging as transformers_logging

from modernbert.kernels.cross_entropy import CACHED_ROWS
from modernbert.kernels.hardware import resolve_dtype
from training import CASES, SIDES, VOCABULARY, Texts, build

STEPS = 3
PRODUCTS = ("products, vocabulary", "products, layers and head")
KINDS = {
    "mm": PRODUCTS,
    "addmm": PRODUCTS,
    "addmm_": PRODUCTS,
    "bmm": ("attention", "attention"),
    "baddbmm_": ("attention", "attention"),
    "baddbmm": ("attention", "attention"),
    "_scaled_dot_product_flash_attention_for_cpu": ("attention", "attention"),
    "_scaled_dot_product_flash_attention_for_cpu_backward": ("attention", "attention"),
    "gelu": ("activations", "activations"),
    "gelu_backward": ("activations", "activations"),
    "native_layer_norm": ("norms", "norms"),
    "native_layer_norm_backward": ("norms", "norms"),
    "_fused_adamw_": ("optimiser", "optimiser"),
}
VOCABULARY_SIDES = {VOCABULARY, CACHED_ROWS, VOCABULARY % CACHED_ROWS}
OTHERS = ("loss over the vocabulary", "other operations, mostly memory")


def main() -> None:
    transformers_logging.set_verbosity_error()
    torch.set_num_threads(1)
    print(description())
    dtype = resolve_dtype("auto", torch.device("cpu"))
    results = []
    for number, case in enumerate(CASES):
        seconds = {side: profiled(side, number, dtype) for side in SIDES}
        print_case(case.name, seconds)
        results.append({"case": case.name, "seconds": seconds, "bound": bound(seconds)})
    print(f"\nwrote {write_results('training_profile', {'dtype': str(dtype), 'results': results})}")


def profiled(side: str, case: int, dtype: torch.dtype) -> dict[str, float]:
    """Seconds of a step by kind of operation, the most first."""
    runner, texts = build(side, dtype), Texts.of(CASES[case])
    runner.step(texts)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        for _ in range(STEPS):
            runner.step(texts)
    seconds: Counter[str] = Counter()
    for event in recorded.key_averages(group_by_input_shape=True):
        name = event.key.removeprefix("aten::")
        has_vocabulary = bool(
            VOCABULARY_SIDES & {int(n) for n in re.findall(r"\d+", str(event.input_shapes))}
        )
        with_it, without = KINDS.get(name, OTHERS)
        seconds[with_it if has_vocabulary else without] += event.self_cpu_time_total / 1e6 / STEPS
    print(f"{CASES[case].name}, {side}: {sum(seconds.values()):.2f} s", file=sys.stderr, flush=True)
    return dict(seconds.most_common())


def bound(seconds: dict[str, dict[str, float]]) -> float:
    """Their sparse step by the products of ours alone."""
    return sum(seconds["sparse"].values()) / sum(seconds["modernbert"][each] for each in PRODUCTS)


def print_case(name: str, seconds: dict[str, dict[str, float]]) -> None:
    print(f"\n{name:<36}" + "".join(f"{side:>20}" for side in SIDES))
    for kind in seconds["dense"] | seconds["modernbert"]:
        cells = ((each.get(kind, 0.0), sum(each.values())) for each in seconds.values())
        print(f"{kind:<36}" + "".join(f"{part:>12.2f} s {part / total:>5.0%}" for part, total in cells))
    print(f"{'all':<36}" + "".join(f"{sum(each.values()):>12.2f} s      " for each in seconds.values()))
    print(f"our products alone would be {bound(seconds):.2f}x their sparse step")


if __name__ == "__main__":
    main()
