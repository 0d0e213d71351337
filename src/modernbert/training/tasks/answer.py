"""Answers as stretches of a text: where one starts, where it ends, and whether the text holds one at all.

    squad.json    SQuAD 1 and 2
    squad.jsonl   {"question": "Who?", "context": "Ada did.", "answers": [{"text": "Ada", "start": 0}]}

A context that does not fit is learned in the overlapping windows that `Model.answers` reads it in. A window
that holds an answer learns its first and last token; one that holds none learns the first token of all, which
stands for "no answer".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from modernbert.corpus.answer_files import AnswerSummary, read_answers
from modernbert.corpus.labelled import Row, Rows
from modernbert.errors import CorpusError
from modernbert.heads.model import HeadPart
from modernbert.heads.tokens import SpanHeadConfig
from modernbert.heads.transform import TransformConfig
from modernbert.inference.answering import MOST_ANSWER_TOKENS, ReadQuestion, read_questions
from modernbert.inference.engine import SequenceIds
from modernbert.inference.pipeline import Model
from modernbert.pretrained.folder import Pretrained
from modernbert.pretrained.heads import with_head
from modernbert.text.batch import PackedBatch
from modernbert.text.chunking import Window
from modernbert.training.examples import Example
from modernbert.training.limits import require
from modernbert.training.tasks import answer_report, answer_scores
from modernbert.training.tasks.packs import pack_examples, targets_of
from modernbert.training.tasks.sequences import batches
from modernbert.training.tasks.task import Evaluation, Notes, Parts, ReportContext, Section

if TYPE_CHECKING:
    from jaxtyping import Float

_SEED = 17


@dataclass(frozen=True, kw_only=True, slots=True)
class FindAnswers:
    """Learn to find answers in contexts.

    Of the windows of a question that hold no answer, at most `negatives` are learned, drawn at random: a long
    context has dozens, and a model that mostly sees "no answer" learns to say that. (The code of Alberti et
    al. 2019, arXiv 1901.08634, keeps one such window of Natural Questions in fifty, with
    `--include_unknowns=0.02`.) Contexts of one or two windows keep all.
    """

    negatives: int = 2
    encoding: str = "utf-8"
    name: str = "answer"

    def __post_init__(self) -> None:
        require("0 or more", negatives=self.negatives)

    def read(self, source: str, notes: Notes) -> Iterator[Row]:
        """Rows of "question", "context" and "answers", as corpus.answer_files has them."""
        summary = AnswerSummary()
        yield from read_answers(source, encoding=self.encoding, summary=summary)
        for line in summary.lines():
            notes.warn(f"{source}: {line}")

    def strata(self, rows: Rows) -> Sequence[str] | None:
        """Whether there is an answer."""
        return [str(row["is_impossible"]) for row in rows]

    def groups(self, rows: Rows) -> Sequence[str] | None:
        """The contexts: all questions of one are in one part."""
        return rows.column("context_id")

    def texts(self, row: Row) -> Sequence[str]:
        """The question and the context."""
        return [row["question"], row["context"]]

    def prepare(self, parts: Parts, notes: Notes) -> FindAnswersTask:
        """The task; whether there are questions without answers is known from the training rows."""
        num_without = sum(row["is_impossible"] for row in parts.train)
        if num_without == len(parts.train):
            raise CorpusError(f"none of the {num_without:,} questions to learn from has an answer")
        contexts = {row["context_id"] for row in parts.train}
        for name, rows in parts.items():
            if name == "train":
                continue
            num_shared = sum(row["context_id"] in contexts for row in rows)
            if num_shared:
                notes.warn(
                    f"{num_shared:,} of {len(rows):,} questions of the {name} part are about contexts that "
                    "also stand in train"
                )
            num_impossible = sum(row["is_impossible"] for row in rows)
            if num_impossible and not num_without:
                notes.warn(
                    f"{num_impossible:,} questions of the {name} part have no answer, and training has none "
                    "such: the model always gives one"
                )
        return FindAnswersTask(config=self, may_have_none=num_without > 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class FindAnswersTask:
    """Finding answers; `may_have_none` where training has questions without one."""

    config: FindAnswers
    may_have_none: bool
    unit: str = "window"
    takes_whole_batches: bool = False

    @property
    def metric(self) -> str:
        """The F1 of words; with questions without answers at the threshold that is best for it."""
        return "best_f1" if self.may_have_none else "f1"

    def head(self, transform: TransformConfig | None, pooling: str) -> HeadPart:
        """Two scores a token: a start, an end."""
        del pooling
        return SpanHeadConfig(transform=transform, dropout=0.1)

    def begin(self, pretrained: Pretrained, *, seed: int) -> Pretrained:
        """The model with such a head, and not with the threshold of an earlier training.

        At 0 the likelier of answer and none is given, until `settle` knows better.
        """
        ours = with_head(pretrained, self.head, seed=seed)
        threshold = 0.0 if self.may_have_none else None
        return replace(ours, settings=replace(ours.settings, no_answer_threshold=threshold))

    def examples(self, rows: Iterable[Row], model: Model, limit: int, notes: Notes) -> Iterator[Example]:
        """A window each: where the answer starts and ends in it, and from where to where the context goes."""
        found: Counter[str] = Counter()
        number = 0
        for batch in batches(rows):
            fits = answer_scores.leave_room([row["question"] for row in batch], model.tokenizer, limit)
            found["question"] += fits.count(False)
            asked = [row for row, fit in zip(batch, fits, strict=True) if fit]
            read = iter(
                read_questions(
                    [row["question"] for row in asked],
                    [row["context"] for row in asked],
                    tokenizer=model.tokenizer,
                    limit=limit,
                )
            )
            for row, fit in zip(batch, fits, strict=True):
                if fit:
                    yield from self._examples(next(read), row, number, found)
                number += 1
        _note_counts(found, limit, notes)

    def inputs(self, examples: Sequence[Example]) -> tuple[Any, ...]:
        """The pack, and the four numbers of each window."""
        return pack_examples(examples), targets_of(examples).view(len(examples), 4)

    def loss(
        self, module: nn.Module, batch: PackedBatch, targets: Float[Tensor, "S 4"], *, backend: str
    ) -> Float[Tensor, ""]:
        """The mean of the cross entropies of start and end, summed over the windows.

        Each goes over the tokens of the context and the first of all, which stands for no answer: the choice
        that `Model.answers` has.
        """
        logits = module(batch, backend).float()  # [T, 2]
        start, end, body_start, body_end = targets.long().unbind(1)  # each [S]
        place = torch.arange(batch.max_seqlen, device=logits.device)  # [N]
        is_choice = (place >= body_start[:, None]) & (place < body_end[:, None]) | (place == 0)  # [S, N]
        rows = batch.cu_seqlens[:-1, None] + torch.minimum(place, batch.lengths[:, None] - 1)  # [S, N]
        scores = logits[rows].masked_fill(~is_choice[:, :, None], -torch.inf)  # [S, N, 2]
        both = torch.stack((start, end), dim=1)  # [S, 2]
        return nn.functional.cross_entropy(scores, both, reduction="sum") / 2

    def evaluate(self, model: Model, rows: Rows) -> Evaluation:
        """Exact match and F1 as SQuAD's script has them, and predictions with the best five stretches."""
        return answer_scores.evaluate(model, rows, may_have_none=self.may_have_none)

    def settle(self, model: Model, dev: Rows) -> Mapping[str, Any]:
        """The threshold for "no answer", kept in the folder, where training had such questions."""
        return answer_scores.settle(model, dev, may_have_none=self.may_have_none)

    def report(self, context: ReportContext) -> Sequence[Section]:
        """Results beside baselines, answer or none, and what went wrong."""
        return answer_report.report(context)

    def _examples(self, read: ReadQuestion, row: Row, number: int, found: Counter[str]) -> Iterator[Example]:
        found["long"] += len(read.windows) > 1
        spans = [span for answer in row["answers"] if (span := token_span(read, answer)) is not None]
        if row["answers"]:
            first, last = spans[0] if spans else (0, -1)
            found["invisible"] += not spans
            found["many tokens"] += last - first >= MOST_ANSWER_TOKENS
            found["cut"] += bool(spans) and not _is_exact(read, row["answers"], spans[0])
        holding = {
            place: span
            for place, window in enumerate(read.windows)
            for span in reversed(spans)  # the first answer that a window holds counts
            if window.start <= span[0] and span[1] < window.end
        }
        if row["answers"] and not holding:
            found["in no window"] += bool(spans)
            return
        others = [place for place in range(len(read.windows)) if place not in holding]
        for place in sorted([*holding, *self._drawn(others, number)]):
            window = read.windows[place]
            yield Example(
                sequences=[SequenceIds(token_ids=window.token_ids, token_types=window.token_types)],
                targets=_targets(window, holding.get(place)),
                row=number,
            )

    def _drawn(self, places: Sequence[int], number: int) -> list[int]:
        if len(places) <= self.config.negatives:
            return list(places)
        draw = np.random.Generator(np.random.PCG64DXSM([_SEED, number]))
        return draw.choice(places, self.config.negatives, replace=False).tolist()


def token_span(read: ReadQuestion, answer: Mapping[str, Any]) -> tuple[int, int] | None:
    """The first and the last token of the context that an answer touches; None where it has none."""
    start, end = answer["start"], answer["start"] + len(answer["text"])
    first = int(np.searchsorted(read.ends, start, side="right"))
    last = int(np.searchsorted(read.starts, end, side="left")) - 1
    return (first, last) if first <= last else None


def _is_exact(read: ReadQuestion, answers: Sequence[Mapping[str, Any]], span: tuple[int, int]) -> bool:
    """Whether the tokens give back one of the answers to the letter."""
    found = read.context[read.starts[span[0]] : read.ends[span[1]]]
    return any(found == answer["text"].strip() for answer in answers)


def _targets(window: Window, span: tuple[int, int] | None) -> list[int]:
    """Start and end of the answer, 0 for none, and the bounds of the context, all in tokens of the window."""
    offset = window.body_start - window.start
    first, last = (0, 0) if span is None else (span[0] + offset, span[1] + offset)
    return [first, last, window.body_start, window.end + offset]


def _note_counts(found: Counter[str], limit: int, notes: Notes) -> None:
    lines = {
        "long": f"questions have contexts that do not fit {limit} tokens, which were read in windows",
        "question": f"questions leave no room for their context in {limit} tokens and were left out",
        "in no window": "questions have an answer that no window holds whole, and were left out",
        "invisible": "questions have an answer that the tokenizer has no token for, and were left out",
        "many tokens": f"answers are longer than {MOST_ANSWER_TOKENS} tokens, the most that is ever given",
        "cut": "answers begin or end inside a token; the whole tokens were learned",
    }
    for name, line in lines.items():
        if found[name]:
            notes.add(f"{found[name]:,} {line}")
