"""One process or many: who this process is, what the others hold, and how a module is spread over them.

`torchrun` starts one process for each device and names them in the environment; without it there is one. The
rest of the package asks a Group and never torch.distributed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.nn.parallel import DistributedDataParallel

from modernbert.errors import TrainingError
from modernbert.kernels.hardware import keep_freed_memory, resolve_device

Spread = Literal["replicate", "shard"]
SPREADS: tuple[Spread, ...] = ("replicate", "shard")
# What torch calls the threads in which gloo's collectives run, where Linux shows them, and how often we look.
_WORKER, _TASKS, _LOOK_EVERY_S, _LOOK_FOR_S = "pt_gloo_runloop", Path("/proc/self/task"), 0.02, 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """The processes of a run. Each takes every `world_size`-th row of a step, from its `rank` on."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes what only one may write."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there are no other processes."""
        return self.world_size == 1

    def sum(self, values: Tensor) -> Tensor:
        """The sums over all processes, on each of them; `values` is changed."""
        if not self.is_alone:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all processes have come here."""
        if not self.is_alone:
            dist.barrier()

    def from_main(self, value: Any) -> Any:
        """The main process's value (anything that can be pickled), on each of them."""
        if self.is_alone:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]


@contextmanager
def joined(device: str = "auto") -> Generator[Group]:
    """The group that torchrun's environment describes; alone without it.

    Raises TrainingError where the block lost the connection to another process, which has ended or hangs.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    found = resolve_device(device)
    if found.type == "cpu":
        keep_freed_memory()
    if world_size == 1:
        yield Group(rank=0, world_size=1, device=found)
        return
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if found.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise TrainingError(
                f"process {rank} is number {local_rank} on this machine, which has "
                f"{torch.cuda.device_count()} CUDA devices; start as many with --nproc-per-node"
            )
        found = torch.device("cuda", local_rank)
        torch.cuda.set_device(found)
    dist.init_process_group("cuda:nccl,cpu:gloo" if found.type == "cuda" else "gloo")
    try:
        yield Group(rank=rank, world_size=world_size, device=found)
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise TrainingError(
            f"process {rank} of {world_size} lost the connection to another one, which has ended or hangs "
            f"({_first_line(error)}).\nhint: look at what the other process said, and run the same command "
            "again: it goes on from the last checkpoint"
        ) from error
    finally:
        dist.destroy_process_group()
        _let_workers_rest()


def spread(module: nn.Module, layers: nn.ModuleList, group: Group, how: Spread) -> nn.Module:
    """The module over all processes: a copy each, or a share of every parameter each (FSDP2), by `layers`.

    `layers` are modules inside `module`. Gradients come out as the mean over processes.
    """
    if how not in SPREADS:
        raise TrainingError(f"unknown way to spread a model {how!r}; there are: {', '.join(SPREADS)}")
    if group.is_alone:
        return module
    if how == "replicate":
        return DistributedDataParallel(module)
    mesh = dist.device_mesh.init_device_mesh(group.device.type, (group.world_size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)  # in place
    return module


def accumulating(module: nn.Module, *, is_last: bool) -> AbstractContextManager[Any]:
    """Around a backward pass: processes exchange gradients only in the last one of a step."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(is_last)
    elif isinstance(module, DistributedDataParallel) and not is_last:
        return module.no_sync()
    return nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which each process may hold a share; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """The share of `tensor` that this process holds of `like`; undoes `whole`, without an exchange."""
    if not isinstance(like, DTensor):
        return tensor
    everywhere = [Replicate()] * like.device_mesh.ndim
    copies = DTensor.from_local(tensor, like.device_mesh, everywhere, run_check=False)
    return copies.redistribute(placements=like.placements)


def _is_lost_connection(error: RuntimeError) -> bool:
    # errors of gloo have no type of their own
    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _first_line(error: RuntimeError) -> str:
    """What went wrong, without the place in torch's source before it and the advice after it."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.rpartition("] ")[2].partition(". This is typically")[0]


def _let_workers_rest() -> None:
    """Until the threads of gloo have let go of the last tensors.

    They outlive the group, which modules and torch's caches still hold. To let go of a tensor that was made
    in Python takes the interpreter, and a thread that asks an ending one for it takes the process down:
    SIGABRT, "terminate called without an active exception". Nothing in torch tells when the threads are done,
    so we look: one is at rest when it slept through a time in which it could have had the interpreter. Where
    there is no /proc this only gives them that time.
    """
    before: set[tuple[str, ...]] | None = None
    deadline = time.monotonic() + _LOOK_FOR_S
    while time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)  # which lets go of the interpreter
        now = _workers()
        if now == before and all(state.startswith("S") for _, state, *_ in now):
            return
        before = now


def _workers() -> set[tuple[str, ...]]:
    """The number of each, its state ("S (sleeping)"), and how often it gave up or lost the processor."""
    found: set[tuple[str, ...]] = set()
    for status in _TASKS.glob("*/status"):
        with suppress(OSError):  # a thread that has ended meanwhile
            of = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
            if of["Name"] == _WORKER:
                counts = of["voluntary_ctxt_switches"], of["nonvoluntary_ctxt_switches"]
                found.add((of["Pid"], of["State"], *counts))
    return found
