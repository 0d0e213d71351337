"""How well a classifier does: figures of a part, what is fitted afterwards, and its part of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from modernbert.corpus.labelled import Row, Rows
from modernbert.heads.classify import Problem, SequenceClassifier
from modernbert.inference.pipeline import Model
from modernbert.inference.results import Classification
from modernbert.inference.scores import softmax
from modernbert.metrics import calibration, classification
from modernbert.report_plots import (
    class_bars,
    confusion_picture,
    precision_recall_picture,
    reliability_picture,
    scatter_picture,
)
from modernbert.training.baseline import (
    MOST_ROWS,
    Baseline,
    class_baseline,
    sample,
    set_baseline,
    value_baseline,
)
from modernbert.training.tables import has_pictures, table
from modernbert.training.tasks.sequences import batches
from modernbert.training.tasks.task import Evaluation, ReportContext, Section

if TYPE_CHECKING:
    from jaxtyping import Float

    from modernbert.inference.inputs import Text

_SMALLEST = 1e-12
_SHOWN = {
    "single_label": ("accuracy", "macro_f1", "weighted_f1", "mcc", "auc", "ece"),
    "multi_label": ("micro_f1", "macro_f1", "subset_accuracy"),
    "regression": ("spearman", "pearson", "mse", "mae", "r2"),
}
_MOST_LINES = 8
FEWEST_ROWS = 50


def text_of(row: Row) -> Text:
    """The text of a row, or its pair."""
    return (row["text"], row["second"]) if "second" in row else row["text"]


def wanted(rows: Rows, labels: Sequence[str], problem: Problem) -> np.ndarray:
    """What the rows say: numbers of classes [N], -1 for unknown ones; sets [N, C]; or values [N]."""
    if problem == "regression":
        return np.array(rows.column("label"), float)
    number = {label: place for place, label in enumerate(labels)}
    if problem == "single_label":
        return np.array([number.get(label, -1) for label in rows.column("label")], int)
    sets = np.zeros((len(rows), len(labels)), bool)
    for row, chosen in enumerate(rows.column("label")):
        sets[row, [number[label] for label in chosen if label in number]] = True
    return sets


def evaluate(model: Model, rows: Rows, labels: Sequence[str], problem: Problem) -> Evaluation:
    """Figures of a part and a prediction a row, by `Model.classify`."""
    scores = np.zeros((len(rows), len(labels)))
    predictions = Rows.write(
        rows.path.with_name(f"{rows.path.stem}.predictions.jsonl"),
        _predicted(model, rows, labels, problem, scores),
    )
    return Evaluation(
        figures=figures(wanted(rows, labels, problem), scores, problem), predictions=predictions
    )


def _predicted(
    model: Model, rows: Rows, labels: Sequence[str], problem: Problem, scores: np.ndarray
) -> Iterator[Row]:
    """Each row with what the model says of it; its scores go into `scores` too. Few rows lie in memory."""
    done = 0
    for batch in batches(rows):
        found = model.classify([text_of(row) for row in batch])  # pyright: ignore[reportArgumentType]
        scores[done : done + len(batch)] = [[each.scores[label] for label in labels] for each in found]
        done += len(batch)
        for row, each in zip(batch, found, strict=True):
            yield {**row, "predicted": _given(each, problem), "scores": each.scores}


def _given(found: Classification, problem: Problem) -> Any:
    if problem == "multi_label":
        return found.above()
    return found.score if problem == "regression" else found.label


def figures(gold: np.ndarray, scores: Float[np.ndarray, "N C"], problem: Problem) -> dict[str, float]:
    """All figures of a problem, from what was wanted and the scores that were given."""
    if problem == "regression":
        return classification.values(gold, scores[:, 0])
    if problem == "multi_label":
        return classification.label_sets(gold, scores >= 0.5)
    return classification.classes(gold, scores) | {"ece": calibration.calibration_error(gold, scores)}


def settle(model: Model, dev: Rows, labels: Sequence[str], problem: Problem) -> dict[str, Any]:
    """Fit a temperature or thresholds on the dev part and put them into the weights of the classifier.

    A dev part of fewer than FEWEST_ROWS says too little, and nothing is fitted.
    """
    if problem == "regression" or len(dev) < FEWEST_ROWS:
        return {}
    gold = wanted(dev, labels, problem)
    scores = _scores(evaluate(model, dev, labels, problem), labels)
    layer = cast(SequenceClassifier, model.module).classifier
    if problem == "single_label":
        known = gold >= 0
        logits = np.log(np.maximum(scores[known], _SMALLEST))
        temperature = calibration.fit_temperature(logits, gold[known])
        with torch.no_grad():
            layer.weight.div_(temperature)
            layer.bias.div_(temperature)
        before = calibration.calibration_error(gold[known], scores[known])
        after = calibration.calibration_error(gold[known], softmax(logits / temperature))
        return {"temperature": temperature, "calibration error before": before, "and after": after}
    thresholds = [
        classification.best_threshold(gold[:, place], scores[:, place]) for place in range(len(labels))
    ]
    logit = np.log(np.clip(thresholds, 1e-6, 1 - 1e-6)) - np.log1p(-np.clip(thresholds, 1e-6, 1 - 1e-6))
    with torch.no_grad():
        layer.bias.sub_(torch.tensor(logit, dtype=layer.bias.dtype, device=layer.bias.device))
    return {f"threshold of {label}": float(each) for label, each in zip(labels, thresholds, strict=True)}


def report(context: ReportContext, labels: Sequence[str], problem: Problem, *, seed: int) -> list[Section]:
    """The sections of report.md: results beside baselines, classes, and how sure the model is."""
    name, rows, measured = context.measured
    if measured is None or rows is None:
        return [Section(title="Results", text="There was no held-out part, so nothing was measured.")]
    gold = wanted(rows, labels, problem)
    baseline = _baseline(context.parts.train, rows, labels, problem, seed)
    shown = _SHOWN[problem]
    lines: list[tuple[str | float, ...]] = [
        (f"this model, {part}", *(evaluation.figures[each] for each in shown))
        for part, evaluation in (("test", context.test), ("dev", context.dev))
        if evaluation is not None
    ]
    others = {
        title: figures(gold, scores, problem)
        for title, scores in ((_words(baseline), baseline.scores), (_CONSTANT[problem], baseline.constant))
    }
    lines += [(f"{title}, {name}", *(found[each] for each in shown)) for title, found in others.items()]
    counts = ", ".join(f"{len(part):,} rows {kind}" for kind, part in context.parts.items())
    text = f"{table(('', *shown), lines)}\n\nOf {counts}."
    sections = [Section(title="Results", text=text, figures=others)]
    scores = _scores(measured, labels)
    if problem == "regression":
        return [*sections, _values(context, gold, scores[:, 0])]
    each = (
        classification.set_figures(gold, scores >= 0.5)
        if problem == "multi_label"
        else classification.per_class(_confusion(gold, scores))
    )
    rows_of_table = classification.report_rows(labels, each)
    text = table(("class", "precision", "recall", "F1", "rows"), rows_of_table)
    sections.append(_with_bars(context, Section(title="Class by class", text=text), labels, each))
    sections.append(_curves(context, gold, scores, labels, problem))
    if problem == "single_label":
        sections += [_confused(context, gold, scores, labels), _sureness(context, gold, scores)]
    return sections


_CONSTANT = {
    "single_label": "always the most common",
    "multi_label": "always the most common",
    "regression": "always the mean",
}


def _words(baseline: Baseline) -> str:
    sample = f", a sample of {baseline.num_rows:,} rows" if baseline.num_rows == MOST_ROWS else ""
    read = "".join(
        f", {kind} of the first {most:,} characters of a text"
        for kind, most in zip(("words", "letters"), baseline.read, strict=True)
        if most is not None
    )
    return f"TF-IDF and a linear model{sample}{read}"


def _baseline(train: Rows, held: Rows, labels: Sequence[str], problem: Problem, seed: int) -> Baseline:
    chosen = sample(len(train), seed)
    texts, others = [_joined(train[row]) for row in chosen], [_joined(row) for row in held]
    gold = wanted(train, labels, problem)[chosen]
    if problem == "single_label":
        return class_baseline(texts, gold, others, len(labels))
    return (set_baseline if problem == "multi_label" else value_baseline)(texts, gold, others)


def _joined(row: Row) -> str:
    return f"{row['text']} | {row['second']}" if "second" in row else row["text"]


def _scores(evaluation: Evaluation, labels: Sequence[str]) -> np.ndarray:
    return np.array([[row["scores"][label] for label in labels] for row in evaluation.predictions])


def _confusion(gold: np.ndarray, scores: np.ndarray) -> np.ndarray:
    known = gold >= 0
    return classification.confusion(gold[known], scores[known].argmax(axis=1), scores.shape[1])


def _with_bars(context: ReportContext, section: Section, labels: Sequence[str], each: Any) -> Section:
    if not has_pictures():
        return section
    class_bars(
        {label: one.f1 for label, one in zip(labels, each, strict=True)},
        context.folder / "classes.png",
        what="F1",
    )
    return Section(title=section.title, text=section.text, pictures=["classes.png"])


def _curves(
    context: ReportContext, gold: np.ndarray, scores: np.ndarray, labels: Sequence[str], problem: Problem
) -> Section:
    """Precision and recall of the most common classes, at every threshold."""
    is_of = gold if problem == "multi_label" else gold[:, None] == np.arange(len(labels))
    most_common: list[int] = np.argsort(-is_of.sum(axis=0), kind="stable")[:_MOST_LINES].tolist()
    common = [place for place in most_common if is_of[:, place].any()]
    rows = [
        (labels[each], classification.average_precision(is_of[:, each], scores[:, each])) for each in common
    ]
    lines = {
        labels[each]: classification.precision_recall(is_of[:, each], scores[:, each])[:2] for each in common
    }
    pictures: list[str] = []
    if has_pictures():
        precision_recall_picture(lines, context.folder / "precision_recall.png")
        pictures.append("precision_recall.png")
    return Section(
        title="Precision and recall", text=table(("class", "average precision"), rows), pictures=pictures
    )


def _confused(context: ReportContext, gold: np.ndarray, scores: np.ndarray, labels: Sequence[str]) -> Section:
    counts = _confusion(gold, scores)
    wrong = [
        (f"{labels[one]}", f"{labels[other]}", int(counts[one, other]))
        for one, other in zip(*np.nonzero(counts * (1 - np.eye(len(labels), dtype=int))), strict=True)
    ]
    wrong.sort(key=lambda each: -each[2])
    text = (
        table(("labelled", "given", "rows"), wrong[:10]) if wrong else "No row was taken for another class."
    )
    pictures: list[str] = []
    if has_pictures():
        confusion_picture(counts, labels, context.folder / "confusion.png")
        pictures.append("confusion.png")
    return Section(title="What was taken for what", text=text, pictures=pictures)


def _sureness(context: ReportContext, gold: np.ndarray, scores: np.ndarray) -> Section:
    known = gold >= 0
    temperature = float(context.settled.get("temperature", 1.0))
    raw = softmax(np.log(np.maximum(scores[known], _SMALLEST)) * temperature)
    errors = [calibration.calibration_error(gold[known], each) for each in (raw, scores[known])]
    text = (
        f"The expected calibration error is {errors[1]:.4f} with the temperature of {temperature:.3f}, which "
        f"is in the weights, and {errors[0]:.4f} without it."
    )
    pictures: list[str] = []
    if has_pictures():
        points = [calibration.reliability(gold[known], each) for each in (raw, scores[known])]
        reliability_picture(points[0], points[1], context.folder / "reliability.png")
        pictures.append("reliability.png")
    return Section(title="As right as it is sure?", text=text, pictures=pictures)


def _values(context: ReportContext, gold: np.ndarray, given: np.ndarray) -> Section:
    pictures: list[str] = []
    if has_pictures():
        scatter_picture(gold, given, context.folder / "values.png")
        pictures.append("values.png")
    spread = (
        f"Values lie from {gold.min():g} to {gold.max():g}; given ones from {given.min():g} to "
        f"{given.max():g}."
    )
    return Section(title="Given against wanted", text=spread, pictures=pictures)
