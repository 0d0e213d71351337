"""Encoders to begin with, one of each family."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.inference.tiny import BERT_HEADS, write_tiny
from tests.training.small_task import write_tiny_encoder


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for ModernBERT's parts and one for BERT's."""
    folder = tmp_path_factory.mktemp("encoders")
    write_tiny(folder / "bert", BERT_HEADS["mlm"], family="bert")
    return {"modernbert": write_tiny_encoder(folder / "modernbert"), "bert": folder / "bert"}
