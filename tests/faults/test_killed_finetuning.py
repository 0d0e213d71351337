"""A fine-tuning that is killed at any change of the disk, or that finds the disk full, ends as one that was
left alone: the same losses and figures, the same model, and nothing half-written beside it.
"""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from modernbert.training import finetune_trial, journal
from modernbert.training.finetune_run import finetune
from modernbert.training.finetuning import Finetuning
from modernbert.training.run import Switches
from modernbert.training.tasks.classify import Classify
from tests.faults.children import KILLED, die_at, run_child
from tests.training.small_task import write_reviews, write_tiny_encoder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:learning brought nothing better"),
]
SHORT = Finetuning(
    epochs=2, batch_size=16, learning_rate=3e-3, pack_tokens=400, patience=None, save_every_tokens=300
)
# Changes of the disk from one death to the next; a run left alone makes about four hundred.
FEWEST, MOST = 20, 200
# KiB: less than the first checkpoint, and room for all.
SMALLEST, LARGE = 30, 8_000


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads do not survive a fork."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finetuning")
    write_reviews(folder / "reviews.csv", 80)
    write_tiny_encoder(folder / "encoder")
    return folder


def run(place: Path, out: Path, *, dies_at: int | None = None) -> Path | None:
    if dies_at is not None:
        die_at(dies_at)
    source, encoder = place / "reviews.csv", place / "encoder"
    return finetune(
        Classify(), source, model=encoder, out=out, settings=SHORT, switches=Switches(device="cpu")
    )


@pytest.fixture(scope="module")
def whole(place) -> tuple[object, ...]:
    out = place / "whole" / "model"
    assert run_child(partial(run, place, out)) == (0, "")
    return what_it_left(out)


def what_it_left(out: Path) -> tuple[object, ...]:
    """The losses, the files that equal runs have alike, and the names of all; tensorboard's tell the time."""
    losses = [row["loss"] for row in journal.read(out / journal.STEPS)]
    files = ("model.safetensors", "evaluations.jsonl", "predictions.jsonl", "results.json", "recipe.json")
    names = sorted(path.name for path in out.iterdir())
    return losses, [(out / name).read_bytes() for name in files], names, [*out.parent.iterdir()] == [out]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_fine_tuning_is_killed_again_and_again_and_ends_as_if_it_never_were(place, whole, tmp_path, seed):
    draw, out = random.Random(seed), tmp_path / "run" / "model"
    num_killed = 0
    while (end := run_child(partial(run, place, out, dies_at=draw.randint(FEWEST, MOST))))[0] == KILLED:
        num_killed += 1
    assert end == (0, "")
    assert num_killed > 2
    assert what_it_left(out) == whole


def mount(options: str, disk: Path) -> subprocess.CompletedProcess[str]:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system that holds the rows, and not the first checkpoint."""
    (tmp_path / "disk").mkdir()
    mounted = mount(f"size={SMALLEST}k", tmp_path / "disk")
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield tmp_path / "disk"
    subprocess.run(["umount", str(tmp_path / "disk")], check=True)


def test_a_full_disk_is_named_wherever_it_comes_and_the_run_goes_on_once_there_is_room(place, whole, disk):
    out, size, told = disk / "model", SMALLEST, list[str]()
    while (end := run_child(partial(run, place, out)))[0]:
        told.append(end[1])
        assert not out.exists()
        assert [path for path in disk.rglob("*") if ".new-" in path.name] == [], "nothing is half-written"
        size = size * 4 // 3
        assert mount(f"remount,size={size}k", disk).returncode == 0
    assert all(
        re.match(rf"(?s)TrainingError: no space left .*{disk}.*run the same command", one) for one in told
    )
    for state in (
        "what was learned so far is in",
        "there is no checkpoint yet",
        "the last good checkpoint is",
    ):
        assert any(state in one for one in told), state
    assert what_it_left(out) == whole


def test_a_disk_that_fills_while_the_report_is_written_costs_nothing(place, whole, disk, monkeypatch):
    assert mount(f"remount,size={LARGE}k", disk).returncode == 0
    ballast, write = disk / "ballast", finetune_trial.write_report

    def fill_and_write(*given: Any, **named: Any) -> None:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        write(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(finetune_trial, "write_report", fill_and_write)
        code, error = run_child(partial(run, place, disk / "run" / "model"))
    assert code == 1
    assert re.match(
        r"(?s)TrainingError: no space left .*; what was learned so far is in .*model.unfinished", error
    )
    assert not (disk / "run" / "model").exists()
    ballast.unlink()
    assert run_child(partial(run, place, disk / "run" / "model")) == (0, "")
    assert what_it_left(disk / "run" / "model") == whole
