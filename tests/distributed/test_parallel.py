"""Two processes compute what one does, whatever the optimiser and the way the model is spread."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modernbert.pretrained.folder import read_folder
from modernbert.training import journal
from modernbert.training.run import Switches, pretrain
from tests.distributed.worker import recipe_with
from tests.training.small_corpus import small_shards

# fp32: sums of gradients in another order, over some twenty steps of an optimiser that divides by their size.
TOLERANCE = 1e-5
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return small_shards(tmp_path_factory.mktemp("corpus")).folder


@pytest.fixture(scope="module")
def alone(shards, tmp_path_factory):
    """Finished runs of one process, by optimiser."""
    made: dict[str, Path] = {}

    def run(optimizer: str) -> Path:
        if optimizer not in made:
            made[optimizer] = tmp_path_factory.mktemp("alone") / optimizer
            assert pretrain(recipe_with(optimizer), shards, made[optimizer], switches=Switches(device="cpu"))
        return made[optimizer]

    return run


def start(num_processes: int, *arguments: object) -> str:
    call = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(num_processes),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*call, str(ROOT / "tests/distributed/worker.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-20_000:]
    return done.stdout


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in journal.read(folder / journal.STEPS)]


def largest_difference(one: Path, other: Path) -> float:
    ours, theirs = (read_folder(each / "final").module.state_dict() for each in (one, other))
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.mark.parametrize("spread", ["replicate", "shard"])
@pytest.mark.parametrize(
    "optimizer",
    [
        "stable_adamw",
        pytest.param("adamw", marks=pytest.mark.slow),
        pytest.param("adopt", marks=pytest.mark.slow),
        pytest.param("muon", marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one(alone, shards, tmp_path, optimizer, spread):
    start(2, shards, tmp_path / "two", optimizer, spread)
    expected, found = losses(alone(optimizer)), losses(tmp_path / "two")
    assert len(expected) >= 20
    assert found == pytest.approx(expected, abs=TOLERANCE)
    assert largest_difference(alone(optimizer), tmp_path / "two") <= TOLERANCE


@pytest.mark.parametrize(("first", "then"), [(2, 1), pytest.param(1, 3, marks=pytest.mark.slow)])
def test_a_run_goes_on_with_another_number_of_processes(alone, shards, tmp_path, first, then):
    assert "ended" in start(first, shards, tmp_path / "run", "stable_adamw", "shard", 9)
    assert len(losses(tmp_path / "run")) == 9
    start(then, shards, tmp_path / "run", "stable_adamw", "shard")
    assert losses(tmp_path / "run") == pytest.approx(losses(alone("stable_adamw")), abs=TOLERANCE)
    assert largest_difference(alone("stable_adamw"), tmp_path / "run") <= TOLERANCE


def test_the_journal_is_written_once(alone):
    text = (alone("stable_adamw") / journal.STEPS).read_text()
    steps = [json.loads(line)["step"] for line in text.splitlines()]
    assert steps == list(range(1, len(steps) + 1))


def test_a_module_alone_is_not_wrapped():
    from modernbert.training.parallel import Group, spread

    module = torch.nn.Linear(2, 2)
    group = Group(rank=0, world_size=1, device=torch.device("cpu"))
    assert spread(module, torch.nn.ModuleList(), group, "shard") is module
