"""A save that is killed at any moment leaves the old folder or the new one; the next save cleans up."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from pathlib import Path

import pytest

from modernbert import files
from modernbert.files import restore_interrupted
from modernbert.heads.embed import DenseConfig, EmbedHeadConfig
from modernbert.pretrained.composer import read_checkpoint, write_checkpoint
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from tests.faults.children import KILLED, die_at, run_child, snapshot, start_child
from tests.pretrained.small_models import small_model, small_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
NUM_KILLS = 20
SLOWEST_S = 0.03  # a save here takes about a third of that


@pytest.fixture(params=[True, False], ids=["exchange", "renames"])
def swap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)


@pytest.fixture(scope="module")
def models() -> tuple[Pretrained, Pretrained]:
    head = EmbedHeadConfig(dense=(DenseConfig(out_features=3),))
    return (
        small_model(seed=1, tokenizer=small_tokenizer(num_words=20)),
        small_model(seed=2, head=head, tokenizer=small_tokenizer(num_words=10)),
    )


@pytest.fixture
def target(tmp_path: Path, models: tuple[Pretrained, Pretrained]) -> Path:
    """A folder with the first model and what a user put beside it."""
    target = tmp_path / "my model"
    write_folder(target, models[0])
    (target / "README.md").write_text("mine")
    (target / "reports").mkdir()
    (target / "reports" / "loss.txt").write_text("1.0")
    return target


def whole_ones(target: Path, models: tuple[Pretrained, Pretrained]) -> list[dict[str, bytes]]:
    """What the folder may hold: each of the two models, with the user's files."""
    found = []
    for model in (*reversed(models),):
        write_folder(target, model)
        read_folder(target)
        found.append(snapshot(target))
        assert {"README.md", "reports/loss.txt"} <= found[-1].keys()
    assert found[0] != found[1]
    return found


def test_a_save_dies_at_every_moment(target, models, swap):
    whole = whole_ones(target, models)
    seen: set[int] = set()
    for moment, model in zip(itertools.count(1), itertools.cycle(models)):

        def save(moment=moment, model=model) -> None:
            die_at(moment)
            write_folder(target, model)

        code, error = run_child(save)
        restore_interrupted(target)  # as every reader does
        assert snapshot(target) in whole, f"moment {moment}"
        seen.add(whole.index(snapshot(target)))
        assert len(list(target.parent.iterdir())) <= 3, "what killed saves leave piles up"
        if code != KILLED:
            break
    assert (code, error) == (0, "")
    assert moment > 30, "the events of a save are no longer seen"
    assert seen == {0, 1}
    assert [path.name for path in target.parent.iterdir()] == ["my model"]


def test_a_first_save_dies_at_every_moment(tmp_path, models):
    write_folder(tmp_path / "whole", models[0])
    whole = snapshot(tmp_path / "whole")
    for moment in itertools.count(1):
        target = tmp_path / f"model {moment}"

        def save(moment=moment, target=target) -> None:
            die_at(moment)
            write_folder(target, models[0])

        code, _ = run_child(save)
        assert not target.exists() or snapshot(target) == whole
        write_folder(target, models[0])
        assert snapshot(target) == whole
        if code != KILLED:
            break
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_saves_are_killed_by_the_system_at_random_moments(target, models, swap):
    whole = whole_ones(target, models)
    generator = random.Random(0)

    def keep_saving() -> None:
        for model in itertools.cycle(models):
            write_folder(target, model)

    for _ in range(NUM_KILLS):
        child = start_child(keep_saving)
        time.sleep(generator.uniform(0, SLOWEST_S))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        restore_interrupted(target)
        assert snapshot(target) in whole
        assert len(list(target.parent.iterdir())) <= 3, "what killed saves leave piles up"
    write_folder(target, models[0])
    assert [path.name for path in target.parent.iterdir()] == ["my model"]


def test_a_checkpoint_dies_at_every_moment(tmp_path, models):
    path = tmp_path / "latest-rank0.pt"
    write_checkpoint(path, models[0])
    config = models[0].config
    for moment in itertools.count(1):

        def save(moment=moment) -> None:
            die_at(moment)
            write_checkpoint(path, small_model(seed=3))

        code, _ = run_child(save)
        if code != KILLED:
            break
        read_checkpoint(path, config)
        assert len(list(tmp_path.iterdir())) <= 2
    assert code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["latest-rank0.pt"]
