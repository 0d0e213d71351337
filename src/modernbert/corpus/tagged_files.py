"""Words with tags, and texts with marked spans, from the files that people have them in.

    ner.jsonl     {"tokens": ["Anna", "left"], "tags": ["B-PER", "O"]}        words with tags
    ner.jsonl     {"text": "Anna left", "spans": [{"start": 0, "end": 4, "label": "PER"}]}
    ner.conll     Anna NNP B-PER                                              a word a line

What comes out is one of two rows, for the whole file: {"words", "tags", "line"} with tags in IOB2, or
{"text", "spans", "line"} with spans in order, by characters. Which words a text has is the business of who
learns from it.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, cast

from modernbert.corpus.faults import Faults, shown
from modernbert.corpus.labelled import Row
from modernbert.corpus.tables import read_records, require_columns
from modernbert.corpus.tag_schemes import TagsSeen, begins_inside, first_fault, to_iob2
from modernbert.corpus.text_files import file_ending, mended, text_lines
from modernbert.errors import CorpusError

_RECORDS = (".jsonl", ".ndjson", ".json", ".parquet")
_DOCUMENT = "-DOCSTART-"
# Of CoNLL-U: lines of words that the next lines have in parts ("3-4"), or that no text has ("3.1").
_NOT_A_WORD = re.compile(r"\d+[-.]\d+")
_TAG = re.compile(r"O|[BILUES]-\S+")
_BLANKS = re.compile(" +")
_KEPT = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class TagColumns:
    """Where words, tags, texts and spans stand: keys of JSON, or numbers of columns from 0 (-1: the last).

    The first key that a file has counts.
    """

    words: tuple[str, ...] = ("tokens", "words")
    tags: tuple[str, ...] = ("tags", "ner_tags", "labels")
    text: tuple[str, ...] = ("text",)
    spans: tuple[str, ...] = ("spans", "entities", "label", "labels")
    word_column: int = 0
    tag_column: int = -1


@dataclass(kw_only=True, slots=True)
class TagSummary:
    """What was read: sizes, the scheme, and what was mended on the way. Filled when the reading is over."""

    num_rows: int = 0
    num_words: int = 0
    num_trimmed: int = 0
    seen: TagsSeen = field(default_factory=TagsSeen)
    opened_inside: list[str] = field(default_factory=list[str])

    def lines(self) -> list[str]:
        """What a person should know of the file; nothing where all is as it should be."""
        found: list[str] = []
        if num := self.seen.num_repaired:
            first = "; ".join(self.opened_inside)
            found.append(
                f"{num:,} tags are against the scheme, which is {self.seen.scheme}; an entity begins where "
                f"none was open, and ends where it does not go on{f' ({first}; ...)' if first else ''}"
            )
        if self.num_trimmed:
            found.append(f"{self.num_trimmed:,} spans began or ended with blanks, which were left out")
        return found


def read_tagged(
    path: str | Path,
    *,
    columns: TagColumns = TagColumns(),
    encoding: str = "utf-8",
    summary: TagSummary | None = None,
) -> Generator[Row]:
    """The rows of a file of words with tags, or of texts with spans; `summary` is filled on the way.

    Files of JSON and Parquet hold either; all other files hold a word a line in columns. Spans that overlap,
    offsets outside of the text, tags that do not match their words and tags of no scheme are faults, and end
    in one CorpusError with the places of the first.
    """
    summary = TagSummary() if summary is None else summary
    faults = Faults(source=str(path))
    if file_ending(str(path)) == ".csv":
        raise CorpusError(f"{path}: tagged words are read from .jsonl, or from columns in .conll or .tsv")
    if file_ending(str(path)) in _RECORDS:
        rows = _of_records(str(path), columns, encoding, faults, summary)
    else:
        sentences = _sentences(text_lines(str(path), encoding), columns, faults)
        rows = (_tagged(words, tags, lines, faults, summary) for words, tags, lines in sentences)
    for row in rows:
        if row is not None:
            summary.num_rows += 1
            yield row
    faults.require_none()


def _of_records(
    path: str, columns: TagColumns, encoding: str, faults: Faults, summary: TagSummary
) -> Iterator[Row | None]:
    has_words: bool | None = None
    keys = ("", "")
    optional = [*columns.words, *columns.tags, *columns.text, *columns.spans]
    for line, record in read_records(path, required=(), optional=optional, encoding=encoding, faults=faults):
        if has_words is None:
            has_words, keys = _keys_of(path, list(record), columns)
        first, second = record.get(keys[0]), record.get(keys[1])
        if has_words:
            yield _words_row(first, second, keys, line, faults, summary)
        else:
            yield _spans_row(first, second, keys, line, faults, summary)


def _keys_of(path: str, names: Sequence[str], columns: TagColumns) -> tuple[bool, tuple[str, str]]:
    def first(wanted: Iterable[str]) -> str | None:
        return next((name for name in wanted if name in names), None)

    words, text = first(columns.words), first(columns.text)
    has_words = words is not None and (first(columns.tags) is not None or text is None)
    key = words if has_words else text
    wanted = columns.tags if has_words else columns.spans
    if key is None:
        raise CorpusError(
            f"{path} has neither words ({' or '.join(columns.words)}) nor texts "
            f"({' or '.join(columns.text)}); it has {', '.join(map(repr, names))}"
        )
    second = first(name for name in wanted if name != key)
    if second is None:
        require_columns(path, names, wanted[:1])
        raise AssertionError
    return has_words, (key, second)


def _words_row(
    words: object, tags: object, keys: tuple[str, str], line: int, faults: Faults, summary: TagSummary
) -> Row | None:
    for value, key in zip((words, tags), keys, strict=True):
        if not isinstance(value, list) or not all(isinstance(each, str) for each in cast("list[Any]", value)):
            faults.add(line, f"{key!r} must be a list of texts", f"found {shown(value)}")
            return None
    found, of_found = cast("list[str]", words), cast("list[str]", tags)
    if len(found) != len(of_found):
        faults.add(line, "another number of tags than words", f"{len(of_found)} for {len(found)}")
        return None
    return _tagged(found, of_found, [line], faults, summary)


def _tagged(
    words: Sequence[str], tags: Sequence[str], lines: Sequence[int], faults: Faults, summary: TagSummary
) -> Row | None:
    """A row of the words, with their line each, or one for all of them."""

    def line_of(place: int) -> int:
        return lines[place] if len(lines) > 1 else lines[0]

    if not words:
        faults.add(lines[0], "no words")
        return None
    if "" in words:
        faults.add(line_of(words.index("")), "an empty word", f"word {words.index('') + 1}")
        return None
    if fault := first_fault(tags, summary.seen):
        place, what = fault
        faults.add(line_of(place), "a tag of no scheme", f"word {place + 1}, {shown(words[place])}: {what}")
        return None
    found = to_iob2(tags, summary.seen)
    for place, (tag, as_iob2) in enumerate(zip(tags, found, strict=True)):
        if len(summary.opened_inside) < _KEPT and begins_inside(tag, as_iob2):
            summary.opened_inside.append(f"line {line_of(place)}: {shown(words[place])} with {tag}")
    summary.num_words += len(words)
    return {"words": [mended(word) for word in words], "tags": found, "line": lines[0]}


def _spans_row(
    text: object, spans: object, keys: tuple[str, str], line: int, faults: Faults, summary: TagSummary
) -> Row | None:
    if not isinstance(text, str) or not text.strip():
        faults.add(line, f"{keys[0]!r} must be a text", f"found {shown(text)}")
        return None
    if not isinstance(spans, list):
        faults.add(line, f"{keys[1]!r} must be a list of spans", f"found {shown(spans)}")
        return None
    found: list[dict[str, Any]] = []
    for given in cast("list[Any]", spans):
        span = _span(given, text)
        if isinstance(span, str):
            faults.add(line, "a span that does not fit its text", span)
            return None
        summary.num_trimmed += len(text[span["start"] : span["end"]]) != _length(given)
        found.append(span)
    found.sort(key=lambda span: (span["start"], span["end"]))
    for one, other in pairwise(found):
        if other["start"] < one["end"]:
            faults.add(line, "spans that overlap", f"{_named(one, text)} and {_named(other, text)}")
            return None
    summary.seen.labels.update(span["label"] for span in found)
    return {"text": mended(text), "spans": found, "line": line}


def _span(given: object, text: str) -> dict[str, Any] | str:
    """Start, end and label of a span, without blanks at its ends; or what is wrong with it."""
    if isinstance(given, dict):
        span = cast("dict[str, Any]", given)
        start, end, label = span.get("start"), span.get("end"), span.get("label", span.get("type"))
    elif isinstance(given, list) and len(cast("list[Any]", given)) == 3:
        span = {}
        start, end, label = cast("list[Any]", given)
    else:
        return f"{shown(given)} is neither an object nor [start, end, label]"
    if type(start) is not int or type(end) is not int or not isinstance(label, str) or not label.strip():
        return f"{shown(given)} must have start and end, whole numbers, and label, a text"
    if not 0 <= start < end <= len(text):
        return f"{label} [{start}, {end}) in a text of {len(text)} characters"
    marked = text[start:end]
    if not marked.strip():
        return f"{label} [{start}, {end}) holds nothing but blanks"
    if isinstance(span.get("text"), str) and span["text"].strip() != marked.strip():
        return f"{label} [{start}, {end}) is {shown(marked)}, and not {shown(span['text'])}"
    start, end = start + len(marked) - len(marked.lstrip()), end - len(marked) + len(marked.rstrip())
    return {"start": start, "end": end, "label": label}


def _length(given: Any) -> int:
    return given["end"] - given["start"] if isinstance(given, dict) else given[1] - given[0]


def _named(span: dict[str, Any], text: str) -> str:
    return f"{span['label']} [{span['start']}, {span['end']}) {shown(text[span['start'] : span['end']])}"


def _sentences(
    lines: Iterable[str], columns: TagColumns, faults: Faults
) -> Iterator[tuple[list[str], list[str], list[int]]]:
    """Words, tags and lines of each sentence of a file with a word a line."""
    words: list[str] = []
    tags: list[str] = []
    numbers: list[int] = []
    num_columns = 0
    for number, line in enumerate(chain(lines, [""]), start=1):
        cut = line.rstrip()
        # str.split would also cut at the no-break blanks inside of words
        cells = cut.split("\t") if "\t" in cut else _BLANKS.split(cut.lstrip(" "))
        if not cut or cells[0] == _DOCUMENT:
            if words:
                yield words, tags, numbers
                words, tags, numbers = [], [], []
        elif not (_is_comment(cells, line, num_columns) and not words) and not _NOT_A_WORD.fullmatch(
            cells[0]
        ):
            if not num_columns:
                _require_places(len(cells), columns, faults.source, number)
            num_columns = num_columns or len(cells)
            if len(cells) < 2 or len(cells) != num_columns:
                wanted = f"{num_columns} as above" if num_columns > 1 else "a word and its tag"
                faults.add(number, "another number of columns", f"{len(cells)} instead of {wanted}")
                continue
            words.append(cells[columns.word_column])
            tags.append(cells[columns.tag_column].strip())
            numbers.append(number)


def _require_places(num_columns: int, columns: TagColumns, source: str, line: int) -> None:
    for place in (columns.word_column, columns.tag_column):
        if num_columns > 1 and not -num_columns <= place < num_columns:
            raise CorpusError(
                f"{source}, line {line}: there is no column {place}; columns are 0 to {num_columns - 1}"
            )


def _is_comment(cells: Sequence[str], line: str, num_columns: int) -> bool:
    """Whether a line above a sentence is none of its words: "# text = ...", but not "# O"."""
    is_word = len(cells) == (num_columns or 2) and _TAG.fullmatch(cells[-1])
    return line.startswith("#") and cells[0] == "#" and not is_word
