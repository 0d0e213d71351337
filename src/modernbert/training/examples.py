"""What is learned from, as token ids on disk: memory holds a few numbers an example, whatever its length.

An example is one sequence or several (a query and its documents), with the numbers that its loss is computed
from: a class, a value, a tag for each token, a teacher's vector. It is written once and read by number, in
any order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from modernbert.files import folder_being_written
from modernbert.inference.engine import SequenceIds

_FILES = {"tokens": np.dtype("<i4"), "types": np.dtype("u1"), "targets": np.dtype("<f4")}
_BOUNDS = ("sequences", "examples", "numbers")


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
        index = np.load(folder / "index.npz")
        self._bounds = {name: index[name] for name in _BOUNDS}
        self._rows: np.ndarray = index["rows"]
        self._weights: np.ndarray = index["weights"]
        of_sequences = self._bounds["sequences"]
        firsts = self._bounds["examples"]
        self.lengths: np.ndarray = of_sequences[firsts[1:]] - of_sequences[firsts[:-1]]

    @classmethod
    def write(cls, folder: Path, examples: Iterable[Example]) -> Examples:
        """Write all of them, or nothing, and open the folder."""
        counts: dict[str, list[int]] = {name: [0] for name in _BOUNDS}
        rows: list[int] = []
        weights: list[int] = []
        with folder_being_written(folder) as temporary:
            files: dict[str, IO[bytes]] = {name: (temporary / name).open("wb") for name in _FILES}
            try:
                for example in examples:
                    for sequence in example.sequences:
                        _append(files, "tokens", sequence.token_ids)
                        _append(files, "types", sequence.token_types)
                        counts["sequences"].append(counts["sequences"][-1] + len(sequence.token_ids))
                    counts["examples"].append(counts["examples"][-1] + len(example.sequences))
                    _append(files, "targets", example.targets)
                    counts["numbers"].append(counts["numbers"][-1] + len(example.targets))
                    rows.append(example.row)
                    weights.append(example.weight)
            finally:
                for file in files.values():
                    file.close()
            arrays: dict[str, Any] = {name: np.array(each, np.int64) for name, each in counts.items()}
            np.savez(temporary / "index.npz", rows=np.array(rows), weights=np.array(weights), **arrays)
            (temporary / "about.json").write_text(json.dumps({"examples": len(rows)}))
        return cls(folder)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Example:
        first, last = self._bounds["examples"][number : number + 2]
        bounds = self._bounds["sequences"][first : last + 1]
        tokens = self._read("tokens", bounds[0], bounds[-1])
        types = self._read("types", bounds[0], bounds[-1])
        inner = (bounds - bounds[0]).tolist()
        return Example(
            sequences=[
                SequenceIds(token_ids=tokens[start:end].tolist(), token_types=types[start:end].tolist())
                for start, end in pairwise(inner)
            ],
            targets=self._read("targets", *self._bounds["numbers"][number : number + 2]),
            row=int(self._rows[number]),
            weight=int(self._weights[number]),
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


def _append(files: dict[str, IO[bytes]], name: str, values: Sequence[float] | np.ndarray) -> None:
    files[name].write(np.asarray(values, _FILES[name]).tobytes())
