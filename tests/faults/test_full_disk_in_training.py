"""A run on a disk that fills says so, keeps its last checkpoint, and goes on once there is room."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from modernbert.errors import TrainingError
from modernbert.training import checkpoint, journal
from modernbert.training.loop import CHECKPOINTS
from modernbert.training.run import Switches, pretrain
from tests.training.small_corpus import small_shards
from tests.training.small_recipe import small_recipe

ON_CPU = Switches(device="cpu")


def mount(options: str, disk: Path) -> subprocess.CompletedProcess[str]:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_full_disk_is_named_and_the_run_goes_on_once_there_is_room(tmp_path):
    recipe = replace(small_recipe(), evaluate_every_tokens=10**9)
    shards = small_shards(tmp_path).folder
    assert pretrain(recipe, shards, tmp_path / "whole", switches=ON_CPU)
    last = checkpoint.newest(tmp_path / "whole" / CHECKPOINTS)
    assert last is not None
    size = sum(path.stat().st_size for path in last.iterdir())
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = mount(f"size={2 * size + size // 2}", disk)  # room for two, and half of a third
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        with pytest.raises(TrainingError, match=r"(?s)no space left .* the last good checkpoint is .*step-"):
            pretrain(recipe, shards, disk / "run", switches=ON_CPU)
        assert mount(f"remount,size={10 * size}", disk).returncode == 0
        assert pretrain(recipe, shards, disk / "run", switches=ON_CPU)
        losses = [
            [row["loss"] for row in journal.read(folder / journal.STEPS)]
            for folder in (tmp_path / "whole", disk / "run")
        ]
        assert losses[0] == losses[1]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
