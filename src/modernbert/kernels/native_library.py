"""The built C++ library: found, checked and called, with no compiler and no torch headers.

`csrc/interface.h` says what goes in and out; the structures here are its twins. A machine has the library of
its instruction set or none: `library()` gives it or None, and `missing()` says in words why there is none.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import struct
import warnings
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path

import torch

from modernbert.errors import BackendError

# The number in csrc/interface.h.
VERSION = 4
FOLDER = Path(__file__).parent
# The header of an ELF file of 64 bits, elf(5): where the table of sections begins, which is its end, the size
# of an entry and their number.
_ELF_HEADER = struct.Struct("<40xQ10xHH2x")
# Instruction sets in the order in which they are preferred, and what a processor must have for each.
_AVX512 = ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq")
INSTRUCTION_SETS = {
    "avx512_bf16": (*_AVX512, "avx512_bf16", "avx512_vnni"),
    "avx512": _AVX512,
    "avx2": ("avx2", "fma3"),
}

OK, NO_MEMORY, BAD_TOKEN, BAD_POSITION, BAD_BOUNDS, BAD_THREADS, BAD_TOKEN_TYPE = range(7)
PRODUCTS = {"float32": 0, "bfloat16": 1, "int8": 2}
NO_NORM, LAYER_NORM, RMS_NORM = range(3)
PRE_NORM, POST_NORM, PARALLEL = range(3)
ACTIVATIONS = {
    name: number
    for number, name in enumerate(
        ("identity", "gelu", "gelu_tanh", "relu", "relu2", "silu", "quick_gelu", "sigmoid", "tanh")
    )
}


class NormSpec(Structure):
    """A norm; without a kind it is left out."""

    _fields_ = (
        ("kind", c_int32),
        ("eps", c_float),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("is_bf16", c_int32),
    )


class LinearSpec(Structure):
    """A linear layer: weight [num_out, num_in]."""

    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("num_in", c_int32),
        ("num_out", c_int32),
        ("is_bf16", c_int32),
    )


class LayerSpec(Structure):
    """A block."""

    _fields_ = (
        ("block", c_int32),
        ("num_heads", c_int32),
        ("window", c_int32),
        ("rotary_size", c_int32),
        ("is_interleaved", c_int32),
        ("table", c_int32),
        ("is_gated", c_int32),
        ("activation", c_int32),
        ("attention_norm", NormSpec),
        ("mlp_norm", NormSpec),
        ("qkv", LinearSpec),
        ("attention_out", LinearSpec),
        ("mlp_in", LinearSpec),
        ("mlp_out", LinearSpec),
    )


class ModelSpec(Structure):
    """An encoder."""

    _fields_ = (
        ("hidden_size", c_int32),
        ("vocab_size", c_int32),
        ("num_layers", c_int32),
        ("num_positions", c_int32),
        ("position_offset", c_int32),
        ("num_token_types", c_int32),
        ("products", c_int32),
        ("is_bf16", c_int32),
        ("tokens", c_void_p),
        ("positions", c_void_p),
        ("token_types", c_void_p),
        ("embedding_norm", NormSpec),
        ("final_norm", NormSpec),
        ("layers", POINTER(LayerSpec)),
    )


class RotaryTable(Structure):
    """Angles of the positions 0 up to `num_rows`."""

    _fields_ = (("cosine", c_void_p), ("sine", c_void_p), ("num_rows", c_int64))


class Pack(Structure):
    """The tokens of a call."""

    _fields_ = (
        ("num_tokens", c_int64),
        ("num_sequences", c_int64),
        ("max_seqlen", c_int64),
        ("token_ids", c_void_p),
        ("position_ids", c_void_p),
        ("token_types", c_void_p),
        ("cu_seqlens", c_void_p),
        ("tables", POINTER(RotaryTable)),
        ("is_out_bf16", c_int32),
    )


class Block(Structure):
    """A block of a plan's packed weights."""

    _fields_ = (("start", c_void_p), ("num_bytes", c_int64))


def missing() -> str | None:
    """Why this machine has no native kernels, or None where it has."""
    found = _find()
    return found if isinstance(found, str) else None


def library() -> ctypes.CDLL | None:
    """The library for this processor, or None; one warning if the file is an old one."""
    found = _find()
    return None if isinstance(found, str) else found


@lru_cache(maxsize=1)
def digest() -> str:
    """What the library in use is known by, of whatever state of its source it was built."""
    found = library()
    return "" if found is None else hashlib.sha256(Path(found._name).read_bytes()).hexdigest()


def can_int8(device: torch.device, backend: str) -> bool:
    """Whether products on 8-bit weights can run there."""
    return device.type == "cpu" and backend in ("auto", "native") and library() is not None


def require_int8(device: torch.device, backend: str) -> None:
    """Raise BackendError, with the reason, where products on 8-bit weights cannot run."""
    if device.type != "cpu":
        raise BackendError(
            f"dtype='int8' is for processors, not for {device}; use device='cpu' or another dtype"
        )
    if backend not in ("auto", "native"):
        raise BackendError(f"dtype='int8' needs the native backend, not {backend!r}; pass backend='auto'")
    if reason := missing():
        raise BackendError(f"dtype='int8' needs the native backend, which {reason}")


def supported(instruction_set: str) -> bool:
    """Whether this processor has the instructions."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return all(bool(capabilities.get(name)) for name in INSTRUCTION_SETS[instruction_set])


def open_library(path: Path) -> ctypes.CDLL:
    """The library of that file, its functions typed; OSError where it is none, cut, or of another version."""
    _require_whole(path)
    opened = ctypes.CDLL(str(path))
    try:
        version = int(opened.modernbert_version())
    except AttributeError:
        version = 0
    if version != VERSION:
        raise OSError(f"{path} is of version {version}, this package needs {VERSION}")
    opened.modernbert_plan_new.restype = c_void_p
    opened.modernbert_plan_new.argtypes = (POINTER(ModelSpec),)
    opened.modernbert_plan_map.restype = c_void_p
    opened.modernbert_plan_map.argtypes = (POINTER(ModelSpec), c_void_p, c_int64)
    opened.modernbert_plan_blocks.restype = c_int64
    opened.modernbert_plan_blocks.argtypes = (c_void_p, POINTER(Block), c_int64)
    opened.modernbert_plan_free.restype = None
    opened.modernbert_plan_free.argtypes = (c_void_p,)
    opened.modernbert_plan_bytes.restype = c_int64
    opened.modernbert_plan_bytes.argtypes = (c_void_p,)
    opened.modernbert_plan_is_current.argtypes = (c_void_p,)
    opened.modernbert_forward.argtypes = (c_void_p, POINTER(Pack), c_int32, c_void_p, POINTER(c_int64))
    opened.modernbert_linear.argtypes = (POINTER(LinearSpec), c_int32, c_void_p, c_int64, c_int32, c_void_p)
    return opened


def _require_whole(path: Path) -> None:
    """OSError for an ELF file that is cut: opened, it would end the process at the first missing page."""
    with path.open("rb") as file:
        head = file.read(_ELF_HEADER.size)
    if len(head) == _ELF_HEADER.size and head.startswith(b"\x7fELF"):
        start, size, count = _ELF_HEADER.unpack(head)
        if path.stat().st_size < start + size * count:
            raise OSError(f"{path} is cut short")


@lru_cache(maxsize=1)
def _find() -> ctypes.CDLL | str:
    usable = [name for name in INSTRUCTION_SETS if supported(name)]
    if not usable:
        return f"needs a processor with one of: {', '.join(INSTRUCTION_SETS)}"
    paths = [FOLDER / f"native_{name}.so" for name in usable]
    present = [path for path in paths if path.exists()]
    if not present:
        return f"has not been built: {paths[0].name} is missing; `make native` builds it"
    try:
        return open_library(present[0])
    except OSError as error:
        reason = f"cannot be used: {error}; `make native` builds it anew"
        warnings.warn(f"the native backend {reason}", stacklevel=4)
        return reason


def lanes() -> int:
    """Numbers of a vector of the library in use, which sizes must be multiples of; 8 where there is none."""
    found = library()
    return 8 if found is None else int(found.modernbert_lanes())


def has_bf16() -> bool:
    """Whether the library in use multiplies in bfloat16."""
    found = library()
    return found is not None and bool(found.modernbert_has_bf16())
