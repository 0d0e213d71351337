"""A save for which there is no room, or no right to write, says so and leaves the old folder as it was."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modernbert.errors import FolderError
from modernbert.pretrained.composer import write_checkpoint
from modernbert.pretrained.folder import read_folder, write_folder
from tests.faults.children import run_child, snapshot
from tests.pretrained.small_models import small_model, small_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    write_folder(tmp_path / "model", small_model(seed=1, tokenizer=small_tokenizer()))
    return tmp_path / "model"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def limit_files(num_bytes: int) -> None:
    """No file of this process may grow past that: what a full disk looks like to a writer."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


# config.json, the weights and the tokenizer, in the order of their writing and of their size
@pytest.mark.parametrize("num_bytes", [1, 900, 2_500, 10_000, 30_000])
def test_no_room_for_a_file_leaves_the_old_folder(target, num_bytes):
    before = snapshot(target)
    assert max(map(len, before.values())) > num_bytes

    def save() -> None:
        limit_files(num_bytes)
        write_folder(target, small_model(seed=2, tokenizer=small_tokenizer()))

    code, error = run_child(save)
    assert code == 1
    assert error.startswith(f"FolderError: {target} could not be written: ")
    assert "File too large" in error
    assert "It is as it was before" in error
    assert "room for a second copy" in error
    assert snapshot(target) == before
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_no_room_for_a_first_save_leaves_nothing(tmp_path):
    def save() -> None:
        limit_files(900)
        write_folder(tmp_path / "model", small_model())

    code, error = run_child(save)
    assert code == 1
    assert "Nothing is left of it" in error
    assert not list(tmp_path.iterdir())


def test_no_room_for_a_checkpoint_leaves_the_old_one(tmp_path):
    path = tmp_path / "latest-rank0.pt"
    write_checkpoint(path, small_model(seed=1))
    before = path.read_bytes()

    def save() -> None:
        limit_files(5_000)
        write_checkpoint(path, small_model(seed=2))

    code, error = run_child(save)
    assert code == 1
    assert error.startswith(f"FolderError: {path} could not be written: ")
    assert "It is as it was before" in error
    assert path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["latest-rank0.pt"]


def test_a_full_disk_leaves_the_old_folder(small_disk):
    target = small_disk / "model"
    write_folder(target, small_model(seed=1, tokenizer=small_tokenizer()))
    (target / "notes.bin").write_bytes(b"x" * 40_000)
    before = snapshot(target)
    with pytest.raises(
        FolderError, match=r"could not be written: .*No space left on device.*It is as it was"
    ):
        write_folder(target, small_model(seed=2, tokenizer=small_tokenizer()))
    assert snapshot(target) == before
    assert [path.name for path in small_disk.iterdir()] == ["model"]
    (target / "notes.bin").unlink()
    write_folder(target, small_model(seed=2, tokenizer=small_tokenizer()))
    read_folder(target)


def test_a_place_that_may_not_be_written_is_named(target, monkeypatch):
    before = snapshot(target)
    mkdir = os.mkdir

    def refuse(path, *args, **kwargs):
        if ".new-" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(FolderError, match=r"Permission denied.*the right to write there"):
        write_folder(target, small_model(seed=2))
    assert snapshot(target) == before


def test_a_mount_point_cannot_be_replaced_and_says_so(small_disk):
    (small_disk / "config.json").write_text("{}")
    with pytest.raises(FolderError, match=r"could not be written: .*(busy|cross-device)"):
        write_folder(small_disk, small_model())
    assert [path.name for path in small_disk.parent.iterdir()] == ["disk"]
