"""The part of a report about answers: figures beside baselines, answer or none, and what went wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modernbert.metrics import spans
from modernbert.plots import Panel, curves
from modernbert.training.tables import has_pictures, table
from modernbert.training.tasks.answer_scores import answerable, column
from modernbert.training.tasks.task import ReportContext, Section

if TYPE_CHECKING:
    from modernbert.corpus.labelled import Row

_SHOWN = ("f1", "exact", "f1_with_answer", "exact_with_answer", "right_without_answer")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"\w+")
_NONE = "none"
_MANY_POINTS, _EXAMPLES_OF_A_KIND = 200, 3


def report(context: ReportContext) -> list[Section]:
    """The sections of report.md, with their pictures drawn."""
    name, rows, measured = context.measured
    if measured is None or rows is None:
        return [Section(title="Results", text="There was no held-out part, so nothing was measured.")]
    shown = [each for each in _SHOWN if each in measured.figures]
    lines: list[tuple[str | float, ...]] = [
        (f"this model, {part}", *(evaluation.figures.get(each, 0.0) for each in shown))
        for part, evaluation in (("test", context.test), ("dev", context.dev))
        if evaluation is not None
    ]
    sentences = _scored(rows, (nearest_sentence(row) for row in rows))
    lines.append((f"the sentence most like the question, {name}", *(sentences[each] for each in shown)))
    if "right_without_answer" in shown:
        nothing = _scored(rows, ("" for _ in rows))
        lines.append((f"always no answer, {name}", *(nothing[each] for each in shown)))
    sizes = ", ".join(f"{len(part):,} questions {kind}" for kind, part in context.parts.items())
    text = (
        f"{table(('', *(each.replace('_', ' ') for each in shown)), lines)}\n\nOf {sizes}. F1 is that of the "
        "words of an answer, exact that they are all the same, both as SQuAD's script has them."
    )
    sections = [Section(title="Results", text=text)]
    if "right_without_answer" in shown and "best_f1" in measured.figures:
        sections.append(_answer_or_none(context, measured.predictions, measured.figures))
    return [*sections, _mistakes(measured.predictions)]


def nearest_sentence(row: Row) -> str:
    """The sentence of the context that shares most words with the question; the first of equal ones."""
    asked = set(_WORD.findall(row["question"].lower()))
    sentences = [each for each in _SENTENCE.split(row["context"]) if each.strip()]
    return max(sentences, key=lambda each: len(asked & set(_WORD.findall(each.lower()))), default="")


def _scored(rows: Sequence[Row], given: Iterable[str]) -> dict[str, float]:
    """The figures of answers that were given without a model."""
    both: list[tuple[float, float]] = []
    for row, answer in zip(rows, given, strict=True):
        wanted = [each["text"] for each in row["answers"]]
        both.append((spans.f1(answer, wanted), spans.exact_match(answer, wanted)))
    f1_scores, exact = np.array(both).T
    return spans.answer_figures(f1_scores, exact, answerable(rows))


def _answer_or_none(
    context: ReportContext, predictions: Sequence[Mapping[str, Any]], figures: Mapping[str, float]
) -> Section:
    """F1 at every threshold, on the measured part, with the one that the folder has."""
    threshold = float(context.settled.get("threshold for no answer", 0.0))
    has_answer, advantages = answerable(predictions), column(predictions, "advantage")
    scores = column(predictions, "f1_if_given")
    text = (
        f"No answer is given where its logit is above that of the best stretch by more than {threshold:.3f}, "
        f"which config.json holds as null_score_diff_threshold. The F1 of this part is {figures['f1']:.4f} "
        f"with it; no threshold would give more than {figures['best_f1']:.4f}."
    )
    if not has_pictures():
        return Section(title="Answer or none", text=text)
    different = np.unique(advantages)
    some = different[np.linspace(0, len(different) - 1, min(len(different), _MANY_POINTS)).astype(int)]
    places = np.unique([*some, threshold])
    kinds = {
        "all questions": np.ones(len(scores), bool),
        "with an answer": has_answer,
        "without an answer": ~has_answer,
    }
    each = [spans.at_threshold(scores, has_answer, advantages, float(place)) for place in places]
    lines = {
        name: [(float(x), float(y[chosen].mean())) for x, y in zip(places, each, strict=True)]
        for name, chosen in kinds.items()
        if chosen.any()
    }
    panel = Panel(title="F1 by the threshold for no answer", lines=lines, marks={"chosen": threshold})
    curves([panel], context.folder / "no_answer.png", title="Answer or none", x_label="threshold")
    return Section(title="Answer or none", text=text, pictures=["no_answer.png"])


def _mistakes(predictions: Sequence[Mapping[str, Any]]) -> Section:
    """How many questions went wrong in which way, with the first examples of each."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[tuple[str, str, str, str]]] = {}
    for row in predictions:
        if row["exact"] == 1.0:
            continue
        kind = _kind(row)
        counts[kind] += 1
        shown = examples.setdefault(kind, [])
        if len(shown) < _EXAMPLES_OF_A_KIND:
            wanted = row["answers"][0]["text"] if row["answers"] else _NONE
            shown.append((kind, row["question"], wanted, row["predicted"] or _NONE))
    if not counts:
        return Section(title="What went wrong", text="Nothing: every answer is right.")
    totals = table(("mistake", "questions"), counts.most_common())
    lines = [line for kind, _ in counts.most_common() for line in examples[kind]]
    return Section(
        title="What went wrong",
        text=f"{totals}\n\n{table(('mistake', 'question', 'wanted', 'given'), lines)}",
    )


def _kind(row: Mapping[str, Any]) -> str:
    if not row["answers"]:
        return "an answer where there is none"
    if not row["predicted"]:
        return "none where there is an answer"
    return "too much or too little" if row["f1"] > 0 else "another place"
