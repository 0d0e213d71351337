"""How good an embedder's vectors are: search among held-out documents, or the order of scored pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from modernbert.corpus.labelled import Rows
from modernbert.inference.pipeline import Model
from modernbert.inference.scores import unit
from modernbert.metrics.similarity import pearson, spearman
from modernbert.training.retrieval_scores import (
    DEPTH,
    METRIC,
    Best,
    Collection,
    Finder,
    Found,
    collection_of_folder,
    collection_of_rows,
    measure,
    require_split,
)
from modernbert.training.tables import table
from modernbert.training.tasks.query_sets import are_scored
from modernbert.training.tasks.task import Evaluation, Notes, ReportContext, Section

NDCG, SPEARMAN = METRIC, "spearman"
_SHOWN, _MOST_CHARACTERS = 3, 200


def evaluate(
    model: Model, rows: Rows, dimensions: Sequence[int], judged: tuple[str, str] | None
) -> Evaluation:
    """Figures of the rows, with the whole vectors and cut ones, and of a folder with judgements."""
    find = partial(find_by_vectors, model, dimensions=dimensions)
    found = _pairs(model, rows, dimensions) if are_scored(rows) else search_rows(rows, find)
    if judged is None:
        return found
    return Evaluation(
        figures={**found.figures, **judged_figures(judged, find, rows.path.parent)},
        predictions=found.predictions,
    )


def judged_split(source: str | None, notes: Notes) -> tuple[str, str] | None:
    """The folder and the split of a source, dev where it names none; CorpusError where it is not there."""
    if source is None:
        return None
    folder, split = require_split(source, default="dev")
    if split == "test":
        notes.warn(f"the best weights were chosen by the test split of {folder}: its figures test nothing")
    return folder, split


def judged_name(folder: str, split: str, figure: str = METRIC) -> str:
    """What a figure of a folder with judgements is called."""
    return f"{Path(folder).name} {split}: {figure}"


def judged_figures(judged: tuple[str, str], find: Finder, spool: Path) -> dict[str, float]:
    """Figures of a split of a folder, under names that say so."""
    folder, split = judged
    found = measure(collection_of_folder(folder, split, spool=spool / f"judged-{Path(folder).name}"), find)
    return {judged_name(folder, split, name): value for name, value in found.figures.items()}


def search_rows(rows: Rows, find: Finder) -> Evaluation:
    """Queries of rows against the documents of them all; of a folder's rows, against all that it has."""
    places = {(str(row.get("folder", "")), str(row.get("split", ""))) for row in rows}
    folder, split = next(iter(places))
    if len(places) == 1 and folder:
        collection = collection_of_folder(
            folder,
            split,
            spool=rows.path.parent / f"whole-{Path(folder).name}",
            queries=[row["query_id"] for row in rows],
        )
    else:
        collection = collection_of_rows(rows)
    found = measure(collection, find)
    return Evaluation(figures=found.figures, predictions=_predictions(collection, found))


def find_by_vectors(
    model: Model,
    queries: Sequence[str],
    documents: Iterable[Sequence[str]],
    *,
    dimensions: Sequence[int] = (),
    depth: int = DEPTH,
) -> dict[str, Best]:
    """The documents whose vectors are nearest by cosine; also by the first numbers of them alone."""
    ways: dict[str, int | None] = {"": None, **{f"({size})": size for size in dimensions}}
    asked = model.embed(queries, prompt="query")
    best = {way: Best(len(queries), depth) for way in ways}
    for block in documents:
        held = model.embed(block, prompt="document")
        for way, size in ways.items():
            best[way].add(unit(asked[:, :size]) @ unit(held[:, :size]).T)
    return best


def report(context: ReportContext) -> list[Section]:
    """The figures of each part, a line a figure."""
    parts = {
        name: each.figures
        for name, each in (("test", context.test), ("dev", context.dev))
        if each is not None
    }
    if not parts:
        return [Section(title="Results", text="There was no held-out part, so nothing was measured.")]
    names = list(next(iter(parts.values())))
    lines = [(name, *(figures[name] for figures in parts.values())) for name in names]
    sizes = ", ".join(f"{len(rows):,} rows {name}" for name, rows in context.parts.items())
    text = f"{table(('', *parts), lines)}\n\nOf {sizes}."
    _, rows, _ = context.measured
    if rows is not None and not are_scored(rows):
        text += (
            " Each query is to find its own documents among those of all rows of its part; of a folder with "
            "judgements, among all that it has. Parts of other sizes are easier or harder."
        )
    return [Section(title="Results", text=text)]


def _pairs(model: Model, rows: Rows, dimensions: Sequence[int]) -> Evaluation:
    """Correlations of cosines with the scores."""
    first = model.embed(rows.column("first"), prompt="query")
    second = model.embed(rows.column("second"), prompt="document")
    wanted = np.array(rows.column("score"))
    figures: dict[str, float] = {}
    cosines = _cosines(first, second)
    for name, correlation in ((SPEARMAN, spearman), ("pearson", pearson)):
        figures[name] = correlation(cosines, wanted)
    for size in dimensions:
        figures[f"{SPEARMAN} ({size})"] = spearman(_cosines(first[:, :size], second[:, :size]), wanted)
    predictions = [{**row, "cosine": float(cosine)} for row, cosine in zip(rows, cosines, strict=True)]
    return Evaluation(figures=figures, predictions=predictions)


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (unit(first) * unit(second)).sum(axis=1)


def _predictions(collection: Collection, found: Found) -> list[Mapping[str, Any]]:
    """What was found for each query: its best documents, and where the first right one stands."""
    best = {name for each in found.run.values() for name, _ in each[:_SHOWN]}
    texts = {
        name: text[:_MOST_CHARACTERS]
        for name, text in zip(collection.document_ids, collection.documents, strict=True)
        if name in best
    }
    predictions: list[Mapping[str, Any]] = []
    for query, text in collection.queries.items():
        top = [
            {
                "document": texts[name],
                "score": score,
                "is_right": collection.judgements[query].get(name, 0) > 0,
            }
            for name, score in found.run[query][:_SHOWN]
        ]
        place = found.place(query, collection.judgements)
        predictions.append({"query": text, "place": place, "found": top})
    return predictions
