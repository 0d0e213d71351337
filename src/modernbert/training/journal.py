"""The record of a run: one JSON object a step, in the order of the steps, and the same for TensorBoard.

    journal.jsonl       {"step": 1200, "tokens": 9830400, "loss": 4.21, "learning_rate": 0.0008, ...}
    evaluations.jsonl   losses and accuracies on held-out text
    accidents.jsonl     steps that were left out, with the documents in them

Lines are appended. When a run goes on from a checkpoint, what was written after it is taken away, so that
the journal reads as if the run had never stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modernbert.files import write_atomic

STEPS, EVALUATIONS, ACCIDENTS = "journal.jsonl", "evaluations.jsonl", "accidents.jsonl"
FILES = (STEPS, EVALUATIONS, ACCIDENTS)
TENSORBOARD = "tensorboard"
# What TensorBoard draws of a line; the rest of it tells where and how.
_DRAWN = (
    "loss",
    "accuracy",
    "learning_rate",
    "mask_rate",
    "gradient_norm",
    "tokens_per_second",
    "efficiency",
)


class Journal:
    """Writes the files of one run; `cut_after` is the last step that a resumed run still believes."""

    def __init__(self, folder: Path, *, cut_after: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            _cut(folder / name, cut_after)
        self._board = _open_board(folder / TENSORBOARD, cut_after)

    def write(self, name: str, row: Mapping[str, Any]) -> None:
        """Append a line to one of FILES; it is with the system when this returns."""
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._board is not None:
            for key, value in _numbers(name, row):
                self._board.add_scalar(key, value, row["tokens"])

    def close(self) -> None:
        """Let TensorBoard's file go."""
        if self._board is not None:
            self._board.close()


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal; a last one that a kill cut short is left out, and so is a missing file."""
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        rows.append(row)
    return rows


def _cut(path: Path, last_step: int) -> None:
    if path.exists():
        kept = [row for row in read(path) if row["step"] <= last_step]
        write_atomic(path, "".join(json.dumps(row) + "\n" for row in kept))


def _numbers(name: str, row: Mapping[str, Any]) -> list[tuple[str, float]]:
    if name == STEPS:
        return [(f"train/{key}", row[key]) for key in _DRAWN if row.get(key) is not None]
    if name == EVALUATIONS:
        probes = row.get("probes", {})
        scores = (("classification", "balanced_accuracy"), ("retrieval", "mrr"))
        drawn = [(f"probe/{each}", probes[each][key]) for each, key in scores if each in probes]
        return drawn + [
            (f"valid/{source}/{key}", value)
            for source, figures in row["sources"].items()
            for key, value in figures.items()
            if key != "num_masked"
        ]
    return []


def _open_board(folder: Path, last_step: int) -> Any:
    """TensorBoard's writer, which hides what was written after the last step; None if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=last_step + 1)
