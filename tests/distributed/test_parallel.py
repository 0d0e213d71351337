"""Two processes compute what one does, whatever the optimiser and the way the model is spread."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modernbert.errors import TrainingError
from modernbert.pretrained.folder import read_folder
from modernbert.training import journal
from modernbert.training.muon import COEFFICIENTS, NUM_ITERATIONS, orthogonalized
from modernbert.training.parallel import Group, joined, spread
from modernbert.training.run import Switches, pretrain
from tests.distributed.worker import recipe_with
from tests.training.small_corpus import small_shards

# fp32: sums of gradients in another order, over 25 steps of an optimiser that divides by their size. Measured
# with two processes, copies or shares: losses differ by 2e-7 (AdamW) to 4e-7 (ADOPT), weights by 1e-7
# (StableAdamW) to 8e-7 (ADOPT). Muon keeps inside too: its iterations amplify the rounding of a gradient (75
# times in the median here, 280 at most), but of a step of 1e-3 that is 2e-8. Its losses differ by 3e-7, its
# weights by 5e-7.
TOLERANCE = 1e-5
# Of one number in fp32; and what the iterations can make of it, by their slope at 0, where they are steepest.
ROUNDING, MOST_AMPLIFIED = 2.0**-24, COEFFICIENTS[0] ** NUM_ITERATIONS
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


def start(num_processes: int, *arguments: object, script: str = "worker.py") -> str:
    """What the processes of `script` print; where one fails, how each ended and what each said."""
    call = f"-X faulthandler -m torch.distributed.run --standalone --nproc-per-node {num_processes}".split()
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
        "PYTHONFAULTHANDLER": "1",
    }
    done = subprocess.run(
        [sys.executable, *call, str(ROOT / "tests/distributed" / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
        cwd=ROOT,
    )
    said = f"stderr:\n{done.stderr[-20_000:]}\nstdout:\n{done.stdout[-5_000:]}"
    assert done.returncode == 0, (
        f"torchrun ended with {done.returncode}; the exit codes are in its table\n{said}"
    )
    return done.stdout


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in journal.read(folder / journal.STEPS)]


def largest_difference(one: Path, other: Path) -> float:
    ours, theirs = (read_folder(each / "final").module.state_dict() for each in (one, other))
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.mark.parametrize("how", ["replicate", "shard"])
@pytest.mark.parametrize(
    "optimizer",
    [
        "stable_adamw",
        pytest.param("adamw", marks=pytest.mark.slow),
        pytest.param("adopt", marks=pytest.mark.slow),
        pytest.param("muon", marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one(alone, shards, tmp_path, optimizer, how):
    start(2, shards, tmp_path / "two", optimizer, how)
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


def test_a_process_leaves_only_when_gloo_holds_no_tensor_of_python():
    assert start(2, script="leaving.py").count("left") == 2


def test_a_lost_connection_says_to_run_the_command_again(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with (
        pytest.raises(TrainingError, match=r"process 1 of 2 lost.*closed by peer(.|\n)*same command"),
        joined("cpu"),
    ):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:7093.")
    with pytest.raises(RuntimeError, match="shapes"), joined("cpu"):
        raise RuntimeError("shapes do not fit")


@pytest.mark.parametrize("shape", [(96, 32), (24, 32)])
def test_muon_amplifies_rounding_by_no_more_than_its_slope(shape):
    generator = torch.Generator().manual_seed(7)
    left, _, right = torch.linalg.svd(
        torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False
    )
    values = torch.logspace(0, -6, min(shape), dtype=torch.float64)  # most of them far below the first
    matrix = (left * values) @ right
    noise = torch.randn(shape, generator=generator, dtype=torch.float64) * matrix.abs() * ROUNDING
    change = orthogonalized(matrix + noise) - orthogonalized(matrix)
    amplified = float(change.norm() / (noise.norm() / matrix.norm()))
    assert 0.5 * MOST_AMPLIFIED < amplified < 1.01 * MOST_AMPLIFIED


def test_the_journal_is_written_once(alone):
    text = (alone("stable_adamw") / journal.STEPS).read_text()
    steps = [json.loads(line)["step"] for line in text.splitlines()]
    assert steps == list(range(1, len(steps) + 1))


def test_a_module_alone_is_not_wrapped():
    module = torch.nn.Linear(2, 2)
    group = Group(rank=0, world_size=1, device=torch.device("cpu"))
    assert spread(module, torch.nn.ModuleList(), group, "shard") is module
