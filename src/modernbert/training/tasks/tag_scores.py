"""How well a tagger finds whole entities: figures of a part, what went wrong, and its part of a report.

An entity counts where its label, start and end are all right. Tags that are against IOB2 are read as seqeval
reads them by default: an I- that follows nothing of its kind begins an entity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from modernbert.inference.pipeline import Model
from modernbert.inference.words import Span, split_words, word_spans
from modernbert.metrics.classification import report_rows
from modernbert.metrics.entities import Pair, Place, count, figures
from modernbert.report_plots import class_bars
from modernbert.training.tables import has_pictures, table
from modernbert.training.tasks.tag_words import spans_of, tags_of_spans, text_or_words
from modernbert.training.tasks.task import Evaluation, ReportContext, Section

if TYPE_CHECKING:
    from modernbert.corpus.labelled import Row, Rows

_SHOWN = ("f1", "precision", "recall", "macro_f1")
_OTHER_LABEL, _OTHER_BOUNDS, _BOTH = "another label", "other bounds", "another label and other bounds"
_MISSED, _INVENTED = "missed", "found where there is none"
_EXAMPLES_OF_A_KIND, _AROUND = 3, 30


def evaluate(model: Model, rows: Rows) -> Evaluation:
    """Figures of a part and a prediction a row, by `Model.tag`."""
    found = model.tag([text_or_words(row) for row in rows])
    predictions: list[Mapping[str, Any]] = []
    for row, entities in zip(rows, found, strict=True):
        text, wanted = spans_of(row)
        given = [asdict(entity) for entity in entities]
        prediction = {**row, "text": text, "wanted": wanted, "predicted": given}
        if "words" in row:
            prediction["predicted_tags"], _ = tags_of_spans(word_spans(row["words"]), given)
        predictions.append(prediction)
    return Evaluation(figures=figures(*count(_pairs(predictions))), predictions=predictions)


def report(context: ReportContext) -> list[Section]:
    """The sections of report.md: results beside a list of known names, label by label, and mistakes."""
    name, rows, measured = context.measured
    if measured is None or rows is None:
        return [Section(title="Results", text="There was no held-out part, so nothing was measured.")]
    lines: list[tuple[str | float, ...]] = [
        (f"this model, {part}", *(evaluation.figures[each] for each in _SHOWN))
        for part, evaluation in (("test", context.test), ("dev", context.dev))
        if evaluation is not None
    ]
    known = figures(*count(known_names(context.parts.train, rows)))
    lines.append((f"names known from training, {name}", *(known[each] for each in _SHOWN)))
    sizes = ", ".join(f"{len(part):,} rows {kind}" for kind, part in context.parts.items())
    text = (
        f"{table(('', *_SHOWN), lines)}\n\nOf {sizes}. An entity counts where its label, start and end are "
        "right. The last line marks the longest stretches that training had with one label only, wherever "
        "they stand: the baseline of CoNLL-2003."
    )
    return [
        Section(title="Results", text=text),
        _each_label(context, measured.predictions),
        _mistakes(measured.predictions),
    ]


def known_names(train: Rows, held: Rows) -> Iterator[Pair]:
    """What is wanted of each held row, and what a list of the names in training finds there.

    Names are words; those that had more than one label are left out, and of two that could begin at a word
    the longer counts (Tjong Kim Sang and De Meulder 2003).
    """
    labels: dict[tuple[str, ...], set[str]] = {}
    for row in train:
        text, spans = spans_of(row)
        words = _words(row)
        for span in spans:
            inside = [text[s:e] for s, e in words if s < span["end"] and e > span["start"]]
            labels.setdefault(tuple(inside), set()).add(span["label"])
    names = {name: min(found) for name, found in labels.items() if len(found) == 1}
    longest = max((len(name) for name in names), default=0)
    for row in held:
        text, spans = spans_of(row)
        yield _places(spans), _looked_up(text, _words(row), names, longest)


def _looked_up(
    text: str, words: Sequence[Span], names: Mapping[tuple[str, ...], str], longest: int
) -> set[Place]:
    found: set[Place] = set()
    place = 0
    while place < len(words):
        for size in range(min(longest, len(words) - place), 0, -1):
            inside = words[place : place + size]
            label = names.get(tuple(text[start:end] for start, end in inside))
            if label is not None:
                found.add((label, inside[0][0], inside[-1][1]))
                place += size - 1
                break
        place += 1
    return found


def _each_label(context: ReportContext, predictions: Sequence[Mapping[str, Any]]) -> Section:
    _, each = count(_pairs(predictions))
    rows = report_rows(list(each), list(each.values()))
    text = table(("label", "precision", "recall", "F1", "entities"), rows)
    if not has_pictures() or not each:
        return Section(title="Label by label", text=text)
    class_bars({label: one.f1 for label, one in each.items()}, context.folder / "labels.png", what="F1")
    return Section(title="Label by label", text=text, pictures=["labels.png"])


def _mistakes(predictions: Sequence[Mapping[str, Any]]) -> Section:
    """How many entities are wrong in which way, with the first examples of each."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[tuple[str, str, str, str]]] = {}
    for row, (wanted, given) in zip(predictions, _pairs(predictions), strict=True):
        for kind, one, other in mistakes(wanted, given):
            counts[kind] += 1
            shown = examples.setdefault(kind, [])
            if len(shown) < _EXAMPLES_OF_A_KIND:
                text = row["text"]
                shown.append((kind, _named(text, one), _named(text, other), _around(text, one or other)))
    if not counts:
        return Section(title="What went wrong", text="Nothing: every entity is right.")
    totals = table(("mistake", "entities"), counts.most_common())
    lines = [line for kind, _ in counts.most_common() for line in examples[kind]]
    return Section(
        title="What went wrong",
        text=f"{totals}\n\n{table(('mistake', 'wanted', 'given', 'where'), lines)}",
    )


def mistakes(wanted: set[Place], given: set[Place]) -> list[tuple[str, Place | None, Place | None]]:
    """Each entity that is not right: how, what was wanted, and what was given, in the order of the text.

    A given entity that overlaps wanted ones is a mistake about the first of these.
    """
    found: list[tuple[str, Place | None, Place | None]] = []
    missed, invented = _in_order(wanted - given), _in_order(given - wanted)
    touched: set[Place] = set()
    for other in invented:
        one = next((each for each in missed if each[1] < other[2] and other[1] < each[2]), None)
        if one is None:
            found.append((_INVENTED, None, other))
            continue
        touched.add(one)
        has_label, has_bounds = one[0] == other[0], one[1:] == other[1:]
        found.append((_OTHER_LABEL if has_bounds else _OTHER_BOUNDS if has_label else _BOTH, one, other))
    found += [(_MISSED, one, None) for one in missed if one not in touched]
    return sorted(found, key=lambda each: (each[1] or each[2] or ("", 0, 0))[1])


def _pairs(predictions: Iterable[Mapping[str, Any]]) -> Iterator[Pair]:
    return ((_places(row["wanted"]), _places(row["predicted"])) for row in predictions)


def _places(spans: Iterable[Mapping[str, Any]]) -> set[Place]:
    return {(span["label"], span["start"], span["end"]) for span in spans}


def _in_order(places: set[Place]) -> list[Place]:
    return sorted(places, key=lambda place: (place[1], place[2], place[0]))


def _words(row: Row) -> list[Span]:
    return word_spans(row["words"]) if "words" in row else split_words(row["text"], ())


def _named(text: str, place: Place | None) -> str:
    return "" if place is None else f"{text[place[1] : place[2]]} ({place[0]})"


def _around(text: str, place: Place | None) -> str:
    assert place is not None
    start, end = max(0, place[1] - _AROUND), min(len(text), place[2] + _AROUND)
    return f"{'...' if start else ''}{text[start:end]}{'...' if end < len(text) else ''}"
