"""Rows that embeddings, rerankers and late interaction learn from: queries with documents that answer them.

pairs.jsonl, triplets.csv, sets.jsonl    {"query", "positives", "negatives", "line"}, and "scores"
scifact/, scifact/qrels/train.tsv        the same, with "gains", "query_id", "folder" and "split"
scored.csv                               {"first", "second", "score", "line"}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from modernbert.corpus.digests import digest
from modernbert.corpus.labelled import Row, Rows
from modernbert.corpus.pair_files import (
    PairColumns,
    SetColumns,
    kind_of_pairs,
    read_query_sets,
    read_scored_pairs,
)
from modernbert.corpus.retrieval_files import read_documents, read_judgements, read_queries
from modernbert.corpus.splitting import normalised
from modernbert.errors import CorpusError
from modernbert.training.retrieval_scores import document_text, folder_and_split

# A text's identity is kept in two numbers that float32 holds exactly; with 44 bits, two texts of a batch of
# 10,000 have one identity once in 10**5 batches.
_BITS = 22
IDENTITY = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryFields:
    """The columns of a file, where they are not among the usual ones (`query`, `positive`, `negatives`, ...).

    `score` is what a pair is worth, and `scores` are a teacher's, one for each document of a row.
    """

    query: str | None = None
    document: str | None = None
    negatives: str | None = None
    score: str | None = None
    scores: str | None = None


USUAL_FIELDS = QueryFields()


def read_rows(source: str, fields: QueryFields, encoding: str) -> Iterator[Row]:
    """The rows of a file or of a folder with judgements; CorpusError says what is wrong in it."""
    judged = folder_and_split(source, default="train")
    if judged is not None:
        return read_judged(*judged)
    names_sets = fields.negatives is not None or fields.scores is not None
    kind = "sets" if names_sets else "scored" if fields.score else kind_of_pairs(source, encoding=encoding)
    if kind == "scored":
        pairs = PairColumns(first=fields.query, second=fields.document, score=fields.score)
        return read_scored_pairs(source, pairs, encoding=encoding)
    sets = SetColumns(
        query=fields.query, positives=fields.document, negatives=fields.negatives, scores=fields.scores
    )
    return read_query_sets(source, sets, encoding=encoding)


def read_judged(folder: str, split: str) -> Iterator[Row]:
    """A row a judged query, with the documents that were judged; those of gain 0 are its negatives."""
    judgements = read_judgements(folder, split)
    judged = {document for gains in judgements.values() for document in gains}
    texts = {row["id"]: document_text(row) for row in read_documents(folder) if row["id"] in judged}
    missing = sorted(judged - texts.keys())
    if missing:
        raise CorpusError(
            f"{folder}: qrels/{split}.tsv names {len(missing):,} documents that its corpus has not, such "
            f"as {missing[0]!r}"
        )
    for row in read_queries(folder):
        gains = judgements.get(row["id"])
        if gains is None:
            continue
        by_gain = sorted(gains.items(), key=lambda item: -item[1])
        yield {
            "query": row["text"],
            "positives": [texts[document] for document, gain in by_gain if gain > 0],
            "negatives": [texts[document] for document, gain in by_gain if gain <= 0],
            "gains": [gain for _, gain in by_gain if gain > 0],
            "line": row["line"],
            "query_id": row["id"],
            "folder": folder,
            "split": split,
        }


def are_scored(rows: Rows) -> bool:
    """Whether the rows are pairs with a score, and not queries with documents."""
    return "score" in rows[0]


def require_rows_for(needs: str, name: str, rows: Rows, where: str) -> None:
    """CorpusError unless the rows have what the loss of that name is computed from."""
    is_scored = are_scored(rows)
    if is_scored != (needs == "pairs"):
        found = "pairs with a score" if is_scored else "queries with documents"
        wanted = "queries with documents" if is_scored else "pairs with a score"
        raise CorpusError(f"{name} learns from {wanted}, and the {where} has {found}; choose another loss")
    if needs in ("negatives", "scores"):
        lacking = sum(not row["negatives"] for row in rows)
        if lacking:
            raise CorpusError(
                f"{name} needs a negative in every row; {lacking:,} of {len(rows):,} of the {where} have "
                "none\nhint: add them, mine them (--mine MODEL), or use InfoNce, which needs none"
            )
    if needs == "scores":
        lacking = sum("scores" not in row for row in rows)
        if lacking:
            raise CorpusError(
                f"{name} needs a teacher's score for every document, in a column 'scores'; {lacking:,} of "
                f"{len(rows):,} rows of the {where} have none"
            )


def group_of(row: Row) -> str:
    """What a split keeps on one side: rows with the same query, or the same first text."""
    return normalised(row["query"] if "query" in row else row["first"])


def texts_of(row: Row) -> list[str]:
    """All texts of a row."""
    if "query" in row:
        return [row["query"], *row["positives"], *row["negatives"]]
    return [row["first"], row["second"]]


def identity(text: str) -> tuple[int, int]:
    """Two numbers that texts share where they are the same, but for case and blanks."""
    number = int.from_bytes(digest(normalised(text)), "little")
    return number % 2**_BITS, (number >> _BITS) % 2**_BITS


def as_numbers(identities: np.ndarray) -> np.ndarray:
    """Identities [..., 2] as one whole number each, int64 [...]."""
    pairs = identities.astype(np.int64)
    return pairs[..., 0] + (pairs[..., 1] << _BITS)


def documents_of(rows: Iterable[Row]) -> Iterator[str]:
    """Every document of the rows once, in their order; 8 bytes a text are held, and what Python adds."""
    seen: set[bytes] = set()
    for row in rows:
        for text in (*row["positives"], *row["negatives"]):
            name = digest(normalised(text))
            if name not in seen:
                seen.add(name)
                yield text


def flat(texts: Sequence[Sequence[str]]) -> list[str]:
    """Lists of texts end to end."""
    return [text for each in texts for text in each]
