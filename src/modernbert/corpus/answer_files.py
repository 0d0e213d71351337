"""Questions with their answers in a context, in the forms of SQuAD 1 and 2, as one row each.

    squad.json    {"data": [{"paragraphs": [{"context": ..., "qas": [{"question": ..., "answers": ...}]}]}]}
    squad.jsonl   {"question": ..., "context": ..., "answers": [{"text": ..., "start": 17}]}

Answers are checked against their contexts. One that stands near its offset, once, is moved there; one that
does not is left out, and its question with it where it was the only one. All of it is counted.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from modernbert.corpus.digests import digest
from modernbert.corpus.faults import Faults, shown
from modernbert.corpus.labelled import Row
from modernbert.corpus.tables import read_records, require_columns
from modernbert.corpus.text_files import file_ending, mended
from modernbert.errors import CorpusError

_ENDINGS = (".json", ".jsonl", ".ndjson", ".parquet")
_KEYS = ("id", "question", "context", "answers", "is_impossible")
# Offsets are off by a few characters where markup or blanks were taken out; farther off it is another place.
_NEAR = 50
_KEPT = 5


@dataclass(kw_only=True, slots=True)
class AnswerSummary:
    """What was read, and what was done about offsets that do not match. Filled while the reading goes on.

    `num_questions` are those that became rows. `moved` and `lost` tell of the first answers of each fate.
    """

    num_questions: int = 0
    num_unanswerable: int = 0
    num_answers: int = 0
    num_moved: int = 0
    num_lost: int = 0
    num_questions_lost: int = 0
    moved: list[str] = field(default_factory=list[str])
    lost: list[str] = field(default_factory=list[str])

    def lines(self) -> list[str]:
        """What a person should know of the file; nothing where all is as it should be."""
        found: list[str] = []
        if self.num_moved:
            found.append(
                f"{self.num_moved:,} answers did not stand at their offsets but once nearby, and were moved: "
                + _listed(self.moved, self.num_moved)
            )
        if self.num_lost:
            found.append(
                f"{self.num_lost:,} answers stand nowhere near their offsets, or more than once, and were "
                f"left out, with {self.num_questions_lost:,} questions that had no other: "
                + _listed(self.lost, self.num_lost)
            )
        return found


def read_answers(
    path: str | Path, *, encoding: str = "utf-8", summary: AnswerSummary | None = None
) -> Generator[Row]:
    """A row a question: "id", "question", "context", "context_id", "answers", "is_impossible" and "line".

    Answers are {"text", "start"} in characters, each once, without blanks at their ends; there are none where
    `is_impossible`. Rows with the same context have the same "context_id", a short text to group them by.
    "line" counts lines of .jsonl, and questions of .json and .parquet. `summary` is filled on the way.

    CorpusError for questions without a text or a context, with all of them named, and where the offsets match
    for less than half of the questions that have answers.
    """
    summary = AnswerSummary() if summary is None else summary
    if file_ending(str(path)) not in _ENDINGS:
        raise CorpusError(f"{path}: questions are read from .json in the form of SQuAD, .jsonl and .parquet")
    faults = Faults(source=str(path))
    for line, question, context, context_id in _questions(str(path), encoding, faults):
        row = _row(question, context, line, faults, summary)
        if row is not None:
            summary.num_questions += 1
            yield row | {"context_id": context_id}
    faults.require_none()
    if summary.num_questions_lost > summary.num_questions - summary.num_unanswerable:
        raise CorpusError(
            f"{path}: {summary.num_questions_lost:,} questions have no answer that stands at its offset, "
            f"more than have one: {_listed(summary.lost, summary.num_lost)}\n"
            "hint: offsets count characters of the context from 0, and not bytes, words or tokens"
        )


def _questions(
    path: str, encoding: str, faults: Faults
) -> Iterator[tuple[int, Mapping[str, Any], object, str]]:
    """Each question with its number or line, its context, and what names the context."""
    number = 0
    for line, record in read_records(path, required=(), optional=_KEYS, encoding=encoding, faults=faults):
        if "paragraphs" not in record:
            if number == 0:
                require_columns(path, list(record), ("question", "context", "answers"))
            number += 1
            yield line, record, record.get("context"), _context_id(record.get("context"))
            continue
        faults.unit = "question"
        for paragraph in _objects(record["paragraphs"]):
            context = paragraph.get("context")
            context_id = _context_id(context)
            for question in _objects(paragraph.get("qas")):
                number += 1
                yield number, question, context, context_id


def _row(
    question: Mapping[str, Any], context: object, line: int, faults: Faults, summary: AnswerSummary
) -> Row | None:
    for name, value in (("question", question.get("question")), ("context", context)):
        if not isinstance(value, str) or not value.strip():
            faults.add(line, f"{name!r} must be a text", f"found {shown(value)}")
            return None
    context, name = mended(cast(str, context)), str(question.get("id") or line)
    given = _answers_of(question.get("answers"))
    if given is None:
        detail = f"found {shown(question.get('answers'))}"
        faults.add(line, "'answers' must be a list of objects with text and start", detail)
        return None
    if question.get("is_impossible") is False and not given:
        faults.add(line, "no answers, and 'is_impossible' is false")
        return None
    is_impossible = question.get("is_impossible") is True or not given
    found: list[dict[str, Any]] = []
    for text, start in [] if is_impossible else given:
        place = _place(text, start, context, f"question {name}", summary)
        answer = {"text": text, "start": place}
        if place is not None and answer not in found:
            found.append(answer)
    if not is_impossible and not found:
        summary.num_questions_lost += 1
        return None
    summary.num_unanswerable += is_impossible
    summary.num_answers += len(found)
    return {
        "id": name,
        "question": mended(question["question"]),
        "context": context,
        "answers": found,
        "is_impossible": is_impossible,
        "line": line,
    }


def _answers_of(answers: object) -> list[tuple[str, int | None]] | None:
    """Texts without blanks at their ends, and their starts; None where they have no such form as here:

    [{"text": "Paris", "start": 3}], SQuAD's "answer_start", or {"text": ["Paris"], "answer_start": [3]}.
    """
    if answers is None:
        return []
    if isinstance(answers, dict):
        columns = cast("dict[str, Any]", answers)
        texts, starts = columns.get("text"), columns.get("answer_start", columns.get("start"))
        if not isinstance(texts, list) or not isinstance(starts, list):
            return None
        texts, starts = cast("list[Any]", texts), cast("list[Any]", starts)
        if len(texts) != len(starts):
            return None
        answers = [{"text": text, "start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(answers, list):
        return None
    found: list[tuple[str, int | None]] = []
    for answer in cast("list[Any]", answers):
        if not isinstance(answer, dict):
            return None
        keys = cast("dict[str, Any]", answer)
        text, start = keys.get("text"), keys.get("start", keys.get("answer_start"))
        if not isinstance(text, str) or not (start is None or type(start) is int):
            return None
        if text.strip():
            lead = len(text) - len(text.lstrip())
            found.append((mended(text.strip()), None if start is None else start + lead))
    return found


def _place(text: str, start: int | None, context: str, name: str, summary: AnswerSummary) -> int | None:
    """Where the answer stands: at `start`, or once nearby, or once at all where no start is given."""
    if start is not None and start >= 0 and context.startswith(text, start):
        return start
    low, high = (0, len(context)) if start is None else (max(start - _NEAR, 0), start + _NEAR + len(text))
    place = context.find(text, low, max(high, 0))
    is_once = place >= 0 and context.find(text, place + 1, high) < 0
    there = (
        "no offset" if start is None else f"offset {start}, where {shown(context[max(start, 0) :][:20])} is"
    )
    what = f"{name}, {shown(text)}: {there}"
    if is_once:
        summary.num_moved += start is not None
        if start is not None and len(summary.moved) < _KEPT:
            summary.moved.append(f"{what}; moved to {place}")
        return place
    summary.num_lost += 1
    if len(summary.lost) < _KEPT:
        summary.lost.append(what)
    return None


def _objects(value: object) -> Iterator[dict[str, Any]]:
    for each in cast("list[Any]", value) if isinstance(value, list) else ():
        if isinstance(each, dict):
            yield cast("dict[str, Any]", each)


def _context_id(context: object) -> str:
    return digest(context if isinstance(context, str) else "").hex()


def _listed(first: list[str], num: int) -> str:
    return "; ".join(first) + ("; ..." if num > len(first) else "")
