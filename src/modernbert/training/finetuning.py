"""Fine-tuning as a job of the loop: examples in random order, in packs of a token budget, epoch by epoch.

    examples --shuffle--> batch of N examples --pack--> micro-batches --> sums of losses / N --> one update

After each epoch the dev part is measured, and the best weights are kept. An update is exact: its gradient is
that of the mean over its examples (or their labelled tokens), however they were packed and on however many
processes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modernbert.errors import TrainingError
from modernbert.text.packing import pack_by_budget
from modernbert.training.examples import Example, ExampleList
from modernbert.training.limits import require
from modernbert.training.loop import Micro, TrainingStep
from modernbert.training.optim import AdamWConfig, OptimizerConfig, ParameterGroup, parameter_groups
from modernbert.training.parallel import Group
from modernbert.training.recipe import Precision
from modernbert.training.schedule import WarmupStableDecay
from modernbert.training.tasks.task import Task

# Rates that served widths from 256 to 768 well (docs/results.md); larger models want smaller ones.
_RATE_AT_WIDTH_768 = 8e-5
_LAYER = re.compile(r"\blayers\.(\d+)\.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finetuning:
    """How a model is fine-tuned, whatever the task.

    `batch_size` counts examples of an update; at most `pack_tokens` of their tokens go through the model at
    once. `learning_rate` None means 8e-5 at a width of 768 and more for narrower models, in proportion. It
    rises over `warmup_share` of the run and falls in a straight line to 0. `layer_decay` multiplies it once
    for each layer further from the head; the embeddings and the first `num_frozen_layers` layers do not
    learn, where that is above 0. The run stops after `patience` evaluations without a better one.
    `adapt_passes` passes of masked-language modelling over the texts to learn from come first.
    """

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float | None = None
    pack_tokens: int = 8192
    warmup_share: float = 0.1
    optimizer: OptimizerConfig = AdamWConfig()
    layer_decay: float = 1.0
    num_frozen_layers: int = 0
    max_length: int | None = None
    max_grad_norm: float | None = 1.0
    patience: int | None = 3
    precision: Precision = "auto"
    seed: int = 17
    save_every_tokens: int = 500_000
    adapt_passes: int = 0

    def __post_init__(self) -> None:
        require("1 or more", epochs=self.epochs, batch_size=self.batch_size, pack_tokens=self.pack_tokens)
        require("1 or more", max_length=self.max_length, patience=self.patience)
        require("0 or more", num_frozen_layers=self.num_frozen_layers, adapt_passes=self.adapt_passes)
        require("0 or more", seed=self.seed)
        require("above 0", learning_rate=self.learning_rate, max_grad_norm=self.max_grad_norm)
        require("above 0 and at most 1", layer_decay=self.layer_decay)
        require("0 or more and below 1", warmup_share=self.warmup_share)

    def rate_for(self, hidden_size: int) -> float:
        """The peak of the learning rate for a model of this width."""
        return self.learning_rate or _RATE_AT_WIDTH_768 * max(1.0, 768 / hidden_size)


class TaskLoss(nn.Module):
    """The module that the loop trains: examples in, the sum of their losses out."""

    def __init__(self, model: nn.Module, task: Task, backend: str) -> None:
        super().__init__()
        self.model = model
        self.task, self.backend = task, backend

    def forward(self, *inputs: Any) -> Tensor:
        """[1]: the sum over the examples of a micro-batch."""
        return self.task.loss(self.model, *inputs, backend=self.backend).float()[None]


class FinetuningJob:
    """Gives the loop its steps; `evaluate` and `is_over` belong to the run that it serves."""

    sums: tuple[str, ...] = ("loss",)

    def __init__(
        self,
        *,
        settings: Finetuning,
        task: Task,
        examples: ExampleList,
        learning_rate: float,
        group: Group,
        evaluate: Callable[[], dict[str, Any]],
        is_over: Callable[[], bool],
    ) -> None:
        self._settings, self._task, self._examples = settings, task, examples
        self._learning_rate, self._group = learning_rate, group
        self._evaluate, self._is_over = evaluate, is_over
        total = settings.epochs * len(examples)
        warmup = round(settings.warmup_share * total)
        self._schedule = WarmupStableDecay(
            total_tokens=total, warmup_tokens=warmup, decay_tokens=total - warmup
        )

    @property
    def num_tokens(self) -> int:
        """Of all epochs, if none is left out."""
        return self._settings.epochs * int(self._examples.lengths.sum())

    def steps(self, state: dict[str, Any] | None) -> Iterator[tuple[TrainingStep, dict[str, Any]]]:
        """Batches of every epoch; each epoch takes all examples once, in an order of its own."""
        epoch, batch = (0, 0) if state is None else (int(state["epoch"]), int(state["batch"]))
        size, num = self._settings.batch_size, len(self._examples)
        num_batches = -(-num // size)
        for number in range(epoch * num_batches + batch, self._settings.epochs * num_batches):
            epoch, batch = divmod(number, num_batches)
            if batch == 0 and self._is_over():
                return
            chosen = self._order(epoch)[batch * size : (batch + 1) * size].tolist()
            is_last = batch == num_batches - 1
            step = self._step(chosen, number, epoch, before=epoch * num + batch * size, is_last=is_last)
            yield step, {"epoch": epoch + is_last, "batch": 0 if is_last else batch + 1}

    def enter(self, stage: str) -> None:
        """Nothing changes between epochs."""

    def evaluate(self, module: nn.Module) -> dict[str, Any]:
        """Figures on the dev part; the run keeps the best weights."""
        del module  # the run holds the model itself, without what spreads it over processes
        return self._evaluate()

    def _order(self, epoch: int) -> np.ndarray:
        bits = np.random.PCG64DXSM([self._settings.seed, epoch])
        return np.random.Generator(bits).permutation(len(self._examples))

    def _step(
        self, chosen: Sequence[int], number: int, epoch: int, *, before: int, is_last: bool
    ) -> TrainingStep:
        lengths = self._examples.lengths[chosen].tolist()
        return TrainingStep(
            micros=self._micros(chosen, lengths, number),
            num_tokens=sum(lengths),
            peak_learning_rate=self._learning_rate,
            learning_rate_share=self._schedule(before + len(chosen) // 2),
            stage=f"epoch {epoch + 1}",
            is_last_of_stage=is_last,
            facts={"examples": len(chosen)},
            documents=partial(self._names, chosen),
        )

    def _micros(self, chosen: Sequence[int], lengths: Sequence[int], number: int) -> list[Micro]:
        """This process's packs; where there are too few for all, the first is repeated for nothing."""
        budget = self._settings.pack_tokens
        whole = self._task.takes_whole_batches
        packs = [list(range(len(chosen)))] if whole else pack_by_budget(lengths, budget)
        rank, world_size = self._group.rank, self._group.world_size
        numbered = list(enumerate(packs))
        mine = [(index, pack, True) for index, pack in numbered[rank::world_size]]
        if len(mine) < -(-len(packs) // world_size):
            mine.append((0, packs[0], False))
        return [
            self._micro([self._examples[chosen[place]] for place in pack], (number << 12) + index, counts)
            for index, pack, counts in mine
        ]

    def _micro(self, examples: Sequence[Example], number: int, counts: bool) -> Micro:
        weight = sum(example.weight for example in examples) if counts else 0
        return Micro(inputs=self._task.inputs(examples), weight=weight, number=number)

    def _names(self, chosen: Sequence[int]) -> list[str]:
        return [f"training row {self._examples[number].row + 1}" for number in chosen]


def learning_groups(module: nn.Module, settings: Finetuning) -> list[ParameterGroup]:
    """The parameters that learn, in groups by weight decay and by their distance from the head.

    Freezes those that the settings name: call it before the module is spread over processes.
    """
    layers = (_layer(name) for name, _ in module.named_parameters())
    num_layers = 1 + max(layer for layer in layers if layer is not None)
    if settings.num_frozen_layers > num_layers:
        raise TrainingError(
            f"num_frozen_layers={settings.num_frozen_layers} is more than the {num_layers} layers there are"
        )
    if settings.num_frozen_layers > 0:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(_depth(name, num_layers) > settings.num_frozen_layers)
    found: list[ParameterGroup] = []
    for group in parameter_groups(module):
        by_depth: dict[int, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in group.parameters:
            depth = num_layers + 1 if settings.layer_decay == 1.0 else _depth(name, num_layers)
            by_depth.setdefault(depth, []).append((name, parameter))
        found += [
            replace(
                group,
                parameters=tuple(members),
                learning_rate_scale=settings.layer_decay ** (num_layers + 1 - depth),
            )
            for depth, members in sorted(by_depth.items())
        ]
    return found


def _depth(name: str, num_layers: int) -> int:
    """0 for embeddings, 1 for the first layer, and one more than the last layer for what follows it."""
    layer = _layer(name)
    if layer is not None:
        return layer + 1
    return 0 if ".embeddings." in name else num_layers + 1


def _layer(name: str) -> int | None:
    found = _LAYER.search(name)
    return None if found is None else int(found[1])


@torch.no_grad()
def mean_loss(module: TaskLoss, examples: ExampleList, settings: Finetuning, device: torch.device) -> float:
    """The loss of examples that are not learned from: their mean, by weight, without dropout."""
    was_training = module.training
    module.eval()
    total, weight = 0.0, 0
    size = settings.batch_size if module.task.takes_whole_batches else 1024
    for start in range(0, len(examples), size):
        chosen = range(start, min(start + size, len(examples)))
        lengths = examples.lengths[chosen.start : chosen.stop].tolist()
        whole = module.task.takes_whole_batches
        for pack in [list(range(len(chosen)))] if whole else pack_by_budget(lengths, settings.pack_tokens):
            members = [examples[start + place] for place in pack]
            inputs = (each.to(device) for each in module.task.inputs(members))
            total += float(module(*inputs))
            weight += sum(each.weight for each in members)
    module.train(was_training)
    return total / max(weight, 1)
