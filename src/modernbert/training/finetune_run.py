"""From a user's file to a model folder with a report: what `modernbert finetune` calls.

    sentiment.unfinished/   recipe.json, journal.jsonl, evaluations.jsonl, checkpoints/, data/, best/
    sentiment/              the model, its card, report.md with pictures, predictions.jsonl, the journal

Killed and called again with the same words, it goes on. The second folder appears at once, when all is done.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from modernbert import bundled
from modernbert.corpus.digests import digest
from modernbert.corpus.labelled import Rows
from modernbert.errors import TrainingError
from modernbert.files import fsync_folder, held, sha256, write_atomic
from modernbert.inference.pipeline import Model
from modernbert.kernels.hardware import resolve_dtype
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from modernbert.pretrained.heads import with_head
from modernbert.pretrained.hub import fetch
from modernbert.progress import progress
from modernbert.training import journal, loop
from modernbert.training.adapting import adapt
from modernbert.training.examples import Examples
from modernbert.training.finetune_data import gather
from modernbert.training.finetuning import Finetuning, FinetuningJob, TaskLoss, learning_groups, mean_loss
from modernbert.training.parallel import Group, joined, spread
from modernbert.training.recipe import as_data, require_same
from modernbert.training.report import draw_progress, write_report
from modernbert.training.run import RECIPE, Switches, compile_or_say
from modernbert.training.sweep import Sweep, trials
from modernbert.training.tasks.task import BeginsItself, Notes, Parts, Task, TaskConfig

DATA, BEST, RESULT, CHECKPOINTS = "data", "best", "result", loop.CHECKPOINTS
_PACKAGES = ("modernbert", "torch", "numpy", "tokenizers")


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


def finetune(
    task: TaskConfig,
    data: str | Path | Sources,
    *,
    model: str | Path,
    out: str | Path,
    settings: Finetuning = Finetuning(),
    sweep: Sweep | None = None,
    switches: Switches = Switches(),
) -> Path | None:
    """Teach a model the task by the labelled rows of a file; returns the folder `out`, a model folder.

    `model` is any encoder: a folder, a bundled name or a hub id. Without files of their own, a tenth of the
    rows each chooses the best weights and tests them. `sweep` tries several settings and keeps the one that
    is best on the dev part. Called again on the same `out`, it goes on after a kill, and only opens what is
    finished; None means that a signal stopped it, after it was saved.

    Raises CorpusError for the file, TrainingError for the run, FolderError for the model.
    """
    sources = data if isinstance(data, Sources) else Sources(train=str(data))
    out = Path(out)
    work = out.with_name(f"{out.name}.unfinished")
    base = _find(model)
    recipe = _recipe(task, sources, base, str(model), settings, sweep)
    if _is_finished(out, recipe):
        shutil.rmtree(work, ignore_errors=True)
        return out
    with ExitStack() as stack:
        if int(os.environ.get("RANK", "0")) == 0 and not stack.enter_context(held(work)):
            raise TrainingError(f"another process is training in {work}; wait for it, or name another --out")
        if settings.adapt_passes:
            adapted = _adapt(task, sources, base, work, settings, switches)
            if adapted is None:
                return None
            base = adapted
        group = stack.enter_context(joined(switches.device))
        best: _Finetuner | None = None
        tried: list[dict[str, Any]] = []
        for name, chosen in trials(settings, sweep).items():
            place = work / "sweep" / name if name else work
            place.mkdir(parents=True, exist_ok=True)
            run = _prepare(task, sources, base, work, place, chosen, switches, group)
            if not run.train(recipe | {"settings": as_data(chosen)}):
                return None
            tried.append({"trial": name, "best": run.best_score, "evaluations": run.evaluations()})
            if best is None or run.best_score > best.best_score:
                best = run
        assert best is not None
        if group.is_main:
            best.finish(out, recipe | {"settings": as_data(best.settings)}, work, tried)
        group.wait()
        return out


@dataclass(kw_only=True)
class _Finetuner:
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
        if loop.resume(run):
            begun = json.loads((self.place / RECIPE).read_text())
            require_same(begun, recipe, phase=0, where=str(self.place))
        if self.group.is_main:
            write_atomic(self.place / RECIPE, json.dumps(recipe, indent=2) + "\n")
        self.group.wait()
        return loop.train(run)

    def evaluate(self) -> dict[str, Any]:
        """Figures on the dev part; the weights are kept where they are the best so far."""
        if "dev" not in self.examples:
            return {"sources": {}}
        figures: dict[str, float] = {}
        if self.group.is_main:
            precision = resolve_dtype(self.settings.precision, self.group.device)
            with torch.autocast(self.group.device.type, precision, precision != torch.float32):
                loss = mean_loss(self.loss, self.examples["dev"], self.settings, self.group.device)
                assert self.parts.dev is not None
                figures = {"loss": loss, **self.task.evaluate(self.model, self.parts.dev).figures}
            earlier = self._scores()
            if not earlier or figures[self.task.metric] > max(earlier):
                self._keep_best()
        return {"sources": {"dev": self.group.from_main(figures)}}

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

    def evaluations(self) -> list[dict[str, Any]]:
        """The figures on the dev part, evaluation by evaluation."""
        return [row["sources"].get("dev", {}) for row in journal.read(self.place / journal.EVALUATIONS)]

    def finish(self, out: Path, recipe: dict[str, Any], work: Path, tried: Sequence[dict[str, Any]]) -> None:
        """Fit what follows training, measure the test part, write it all, and give the folder its name."""
        if "dev" not in self.examples:
            self._keep_best()
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

    def _scores(self) -> list[float]:
        """The metric at each evaluation so far, from the journal, which goes on with the run."""
        found = [figures.get(self.task.metric) for figures in self.evaluations()]
        return [each for each in found if each is not None]

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
            draw=draw_progress,
        )


def _prepare(
    config: TaskConfig,
    sources: Sources,
    base: Path,
    work: Path,
    place: Path,
    settings: Finetuning,
    switches: Switches,
    group: Group,
) -> _Finetuner:
    notes = Notes()
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
    if limit > model.max_length:  # more than the folder says, and perhaps than it could take
        room = model.longest_possible
        if limit > room:
            raise TrainingError(
                f"max_length={limit} is more than the {room} tokens that {base} can take; leave it out, or "
                "name a model of longer texts"
            )
        ours = replace(ours, settings=replace(ours.settings, max_seq_length=limit))
        model = _model(ours, group, switches)
    examples: dict[str, Examples] = {}
    for name, rows in parts.items():
        if name != "test":
            examples[name] = _examples(
                task, rows, model, limit, work / DATA / f"{name}.examples", notes, group
            )
    return _Finetuner(
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


def _examples(
    task: Task, rows: Rows, model: Model, limit: int, folder: Path, notes: Notes, group: Group
) -> Examples:
    """The examples of a part, written where they are not there yet; what is noted of them is kept beside."""
    kept = folder.with_suffix(".json")
    if group.is_main and not kept.exists():
        found = Notes()
        shown = progress(rows, label=f"read {folder.stem}", total=len(rows), unit=" rows")
        Examples.write(folder, task.examples(shown, model, limit, found))
        write_atomic(kept, json.dumps(found.lines))
    group.wait()
    for line in json.loads(kept.read_text()):
        notes.add(f"{folder.stem}: {line}")
    examples = Examples(folder)
    if len(examples) == 0:
        raise TrainingError(f"no row of the {folder.stem} part can be used: {'; '.join(notes.lines)}")
    return examples


def _model(pretrained: Pretrained, group: Group, switches: Switches) -> Model:
    return Model(pretrained, device=group.device, backend=switches.backend, name="the model")


def _find(model: str | Path) -> Path:
    return bundled.path(str(model)) if str(model) in bundled.names() else fetch(model)


def _open(path: Path) -> Rows | None:
    return Rows.open(path) if path.exists() else None


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)


def _is_finished(out: Path, recipe: dict[str, Any]) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    path = out / RECIPE
    if not path.exists():
        raise TrainingError(f"{out} is there and is no fine-tuned model; name another folder, or remove it")
    require_same(json.loads(path.read_text()), recipe, phase=0, where=str(out))
    return True


def _adapt(
    task: TaskConfig, sources: Sources, base: Path, work: Path, settings: Finetuning, switches: Switches
) -> Path | None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError(
            "adapt to the texts with one process first; then fine-tune with many from its folder"
        )
    gather(task, sources, work / DATA, seed=settings.seed, notes=Notes())
    rows = Rows.open(work / DATA / "train.jsonl")
    width = read_folder(base).config.encoder.hidden_size
    return adapt(
        base,
        _different(text for row in rows for text in task.texts(row)),
        work / "adapt",
        passes=settings.adapt_passes,
        learning_rate=settings.rate_for(width),
        seed=settings.seed,
        switches=switches,
    )


def _different(texts: Iterable[str]) -> Iterator[str]:
    """Each text once: many questions have one context."""
    seen: set[bytes] = set()
    for text in texts:
        found = digest(text)
        if found not in seen:
            seen.add(found)
            yield text


def _recipe(
    task: TaskConfig, sources: Sources, base: Path, name: str, settings: Finetuning, sweep: Sweep | None
) -> dict[str, Any]:
    """Everything that decides what comes out, for the report and to tell one run from another."""
    files = {part: getattr(sources, part) for part in ("train", "dev", "test")}
    weights = sorted(base.glob("*.safetensors"))
    return {
        "name": task.name,
        "task": as_data(task),
        "settings": as_data(settings),
        "sweep": as_data(sweep),
        "model": {"name": name, "sha256": {path.name: sha256(path) for path in weights}},
        "data": as_data(sources)
        | {"sha256": {part: sha256(Path(each)) for part, each in files.items() if _is_file(each)}},
        "packages": {each: metadata.version(each) for each in _PACKAGES},
    }


def _is_file(source: str | None) -> bool:
    return source is not None and Path(source).is_file()
