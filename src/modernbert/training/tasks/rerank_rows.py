"""Rows that rerankers learn from: a query with its candidates, and a grade for each.

query,positive,negative(s)       grades 1 and 0
query,document,label             the label; rows of one query become one
scifact/qrels/train.tsv          the gains of the judgements

{"query": q, "documents": [d1, d2, d3], "grades": [0.0, 1.0, 0.0], "line": 7}
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from modernbert.corpus.digests import digest, digests
from modernbert.corpus.labelled import Row, Rows
from modernbert.corpus.splitting import normalised
from modernbert.errors import CorpusError
from modernbert.training.tasks.query_sets import are_scored, documents_of
from modernbert.training.tasks.task import Notes


def with_candidates(rows: Iterator[Row], source: str, *, num_drawn: int, notes: Notes) -> Iterator[Row]:
    """The rows of a file in the form above, in an order of candidates that says nothing of their grades.

    A query without a wrong candidate gets `num_drawn` documents of other rows, drawn by its text, so that the
    same file gives the same again. CorpusError for grades below 0.
    """
    with TemporaryDirectory() as spool:
        kept = Rows.write(Path(spool) / "rows.jsonl", rows)
        if not len(kept):
            return
        graded = _grouped(kept, source) if are_scored(kept) else map(_graded, kept)
        whole = Rows.write(Path(spool) / "graded.jsonl", graded)
        others = Rows.write(Path(spool) / "documents.jsonl", _all_documents(whole))
        num_filled = 0
        for row in whole:
            if min(row["grades"]) > 0 and num_drawn:
                num_filled += 1
                _fill(row, others, num_drawn)
            _shuffle(row)
            yield row
        if num_filled:
            notes.add(
                f"{num_filled:,} of {len(whole):,} queries of {Path(source).name} came without a wrong "
                f"candidate, and got {num_drawn} drawn from others: that is easy; mine hard ones (--mine)"
            )


def _graded(row: Row) -> Row:
    """From positives and negatives."""
    positives, negatives = row["positives"], row["negatives"]
    gains = row.get("gains") or [1.0] * len(positives)
    return {
        "query": row["query"],
        "documents": [*positives, *negatives],
        "grades": [*gains, *[0.0] * len(negatives)],
        "line": row["line"],
    }


def _grouped(rows: Rows, source: str) -> Iterator[Row]:
    """Rows of one query as one, in the order in which queries come first; memory holds 16 bytes a row."""
    names = digests(normalised(row["first"]) for row in rows)
    _, first, group = np.unique(names, return_index=True, return_inverse=True)
    by_group = np.split(np.argsort(group, kind="stable"), np.bincount(group).cumsum()[:-1])
    for number in np.argsort(first).tolist():
        members = rows_at(rows, by_group[number].tolist())
        below = next((row for row in members if row["score"] < 0), None)
        if below is not None:
            raise CorpusError(
                f"{source}: line {below['line']}: a grade is 0 (no answer) or more, found {below['score']:g}"
            )
        yield {
            "query": members[0]["first"],
            "documents": [row["second"] for row in members],
            "grades": [row["score"] for row in members],
            "line": members[0]["line"],
        }


def rows_at(rows: Rows, numbers: Sequence[int]) -> list[Row]:
    """Some rows, by their numbers."""
    return [rows[number] for number in numbers]


def _all_documents(rows: Rows) -> Iterator[Row]:
    return (
        {"text": text}
        for text in documents_of({"positives": row["documents"], "negatives": ()} for row in rows)
    )


def _fill(row: Row, others: Rows, num: int) -> None:
    known = {normalised(text) for text in (row["query"], *row["documents"])}
    draw = random.Random(digest(row["query"]))
    for number in draw.sample(range(len(others)), min(len(others), num + len(known))):
        text = others[number]["text"]
        if normalised(text) not in known and num > 0:
            row["documents"].append(text)
            row["grades"].append(0.0)
            num -= 1


def _shuffle(row: Row) -> None:
    places = list(range(len(row["documents"])))
    random.Random(digest(row["query"])).shuffle(places)
    for name in ("documents", "grades"):
        row[name] = [row[name][place] for place in places]
