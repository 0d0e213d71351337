"""One training of a task by one choice of settings: from rows on disk to the best weights and their report.

rows --prepare--> examples, model --Trial.train--> best/ --Trial.finish--> the folder that a user named
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modernbert.corpus.labelled import Rows
from modernbert.errors import TrainingError
from modernbert.files import fsync_folder, write_atomic
from modernbert.inference.pipeline import Model
from modernbert.kernels.hardware import resolve_dtype
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from modernbert.pretrained.heads import with_head
from modernbert.progress import progress
from modernbert.training import journal, loop
from modernbert.training.examples import Examples
from modernbert.training.finetune_data import Sources, gather
from modernbert.training.finetuning import Finetuning, FinetuningJob, TaskLoss, learning_groups, mean_loss
from modernbert.training.parallel import Group, spread
from modernbert.training.recipe import require_same
from modernbert.training.report import draw_progress, write_report
from modernbert.training.run import RECIPE, Switches, compile_or_say
from modernbert.training.tasks.task import BeginsItself, Notes, Parts, Task, TaskConfig

DATA, BEST, RESULT = "data", "best", "result"


@dataclass(kw_only=True)
class Trial:
    """What a run holds: the data and the task, the model that learns, and the places of both."""

    task: Task
    parts: Parts
    notes: Notes
    model: Model
    settings: Finetuning
    switches: Switches
    group: Group
    place: Path
    examples: dict[str, Examples]
    loss: TaskLoss = field(init=False)

    def train(self, recipe: dict[str, Any]) -> bool:
        """Run the loop from where it stands; False where a signal stopped it."""
        module, device = self.model.module, self.group.device
        loss = TaskLoss(module.to(device), self.task, self.switches.backend).train()
        self.model.encoder.recomputes_layers = self.switches.recomputes_layers
        if self.switches.compiles:
            compile_or_say(self.model.encoder, self.group)
        groups = learning_groups(loss, self.settings)
        spread_out = spread(loss, self.model.encoder.layers, self.group, "replicate")
        self.loss = loss
        job = FinetuningJob(
            settings=self.settings,
            task=self.task,
            examples=self.examples["train"],
            learning_rate=self.settings.rate_for(self.model.config.encoder.hidden_size),
            group=self.group,
            evaluate=self.evaluate,
            is_over=self.is_over,
        )
        run = loop.Run(
            job=job,
            module=spread_out,
            optimizer=self.settings.optimizer.build(loss, groups),
            group=self.group,
            settings=self._loop_settings(),
            folder=self.place,
        )
        has_begun = loop.resume(run)
        if has_begun:
            begun = json.loads((self.place / RECIPE).read_text())
            require_same(begun, recipe, phase=0, where=str(self.place))
        if self.group.is_main:
            write_atomic(self.place / RECIPE, json.dumps(recipe, indent=2) + "\n")
        self.group.wait()
        if not has_begun:
            self._measure_the_start()
        return loop.train(run)

    def evaluate(self) -> dict[str, Any]:
        """Figures on the dev part; the weights are kept where they are the best so far."""
        if "dev" not in self.examples:
            return {"sources": {}}
        figures = self._measured()
        earlier = self._scores()
        if self.group.is_main and (not earlier or figures[self.task.metric] > max(earlier)):
            self._keep_best()
        return self._as_row(figures)

    def is_over(self) -> bool:
        """Whether the last `patience` evaluations brought nothing better."""
        scores: list[float] = self.group.from_main(self._scores())
        if self.settings.patience is None or not scores:
            return False
        return len(scores) - 1 - scores.index(max(scores)) >= self.settings.patience

    @property
    def best_score(self) -> float:
        """The best figure on the dev part so far; 0 where there is none."""
        return max(self._scores(), default=0.0)

    def finish(self, out: Path, recipe: dict[str, Any], work: Path, tried: Sequence[dict[str, Any]]) -> None:
        """Fit what follows training, measure the test part, write it all, and give the folder its name."""
        if "dev" not in self.examples:
            self._keep_best()
        self._note_the_course()
        best = _model(read_folder(self.place / BEST, dtype=torch.float32), self.group, self.switches)
        result = work / RESULT
        shutil.rmtree(result, ignore_errors=True)
        settled = {} if self.parts.dev is None else self.task.settle(best, self.parts.dev)
        best.save(result)
        for name in (*journal.FILES, journal.TENSORBOARD):
            _copy(self.place / name, result / name)
        (result / RECIPE).write_text(json.dumps(recipe, indent=2) + "\n")
        write_report(
            result,
            out.name,
            task=self.task,
            model=best,
            parts=self.parts,
            notes=self.notes,
            settled=settled,
            recipe=recipe,
            tried=tried if len(tried) > 1 else (),
        )
        if out.exists():
            out.rmdir()
        os.rename(result, out)
        fsync_folder(out.parent)
        shutil.rmtree(work, ignore_errors=True)

    def _measure_the_start(self) -> None:
        """Figures before the first update, once, so that a reader sees what learning adds.

        They are no candidate for the best weights: whoever asks for training gets what was trained.
        """
        is_known = self.group.from_main(bool(journal.read(self.place / journal.EVALUATIONS)))
        if "dev" not in self.examples or is_known:
            return
        row = self._as_row(self._measured())
        if self.group.is_main:
            log = journal.Journal(self.place, cut_after=0)
            log.write(journal.EVALUATIONS, {"step": 0, "tokens": 0, **row})
            log.close()

    def _measured(self) -> dict[str, float]:
        """Loss and figures on the dev part, measured by the main process."""
        figures: dict[str, float] = {}
        if self.group.is_main:
            assert self.parts.dev is not None
            precision = resolve_dtype(self.settings.precision, self.group.device)
            with torch.autocast(self.group.device.type, precision, precision != torch.float32):
                loss = mean_loss(self.loss, self.examples["dev"], self.settings, self.group.device)
                self._require_number(loss)
                figures = {"loss": loss, **self.task.evaluate(self.model, self.parts.dev).figures}
        return self.group.from_main(figures)

    def _require_number(self, loss: float) -> None:
        if not math.isfinite(loss):
            rate = self.settings.rate_for(self.model.config.encoder.hidden_size)
            raise TrainingError(
                f"the loss on the dev part is not a number any more: at a learning rate of {rate:g} the "
                "weights have run away\nhint: choose a lower rate, such as a tenth of it, and another folder"
            )

    def _as_row(self, figures: dict[str, float]) -> dict[str, Any]:
        return {"loss_per": self.task.unit, "sources": {"dev": figures}}

    def _scores(self, *, of_start: bool = False) -> list[float]:
        """The metric at each evaluation, or at the start alone: the journal goes on with the run."""
        rows = journal.read(self.place / journal.EVALUATIONS)
        wanted = [row["sources"].get("dev", {}) for row in rows if (row["step"] == 0) == of_start]
        return [figures[self.task.metric] for figures in wanted if self.task.metric in figures]

    def _note_the_course(self) -> None:
        """Say where learning brought nothing, and how many updates were left out."""
        start = next(iter(self._scores(of_start=True)), None)
        if start is not None and start >= self.best_score:
            self.notes.warn(
                f"learning brought nothing better on the dev part: {self.task.metric} was {start:.4f} before "
                f"the first update, and {self.best_score:.4f} in the folder, after the best epoch"
            )
        steps = journal.read(self.place / journal.STEPS)
        num_skipped = sum(bool(step["skipped"]) for step in steps)
        if num_skipped:
            self.notes.warn(
                f"{num_skipped:,} of {len(steps):,} updates were left out, since their loss or gradient was "
                f"not a number; {journal.ACCIDENTS} names their rows. A lower learning rate is the usual cure"
            )

    def _keep_best(self) -> None:
        write_folder(self.place / BEST, self.model.pretrained)

    def _loop_settings(self) -> loop.LoopSettings:
        settings = self.settings
        return loop.LoopSettings(
            seed=settings.seed,
            precision=resolve_dtype(settings.precision, self.group.device),
            max_grad_norm=settings.max_grad_norm,
            spike_ratio=float("inf"),  # losses of small batches jump, and mean nothing
            max_skipped_steps=10,
            save_every_tokens=settings.save_every_tokens,
            evaluate_every_tokens=2**62,  # at the end of every epoch alone
            num_kept=1,
            keeps_ends=False,
            draw=partial(draw_progress, unit=self.task.unit),
        )


def prepare(
    config: TaskConfig,
    sources: Sources,
    base: Path,
    work: Path,
    place: Path,
    settings: Finetuning,
    switches: Switches,
    group: Group,
) -> Trial:
    """Read what is not read yet, and make the task, the model that learns and its examples ready."""
    notes = Notes(speaks=group.is_main)
    if group.is_main:
        gather(config, sources, work / DATA, seed=settings.seed, notes=notes)
    group.wait()
    parts = Parts(
        train=Rows.open(work / DATA / "train.jsonl"),
        dev=_open(work / DATA / "dev.jsonl"),
        test=_open(work / DATA / "test.jsonl"),
    )
    task = config.prepare(parts, notes)
    pretrained = read_folder(base, dtype=torch.float32)
    begins = isinstance(task, BeginsItself)
    seed = settings.seed
    ours = task.begin(pretrained, seed=seed) if begins else with_head(pretrained, task.head, seed=seed)
    model = _model(ours, group, switches)
    limit = settings.max_length or model.max_length
    room = model.longest_possible
    if limit > room:
        raise TrainingError(
            f"max_length={limit} is more than the {room} tokens that {base} can take; leave it out, or "
            "name a model of longer texts"
        )
    if limit != model.max_length:  # the folder says what it has learned with, and is used so
        ours = replace(ours, settings=replace(ours.settings, max_seq_length=limit))
        model = _model(ours, group, switches)
    note_idle_processes(task, config.name, group, notes)
    examples: dict[str, Examples] = {}
    for name, rows in parts.items():
        if name != "test":
            examples[name] = _examples(
                task, rows, model, limit, work / DATA / f"{name}.examples", notes, group
            )
    return Trial(
        task=task,
        parts=parts,
        notes=notes,
        model=model,
        settings=settings,
        switches=switches,
        group=group,
        place=place,
        examples=examples,
    )


def note_idle_processes(task: Task, name: str, group: Group, notes: Notes) -> None:
    """Say that more processes than one help nothing, where a loss needs all examples of an update at once."""
    if task.takes_whole_batches and not group.is_alone:
        notes.warn(
            f"{name} compares all examples of an update with each other, so one process computes each "
            f"update, and the other {group.world_size - 1:,} repeat it for nothing: start one process"
        )


def _examples(
    task: Task, rows: Rows, model: Model, limit: int, folder: Path, notes: Notes, group: Group
) -> Examples:
    """The examples of a part, written where they are not there yet; what is noted of them is kept beside."""
    kept = folder.with_suffix(".json")
    if group.is_main and not kept.exists():
        found = Notes(prefix=f"{folder.stem}: ", speaks=notes.speaks)
        shown = progress(rows, label=f"read {folder.stem}", total=len(rows), unit=" rows")
        Examples.write(folder, task.examples(shown, model, limit, found))
        write_atomic(kept, json.dumps(found.lines))
    group.wait()
    for line in json.loads(kept.read_text()):
        notes.add(line)
    examples = Examples(folder)
    if len(examples) == 0:
        raise TrainingError(f"no row of the {folder.stem} part can be used: {'; '.join(notes.lines)}")
    return examples


def _model(pretrained: Pretrained, group: Group, switches: Switches) -> Model:
    return Model(pretrained, device=group.device, backend=switches.backend, name="the model")


def _open(path: Path) -> Rows | None:
    return Rows.open(path) if path.exists() else None


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)
