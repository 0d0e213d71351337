"""Queries with their documents as examples, and batches of them as packs with who belongs to whom.

    row      {"query": q, "positives": [p1, p2], "negatives": [n1, n2]}
    examples (q, p1, n1, n2) and (q, p2, n1, n2)
    batch    packs of all queries, then of all documents, and a SetBatch

What an example keeps beside its tokens are the identities of its texts, so that the same text in another row
of the batch does not count as a negative, and a teacher's scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
import torch

from modernbert.corpus.labelled import Row
from modernbert.inference.cuts import CutWarning
from modernbert.inference.embedding import prompt_named
from modernbert.inference.engine import SequenceIds
from modernbert.inference.pipeline import Model
from modernbert.training.examples import Example
from modernbert.training.tasks.embed_losses import SetBatch
from modernbert.training.tasks.query_sets import IDENTITY, as_numbers, flat, identity
from modernbert.training.tasks.sequences import batches, encode
from modernbert.training.tasks.task import Notes

_ROWS_AT_ONCE = 250  # of perhaps ten texts each
# Texts to sequences that fit, and what was cut of them.
Encoder = Callable[[Sequence[str]], tuple[list[SequenceIds], list[CutWarning]]]


def encoder_of(model: Model, prompt: str, limit: int) -> Encoder:
    """What makes sequences of texts under the prompt of that name, as the model does when it is asked."""
    settings = model.pretrained.settings
    limit = min(limit, settings.length_for(prompt) or limit)
    return partial(encode, model=model, limit=limit, prompt=prompt_named(prompt, settings, model.name))


@dataclass(kw_only=True)
class CutCount:
    """How many texts were cut, and by how many tokens."""

    num_texts: int = 0
    num_tokens: int = 0

    def add(self, cuts: Iterable[CutWarning]) -> None:
        """Count what one call said."""
        for cut in cuts:
            self.num_texts += cut.num_cut
            self.num_tokens += cut.num_tokens

    def note(self, what: str, notes: Notes) -> None:
        """Say it, where there is something to say."""
        if self.num_texts:
            notes.warn(
                f"{self.num_texts:,} {what} are longer than the limit; {self.num_tokens:,} tokens at their "
                "ends were left out of learning"
            )


def set_examples(
    rows: Iterable[Row],
    *,
    query: Encoder,
    document: Encoder,
    num_negatives: int,
    notes: Notes,
) -> Iterator[Example]:
    """An example for each positive of each row, with at most so many negatives."""
    cut_queries, cut_documents = CutCount(), CutCount()
    number = 0
    for batch in batches(rows, _ROWS_AT_ONCE):
        queries, cuts = query([row["query"] for row in batch])
        cut_queries.add(cuts)
        texts = [[*row["positives"], *row["negatives"][:num_negatives]] for row in batch]
        documents, cuts = document(flat(texts))
        cut_documents.add(cuts)
        bounds = [0, *accumulate(map(len, texts))]
        for row, sequence, start, end in zip(batch, queries, bounds, bounds[1:], strict=False):
            yield from _of_row(row, sequence, documents[start:end], number)
            number += 1
    cut_queries.note("queries", notes)
    cut_documents.note("documents", notes)


def set_batch(examples: Sequence[Example]) -> tuple[list[SequenceIds], SetBatch]:
    """All queries and then all documents of the examples, and how they belong together."""
    read = [_read(example) for example in examples]
    queries = [example.sequences[0] for example in examples]
    documents = [sequence for example in examples for sequence in example.sequences[1:]]
    counts = np.array([len(each.documents) for each in read])
    positive = np.concatenate([[0], counts.cumsum()[:-1]])
    return [*queries, *documents], SetBatch(
        owner=torch.from_numpy(np.repeat(np.arange(len(read)), counts)),
        positive=torch.from_numpy(positive),
        excluded=torch.from_numpy(_excluded(read, positive)),
        scores=torch.from_numpy(np.concatenate([each.scores for each in read])),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Identities:
    """Who is who in an example: its query, its documents, the positive first, and all answers."""

    query: int
    documents: np.ndarray  # int64 [documents]
    answers: np.ndarray  # int64 [answers]
    scores: np.ndarray  # float32 [documents], or none


def _of_row(row: Row, query: SequenceIds, documents: Sequence[SequenceIds], number: int) -> Iterator[Example]:
    positives, num = row["positives"], len(row["positives"])
    negatives = row["negatives"][: len(documents) - num]
    answers = [identity(text) for text in positives]
    others = [identity(text) for text in negatives]
    scores = row.get("scores")
    for place in range(num):
        kept = [place, *range(num, len(documents))]
        names = [identity(row["query"]), answers[place], *others, *answers]
        said = [] if scores is None else [scores[each] for each in kept]
        yield Example(
            sequences=[query, *(documents[each] for each in kept)],
            targets=np.array([num, *np.ravel(names), *said], np.float32),
            row=number,
        )


def _read(example: Example) -> _Identities:
    targets = np.asarray(example.targets)
    num_documents, num_answers = len(example.sequences) - 1, int(targets[0])
    end = 1 + IDENTITY * (1 + num_documents + num_answers)
    names = as_numbers(targets[1:end].reshape(-1, IDENTITY))
    return _Identities(
        query=int(names[0]),
        documents=names[1 : 1 + num_documents],
        answers=names[1 + num_documents :],
        scores=np.array(targets[end:], np.float32),
    )


def _excluded(read: Sequence[_Identities], positive: np.ndarray) -> np.ndarray:
    """Pairs [P, 2] of a query and a document, not its own, that answers it, or is the query itself."""
    places: dict[int, list[int]] = {}
    for place, name in enumerate(np.concatenate([each.documents for each in read]).tolist()):
        places.setdefault(name, []).append(place)
    answers: dict[int, set[int]] = {}
    for each in read:  # a query may stand in several rows, with an answer in each
        answers.setdefault(each.query, {each.query}).update(each.answers.tolist())
    pairs = [
        (number, place)
        for number, each in enumerate(read)
        for name in answers[each.query]
        for place in places.get(name, ())
        if place != positive[number]
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)
