"""The example of a user's own parts runs as it stands, and only who names them reads its parts back."""

from __future__ import annotations

import runpy
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

import modernbert
from modernbert.errors import ConfigError
from modernbert.pretrained.folder import Pretrained, write_folder
from modernbert.text.batch import PackedBatch

EXAMPLE = Path(__file__).parent.parent / "examples" / "own_part.py"
BATCH = PackedBatch.from_sequences([[5, 17, 300], [9, 9, 2, 41, 7], list(range(100))])


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


def saved(example, folder: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    config = example["own_config"]()
    module = config.build().eval()
    write_folder(folder, Pretrained(config=config, module=module))
    return module


def test_the_example_runs_as_a_reader_would_run_it():
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "3 texts, 208 tokens, vectors of 64 numbers",
        "saved and loaded: the same numbers and parts",
    ]


def test_a_model_of_own_parts_is_loaded_saved_again_and_the_same(example, tmp_path):
    module = saved(example, tmp_path / "first")
    first = modernbert.load(tmp_path / "first", parts=example["OWN_PARTS"], dtype="float32", device="cpu")
    first.save(tmp_path / "second")
    second = modernbert.load(tmp_path / "second", parts=example["OWN_PARTS"], dtype="float32", device="cpu")
    assert second.config == example["own_config"]()
    with torch.inference_mode():
        torch.testing.assert_close(second.module(BATCH), module(BATCH), atol=1e-6, rtol=0)


def test_own_parts_that_nobody_names_are_an_error_that_shows_how_to_name_them(example, tmp_path):
    saved(example, tmp_path / "model")
    with pytest.raises(
        ConfigError, match=r"unknown part 'my_s\w+'.*load\(folder, parts=\[YourPartConfig\]\)"
    ):
        modernbert.load(tmp_path / "model")


def test_own_parts_train_and_each_parameter_counts(example):
    torch.manual_seed(0)
    module = example["own_config"]().build()
    (module(BATCH) * torch.randn(3, 64)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@dataclass(frozen=True, kw_only=True, slots=True)
class CountingNormConfig(modernbert.Part):
    """A norm with both kinds of buffer: one that is computed anew in every build, and one that is saved."""

    kind: ClassVar[str] = "counting_norm"

    def build(self, hidden_size: int) -> nn.Module:
        return CountingNorm(hidden_size)


class CountingNorm(nn.Module):
    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("ramp", torch.arange(hidden_size) / hidden_size, persistent=False)
        self.register_buffer("shift", torch.zeros(hidden_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.ramp + self.shift


def test_buffers_of_an_own_part_are_there_after_loading(example, tmp_path):
    torch.manual_seed(0)
    config = example["own_config"]()
    config = replace(config, encoder=replace(config.encoder, final_norm=CountingNormConfig()))
    module = config.build().eval()
    module.model.final_norm.shift.normal_()
    write_folder(tmp_path / "model", Pretrained(config=config, module=module))
    parts = [*example["OWN_PARTS"], CountingNormConfig]
    read = modernbert.load(tmp_path / "model", parts=parts, dtype="float32", device="cpu")
    with torch.inference_mode():
        torch.testing.assert_close(read.module(BATCH), module(BATCH), atol=1e-6, rtol=0)


def test_own_positions_start_anew_in_every_sequence(example):
    positions = example["SinusoidConfig"]().build(8)
    vectors = positions(PackedBatch.from_sequences([[1] * 3, [2] * 4]))
    assert torch.equal(vectors[:3], vectors[3:6])
    assert not torch.equal(vectors[0], vectors[1])
