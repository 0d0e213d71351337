"""Quiet for the libraries that the parity tests run beside the package."""

from __future__ import annotations

import pytest
import transformers


@pytest.fixture(autouse=True, scope="session")
def _no_progress_bars() -> None:
    transformers.utils.logging.disable_progress_bar()
