"""What embeddings and rerankers learn from: queries with documents, or pairs with a score, from any table.

    query,positive                        {"query", "positives", "negatives", "line"}
    query,positive,negative               and "scores" where the file has them: one a document, the
    query,positives,negatives (lists)     positives first
    text_a,text_b,score                   {"first", "second", "score", "line"}

Columns are found by the names that are common for them, where a caller names none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from modernbert.corpus.faults import Faults, shown
from modernbert.corpus.labelled import Column, Row, read_table
from modernbert.corpus.tables import column_names
from modernbert.errors import CorpusError

_QUERY = ("query", "question", "anchor")
_POSITIVE = ("positive", "positives", "pos", "document", "passage", "answer")
_NEGATIVE = ("negative", "negatives", "neg")
_FIRST = (*_QUERY, "text_a", "sentence1", "sentence_a", "text1", "first", "premise")
_SECOND = (*_POSITIVE, "text_b", "sentence2", "sentence_b", "text2", "second", "hypothesis", "text")
_SCORE = ("score", "similarity", "label", "relevance")
_SCORES = ("scores",)
_SCORES_OF_EACH = ("pos_scores", "neg_scores")
_NUMBERED = re.compile(r"(neg|negs|negative|negatives)[_-]?\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class SetColumns:
    """The columns of queries with documents; None: by the common names. `scores` are a teacher's, if any."""

    query: str | None = None
    positives: str | None = None
    negatives: str | None = None
    scores: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PairColumns:
    """The columns of pairs with a score; None: by the common names."""

    first: str | None = None
    second: str | None = None
    score: str | None = None


def kind_of_pairs(path: str | Path, *, encoding: str = "utf-8") -> Literal["sets", "scored"]:
    """Which of the two a file is by its columns: a score for each row and no negatives make it "scored"."""
    names = column_names(str(path), encoding)
    has_negatives = any(name in _NEGATIVE or _NUMBERED.fullmatch(name) for name in names)
    return "scored" if not has_negatives and any(name in _SCORE for name in names) else "sets"


def read_query_sets(
    path: str | Path, columns: SetColumns = SetColumns(), *, encoding: str = "utf-8"
) -> Generator[Row]:
    """A row a query; positives and negatives are lists of texts, the first of one at least.

    A file may hold a text or a list in either column, and negatives also in columns negative_1, negative_2,
    and so on. Empty negatives are none. CorpusError as `read_table`, and for scores that are not as many as
    documents.
    """
    name = str(path)
    names = _names(name, encoding)
    query = _choose(columns.query, _FIRST, names, name, "queries")
    positive = _choose(
        columns.positives, _SECOND, [each for each in names if each != query], name, "documents"
    )
    wanted = [Column(name=query, role="query"), Column(name=positive, role="positives")]
    negatives = _negatives(columns.negatives, names)
    wanted += [Column(name=each, role=each, is_optional=columns.negatives is None) for each in negatives]
    scores = (
        [columns.scores]
        if columns.scores
        else [each for each in (*_SCORES, *_SCORES_OF_EACH) if each in names]
    )
    wanted += [Column(name=each, role=each, is_optional=columns.scores is None) for each in scores]
    faults = Faults(source=name)
    for row in read_table(name, wanted, encoding=encoding):
        found = _set(row, negatives, scores, faults)
        if found is not None:
            yield found
    faults.require_none()


def read_scored_pairs(
    path: str | Path, columns: PairColumns = PairColumns(), *, encoding: str = "utf-8"
) -> Generator[Row]:
    """A row a pair of texts, with a finite number as its score."""
    name = str(path)
    names = _names(name, encoding)
    first = _choose(columns.first, _FIRST, names, name, "first texts")
    second = _choose(columns.second, _SECOND, [each for each in names if each != first], name, "second texts")
    score = _choose(columns.score, _SCORE, names, name, "scores")
    roles = {first: "first", second: "second", score: "score"}
    faults = Faults(source=name)
    for row in read_table(
        name, [Column(name=each, role=role) for each, role in roles.items()], encoding=encoding
    ):
        value = _number(row["score"])
        if not isinstance(row["first"], str) or not isinstance(row["second"], str):
            faults.add(row["line"], "both of a pair must be texts")
        elif value is None:
            faults.add(row["line"], f"{score!r} must be a number", f"found {shown(row['score'])}")
        else:
            yield row | {"score": value}
    faults.require_none()


def _names(path: str, encoding: str) -> Sequence[str]:
    names = column_names(path, encoding)
    if not names:
        raise CorpusError(f"{path} has no rows")
    return names


def _choose(named: str | None, common: Sequence[str], names: Sequence[str], path: str, what: str) -> str:
    """The column of a name that the user gave, or else the first that is common."""
    if named is not None:
        return named
    found = next((name for name in common if name in names), None)
    if found is None:
        raise CorpusError(
            f"{path} has no column of {what} by a name that is known ({', '.join(common)}); it has "
            f"{', '.join(map(repr, names)) or 'no other'}\nhint: name the column"
        )
    return found


def _negatives(named: str | None, names: Sequence[str]) -> list[str]:
    if named is not None:
        return [named]
    return [name for name in names if name in _NEGATIVE or _NUMBERED.fullmatch(name)]


def _set(row: Row, negatives: Sequence[str], scores: Sequence[str], faults: Faults) -> Row | None:
    line: int = row["line"]
    query, positives = row["query"], _texts(row["positives"])
    others = [_texts(row.get(name, "")) for name in negatives]
    if not isinstance(query, str) or positives is None or not positives or None in others:
        faults.add(line, "queries must be texts, and documents texts or lists of texts")
        return None
    found: Row = {
        "query": query,
        "positives": positives,
        "negatives": [text for texts in others for text in texts or ()],
        "line": line,
    }
    given = [row[name] for name in scores if name in row]
    if given:
        values = [
            _number(each) for value in given for each in (value if isinstance(value, list) else [value])
        ]
        num_documents = len(positives) + len(found["negatives"])
        if None in values or len(values) != num_documents:
            faults.add(line, "scores must be numbers, one a document", f"{len(values)} for {num_documents}")
            return None
        found["scores"] = values
    return found


def _texts(value: object) -> list[str] | None:
    """A text or a list of texts as a list, without empty ones; None for anything else."""
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in values):
        return None
    return [text for text in cast("list[str]", values) if text.strip()]


def _number(value: object) -> float | None:
    try:
        number = float(cast(Any, value))
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
