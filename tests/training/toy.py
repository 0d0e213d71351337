"""A job that needs no text: a line is fitted to numbers, in micro-batches that differ in size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modernbert.training.loop import LoopSettings, Micro, Run, TrainingStep
from modernbert.training.parallel import Group

ALONE = Group(rank=0, world_size=1, device=torch.device("cpu"))


class Line(nn.Module):
    """Summed squared errors of a line, and how many of them are small; with dropout, if asked for."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.linear = nn.Linear(4, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        error = self.linear(self.dropout(x))[:, 0] - y
        return torch.stack([error.square().sum(), (error.abs() < 0.1).sum().float()])


class ToyJob:
    """`num_steps` steps in two stages; `broken` names steps whose targets are not numbers, or far off."""

    sums = ("loss", "accuracy")

    def __init__(
        self, num_steps: int = 12, *, broken: dict[int, float] | None = None, sizes: tuple[int, ...] = (3, 5)
    ):
        self.num_steps = num_steps
        self.num_tokens = num_steps * sum(sizes)
        self.broken = broken or {}
        self.sizes = sizes
        self.entered: list[str] = []

    def steps(self, state: dict[str, Any] | None) -> Iterator[tuple[TrainingStep, dict[str, Any]]]:
        for index in range(0 if state is None else state["next"], self.num_steps):
            yield self.step(index), {"next": index + 1}

    def step(self, index: int) -> TrainingStep:
        generator = torch.Generator().manual_seed(index)
        x = torch.randn(sum(self.sizes), 4, generator=generator)
        y = x.sum(dim=1) + self.broken.get(index, 0.0)
        micros = [
            Micro(inputs=(each_x, each_y), weight=len(each_y), number=10 * index + place)
            for place, (each_x, each_y) in enumerate(
                zip(x.split(self.sizes), y.split(self.sizes), strict=True)
            )
        ]
        half = self.num_steps // 2
        return TrainingStep(
            micros=micros,
            num_tokens=sum(self.sizes),
            peak_learning_rate=0.05,
            learning_rate_share=1.0 - index / self.num_steps,
            stage="first" if index < half else "second",
            is_last_of_stage=index in (half - 1, self.num_steps - 1),
            facts={"mask_rate": 0.3},
            documents=lambda: [f"numbers of step {index}"],
        )

    def enter(self, stage: str) -> None:
        self.entered.append(stage)

    def evaluate(self, module: nn.Module) -> dict[str, Any]:
        weight = module.get_parameter("linear.weight").detach()
        error = float((weight - 1.0).abs().max())
        return {"loss": error, "accuracy": 0.5, "sources": {"numbers": {"loss": error, "accuracy": 0.5}}}


def settings(**changes: Any) -> LoopSettings:
    given: dict[str, Any] = {
        "seed": 1,
        "precision": torch.float32,
        "max_grad_norm": None,
        "spike_ratio": 1.5,
        "max_skipped_steps": 2,
        "save_every_tokens": 16,
        "evaluate_every_tokens": 24,
        "num_kept": 2,
        "draw": None,
    }
    return LoopSettings(**(given | changes))


def toy_run(folder: Path, job: ToyJob | None = None, *, dropout: float = 0.0, **changes: Any) -> Run:
    module = Line(dropout)
    return Run(
        job=job or ToyJob(),
        module=module,
        optimizer=torch.optim.AdamW(module.parameters(), lr=0.05),
        group=ALONE,
        settings=settings(**changes),
        folder=folder,
    )
