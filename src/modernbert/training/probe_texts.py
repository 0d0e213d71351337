"""Which texts probes ask about: evenly spaced ones of held-out documents, or rows of a labelled file.

What is too little to ask about gives a reason in words instead of texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modernbert.corpus.labelled import Column, read_table
from modernbert.corpus.split import Documents
from modernbert.errors import CorpusError
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

TEXT_TOKENS = 128  # the most of a text, and of each half of a document; without special tokens
NUM_TEXTS, NUM_DOCUMENTS = 256, 128  # the most of all sources or labels together
SHORTEST = 8  # tokens: fewer say little of anything


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledTexts:
    """Texts as token ids with special tokens, a label each, and which are of the second half.

    Texts of one document are in one half. `origin` says in a word what the labels are.
    """

    origin: str
    texts: Sequence[Int[np.ndarray, "n"]]
    labels: Sequence[str]
    is_second: Bool[np.ndarray, "N"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Halves:
    """The first and second halves of documents, as token ids with special tokens, and their sources."""

    queries: Sequence[Int[np.ndarray, "n"]]
    documents: Sequence[Int[np.ndarray, "n"]]
    sources: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chooser:
    """Takes texts of at most `most_tokens` out of documents, between the tokenizer's special tokens."""

    tokenizer: Tokenizer
    most_tokens: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, seq_len: int) -> Chooser:
        """Texts of TEXT_TOKENS, or of as many as a sequence of the model has room for."""
        around = tokenizer.template.single
        room = seq_len - len(around.prefix.token_ids) - len(around.suffix.token_ids)
        return cls(tokenizer=tokenizer, most_tokens=min(TEXT_TOKENS, room))

    def of_sources(self, documents: Documents) -> LabelledTexts | str:
        """Texts of each source with two documents or more; of long documents several, where there are few."""
        texts: list[np.ndarray] = []
        labels: list[str] = []
        is_second: list[bool] = []
        room = NUM_TEXTS // max(1, len(documents.sources))
        for source in documents.sources:
            lengths = documents.lengths(source)
            chosen = _evenly(np.flatnonzero(lengths >= SHORTEST), room)
            if len(chosen) < 2:
                continue
            for place, document in enumerate(chosen):
                length = int(lengths[document])
                size = min(length, self.most_tokens)
                num = min(room // len(chosen), length // size)
                for start in np.linspace(0, length - size, num, dtype=np.int64).tolist():
                    texts.append(self._text(documents, source, document, start, start + size))
                    labels.append(source)
                    is_second.append(place % 2 == 1)
        if len(set(labels)) < 2:
            return _too_few("sources with two held-out documents or more", sorted(set(labels)))
        return LabelledTexts(origin="source", texts=texts, labels=labels, is_second=np.array(is_second))

    def of_file(self, path: Path) -> LabelledTexts:
        """The same of a labelled file; its labels are held apart by their rows.

        CorpusError where the file cannot be read, or has not the columns "text" and "label".
        """
        rows: dict[str, list[str]] = defaultdict(list)
        for row in read_table(path, [Column(name=name, role=name) for name in ("text", "label")]):
            rows[str(row["label"])].append(row["text"])
        rows = {label: found for label, found in sorted(rows.items()) if len(found) > 1}
        if len(rows) < 2:
            raise CorpusError(
                f"{path} has nothing to tell apart: it needs two labels with two texts each or more, found "
                f"{len(rows)} of them"
            )
        texts: list[np.ndarray] = []
        labels: list[str] = []
        is_second: list[bool] = []
        for label, found in rows.items():
            chosen = _evenly(np.arange(len(found)), max(2, NUM_TEXTS // len(rows)))
            ids = self.tokenizer.encode_ids([found[i] for i in chosen], add_special_tokens=False)
            texts += [self._framed(np.array(each[: self.most_tokens], np.int64)) for each in ids]
            labels += [label] * len(ids)
            is_second += [place % 2 == 1 for place in range(len(ids))]
        return LabelledTexts(origin=path.name, texts=texts, labels=labels, is_second=np.array(is_second))

    def halves(self, documents: Documents) -> Halves | str:
        """The first tokens of each chosen document, cut in the middle."""
        queries: list[np.ndarray] = []
        seconds: list[np.ndarray] = []
        sources: list[str] = []
        room = max(1, NUM_DOCUMENTS // max(1, len(documents.sources)))
        for source in documents.sources:
            lengths = documents.lengths(source)
            for document in _evenly(np.flatnonzero(lengths >= 2 * SHORTEST), room):
                half = min(int(lengths[document]) // 2, self.most_tokens)
                queries.append(self._text(documents, source, document, 0, half))
                seconds.append(self._text(documents, source, document, half, 2 * half))
                sources.append(source)
        if len(queries) < 2:
            return _too_few(f"held-out documents of {2 * SHORTEST} tokens or more", sorted(set(sources)))
        return Halves(queries=queries, documents=seconds, sources=sources)

    def _text(self, documents: Documents, source: str, document: int, start: int, end: int) -> np.ndarray:
        return self._framed(documents.tokens(source, document, start, end))

    def _framed(self, ids: np.ndarray) -> np.ndarray:
        around = self.tokenizer.template.single
        return np.concatenate([around.prefix.token_ids, ids, around.suffix.token_ids]).astype(np.int64)


def _evenly(numbers: np.ndarray, most: int) -> list[int]:
    """At most so many of the numbers, from the first to the last of them."""
    if len(numbers) <= most:
        return numbers.tolist()
    return numbers[np.linspace(0, len(numbers) - 1, most).round().astype(np.int64)].tolist()


def _too_few(what: str, found: Sequence[str]) -> str:
    return f"it needs two {what}, found {', '.join(found) or 'none'}"
