"""kill -9 at any moment costs time and nothing else: what follows is bit for bit what would have come."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modernbert.training import journal
from tests.faults.train_child import MOMENTS
from tests.training.small_corpus import small_shards

ROOT = Path(__file__).parent.parent.parent
TIMED = ("tokens_per_second", "share_of_roofline")
NUM_KILLS = 20


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return small_shards(tmp_path_factory.mktemp("corpus")).folder


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """An uninterrupted run: its losses, and the bytes of its model."""
    folder = tmp_path_factory.mktemp("whole")
    assert child(shards, folder).wait(120) == 0
    return what_it_did(folder)


def child(*arguments: object) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    script = str(ROOT / "tests" / "faults" / "train_child.py")
    return subprocess.Popen(
        [sys.executable, script, *map(str, arguments)], env=environment, cwd=ROOT, stderr=subprocess.DEVNULL
    )


def what_it_did(folder: Path) -> tuple[list[dict], list[dict], bytes]:
    rows = [{k: v for k, v in row.items() if k not in TIMED} for row in journal.read(folder / journal.STEPS)]
    weights = (folder / "final" / "model.safetensors").read_bytes()
    return rows, journal.read(folder / journal.EVALUATIONS), weights


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_the_worst_moments_changes_nothing(shards, whole, tmp_path, moment, count):
    assert child(shards, tmp_path, moment, count).wait(120) == -signal.SIGKILL
    assert not (tmp_path / "final").exists()
    assert child(shards, tmp_path).wait(120) == 0
    assert what_it_did(tmp_path) == whole
    left_over = [path.name for path in (tmp_path / "checkpoints").iterdir() if ".new-" in path.name]
    assert left_over == [], "what a kill left is cleaned up by the next run"


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(shards, whole, tmp_path):
    generator = random.Random(20_261_124)
    num_killed = 0
    while num_killed < NUM_KILLS:
        process = child(shards, tmp_path)
        lines_before = len(journal.read(tmp_path / journal.STEPS))
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if len(journal.read(tmp_path / journal.STEPS)) != lines_before:
                break  # it has begun to take steps
            time.sleep(0.01)
        time.sleep(generator.uniform(0.0, 0.25))
        if process.poll() is not None:
            break
        process.kill()
        num_killed += process.wait(60) == -signal.SIGKILL
    assert child(shards, tmp_path).wait(120) == 0
    assert what_it_did(tmp_path) == whole
    assert num_killed >= NUM_KILLS, f"the run was over after {num_killed} kills: make it longer"
