"""How well a model finds documents: exact search through all of them, and nDCG@10, recall@100 and MRR.

    queries, documents --Finder--> the best documents of each query --> figures

What is measured on is a folder in the layout of BEIR, or the rows of a user's own file, whose documents are
then searched together. Search goes block by block, so that memory holds the best of each query alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modernbert.corpus.digests import digest
from modernbert.corpus.labelled import Row, Rows
from modernbert.corpus.retrieval_files import Judgements, read_retrieval, splits_of
from modernbert.errors import CorpusError
from modernbert.metrics.ranking import evaluate_ranking, reciprocal_rank

if TYPE_CHECKING:
    from jaxtyping import Float, Int

BLOCK, DEPTH = 1000, 100
METRIC = "ndcg@10"
_QRELS = "qrels"
# From queries and blocks of documents to the best documents of each query, found under each name.
Finder = Callable[[Sequence[str], Iterable[Sequence[str]]], Mapping[str, "Best"]]


class Best:
    """The `depth` best documents of each query, of those that were added so far.

    Of documents with the same score, the one that came first is better, so that a search gives the same
    again.
    """

    def __init__(self, num_queries: int, depth: int = DEPTH) -> None:
        self._depth = depth
        self.num_seen = 0
        self.scores: Float[np.ndarray, "Q k"] = np.zeros((num_queries, 0), np.float32)
        self.places: Int[np.ndarray, "Q k"] = np.zeros((num_queries, 0), np.int64)

    def add(self, scores: Float[np.ndarray, "Q n"]) -> None:
        """The scores of the next `n` documents."""
        numbers = np.arange(self.num_seen, self.num_seen + scores.shape[1])
        self.num_seen += scores.shape[1]
        kept = [
            self._merged(scores[start : start + BLOCK], numbers, slice(start, start + BLOCK))
            for start in range(0, len(scores), BLOCK)
        ]
        self.scores, self.places = (np.concatenate(each) for each in zip(*kept, strict=True))

    def _merged(self, scores: np.ndarray, numbers: np.ndarray, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """The best of some queries: of those they had, and of the new ones."""
        scores = np.concatenate([self.scores[part], scores], axis=1)
        places = np.concatenate(
            [self.places[part], np.broadcast_to(numbers, (len(scores), len(numbers)))], axis=1
        )
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self._depth]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """Queries by their ids, documents in their order with their ids, and which answers which."""

    queries: Mapping[str, str]
    document_ids: list[str]
    documents: Iterable[str]
    judgements: Judgements


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Figures, and the documents that were found for each query, best first, with their scores."""

    figures: Mapping[str, float]
    run: Mapping[str, Sequence[tuple[str, float]]]

    def place(self, query: str, judgements: Judgements) -> int | None:
        """Where the first relevant document of a query stands, counted from 1."""
        names = [name for name, _ in self.run[query]]
        found = reciprocal_rank(names, judgements[query])
        return round(1 / found) if found else None


def measure(collection: Collection, find: Finder) -> Found:
    """Figures of a search; of a finder that searches in several ways, those after the first with its name."""
    names = list(collection.queries)
    texts = [collection.queries[name] for name in names]
    figures: dict[str, float] = {}
    first: dict[str, list[tuple[str, float]]] = {}
    for way, best in find(texts, blocks(collection.documents)).items():
        run = {
            name: [
                (collection.document_ids[place], float(score))
                for place, score in zip(best.places[i].tolist(), best.scores[i].tolist(), strict=True)
            ]
            for i, name in enumerate(names)
        }
        ranked = {name: [document for document, _ in found] for name, found in run.items()}
        of_way = evaluate_ranking(ranked, collection.judgements)
        figures |= {f"{key} {way}".strip(): value for key, value in of_way.items()}
        first = first or run
    return Found(figures=figures, run=first)


def collection_of_folder(
    folder: str | Path, split: str, *, spool: Path, queries: Iterable[str] | None = None
) -> Collection:
    """A split of a folder in the layout of BEIR, or some of its queries; a title is part of the text."""
    found = read_retrieval(folder, split, spool=spool)
    wanted = None if queries is None else set(queries)
    asked = {row["id"]: row["text"] for row in found.queries if wanted is None or row["id"] in wanted}
    return Collection(
        queries=asked,
        document_ids=found.documents.column("id"),
        documents=_Texts(found.documents),
        judgements={query: found.judgements[query] for query in asked},
    )


def collection_of_rows(rows: Rows) -> Collection:
    """Rows of queries with documents: each query is to find its own among the documents of all."""
    numbers: dict[bytes, int] = {}
    texts: list[str] = []
    queries: dict[str, str] = {}
    judgements: dict[str, dict[str, float]] = {}
    for row in rows:
        for text in (*row["positives"], *row["negatives"]):
            if numbers.setdefault(digest(text), len(texts)) == len(texts):
                texts.append(text)
        name = digest(row["query"]).hex()  # a query that stands in several rows is asked once
        queries[name] = row["query"]
        of_query = judgements.setdefault(name, {})
        of_query |= {str(numbers[digest(text)]): 1.0 for text in row["positives"]}
    return Collection(
        queries=queries,
        document_ids=[str(number) for number in range(len(texts))],
        documents=texts,
        judgements=judgements,
    )


def folder_and_split(source: str, *, default: str) -> tuple[str, str] | None:
    """The folder and the split of `scifact/` or `scifact/qrels/dev.tsv`; None for a table."""
    path = Path(source)
    if path.parent.name == _QRELS and path.suffix == ".tsv":
        return str(path.parent.parent), path.stem
    return (source, default) if path.is_dir() else None


def require_split(source: str, *, default: str) -> tuple[str, str]:
    """As `folder_and_split`; CorpusError where it is no such folder, or has not that split."""
    found = folder_and_split(source, default=default)
    if found is None:
        raise CorpusError(
            f"{source} is no folder to measure retrieval on, with corpus.jsonl, queries.jsonl and qrels/"
        )
    splits = splits_of(found[0])
    if found[1] not in splits:
        raise CorpusError(
            f"{found[0]} has no judgements qrels/{found[1]}.tsv; it has {', '.join(splits) or 'none'}\n"
            f"hint: name the file that is meant, such as {found[0].rstrip('/')}/{_QRELS}/"
            f"{splits[0] if splits else 'dev'}.tsv"
        )
    return found


def document_text(row: Row) -> str:
    """A document of a corpus as one text: its title and its text."""
    return f"{row['title']} {row['text']}".strip()


def blocks(texts: Iterable[str], size: int = BLOCK) -> Iterator[list[str]]:
    """Texts in lists of `size`, the last as long as what is left."""
    iterator = iter(texts)
    while block := list(islice(iterator, size)):
        yield block


class _Texts(Iterable[str]):
    """The texts of documents on disk, read anew each time."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[str]:
        return map(document_text, self._rows)
