"""The loop: gradients of a whole step, resuming bit for bit, steps left out, signals, full disks."""

import errno
import json
import os
import signal
from dataclasses import replace

import pytest
import torch

from modernbert.errors import TrainingError
from modernbert.training import checkpoint, journal, loop
from modernbert.training.loop import CHECKPOINTS, Micro, resume, train
from tests.training.toy import ToyJob, toy_run

TIMED = ("tokens_per_second", "share_of_roofline")


def rows_of(folder):
    rows = journal.read(folder / journal.STEPS)
    return [{key: value for key, value in row.items() if key not in TIMED} for row in rows]


class Killed(BaseException):
    """What a kill is to the code that it ends: nothing runs after it but `finally`."""


class KilledJob(ToyJob):
    def __init__(self, at: int, **arguments) -> None:
        super().__init__(**arguments)
        self.at = at

    def step(self, index):
        if index == self.at:
            raise Killed
        return super().step(index)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("at", range(1, 12))
def test_a_run_that_was_killed_goes_on_bit_for_bit(tmp_path, at, dropout):
    whole = toy_run(tmp_path / "whole", dropout=dropout)
    assert train(whole)
    with pytest.raises(Killed):
        train(toy_run(tmp_path / "cut", KilledJob(at), dropout=dropout))
    again = toy_run(tmp_path / "cut", dropout=dropout)
    assert resume(again) is (at >= 2)
    torch.manual_seed(99)  # where the global generator stands must not matter
    assert train(again)
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    for ours, theirs in zip(whole.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_small_micro_batches_give_the_update_of_one_large_one(tmp_path):
    together, apart = (
        toy_run(tmp_path / "a", ToyJob(sizes=(8,))),
        toy_run(tmp_path / "b", ToyJob(sizes=(1, 5, 2))),
    )
    assert train(together)
    assert train(apart)
    for one, other in zip(rows_of(tmp_path / "a"), rows_of(tmp_path / "b"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-6)
    for ours, theirs in zip(together.module.parameters(), apart.module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_the_journal_tells_each_step(tmp_path):
    assert train(toy_run(tmp_path))
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["tokens"] for row in rows] == [8 * step for step in range(1, 13)]
    assert [row["phase"] for row in rows] == ["first"] * 6 + ["second"] * 6
    assert rows[0]["learning_rate"] == 0.05
    assert rows[0]["mask_rate"] == 0.3
    assert rows[-1]["loss"] < rows[0]["loss"]
    evaluations = journal.read(tmp_path / journal.EVALUATIONS)
    assert [row["step"] for row in evaluations] == [3, 6, 9, 12]


def test_checkpoints_are_pruned_but_for_the_ends_of_phases(tmp_path):
    assert train(toy_run(tmp_path))
    names = sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir())
    assert names == ["step-00000006-end", "step-00000008", "step-00000010", "step-00000012-end"]


def test_the_stage_is_entered_once_and_again_when_a_run_goes_on_inside_it(tmp_path):
    with pytest.raises(Killed):
        train(toy_run(tmp_path, KilledJob(9)))
    job = ToyJob()
    again = toy_run(tmp_path, job)
    resume(again)
    train(again)
    assert job.entered == ["second"]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_step_that_is_no_number_is_left_out_and_reported(tmp_path, wrong):
    run = toy_run(tmp_path, ToyJob(broken={4: wrong}))
    assert train(run)
    assert all(parameter.isfinite().all() for parameter in run.module.parameters())
    (accident,) = journal.read(tmp_path / journal.ACCIDENTS)
    assert accident["step"] == 5
    assert accident["skipped"] == "not a number"
    assert accident["documents"] == ["numbers of step 4"]
    assert [row["step"] for row in rows_of(tmp_path) if row["skipped"]] == [5]
    assert json.loads((tmp_path / journal.STEPS).read_text().splitlines()[4])["loss"] is None


def test_a_spike_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "NUM_CALM_STEPS", 2)
    assert train(toy_run(tmp_path, ToyJob(broken={4: 50.0}), spike_ratio=20.0))
    (accident,) = journal.read(tmp_path / journal.ACCIDENTS)
    assert "more than 20.0 times their means" in accident["skipped"]


class HardJob(ToyJob):
    """Some steps whose targets contradict each other: a loss of 9 more, and no longer a gradient."""

    def step(self, index):
        step = super().step(index)
        if index not in (20, 27, 33):
            return step
        x = torch.randn(4, 4, generator=torch.Generator().manual_seed(index))
        y = x.sum(dim=1).repeat(2) + 3 * torch.tensor([1.0, -1.0]).repeat_interleave(4)
        return replace(step, micros=[Micro(inputs=(x.repeat(2, 1), y), weight=8, number=index)])


def test_a_hard_text_with_an_ordinary_gradient_is_no_spike(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "NUM_CALM_STEPS", 4)
    assert train(toy_run(tmp_path, HardJob(num_steps=40, broken={35: 50.0})))
    losses = {row["step"]: row["loss"] for row in rows_of(tmp_path)}
    assert all(losses[step] > 5 * losses[step - 1] for step in (21, 28, 34))
    (accident,) = journal.read(tmp_path / journal.ACCIDENTS)
    assert accident["documents"] == ["numbers of step 35"]


def test_too_many_of_them_stop_the_run_with_their_documents_named(tmp_path):
    broken = {index: float("nan") for index in (1, 3, 4, 5)}
    run = toy_run(tmp_path, ToyJob(broken=broken))
    with pytest.raises(TrainingError, match=r"step 5 was left out .* 3 steps, more than the 2"):
        train(run)
    accidents = journal.read(tmp_path / journal.ACCIDENTS)
    assert [row["documents"] for row in accidents] == [[f"numbers of step {i}"] for i in (1, 3, 4)]
    assert checkpoint.newest(tmp_path / CHECKPOINTS).name == "step-00000003", "none is saved after a bad step"


class SignalledJob(ToyJob):
    def step(self, index):
        if index == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().step(index)


def test_a_signal_lets_the_step_end_saves_and_returns(tmp_path):
    assert train(toy_run(tmp_path, SignalledJob(), save_every_tokens=10**9)) is False
    assert checkpoint.newest(tmp_path / CHECKPOINTS).name == "step-00000005"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    again = toy_run(tmp_path)
    resume(again)
    assert train(again)
    assert train(toy_run(tmp_path / "whole"))
    assert rows_of(tmp_path) == rows_of(tmp_path / "whole")


def test_a_full_disk_keeps_the_last_checkpoint_and_says_so(tmp_path, monkeypatch):
    saves = []

    def save(*args: object, **kwargs: object) -> None:
        saves.append(args)
        if len(saves) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", "somewhere")
        original(*args, **kwargs)

    original = checkpoint.state_dict_saver.save
    monkeypatch.setattr(checkpoint.state_dict_saver, "save", save)
    with pytest.raises(
        TrainingError, match=r"no space left .* step 4; the last good checkpoint is .*step-00000002"
    ):
        train(toy_run(tmp_path))
    monkeypatch.setattr(checkpoint.state_dict_saver, "save", original)
    again = toy_run(tmp_path)
    resume(again)
    assert train(again)
    assert train(toy_run(tmp_path / "whole"))
    assert rows_of(tmp_path) == rows_of(tmp_path / "whole")


def test_a_step_without_weight_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="nothing to learn from"):
        train(toy_run(tmp_path, ToyJob(sizes=(0,))))


def test_gradients_are_clipped_where_asked(tmp_path):
    run = toy_run(tmp_path, max_grad_norm=1e-3)
    assert train(run)
    assert rows_of(tmp_path)[0]["gradient_norm"] > 1e-3  # what is told is the norm before
    norms = [parameter.grad.norm() for parameter in run.module.parameters()]
    assert torch.stack(norms).norm() == pytest.approx(1e-3, rel=1e-2)
