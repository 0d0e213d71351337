"""Quiet, and no network, for the libraries that the parity tests run beside the package."""

from __future__ import annotations

import huggingface_hub.constants
import pytest
import transformers


@pytest.fixture(autouse=True, scope="session")
def _no_progress_bars() -> None:
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentence Transformers asks the hub about every folder that it saves or loads, and waits."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
