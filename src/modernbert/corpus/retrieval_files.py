"""What retrieval is measured on: documents, queries, and which document answers which query.

    scifact/corpus.jsonl       {"_id": "4983", "title": "...", "text": "..."}
    scifact/queries.jsonl      {"_id": "1", "text": "..."}
    scifact/qrels/test.tsv     query-id  corpus-id  score

That is the layout of BEIR (Thakur et al. 2021); files of judgements may also be those of TREC. What goes in
is such a folder, here or at an address; what comes out lies on disk, but for the judgements.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import fsspec.core
import numpy as np

from modernbert.corpus.digests import digest
from modernbert.corpus.faults import Faults, shown
from modernbert.corpus.inputs import unreadable
from modernbert.corpus.labelled import Column, Row, Rows, read_table
from modernbert.corpus.text_files import text_lines
from modernbert.errors import CorpusError

_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_SHOWN = 5

# Query -> document -> how relevant: 0 is not, and more is better.
Judgements = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrieval:
    """A set to measure retrieval on. `queries` are those of one split, each with a relevant document.

    Rows of `documents` are {"id", "title", "text", "line"}, with "" where there is no title; rows of
    `queries` are {"id", "text", "line"}. Both are in the order of their files.
    """

    documents: Rows
    queries: Rows
    judgements: Judgements


def read_retrieval(folder: str | Path, split: str, *, spool: Path) -> Retrieval:
    """Read one split of a folder, and write its documents and queries into the folder `spool`.

    CorpusError where a part is missing or empty, an id stands twice, or judgements name what is not there.
    """
    judgements = read_judgements(folder, split)
    spool.mkdir(parents=True, exist_ok=True)
    documents = Rows.write(spool / "documents.jsonl", read_documents(folder))
    queries = Rows.write(spool / f"queries-{split}.jsonl", _asked(folder, judgements))
    named = {document for of_query in judgements.values() for document in of_query}
    _require_known(folder, split, "document", named, documents)
    _require_known(folder, split, "query", judgements.keys(), queries)
    return Retrieval(documents=documents, queries=queries, judgements=judgements)


def splits_of(folder: str | Path) -> list[str]:
    """The names of the files of judgements, sorted."""
    system, inner = _system(folder)
    try:
        paths: list[str] = system.glob(f"{inner}/qrels/*.tsv")
    except Exception as error:
        raise unreadable(str(folder), error) from error
    return sorted(path.rsplit("/", 1)[-1].removesuffix(".tsv") for path in paths)


def read_documents(folder: str | Path) -> Iterator[Row]:
    """The rows of a corpus; one may lack its title or its text, and no id stands twice."""
    columns = (
        Column(name="_id", role="id"),
        Column(name="title", role="title", is_optional=True),
        Column(name="text", role="text", may_be_empty=True),
    )
    for row in _with_unique_ids(_part(folder, "corpus"), columns):
        yield {"id": row["id"], "title": row.get("title", ""), "text": row["text"], "line": row["line"]}


def read_queries(folder: str | Path) -> Iterator[Row]:
    """The rows of all queries, of all splits; no id stands twice."""
    columns = (Column(name="_id", role="id"), Column(name="text", role="text"))
    return _with_unique_ids(_part(folder, "queries"), columns)


def read_judgements(folder: str | Path, split: str) -> Judgements:
    """What a split says of its queries, those alone that have a relevant document.

    Lines are `query-id corpus-id score` below a header, or `query-id 0 corpus-id score` as TREC has them.
    """
    splits = splits_of(folder)
    if split not in splits:
        raise CorpusError(f"{folder} has no qrels/{split}.tsv; there are {', '.join(splits) or 'none'}")
    path = f"{str(folder).rstrip('/')}/qrels/{split}.tsv"
    faults = Faults(source=path)
    found: dict[str, dict[str, float]] = {}
    for number, line in enumerate(text_lines(path), start=1):
        cells = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
        if not line.strip() or (number == 1 and not _is_score(cells[-1])):
            continue
        if len(cells) not in (3, 4) or not _is_score(cells[-1]):
            faults.add(number, "must be query, document and score", f"found {shown(line.strip())}")
            continue
        query, document, score = cells[0], cells[-2], float(cells[-1])
        of_query = found.setdefault(query, {})
        if of_query.setdefault(document, score) != score:
            detail = f"{query} and {document}: {of_query[document]:g} and {score:g}"
            faults.add(number, "another score for the same pair", detail)
    faults.require_none()
    relevant = {query: gains for query, gains in found.items() if max(gains.values()) > 0}
    if not relevant:
        what = "no document is relevant to any query" if found else "it judges nothing"
        raise CorpusError(f"{path} cannot be measured by: {what}")
    return relevant


def _asked(folder: str | Path, judgements: Judgements) -> Iterator[Row]:
    return (row for row in read_queries(folder) if row["id"] in judgements)


def _is_score(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _with_unique_ids(path: str, columns: tuple[Column, ...]) -> Iterator[Row]:
    """The rows of a table; where all are read, CorpusError if two have one id. 16 bytes a row are held."""
    ids, lines = array("Q"), array("q")
    for row in read_table(path, columns):
        ids.frombytes(digest(row["id"]))
        lines.append(row["line"])
        yield row
    _, first, counts = np.unique(np.array(ids), return_index=True, return_counts=True)
    if np.any(counts > 1):
        faults = Faults(source=path)
        for place in np.sort(first[counts > 1])[:_SHOWN].tolist():
            again = np.flatnonzero(np.array(ids) == ids[place])[1]
            faults.add(lines[again], "an id that stands above", f"first in line {lines[place]}")
        faults.require_none()


def _require_known(folder: str | Path, split: str, what: str, named: Collection[str], rows: Rows) -> None:
    unknown = set(named)
    for row in rows:
        unknown.discard(row["id"])
    if unknown:
        first = ", ".join(map(repr, sorted(unknown)[:_SHOWN]))
        raise CorpusError(
            f"{folder}: qrels/{split}.tsv names {len(unknown):,} of {len(named):,} {what} ids that are not "
            f"there: {first}{', ...' if len(unknown) > _SHOWN else ''}"
        )


def _part(folder: str | Path, name: str) -> str:
    """The file of a part of the folder, of whatever kind it is."""
    system, inner = _system(folder)
    for ending in _ENDINGS:
        try:
            is_there = system.exists(f"{inner}/{name}{ending}")
        except Exception as error:
            raise unreadable(str(folder), error) from error
        if is_there:
            return f"{str(folder).rstrip('/')}/{name}{ending}"
    raise CorpusError(
        f"{folder} has no {name}.jsonl (nor .jsonl.gz, .jsonl.zst or .parquet)\n"
        "hint: a folder to measure retrieval on holds corpus.jsonl, queries.jsonl and qrels/test.tsv"
    )


def _system(folder: str | Path) -> tuple[Any, str]:
    try:
        system, inner = cast("tuple[Any, str]", fsspec.core.url_to_fs(str(folder)))
    except Exception as error:
        raise unreadable(str(folder), error) from error
    return system, inner.rstrip("/")
