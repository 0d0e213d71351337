"""What is learned from, as token ids on disk: memory holds a few numbers an example, whatever its length.

An example is one sequence or several (a query and its documents), with the numbers that its loss is computed
from: a class, a value, a tag for each token, a teacher's vector. It is written once and read by number, in
any order.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from modernbert.files import folder_being_written
from modernbert.inference.engine import SequenceIds

_FILES = {"tokens": np.dtype("<i4"), "types": np.dtype("u1"), "targets": np.dtype("<f4")}
# Where each sequence ends, each example, and its targets; then the row and the weight of each example.
_BOUNDS = ("sequences", "examples", "targets")
_COUNTED = (*_BOUNDS, "rows", "weights")


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """Sequences that are learned from together, the numbers to learn, and the row they came from.

    Numbers are kept as float32, which holds whole ones below 2**24 exactly. `weight` is what the example
    counts for in a mean: 1, or its labelled tokens.
    """

    sequences: Sequence[SequenceIds]
    targets: Sequence[float] | np.ndarray
    row: int
    weight: int = 1

    @property
    def num_tokens(self) -> int:
        """Of all its sequences."""
        return sum(len(each.token_ids) for each in self.sequences)


class ExampleList(Protocol):
    """Examples by number, with their sizes known beforehand."""

    lengths: np.ndarray  # int64 [N], tokens

    def __len__(self) -> int: ...
    def __getitem__(self, number: int) -> Example: ...


class Examples:
    """Examples in a folder of files; may be opened by several processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with np.load(folder / "index.npz") as index:
            found = {name: _Numbers(index[name]) for name in _COUNTED}
        self._sequences, self._examples, self._targets, self._rows, self._weights = found.values()
        bounds = self._sequences.all()
        self.lengths: np.ndarray = np.diff(bounds[self._examples.all()])

    @classmethod
    def write(cls, folder: Path, examples: Iterable[Example]) -> Examples:
        """Write all of them, or nothing, and open the folder."""
        counted = {name: array("q", [0] if name in _BOUNDS else []) for name in _COUNTED}
        sequences, firsts, targets, rows, weights = counted.values()
        with folder_being_written(folder) as temporary:
            files: dict[str, IO[bytes]] = {name: (temporary / name).open("wb") for name in _FILES}
            try:
                for example in examples:
                    for sequence in example.sequences:
                        _append(files, "tokens", sequence.token_ids)
                        _append(files, "types", sequence.token_types)
                        sequences.append(sequences[-1] + len(sequence.token_ids))
                    firsts.append(firsts[-1] + len(example.sequences))
                    _append(files, "targets", example.targets)
                    targets.append(targets[-1] + len(example.targets))
                    rows.append(example.row)
                    weights.append(example.weight)
            finally:
                for file in files.values():
                    file.close()
            index: dict[str, Any] = {name: _packed(each) for name, each in counted.items()}
            np.savez(temporary / "index.npz", **index)
        return cls(folder)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Example:
        first, last = self._examples[number], self._examples[number + 1]
        bounds = np.array([self._sequences[each] for each in range(first, last + 1)])
        tokens = self._read("tokens", bounds[0], bounds[-1])
        types = self._read("types", bounds[0], bounds[-1])
        inner = (bounds - bounds[0]).tolist()
        return Example(
            sequences=[
                SequenceIds(token_ids=tokens[start:end].tolist(), token_types=types[start:end].tolist())
                for start, end in pairwise(inner)
            ],
            targets=self._read("targets", self._targets[number], self._targets[number + 1]),
            row=self._rows[number],
            weight=self._weights[number],
        )

    @property
    def num_tokens(self) -> int:
        """Of all examples."""
        return int(self.lengths.sum())

    def _read(self, name: str, start: int, end: int) -> np.ndarray:
        """From the file and not through a mapping, whose pages would count as memory of this process."""
        dtype = _FILES[name]
        with (self.folder / name).open("rb", buffering=0) as file:
            file.seek(int(start) * dtype.itemsize)
            return np.frombuffer(file.read(int(end - start) * dtype.itemsize), dtype)


class _Numbers:
    """Whole numbers by place; those that grow by the same step, as they mostly do, take no memory."""

    def __init__(self, kept: np.ndarray) -> None:
        self._kept = kept  # all of them, or (first, step, how many) in two dimensions

    def __getitem__(self, place: int) -> int:
        if self._kept.ndim == 1:
            return int(self._kept[place])
        return int(self._kept[0, 0] + place * self._kept[0, 1])

    def all(self) -> np.ndarray:
        """int64, one after another."""
        if self._kept.ndim == 1:
            return self._kept
        first, step, num = self._kept[0]
        return first + step * np.arange(num)


def _packed(numbers: array[int]) -> np.ndarray:
    found = np.frombuffer(numbers, np.int64) if numbers else np.zeros(0, np.int64)
    if len(found) < 2 or (found[1:] - found[:-1] != found[1] - found[0]).any():
        return found
    return np.array([[found[0], found[1] - found[0], len(found)]])


def _append(files: dict[str, IO[bytes]], name: str, values: Sequence[float] | np.ndarray) -> None:
    files[name].write(np.asarray(values, _FILES[name]).tobytes())
