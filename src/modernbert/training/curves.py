"""What a run has done so far, for a person: its curves as a picture, and one line of a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modernbert.errors import TrainingError
from modernbert.plots import Panel, curves
from modernbert.training import journal
from modernbert.training.journal import EVALUATIONS, STEPS

PICTURE = "curves.png"
MOST_POINTS = 2000  # of a line: more than a picture has columns
LONGEST_MEAN, SHARE_OF_MEAN = 20, 0.02  # points that a mean is of, at most, and of all
MOST_PARTS = 6  # lines of sources or labels in a panel of probes: a picture has colours for eight lines
Points = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Where a run stands: losses are per masked token; probes are balanced accuracy and mean reciprocal rank,
    None where they were not asked for.

    Of a fine-tuning, losses are per what its task counts, the held-out figures are those of the dev part, and
    `total_tokens`, which nobody knows beforehand, is None.
    """

    name: str
    recipe: str
    phase: str
    step: int
    tokens: int
    total_tokens: int | None
    loss: float | None
    valid_loss: float | None
    valid_accuracy: float | None
    probe_classification: float | None
    probe_retrieval: float | None
    tokens_per_second: float
    num_skipped: int
    is_finished: bool


def summarize(folder: Path) -> Summary:
    """Read a run's folder; TrainingError where it is none, or has made no step."""
    recipe = _recipe(folder)
    rows, evaluations = journal.read(folder / STEPS), journal.read(folder / EVALUATIONS)
    if not rows:
        raise TrainingError(f"{folder} has made no step yet")
    last, valid = rows[-1], evaluations[-1] if evaluations else {}
    phases, is_pretraining = recipe.get("phases", []), "phases" in recipe
    if not is_pretraining:
        valid = valid.get("sources", {}).get("dev", {})
    probes = valid.get("probes", {})
    recent = sorted(row["tokens_per_second"] for row in rows[-100:])
    return Summary(
        name=folder.name,
        recipe=recipe["name"],
        phase=last["phase"],
        step=last["step"],
        tokens=last["tokens"],
        total_tokens=sum(phase["tokens"] for phase in phases) if is_pretraining else None,
        loss=_mean(row["loss"] for row in rows[-20:]),
        valid_loss=valid.get("loss"),
        valid_accuracy=valid.get("accuracy"),
        probe_classification=probes.get("classification", {}).get("balanced_accuracy"),
        probe_retrieval=probes.get("retrieval", {}).get("mrr"),
        tokens_per_second=recent[len(recent) // 2],
        num_skipped=sum(bool(row["skipped"]) for row in rows),
        is_finished=((folder / "final" if is_pretraining else folder) / "config.json").exists(),
    )


def draw(folder: Path, target: Path | None = None) -> Path:
    """Draw the curves of a pretraining into its folder, or to `target`; returns the picture's path.

    Raises InputError before the first step, ModernBertError without matplotlib.
    """
    rows, evaluations = journal.read(folder / STEPS), journal.read(folder / EVALUATIONS)
    marks = _marks(rows)
    sources = sorted({name for row in evaluations for name in row["sources"]})
    by_source = {
        key: {name: _points(_flat(evaluations, name), key) for name in sources}
        for key in ("loss", "accuracy")
    }
    raw = _thin(_points(rows, "nll"))
    panels = [
        Panel(
            title="loss per masked token",
            lines={"training": smoothed(raw), "held out": _points(evaluations, "loss")},
            faint=raw,
            marks=marks,
            unit="nats",
        ),
        Panel(title="held-out loss by source", lines=by_source["loss"], unit="nats"),
        Panel(title="held-out masked accuracy by source", lines=by_source["accuracy"]),
        *_probe_panels(evaluations),
        _panel(rows, "gradient_norm", "gradient norm", marks, is_logarithmic=True),
        _panel(rows, "learning_rate", "learning rate", marks),
        _panel(rows, "mask_rate", "share of tokens masked", marks),
        _panel(rows, "tokens_per_second", "speed", marks, unit="tokens per second"),
        _panel(rows, "efficiency", "packing: real tokens in the room of a step", marks),
    ]
    path = target or folder / PICTURE
    curves(panels, path, title=f"{folder.name} ({_recipe(folder)['name']})", x_label="tokens")
    return path


def smoothed(points: Sequence[tuple[float, float]]) -> Points:
    """An exponential mean over a share of the run: a longer one would lag behind a short run's fall.

    The first values count as much as there are of them.
    """
    smooth: Points = []
    total = weight = 0.0
    decay = 1.0 - 1.0 / max(1.0, min(LONGEST_MEAN, len(points) * SHARE_OF_MEAN))
    for x, y in points:
        total, weight = decay * total + y, decay * weight + 1.0
        smooth.append((x, total / weight))
    return smooth


def find_runs(folder: Path) -> list[Path]:
    """The run that `folder` is, or the runs in it, by name."""
    if (folder / STEPS).exists():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{STEPS}")) if folder.is_dir() else []
    if not found:
        raise TrainingError(
            f"there is no run in {folder}: a run is a folder with {STEPS}, as `modernbert pretrain` makes it"
        )
    return found


def _recipe(folder: Path) -> dict[str, Any]:
    path = folder / "recipe.json"
    if not path.exists():
        raise TrainingError(f"{folder} is not the folder of a run: it has no recipe.json")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise TrainingError(f"{path} cannot be read: {error}") from error


def _panel(
    rows: Sequence[Mapping[str, Any]],
    key: str,
    title: str,
    marks: Mapping[str, float],
    *,
    unit: str = "",
    is_logarithmic: bool = False,
) -> Panel:
    points = _thin(_points(rows, key))
    return Panel(title=title, lines={key: points}, marks=marks, unit=unit, is_logarithmic=is_logarithmic)


def _probe_panels(evaluations: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """What the vectors are good for, over all and by source or label, beside what needs no model."""
    return [
        Panel(
            title="probe: texts told apart, balanced accuracy",
            lines=_probe_lines(
                evaluations,
                "classification",
                {"over all": "balanced_accuracy", "majority": "majority"},
                "recall",
            ),
        ),
        Panel(
            title="probe: other halves found, mean reciprocal rank",
            lines=_probe_lines(
                evaluations, "retrieval", {"over all": "mrr", "words alone": "words_mrr"}, "mrr_by_source"
            ),
        ),
    ]


def _probe_lines(
    evaluations: Sequence[Mapping[str, Any]], probe: str, scores: Mapping[str, str], parts: str
) -> dict[str, Points]:
    """A line for each of the scores, and for each of their parts where they are few."""
    rows = [(row["tokens"], row["probes"][probe]) for row in evaluations if probe in row.get("probes", {})]
    names = sorted({name for _, found in rows for name in found[parts]})
    lines: dict[str, Points] = {}
    for name in names if len(names) <= MOST_PARTS else ():  # first, for the colours of the other panels
        lines[name] = [(tokens, found[parts][name]) for tokens, found in rows if name in found[parts]]
    for name, key in scores.items():
        lines[name] = [(tokens, found[key]) for tokens, found in rows]
    return lines


def _points(rows: Iterable[Mapping[str, Any]], key: str) -> Points:
    return [(row["tokens"], row[key]) for row in rows if row.get(key) is not None]


def _flat(evaluations: Iterable[Mapping[str, Any]], source: str) -> Iterable[dict[str, Any]]:
    return ({"tokens": row["tokens"], **row["sources"].get(source, {})} for row in evaluations)


def _marks(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Where each phase but the first began."""
    found: dict[str, float] = {}
    for row in rows:
        found.setdefault(row["phase"], row["tokens"])
    return dict(list(found.items())[1:])


def _thin(points: Points) -> Points:
    every = -(-len(points) // MOST_POINTS) or 1
    return points[::every]


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None
