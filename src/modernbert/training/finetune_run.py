"""From a user's file to a model folder with a report: what `modernbert finetune` calls.

    sentiment.unfinished/   recipe.json, journal.jsonl, evaluations.jsonl, checkpoints/, data/, best/
    sentiment/              the model, its card, report.md with pictures, predictions.jsonl, the journal

Killed and called again with the same words, it goes on. The second folder appears at once, when all is done.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from modernbert import bundled
from modernbert.corpus.digests import digest
from modernbert.corpus.labelled import Rows
from modernbert.errors import ModernBertError, TrainingError
from modernbert.files import held, sha256, write_atomic
from modernbert.pretrained.folder import read_folder
from modernbert.pretrained.hub import fetch
from modernbert.training.adapting import adapt
from modernbert.training.finetune_data import Sources, gather
from modernbert.training.finetune_trial import DATA, Trial, prepare
from modernbert.training.finetuning import Finetuning
from modernbert.training.parallel import joined
from modernbert.training.recipe import as_data, require_same
from modernbert.training.run import RECIPE, Switches
from modernbert.training.sweep import Sweep, trials
from modernbert.training.tasks.task import Notes, TaskConfig

_HELD = ".held"  # what files.held locks by
_ASKED = "settings_asked_for"  # of a sweep, beside those that it found best
_PACKAGES = ("modernbert", "torch", "numpy", "tokenizers")


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
        stack.enter_context(_full_disk_named(work))
        if os.environ.get("RANK", "0") == "0":
            if not stack.enter_context(held(work)):
                raise TrainingError(
                    f"another process is training in {work}; wait for it, or name another --out"
                )
            stack.enter_context(_nothing_left_of_nothing(work))
            _begin(work, recipe)
        if settings.adapt_passes:
            adapted = _adapt(task, sources, base, work, settings, switches)
            if adapted is None:
                return None
            base = adapted
        group = stack.enter_context(joined(switches.device))
        best: Trial | None = None
        tried: list[dict[str, Any]] = []
        for name, chosen in trials(settings, sweep).items():
            place = work / "sweep" / name if name else work
            place.mkdir(parents=True, exist_ok=True)
            run = prepare(task, sources, base, work, place, chosen, switches, group)
            if not run.train(recipe | {"settings": as_data(chosen)}):
                return None
            tried.append({"trial": name, "best": run.best_score})
            if best is None or run.best_score > best.best_score:
                best = run
        assert best is not None
        if group.is_main:
            found = {"settings": as_data(best.settings)} | ({_ASKED: recipe["settings"]} if sweep else {})
            best.finish(out, recipe | found, work, tried)
        group.wait()
        return out


def _find(model: str | Path) -> Path:
    return bundled.path(str(model)) if str(model) in bundled.names() else fetch(model)


def _is_finished(out: Path, recipe: dict[str, Any]) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    path = out / RECIPE
    if not path.exists():
        raise TrainingError(f"{out} is there and is no fine-tuned model; name another folder, or remove it")
    finished = json.loads(path.read_text())
    if _ASKED in finished:
        finished["settings"] = finished.pop(_ASKED)
    require_same(finished, recipe, phase=0, where=str(out))
    return True


def _begin(work: Path, recipe: dict[str, Any]) -> None:
    """Write down what begins here; what was read by other words is forgotten.

    Raises TrainingError where a run of other words has learned something here already.
    """
    path, said = work / RECIPE, json.loads(json.dumps(recipe))
    begun = json.loads(path.read_text()) if path.exists() else {}
    if begun == said:
        return
    if begun and _has_learned(work):
        require_same(begun, said, phase=0, where=str(work))
        return
    for each in work.iterdir():
        if each.is_dir():
            shutil.rmtree(each)
        elif each.name != _HELD:
            each.unlink()
    write_atomic(path, json.dumps(recipe, indent=2) + "\n")


def _has_learned(work: Path) -> bool:
    learned = (work.glob(each) for each in ("checkpoints/*", "sweep/*/checkpoints/*", "adapt/run"))
    return any(any(each) for each in learned)


@contextmanager
def _nothing_left_of_nothing(work: Path) -> Generator[None]:
    """A file or a model that cannot be used leaves no folder behind, unless something was learned before."""
    try:
        yield
    except ModernBertError:
        if not _has_learned(work):
            shutil.rmtree(work, ignore_errors=True)
        raise


@contextmanager
def _full_disk_named(work: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TrainingError(
            f"no space left to write {error.filename or work}; what was learned so far is in {work}.\n"
            "hint: free space, then run the same command: it goes on from there"
        ) from error


def _adapt(
    task: TaskConfig, sources: Sources, base: Path, work: Path, settings: Finetuning, switches: Switches
) -> Path | None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError(
            "adapt to the texts with one process first; then fine-tune with many from its folder"
        )
    gather(task, sources, work / DATA, seed=settings.seed, notes=Notes(speaks=True))
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
