"""What this machine has: devices, the number formats that it computes in at full speed, and its allocator."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings

import torch

from modernbert.errors import BackendError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Parameters of glibc's mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK, _NEVER = 2**31 - 1, -1


def resolve_device(name: str | torch.device) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one.

    Raises BackendError where it is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise BackendError(f"unknown device {name!r}; use 'auto', 'cpu', 'cuda' or 'cuda:N'") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA device(s)"
        raise BackendError(
            f"device {str(name)!r} was asked for, but torch finds {found} here; use device='cpu' or 'auto'"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise BackendError(
            f"device {str(name)!r} was asked for, but torch finds no Apple GPU here; use device='cpu'"
        )
    if device.type not in ("cpu", "cuda", "mps"):
        raise BackendError(f"device {str(name)!r} is not supported; use 'auto', 'cpu', 'cuda' or 'cuda:N'")
    return device


def resolve_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype of that name; "auto" is bfloat16 where the device is fast in it, else float32."""
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name == "auto":
        return torch.bfloat16 if _has_fast_bfloat16(device) else torch.float32
    if name not in tuple(DTYPES):
        raise BackendError(f"unknown dtype {name!r}; use 'auto', {', '.join(map(repr, DTYPES))}")
    return DTYPES[name]


def num_processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_threads() -> int:
    """Threads for our own kernels: as many as torch's, but no more than this process has processors."""
    return max(1, min(torch.get_num_threads(), num_processors()))


def settle_threads() -> None:
    """Have torch use no more threads than there are processors; a warning says so.

    More of them compute no faster: each step of torch waits for the last thread that it has woken.
    """
    asked, processors = torch.get_num_threads(), num_processors()
    if asked > processors:
        torch.set_num_threads(processors)
        warnings.warn(
            f"torch was to use {asked} threads where this process may use {processors} processors; it uses "
            f"{processors} now (torch.set_num_threads, OMP_NUM_THREADS)",
            stacklevel=2,
        )


def keep_freed_memory() -> bool:
    """Have this process keep the memory that it frees; False where its allocator cannot be told.

    For processes that train on a processor. Left alone, glibc gives every block of more than 32 MB back and
    maps the next one afresh, and the kernel fills each page with zeros before its first use: tens of
    thousands of pages in a step. Holds for the whole process, and until it ends.
    """
    if sys.platform != "linux":
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:  # a libc other than glibc
        return False
    return bool(set_option(_MMAP_THRESHOLD, _LARGEST_BLOCK) and set_option(_TRIM_THRESHOLD, _NEVER))


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))
