"""Objects in files of JSON: one a line, or a list of them, which is read without holding the whole of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, cast

from modernbert.corpus.faults import Faults, shown
from modernbert.corpus.text_files import lines_of, text_blocks
from modernbert.errors import CorpusError

Record = dict[str, Any]
_LIST = re.compile(r"\s*\[")
# The list under "data" of an object, as SQuAD has it.
_LIST_UNDER_DATA = re.compile(r'\s*\{[^{}\[\]]*"data"\s*:\s*\[')
_BLANKS = re.compile(r"\s*")
# A cut word such as -Infinity or \u00e9 is complained of so far from the end at most.
_CUT_WITHIN = 16


def json_lines(path: str, encoding: str, faults: Faults) -> Iterator[tuple[int, Record]]:
    """Each line's number, from 1, and its object; blank lines are passed over."""
    return _objects_of_lines(text_blocks(path, encoding), faults)


def json_objects(path: str, encoding: str, faults: Faults) -> Iterator[tuple[int, Record]]:
    """The objects of [...] or of {"data": [...]}, by their numbers from 1; or one a line.

    CorpusError where the file is none of these, or its list is broken.
    """
    blocks = text_blocks(path, encoding)
    start = next(blocks, "")
    begin = _LIST.match(start) or _LIST_UNDER_DATA.match(start)
    if begin is not None:
        faults.unit = "entry"  # a list may stand in one line
        yield from enumerate(_objects_of_list(start, begin.end(), blocks, path), start=1)
    elif start.lstrip().startswith("{"):  # many name files of JSON lines so
        yield from _objects_of_lines(_chained(start, blocks), faults)
    else:
        raise CorpusError(
            f"{path} must hold a list of objects, [{{...}}, ...], or one object a line; "
            f"it begins with {shown(start.lstrip()[:20])}"
        )


def _chained(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _objects_of_lines(blocks: Iterable[str], faults: Faults) -> Iterator[tuple[int, Record]]:
    for number, line in enumerate(lines_of(blocks), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.add(number, "broken JSON", str(error))
            continue
        if isinstance(found, dict):
            yield number, cast(Record, found)
        else:
            faults.add(number, "no JSON object", f"found {shown(found)}")


def _objects_of_list(text: str, place: int, blocks: Iterator[str], path: str) -> Iterator[Record]:
    """Objects from `place` on, which stands behind the opening bracket; what follows the list is not read."""
    decoder = json.JSONDecoder()
    line = 1 + text.count("\n", 0, place)
    is_first = True
    while True:
        text, place, line = _at_next(text, place, line, blocks)
        if text[place : place + 1] == "]":
            return
        if not is_first:
            if text[place : place + 1] != ",":
                raise _broken(path, line, f"expected ',' or ']', found {shown(text[place : place + 20])}")
            text, place, line = _at_next(text, place + 1, line, blocks)
        if text[place : place + 1] != "{":
            raise _broken(path, line, f"expected an object, found {shown(text[place : place + 20])}")
        found, text, place, end = _decode(decoder, text, place, blocks, path, line)
        yield found
        line += text.count("\n", place, end)
        place, is_first = end, False


def _at_next(text: str, place: int, line: int, blocks: Iterator[str]) -> tuple[str, int, int]:
    """The text and the place of its next visible character, with the number of its line."""
    while True:
        blanks = _BLANKS.match(text, place)
        assert blanks is not None
        line += text.count("\n", place, blanks.end())
        if blanks.end() < len(text):
            return text, blanks.end(), line
        text, place = next(blocks, ""), 0
        if not text:
            return text, place, line


def _decode(
    decoder: json.JSONDecoder, text: str, place: int, blocks: Iterator[str], path: str, line: int
) -> tuple[Record, str, int, int]:
    """The object that begins at `place`; a text that holds it, and where it begins and ends there.

    As long as it may be cut, as much text again is read as is there: a long object is not tried too often.
    """
    while True:
        try:
            found, end = decoder.raw_decode(text, place)
            return cast(Record, found), text, place, end
        except RecursionError as error:
            raise _broken(path, line, str(error)) from None
        except json.JSONDecodeError as error:
            may_be_cut = error.msg.startswith("Unterminated") or error.pos >= len(text) - _CUT_WITHIN
            more = _read(blocks, len(text) - place) if may_be_cut else ""
            if not more:
                raise _broken(path, line + text.count("\n", place, error.pos), error.msg) from None
            text, place = text[place:] + more, 0


def _read(blocks: Iterator[str], num_characters: int) -> str:
    gathered: list[str] = []
    while num_characters > 0 and (text := next(blocks, "")):
        gathered.append(text)
        num_characters -= len(text)
    return "".join(gathered)


def _broken(path: str, line: int, what: str) -> CorpusError:
    return CorpusError(f"{path}, line {line}: broken JSON: {what}")
