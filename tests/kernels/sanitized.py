"""Run by test_native_library under the sanitisers: all parts and precisions on a folder's library."""

import sys
import tempfile
from pathlib import Path

import torch

from modernbert.kernels import native_library


def main() -> None:
    native_library.FOLDER = Path(sys.argv[1])
    from tests.encoder.native_models import built, hidden, random_batch, random_config, small_preset

    assert native_library.library() is not None, native_library.missing()
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        for products in native_library.PRODUCTS:
            keep_and_map(products)
            for seed in range(12):
                encoder = built(random_config(seed), seed, products)
                hidden(encoder, random_batch([40, 1, 100, 7, 200], seed))
            encoder = built(small_preset("ettin-17m"), products=products)
            for length in range(1, 40):
                hidden(encoder, random_batch([length]))
            hidden(encoder, random_batch(list(range(1, 70))))
            hidden(encoder, random_batch([1000, 161, 96]))


def keep_and_map(products: str) -> None:
    """Plans on files of packed weights, whole and cut at every kind of block."""
    from modernbert.encoder.native import Plan
    from modernbert.encoder.watched import Watched
    from tests.encoder.native_models import built, random_batch, random_config

    encoder = built(random_config(3), 3, products)
    if products == "bfloat16" and not native_library.has_bf16():
        products = "float32"  # what such weights are multiplied as
    library = native_library.library()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "packed-a"
        for _ in range(2):
            plan = Plan(library, encoder, Watched(encoder), products, path)
            assert plan.num_bytes == 0
            plan.forward(random_batch([40, 1, 100], 3))
        content = path.read_bytes()
        for num_bytes in range(64, len(content), len(content) // 50 // 64 * 64):
            path.unlink()
            path.write_bytes(content[:num_bytes])
            assert Plan(library, encoder, Watched(encoder), products, path).num_bytes == 0
            assert path.read_bytes() == content


if __name__ == "__main__":
    main()
