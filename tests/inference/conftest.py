"""Tiny models of every kind, written once for a test run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import modernbert
from modernbert.inference.pipeline import Model
from tests.inference.tiny import BERT_HEADS, HEADS, write_tiny


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a tiny model by the name of its head and its family."""

    @cache
    def written(name: str, family: str = "modernbert") -> Path:
        heads = HEADS if family == "modernbert" else BERT_HEADS
        return write_tiny(tmp_path_factory.mktemp(f"{family}-{name}") / "model", heads[name], family=family)

    return written


@pytest.fixture(scope="session")
def model_of(folder_of: Callable[..., Path]) -> Callable[..., Model]:
    """The tiny model itself, in float32 on the CPU."""

    @cache
    def loaded(name: str, family: str = "modernbert") -> Model:
        return modernbert.load(folder_of(name, family), dtype="float32", device="cpu")

    return loaded
