"""Hard negatives: documents that a model finds for a query though they do not answer it.

    pairs.jsonl --a model searches all documents--> pairs.jsonl with "negatives"

What it finds may also answer the query, unknown to the file. Documents that score nearly as well as the known
answer are therefore left out (NV-Retriever: Moreira et al. 2024, arXiv 2407.15831).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from modernbert.corpus.labelled import Row, Rows
from modernbert.corpus.retrieval_files import read_documents
from modernbert.corpus.splitting import normalised
from modernbert.errors import CorpusError, TrainingError
from modernbert.files import file_being_written
from modernbert.inference.loading import load
from modernbert.inference.pipeline import Model
from modernbert.inference.scores import unit
from modernbert.training.retrieval_scores import blocks, document_text, folder_and_split
from modernbert.training.tasks.embed_scores import find_by_vectors
from modernbert.training.tasks.query_sets import (
    USUAL_FIELDS,
    QueryFields,
    are_scored,
    documents_of,
    read_rows,
)
from modernbert.training.tasks.sequences import batches
from modernbert.training.tasks.task import Notes

_QUERIES_AT_ONCE = 20_000  # each lot of them needs the vectors of all documents anew


@dataclass(frozen=True, kw_only=True, slots=True)
class Mining:
    """How negatives are looked for, by the embedding model `model`.

    Of the `depth` documents nearest to a query, the first `num_negatives` are taken that are not its answers.
    Those with a cosine above `largest_share` of the answer's, or nearer than `margin` below it, are taken for
    answers that nobody marked; None turns a rule off. Of several answers, the worst found counts.
    """

    model: str
    num_negatives: int = 4
    depth: int = 50
    largest_share: float | None = 0.95
    margin: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.num_negatives <= self.depth:
            raise TrainingError(
                f"{self.num_negatives} hard negatives cannot be had of the {self.depth} nearest documents: "
                "name 1 or more, and a depth of no less"
            )


def mine_negatives(
    source: str | Path,
    out: str | Path,
    mining: Mining,
    *,
    fields: QueryFields = USUAL_FIELDS,
    encoding: str = "utf-8",
) -> Path:
    """Write the rows of a file, or of a folder with judgements, with negatives that a model finds.

    `out` is a file of JSON lines that `finetune` reads. The same words give the same file again.
    """
    out = Path(out)
    notes = Notes()
    rows = mined(read_rows(str(source), fields, encoding), str(source), mining, notes)
    with file_being_written(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            kept = {name: row[name] for name in ("query", "positives", "negatives")}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")
    return out


def mined(rows: Iterator[Row], source: str, mining: Mining, notes: Notes) -> Iterator[Row]:
    """The rows, each with the negatives that it had and those that were found.

    Documents are all that the folder has, or those of all rows.
    """
    model = load(mining.model, dtype="float32")
    if "embed" not in model.tasks:
        raise TrainingError(
            f"{mining.model} gives no vectors, so it finds no negatives; name an embedding model"
        )
    with TemporaryDirectory() as spool:
        kept = Rows.write(Path(spool) / "rows.jsonl", rows)
        if not len(kept):
            return
        if are_scored(kept):
            raise CorpusError(
                f"{source} has pairs with a score; negatives are found for queries with documents"
            )
        judged = folder_and_split(source, default="train")
        texts = documents_of(kept) if judged is None else map(document_text, read_documents(judged[0]))
        documents = Rows.write(Path(spool) / "documents.jsonl", ({"text": text} for text in texts))
        num_found = num_left_out = 0
        for batch in batches(kept, _QUERIES_AT_ONCE):
            for row, (negatives, left_out) in zip(
                batch, _negatives(batch, documents, model, mining), strict=True
            ):
                num_found += len(negatives)
                num_left_out += left_out
                row.pop("scores", None)  # a teacher has not seen what was found
                yield row | {"negatives": [*row["negatives"], *negatives]}
        notes.add(
            f"{mining.model} found {num_found:,} negatives for {len(kept):,} queries, and left out "
            f"{num_left_out:,} documents as near as an answer"
        )


def _negatives(
    rows: Sequence[Row], documents: Rows, model: Model, mining: Mining
) -> Iterator[tuple[list[str], int]]:
    """For each row the texts that were found, and how many were left out as being near an answer."""
    texts = (row["text"] for row in documents)
    best = find_by_vectors(model, [row["query"] for row in rows], blocks(texts), depth=mining.depth)[""]
    worst = _worst_answers(rows, model)
    for row, places, scores, answer in zip(rows, best.places, best.scores, worst, strict=True):
        known = {normalised(text) for text in (row["query"], *row["positives"], *row["negatives"])}
        ceiling = _ceiling(float(answer), mining)
        chosen: list[str] = []
        num_left_out = 0
        for place, score in zip(places.tolist(), scores.tolist(), strict=True):
            if len(chosen) == mining.num_negatives:
                break
            text = documents[place]["text"]
            if normalised(text) in known:
                continue
            if score > ceiling:
                num_left_out += 1
            else:
                chosen.append(text)
        yield chosen, num_left_out


def _worst_answers(rows: Sequence[Row], model: Model) -> list[float]:
    """The smallest cosine of each query with an answer."""
    asked = unit(model.embed([row["query"] for row in rows], prompt="query"))
    held = unit(model.embed([text for row in rows for text in row["positives"]], prompt="document"))
    counts = np.array([len(row["positives"]) for row in rows])
    cosines = (np.repeat(asked, counts, axis=0) * held).sum(axis=1)
    return np.minimum.reduceat(cosines, counts.cumsum() - counts).tolist()


def _ceiling(answer: float, mining: Mining) -> float:
    """The largest cosine that a negative may have."""
    bounds = [np.inf]
    if mining.largest_share is not None:
        # below 0 a share would lie above the answer
        bounds.append(answer * mining.largest_share if answer > 0 else answer)
    if mining.margin is not None:
        bounds.append(answer - mining.margin)
    return min(bounds)
