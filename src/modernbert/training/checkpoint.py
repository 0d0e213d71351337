"""Checkpoints: all that a run needs to go on as if it had never stopped.

    runs/nano/checkpoints/step-00001200/            model and optimiser, by torch.distributed.checkpoint
                                        run.json    where the run stands: step, tokens, place in the data
                          step-00002400-end/        the end of a phase, which is never pruned

A checkpoint is written under another name and renamed when it is whole and on the disk, so there is never
half of one. It may be read by another number of processes than wrote it. Its index is a pickle, as torch
writes it: load your own checkpoints only. Model folders hold none.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from modernbert.errors import TrainingError
from modernbert.files import folder_being_written, write_atomic
from modernbert.training.parallel import Group

STATE_FILE = "run.json"
_CHUNK_BYTES = 2**20
_NAME = re.compile(r"step-(\d{8})(-end)?")
# Flat names, by parameter: the only form of an optimiser's state that another number of processes can read.
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def save(
    folder: Path,
    module: nn.Module,
    optimizer: Optimizer,
    state: dict[str, Any],
    *,
    step: int,
    is_end: bool,
    group: Group,
) -> Path:
    """Write the checkpoint of this step into `folder`; all processes call it, and it is there on return.

    Raises OSError where it cannot be written; what stood in `folder` before is then as it was.
    """
    target = folder / f"step-{step:08d}{'-end' if is_end else ''}"
    content = _content(module, optimizer)
    if group.is_alone:
        with folder_being_written(target) as temporary, _known_warnings_off():
            with _full_disk_known(temporary):
                state_dict_saver.save(content, checkpoint_id=temporary, no_dist=True)
            _write_state(temporary, state)
        return target
    _save_together(target, content, state, group)
    return target


def state_of(path: Path) -> dict[str, Any]:
    """Where the run stood at a checkpoint, without its weights; TrainingError where that cannot be read."""
    try:
        return json.loads((path / STATE_FILE).read_text())["state"]
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(path, error) from error


def load(path: Path, module: nn.Module, optimizer: Optimizer, group: Group) -> dict[str, Any]:
    """Fill module and optimiser from a checkpoint, and give the state that was saved with them."""
    content = _content(module, optimizer)
    try:
        state = _read_state(path)
        with _known_warnings_off():
            state_dict_loader.load(content, checkpoint_id=path, no_dist=group.is_alone)
    except (CheckpointException, OSError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise _unreadable(path, error) from error
    set_model_state_dict(module, content["model"])
    set_optimizer_state_dict(module, optimizer, content["optimizer"], options=_FLAT)
    return state


def whole_weights(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, put together from the processes that share them, on the CPU.

    Every process calls it; only the main one gets them.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast(dict[str, Tensor], get_model_state_dict(module, options=options))


def newest(folder: Path) -> Path | None:
    """The checkpoint with the most steps in `folder`; None where there is none."""
    found = _all(folder)
    return found[-1] if found else None


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill left of a checkpoint that was being written; only for who holds the run's folder."""
    for path in folder.glob(".step-*.new-*"):
        shutil.rmtree(path)


def prune(folder: Path, num_kept: int) -> None:
    """Remove all but the newest `num_kept` checkpoints and the ends of phases."""
    for path in [each for each in _all(folder) if not each.name.endswith("-end")][: -num_kept or None]:
        shutil.rmtree(path)


def _all(folder: Path) -> list[Path]:
    """Whole checkpoints by their steps; what is still being written has another name."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: path.name)


def _content(module: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    return {
        "model": get_model_state_dict(module),
        "optimizer": get_optimizer_state_dict(module, optimizer, options=_FLAT),
    }


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    """The state, with sizes and checksums of the files beside it: a changed file is known before use."""
    files = sorted(folder.iterdir())
    sizes = {path.name: path.stat().st_size for path in files}
    checksums = {path.name: _checksum(path) for path in files}
    write_atomic(folder / STATE_FILE, json.dumps({"state": state, "bytes": sizes, "crc32": checksums}))


def _read_state(path: Path) -> dict[str, Any]:
    content = json.loads((path / STATE_FILE).read_text())
    for name, size in content["bytes"].items():
        if (found := (path / name).stat().st_size) != size:
            raise ValueError(f"{name} has {found} bytes instead of {size}")
    for name, checksum in content.get("crc32", {}).items():
        if _checksum(path / name) != checksum:
            raise ValueError(f"{name} is not as it was written: its checksum is another")
    return content["state"]


def _checksum(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found = zlib.crc32(chunk, found)
    return found


def _unreadable(path: Path, error: BaseException) -> TrainingError:
    return TrainingError(
        f"{path} cannot be read ({type(error).__name__}: {str(error)[:300]}); remove that folder, and "
        "the run goes on from the checkpoint before it"
    )


@contextmanager
def _full_disk_known(folder: Path) -> Generator[None]:
    """torch's writer does not say why it failed; where the disk is full, that was it."""
    try:
        yield
    except (CheckpointException, RuntimeError) as error:
        if shutil.disk_usage(folder).free >= _CHUNK_BYTES:
            raise
        raise OSError(errno.ENOSPC, "no space left on device", str(folder)) from error


def _save_together(target: Path, content: dict[str, Any], state: dict[str, Any], group: Group) -> None:
    """The main process makes the folder and renames it; the others write their shares into it meanwhile."""
    if not group.is_main:
        temporary = group.from_main(None)
        state_dict_saver.save(content, checkpoint_id=temporary)
        group.wait()
        return
    with folder_being_written(target) as temporary:
        shared = group.from_main(temporary)
        with _full_disk_known(temporary):
            state_dict_saver.save(content, checkpoint_id=shared)
        _write_state(temporary, state)
    group.wait()


@contextmanager
def _known_warnings_off() -> Generator[None]:
    """torch says of every checkpoint of a lone process that there are no others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable")
        yield
