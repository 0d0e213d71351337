"""What tests of tagging and of answering share: rows on disk, a model to learn, and two ways to teach it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from modernbert.corpus.labelled import Row, Rows
from modernbert.inference.pipeline import Model
from modernbert.pretrained.folder import read_folder
from modernbert.pretrained.heads import HeadBuilder, with_head
from modernbert.training.examples import Example
from modernbert.training.finetune_run import Sources, finetune
from modernbert.training.finetuning import Finetuning
from modernbert.training.run import Switches
from modernbert.training.tasks.task import Task, TaskConfig

# How many rows a small run learns from, chooses by and is tested with; the number is the seed of their draw.
PARTS = {"train": (40, 0), "dev": (10, 1), "test": (12, 2)}
SHORT = Finetuning(epochs=1, batch_size=8, learning_rate=6e-3)


def rows_of(folder: Path, rows: Iterable[Row], name: str = "rows.jsonl") -> Rows:
    """Rows on disk, with the lines that a reader would give them."""
    return Rows.write(folder / name, [{**row, "line": i + 1} for i, row in enumerate(rows)])


def model_with_head(base: Path, build: HeadBuilder) -> Model:
    return Model(with_head(read_folder(base), build, seed=0), device=torch.device("cpu"))


def learn(task: Task, model: Model, examples: Sequence[Example], *, num_steps: int = 150) -> None:
    """Batches of 8 drawn at random, at a rate that falls to 0."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.module.parameters(), lr=1e-2)
    draw = random.Random(0)
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / num_steps)
        chosen = draw.sample(examples, 8)
        loss = task.loss(model.module, *task.inputs(chosen), backend="auto")
        (loss / sum(each.weight for each in chosen)).backward()
        torch.nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def finetuned(
    task: TaskConfig,
    folder: Path,
    base: Path,
    rows: Callable[[int, int], list[dict[str, Any]]],
    settings: Finetuning = SHORT,
) -> Path:
    """A folder from a whole run on files of PARTS; `rows` gives so many by a seed."""
    for name, (num, seed) in PARTS.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows(num, seed)))
    done = finetune(
        task,
        Sources(**{name: str(folder / f"{name}.jsonl") for name in PARTS}),
        model=base,
        out=folder / "out",
        settings=settings,
        switches=Switches(device="cpu"),
    )
    assert done is not None
    return done
