"""Encoders to begin with, and runs that draw nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.inference.tiny import BERT_HEADS, write_tiny
from tests.training import small_pairs
from tests.training.small_task import write_tiny_encoder


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for ModernBERT's parts and one for BERT's."""
    folder = tmp_path_factory.mktemp("encoders")
    write_tiny(folder / "bert", BERT_HEADS["mlm"], family="bert")
    return {"modernbert": write_tiny_encoder(folder / "modernbert"), "bert": folder / "bert"}


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that knows the words of small_pairs."""
    return small_pairs.write_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn after every epoch, they take most of the time of a tiny run; others test them."""
    monkeypatch.setattr("modernbert.training.report.has_pictures", lambda: False)
