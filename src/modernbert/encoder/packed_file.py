"""What is made of a model's weights, kept in files of their own that processes map and share.

    weights --packed for this processor, once--> ~/.cache/modernbert/packed/MODEL-KIND-KEY --mapped--> a plan
            --cast to another dtype, once------> one more                                  --mapped--> modules

The key holds all that the content follows from: the state of the files that the weights came from, and the
encoder's parts, the native library and the kind of numbers, or the package's version. A file is put in place
whole, and one of other shapes is not taken. MODERNBERT_PACKED names another folder; empty, it turns this off.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import modernbert
from modernbert.files import file_being_written
from modernbert.kernels import native_library as native

FOLDER_VARIABLE = "MODERNBERT_PACKED"
# Smaller ones are packed in less time than a file takes.
FEWEST_BYTES = 8_000_000
# A file may change again within the tick of a file system's clock, and keep its time.
SETTLED_NS = 2_000_000_000
_ALIGNMENT = 64  # of csrc/interface.h


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedFile:
    """Where is kept what is made of some files' weights, and by what the files' state is known."""

    folder: Path
    source: Path  # the model's folder
    weights: tuple[Path, ...]
    model: str
    state: str

    def is_current(self) -> bool:
        """Whether the model's files are still those: what was read before is of this state."""
        return packed_file_of(self.source, self.weights) == self

    def path(self, parts: object, products: str) -> Path:
        """The file for an encoder of these parts and kind of products, on this kind of processor."""
        key = repr((self.state, parts, products, native.lanes(), native.digest()))
        return self.folder / f"{self.model}-{products}-{_short(key)}"

    def converted_path(self, kind: str) -> Path:
        """The file for these weights in another number format."""
        key = repr((self.state, kind, modernbert.__version__))
        return self.folder / f"{self.model}-weights_{kind}-{_short(key)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class MappedWeights:
    """A file's bytes in memory that all processes share; they stay while this does."""

    mapping: mmap.mmap
    address: int
    num_bytes: int


def packed_file_of(folder: Path, weights: Sequence[Path]) -> PackedFile | None:
    """The packed file for the weights of a model folder; None where none is to be kept, or they are too new.

    Ask before the weights are read, and `is_current` afterwards.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named == "" or not weights:
        return None
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    place = Path(named or Path(cache, "modernbert", "packed")).expanduser()
    try:
        found = [path.stat() for path in weights]
    except OSError:
        return None
    if any(time.time_ns() - each.st_mtime_ns < SETTLED_NS for each in found):
        return None
    state = [(e.st_dev, e.st_ino, e.st_size, e.st_mtime_ns, e.st_ctime_ns) for e in found]
    return PackedFile(
        folder=place,
        source=folder,
        weights=tuple(weights),
        model=_short(os.path.realpath(folder)),
        state=repr(state),
    )


def mapped(path: Path) -> MappedWeights | None:
    """The file mapped for reading; None where there is none, or it cannot be."""
    try:
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return None
    view = np.frombuffer(mapping, np.uint8)
    return MappedWeights(mapping=mapping, address=int(view.ctypes.data), num_bytes=len(view))


def keep(path: Path, write: Callable[[Path], None]) -> bool:
    """Have the file written, and take away those of the model's earlier states; False where that fails.

    A full disk or a folder that may not be written to is no reason to fail: weights are packed anew then.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_being_written(path) as temporary:
            write(temporary)
    except OSError:
        return False
    model_and_kind = path.name.rpartition("-")[0]
    for old in path.parent.glob(f"{model_and_kind}-*"):
        if old != path:
            with suppress(OSError):  # who has it mapped keeps it until the end
                old.unlink()
    return True


def write_blocks(blocks: Sequence[native.Block], path: Path) -> None:
    """Write a plan's blocks."""
    with path.open("wb") as file:
        for block in blocks:
            file.write((ctypes.c_char * block.num_bytes).from_address(block.start))
            file.write(bytes(-block.num_bytes % _ALIGNMENT))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
