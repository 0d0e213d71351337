"""The rows of a user's files as three parts on disk: to learn from, to choose by, to test with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modernbert.corpus.labelled import Row, Rows
from modernbert.corpus.splitting import num_shared, split
from modernbert.errors import CorpusError, TrainingError
from modernbert.files import write_atomic
from modernbert.training.tasks.task import Notes, TaskConfig

_DONE = "notes.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """The files of a user: one to learn from, and others to choose and to test by, or shares to split off."""

    train: str
    dev: str | None = None
    test: str | None = None
    dev_share: float = 0.1
    test_share: float = 0.1

    def __post_init__(self) -> None:
        if not (
            0 <= self.dev_share < 1 and 0 <= self.test_share < 1 and self.dev_share + self.test_share < 1
        ):
            raise TrainingError(
                "dev_share and test_share are shares of the rows and leave some to learn from, found "
                f"{self.dev_share} and {self.test_share}"
            )


def gather(config: TaskConfig, sources: Sources, folder: Path, *, seed: int, notes: Notes) -> None:
    """Write train.jsonl, and dev.jsonl and test.jsonl where there are such rows, once; notes are kept too."""
    done = folder / _DONE
    if done.exists():
        notes.lines += json.loads(done.read_text())
        return
    folder.mkdir(parents=True, exist_ok=True)
    whole = Rows.write(folder / "whole.jsonl", config.read(sources.train, notes))
    if len(whole) == 0:
        raise CorpusError(f"{sources.train} has no rows")
    shares = {
        name: share
        for name, given, share in (
            ("dev", sources.dev, sources.dev_share),
            ("test", sources.test, sources.test_share),
        )
        if given is None and share > 0
    }
    # Who brings a dev file and no test file wants all other rows learned from.
    if sources.dev is not None:
        shares.pop("test", None)
    indices = split(
        config.strata(whole),
        [1 - sum(shares.values()), *shares.values()],
        seed,
        num_rows=len(whole),
        groups=config.groups(whole),
    )
    for name, chosen in zip(("train", *shares), indices, strict=True):
        Rows.write(folder / f"{name}.jsonl", _chosen(whole, chosen.tolist()))
    if shares:
        names = ("train", *shares)
        counts = ", ".join(f"{len(part):,} {name}" for name, part in zip(names, indices, strict=True))
        notes.add(f"{Path(sources.train).name} was split by seed {seed}: {counts}")
    for name, given in (("dev", sources.dev), ("test", sources.test)):
        if given is not None:
            Rows.write(folder / f"{name}.jsonl", config.read(given, notes))
    (folder / "whole.jsonl").unlink()
    _note_shared(config, folder, notes)
    write_atomic(done, json.dumps(notes.lines))


def _chosen(rows: Rows, numbers: Sequence[int]) -> Iterator[Row]:
    return (rows[number] for number in numbers)


def _note_shared(config: TaskConfig, folder: Path, notes: Notes) -> None:
    """How many rows of the other parts stand in the training part too: they test nothing but memory."""
    for name in ("dev", "test"):
        path = folder / f"{name}.jsonl"
        if path.exists():
            held = Rows.open(path)
            num = num_shared(_texts(config, Rows.open(folder / "train.jsonl")), _texts(config, held))
            if num:
                notes.warn(
                    f"{num:,} of {len(held):,} rows of the {name} part have texts that also stand in train"
                )


def _texts(config: TaskConfig, rows: Rows) -> Iterator[str]:
    return ("\0".join(config.texts(row)) for row in rows)
