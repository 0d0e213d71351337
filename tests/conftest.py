"""What holds for every test."""

import os
from pathlib import Path

import pytest
import torch

# Models in tests are tiny: a second thread only waits for the first, and for the other jobs of the machine.
torch.set_num_threads(1)
# Nothing is written into the cache of whoever runs the tests; those of packed files name their own folder.
os.environ["MODERNBERT_PACKED"] = ""


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The real data sets; MODERNBERT_DATA names the folder that holds `data/`."""
    root = os.environ.get("MODERNBERT_DATA")
    if not root:
        pytest.skip("needs the real data sets: set MODERNBERT_DATA to the folder that holds data/")
    return Path(root) / "data"
