"""Names and other marked stretches of texts: a tag for each word, in IOB2.

    ner.jsonl   {"tokens": ["Ada", "Lovelace", "wrote"], "tags": ["B-PER", "I-PER", "O"]}
    ner.conll   a word and its tag a line, blank lines between sentences; BIO, IOB1, BILOU, BIOES
    ner.jsonl   {"text": "Ada Lovelace wrote", "spans": [{"start": 0, "end": 12, "label": "PER"}]}

A word's tag is learned at its first token, where `Model.tag` reads it, and a long text in windows, each word
in the one that sees it best: nothing is left out. A loss is a mean over words, however they are packed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from modernbert.corpus.labelled import Row, Rows
from modernbert.corpus.tagged_files import TagColumns, TagSummary, read_tagged
from modernbert.errors import CorpusError
from modernbert.heads.model import HeadPart
from modernbert.heads.tokens import TagHeadConfig
from modernbert.heads.transform import TransformConfig
from modernbert.inference.engine import SequenceIds
from modernbert.inference.entities import OUTSIDE, split_tag
from modernbert.inference.pipeline import Model
from modernbert.inference.tagging import ReadText, best_windows, read_texts
from modernbert.text.batch import PackedBatch
from modernbert.training.examples import Example
from modernbert.training.tasks import tag_scores
from modernbert.training.tasks.packs import pack_examples, targets_of
from modernbert.training.tasks.sequences import batches
from modernbert.training.tasks.tag_words import tags_of_spans, text_or_words
from modernbert.training.tasks.task import Evaluation, Notes, Parts, ReportContext, Section

if TYPE_CHECKING:
    from jaxtyping import Float

_NOT_LEARNED = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Tag:
    """Learn the tags of words, or the marked spans of texts.

    `words`, `tags`, `text` and `spans` name keys of JSON where they are not among the usual ones ("tokens",
    "ner_tags", "entities", ...); `word_column` and `tag_column` count columns of other files from 0.
    """

    words: str | None = None
    tags: str | None = None
    text: str | None = None
    spans: str | None = None
    word_column: int = 0
    tag_column: int = -1
    label_smoothing: float = 0.0
    encoding: str = "utf-8"
    name: str = "tag"

    def read(self, source: str, notes: Notes) -> Iterator[Row]:
        """Rows of "words" and "tags" in IOB2, or of "text" and "spans"; what was mended is noted."""
        named = {name: getattr(self, name) for name in ("words", "tags", "text", "spans")}
        columns = replace(
            TagColumns(word_column=self.word_column, tag_column=self.tag_column),
            **{name: (value,) for name, value in named.items() if value is not None},
        )
        summary = TagSummary()
        yield from read_tagged(source, columns=columns, encoding=self.encoding, summary=summary)
        for line in summary.lines():
            notes.warn(f"{source}: {line}")

    def strata(self, rows: Rows) -> Sequence[str] | None:
        """The rarest label of each row, so that rare ones are in every part."""
        labels = [sorted(_labels_of(row)) for row in rows]
        counts = Counter(label for of_row in labels for label in of_row)
        return [min(of_row, key=lambda label: (counts[label], label), default="") for of_row in labels]

    def groups(self, rows: Rows) -> Iterable[str] | None:
        """The texts: of two rows with the same text one would give away the other's tags."""
        return (" ".join(self.texts(row)[0].lower().split()) for row in rows)

    def texts(self, row: Row) -> Sequence[str]:
        """The text, or its words joined by blanks."""
        found = text_or_words(row)
        return [found if isinstance(found, str) else " ".join(found)]

    def prepare(self, parts: Parts, notes: Notes) -> TagTask:
        """The task with the labels of the training rows."""
        known = {label for row in parts.train for label in _labels_of(row)}
        if not known:
            raise CorpusError(
                f"none of the {len(parts.train):,} rows to learn from has a tag other than {OUTSIDE!r}, or a "
                "span; there is nothing to find. Are words and tags in the columns that were read?"
            )
        for name, rows in parts.items():
            unseen: Counter[str] = Counter()
            for row in rows if name != "train" else ():
                unseen.update(_labels_of(row) - known)
            if unseen:
                notes.warn(
                    f"{unseen.total():,} rows of the {name} part have labels that training never saw "
                    f"({', '.join(sorted(unseen)[:5])}); their entities count as missed"
                )
        labels = [OUTSIDE, *(f"{position}-{label}" for label in sorted(known) for position in "BI")]
        return TagTask(config=self, labels=tuple(labels))


@dataclass(frozen=True, kw_only=True, slots=True)
class TagTask:
    """Tagging with known tags, in their order, "O" first."""

    config: Tag
    labels: tuple[str, ...]
    unit: str = "word"
    takes_whole_batches: bool = False

    @property
    def metric(self) -> str:
        """The F1 of whole entities."""
        return "f1"

    def head(self, transform: TransformConfig | None, pooling: str) -> HeadPart:
        """A score for each token and tag."""
        del pooling
        return TagHeadConfig(labels=self.labels, transform=transform, dropout=0.1)

    def examples(self, rows: Iterable[Row], model: Model, limit: int, notes: Notes) -> Iterator[Example]:
        """A window each, with a number a token: its tag, or -1 where nothing is learned."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        found: Counter[str] = Counter()
        row_number = 0
        for batch in batches(rows):
            read = read_texts([text_or_words(row) for row in batch], tokenizer=model.tokenizer, limit=limit)
            for row, text in zip(batch, read, strict=True):
                found["long"] += len(text.windows) > 1
                yield from _examples(text, _token_targets(text, row, numbers, found), row_number)
                row_number += 1
        _note_counts(found, limit, notes)

    def inputs(self, examples: Sequence[Example]) -> tuple[Any, ...]:
        """The pack, and the tag of each token, -1 where none is learned."""
        return pack_examples(examples), targets_of(examples)

    def loss(
        self, module: nn.Module, batch: PackedBatch, targets: Float[Tensor, "T"], *, backend: str
    ) -> Float[Tensor, ""]:
        """The cross entropy, summed over the words."""
        return nn.functional.cross_entropy(
            module(batch, backend).float(),  # [T, C]
            targets.long(),
            ignore_index=_NOT_LEARNED,
            reduction="sum",
            label_smoothing=self.config.label_smoothing,
        )

    def evaluate(self, model: Model, rows: Rows) -> Evaluation:
        """Figures of whole entities, and predictions with their places in characters."""
        return tag_scores.evaluate(model, rows)

    def settle(self, model: Model, dev: Rows) -> Mapping[str, Any]:
        """Nothing is fitted afterwards."""
        del model, dev
        return {}

    def report(self, context: ReportContext) -> Sequence[Section]:
        """Results beside a list of known names, label by label, and what went wrong."""
        return tag_scores.report(context)


def _labels_of(row: Row) -> set[str]:
    if "spans" in row:
        return {span["label"] for span in row["spans"]}
    return {split_tag(tag)[1] for tag in row["tags"]} - {OUTSIDE}


def _token_targets(text: ReadText, row: Row, numbers: Mapping[str, int], found: Counter[str]) -> np.ndarray:
    """The number of its word's tag at each first token, -1 elsewhere and for unknown tags; [n]."""
    if "spans" in row:
        tags, num_cut = tags_of_spans(text.words, row["spans"])
        found["cut"] += num_cut
    else:
        tags = row["tags"]
    targets = np.full(text.num_tokens, _NOT_LEARNED)
    for tag, token in zip(tags, text.first, strict=True):
        if token is None:
            found["without tokens"] += 1
        else:
            targets[token] = numbers.get(tag, _NOT_LEARNED)
    return targets


def _examples(text: ReadText, targets: np.ndarray, row: int) -> Iterator[Example]:
    """The windows of a text, each with the targets of those tokens that it sees best."""
    best = best_windows(text.num_tokens, text.windows)
    for number, window in enumerate(text.windows):
        body = slice(window.start, window.end)
        here = np.full(len(window.token_ids), _NOT_LEARNED)
        here[window.body_start :][: window.end - window.start] = np.where(
            best[body] == number, targets[body], _NOT_LEARNED
        )
        num_learned = int((here != _NOT_LEARNED).sum())
        if num_learned:
            sequence = SequenceIds(token_ids=window.token_ids, token_types=window.token_types)
            yield Example(sequences=[sequence], targets=here, row=row, weight=num_learned)


def _note_counts(found: Counter[str], limit: int, notes: Notes) -> None:
    lines = {
        "long": f"texts are longer than {limit} tokens and were read in overlapping windows, nothing was cut",
        "cut": "spans begin or end inside a word; the whole words were learned, and when such a span is "
        "measured it counts as missed",
        "without tokens": "words have no token of their own (invisible characters, say) and cannot be tagged",
    }
    for name, line in lines.items():
        if found[name]:
            notes.add(f"{found[name]:,} {line}")
