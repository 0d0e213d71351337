"""Checkpoints: bit for bit what was saved, whole or not there, pruned by rule."""

import errno

import pytest
import torch
from torch import nn

from modernbert.errors import TrainingError
from modernbert.training import checkpoint
from modernbert.training.parallel import Group

ALONE = Group(rank=0, world_size=1, device=torch.device("cpu"))


def trained(seed: int, num_steps: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8, bias=False))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for _ in range(num_steps):
        optimizer.zero_grad()
        module(torch.randn(4, 8)).square().sum().backward()
        optimizer.step()
    return module, optimizer


def saved(folder, step: int, *, is_end: bool = False, state: dict | None = None):
    module, optimizer = trained(0)
    return checkpoint.save(
        folder, module, optimizer, state or {"step": step}, step=step, is_end=is_end, group=ALONE
    )


def test_weights_optimiser_and_state_come_back_bit_for_bit(tmp_path):
    module, optimizer = trained(0)
    state = {"step": 3, "mean_loss": 0.1 + 0.2, "job": {"buffer": [[1, 2]]}}
    path = checkpoint.save(tmp_path, module, optimizer, state, step=3, is_end=False, group=ALONE)
    other, other_optimizer = trained(1, num_steps=1)
    assert checkpoint.load(path, other, other_optimizer, ALONE) == state
    for ours, theirs in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        kept, found = optimizer.state[ours], other_optimizer.state[theirs]
        assert kept.keys() == found.keys()
        assert all(torch.equal(kept[name], found[name]) for name in kept)


def test_the_newest_is_the_one_with_the_most_steps(tmp_path):
    assert checkpoint.newest(tmp_path / "none") is None
    for step in (9, 100, 20):
        saved(tmp_path, step)
    (tmp_path / ".step-00000999.new-12345678").mkdir()
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.name == "step-00000100"


def test_pruning_keeps_the_newest_and_the_ends_of_phases(tmp_path):
    saved(tmp_path, 1, is_end=True)
    for step in (2, 3, 4):
        saved(tmp_path, step)
    checkpoint.prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000001-end",
        "step-00000003",
        "step-00000004",
    ]


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "run.json"])
@pytest.mark.parametrize("cut", ["gone", "short"])
def test_a_broken_checkpoint_says_which_and_what_to_do(tmp_path, name, cut):
    path = saved(tmp_path, 5)
    content = (path / name).read_bytes()
    (path / name).unlink() if cut == "gone" else (path / name).write_bytes(content[:-3])
    module, optimizer = trained(1)
    with pytest.raises(TrainingError, match=r"step-00000005 cannot be read .* remove that folder"):
        checkpoint.load(path, module, optimizer, ALONE)


def test_a_save_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    saved(tmp_path, 1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.state_dict_saver, "save", full)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_flipped_bit_is_found_before_anything_is_loaded(tmp_path):
    path = saved(tmp_path, 3)
    file = next(each for each in path.iterdir() if each.suffix == ".distcp")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    module, optimizer = trained(1)
    before = [each.clone() for each in module.parameters()]
    with pytest.raises(TrainingError, match=rf"{file.name} is not as it was written.*remove that folder"):
        checkpoint.load(path, module, optimizer, ALONE)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
