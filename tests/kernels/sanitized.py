"""Run by test_native_library under the sanitisers: all parts and precisions on a folder's library."""

import sys
from pathlib import Path

import torch

from modernbert.kernels import native_library


def main() -> None:
    native_library.FOLDER = Path(sys.argv[1])
    from tests.encoder.native_models import built, hidden, random_batch, random_config, small_preset

    assert native_library.library() is not None, native_library.missing()
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        for is_int8 in (False, True):
            for seed in range(12):
                encoder = built(random_config(seed), seed)
                encoder.native.is_int8 = is_int8
                hidden(encoder, random_batch([40, 1, 100, 7, 200], seed))
            encoder = built(small_preset("ettin-17m"))
            encoder.native.is_int8 = is_int8
            for length in range(1, 40):
                hidden(encoder, random_batch([length]))
            hidden(encoder, random_batch(list(range(1, 70))))
            hidden(encoder, random_batch([1000, 161, 96]))


if __name__ == "__main__":
    main()
