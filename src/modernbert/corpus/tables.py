"""The records of a table, of any kind that is read here, with the line of each.

    .csv .tsv .txt    fields cut by one of four characters; the first line names the columns
    .jsonl .ndjson    an object a line; in .json also a list of objects
    .parquet          rows

All but Parquet also as .gz and .zst, and all of them here or at an address. In .csv a field in quotation
marks may hold anything; in .tsv and .txt cut by tabs a quotation mark is a character like any other.
"""

from __future__ import annotations

import csv
import difflib
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Protocol

from modernbert.corpus.faults import Faults
from modernbert.corpus.json_files import Record, json_lines, json_objects
from modernbert.corpus.raw_files import parquet_columns, parquet_groups, parquet_rows
from modernbert.corpus.text_files import file_ending, text_lines
from modernbert.errors import CorpusError

# In this order where the header does not decide.
SEPARATORS = (",", ";", "\t", "|")
_SEPARATED = {".csv": ",;", ".tsv": "\t", ".tab": "\t", ".txt": ",;\t|"}  # what the ending leads to expect
_LINES = (".jsonl", ".ndjson")
# Characters. A field that never ends would take the rest of the file into memory.
_LONGEST_FIELD = 2**24


def read_records(
    path: str,
    *,
    required: Sequence[str],
    optional: Sequence[str] = (),
    encoding: str = "utf-8",
    faults: Faults,
) -> Iterator[tuple[int, Record]]:
    """Lines, from 1, and records with at least the named columns; those that are optional may be missing.

    Values are what the file holds: text, and in JSON and Parquet any other. Rows that cannot be read go to
    `faults`. CorpusError at once for a missing column, a wrong encoding, or a file of another kind.
    """
    ending = file_ending(path)
    if ending in _SEPARATED:
        return _separated(path, required, optional, encoding, faults)
    if ending in _LINES:
        return _with_columns(json_lines(path, encoding, faults), path, required)
    if ending == ".json":
        return _with_columns(json_objects(path, encoding, faults), path, required)
    if ending == ".parquet":
        faults.unit = "row"
        return _parquet(path, required, optional)
    raise CorpusError(
        f"{path} is of no kind that is read here; there are .csv, .tsv, .jsonl, .json and .parquet, all but "
        "the last also as .gz and .zst"
    )


def column_names(path: str, encoding: str = "utf-8") -> list[str]:
    """The columns of a table; of JSON, the keys of the first object."""
    if file_ending(path) == ".parquet":
        return parquet_columns(path)
    if file_ending(path) in _SEPARATED:
        lines = text_lines(path, encoding)
        return _header(path, next(lines, ""), lines, ())[1]
    for _, record in read_records(path, required=(), encoding=encoding, faults=Faults(source=path)):
        return list(record)
    return []


def require_columns(path: str, names: Sequence[str], required: Sequence[str], how: str = "") -> None:
    """CorpusError for a column that is not there, or stands twice; it names the columns that there are."""
    for column in required:
        if column not in names:
            near = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
            hint = f"\nhint: did you mean {near[0]!r}?" if near else ""
            there = ", ".join(map(repr, names)) or "none"
            raise CorpusError(f"{path} has no column {column!r}; it has {there}{how}{hint}")
        if names.count(column) > 1:
            raise CorpusError(f"{path} has {names.count(column)} columns {column!r}; give each its own name")


def _separated(
    path: str, required: Sequence[str], optional: Sequence[str], encoding: str, faults: Faults
) -> Iterator[tuple[int, Record]]:
    lines = text_lines(path, encoding)
    separator, names, read = _header(path, next(lines, ""), lines, required)
    require_columns(path, names, required, f" (cut by {separator!r})")
    places = {name: names.index(name) for name in (*required, *optional) if name in names}
    line = read.line_num + 1  # where the next row begins
    try:
        for values in read:
            if len(values) == len(names):
                if any(values):
                    yield line, {name: values[place] for name, place in places.items()}
            elif any(values):  # spreadsheets leave rows of separators alone behind the last one
                detail = _other_number(values, len(names), separator)
                faults.add(line, f"another number of fields than the header, cut by {separator!r}", detail)
            line = read.line_num + 1
    except csv.Error as error:
        raise _broken(error, path, line) from None


def _header(
    path: str, header: str, lines: Iterator[str], wanted: Sequence[str]
) -> tuple[str, list[str], _Reader]:
    """The separator, the names of the columns, and a reader that stands behind the header."""
    if not header.strip():
        raise CorpusError(f"{path} is empty, or has no header; its first line names the columns")
    if "\r" in header.rstrip("\r\n"):
        raise CorpusError(f"{path} ends its lines by a bare carriage return; save it with ordinary line ends")
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    expected = _SEPARATED[file_ending(path)]
    separator = _find_separator(header, wanted, expected)
    if separator not in expected and header.count(separator):
        warnings.warn(f"{path}: its fields are cut by {separator!r}, as its header is", stacklevel=2)
    is_plain = separator == "\t" and "\t" in expected
    read = _Tabbed(chain([header], lines)) if is_plain else _quoted(chain([header], lines), separator)
    return separator, [name.strip() for name in next(iter(read), [])], read


def _find_separator(header: str, wanted: Sequence[str], expected: str) -> str:
    """The one that cuts the header into the names that are wanted; else into the most names."""
    order = sorted(SEPARATORS, key=lambda each: each not in expected)
    found = {each: [name.strip() for name in next(csv.reader([header], delimiter=each))] for each in order}
    for separator, names in found.items():
        if wanted and all(name in names for name in wanted):
            return separator
    return max(found, key=lambda each: len(found[each]))


def _quoted(lines: Iterator[str], separator: str) -> _Reader:
    return csv.reader(lines, delimiter=separator, strict=True)


class _Reader(Protocol):
    """What csv.reader gives: rows of fields; `line_num` is how many lines they took so far."""

    @property
    def line_num(self) -> int: ...

    def __iter__(self) -> Iterator[list[str]]: ...


class _Tabbed:
    """Rows of a table cut by tabs, where a quotation mark is a character like any other."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.line_num = 0

    def __iter__(self) -> Iterator[list[str]]:
        for line in self._lines:
            self.line_num += 1
            values = line.rstrip("\r\n").split("\t")
            yield [_unquoted(value) for value in values] if '"' in line else values


def _unquoted(value: str) -> str:
    """A field that a spreadsheet wrapped in quotation marks, without them."""
    inner = value[1:-1]
    is_wrapped = len(value) > 1 and value[0] == value[-1] == '"' and inner.count('"') == 2 * inner.count('""')
    return inner.replace('""', '"') if is_wrapped else value


def _broken(error: csv.Error, path: str, line: int) -> CorpusError:
    if "new-line" in str(error):
        return CorpusError(
            f"{path}, line {line}: a carriage return stands inside a field\n"
            "hint: put the field in quotation marks, or save the file with ordinary line ends"
        )
    return CorpusError(
        f"{path}, line {line}: {error}\nhint: a field that begins with a quotation mark must end with one; "
        "marks inside it are doubled"
    )


def _other_number(values: Sequence[str], num_names: int, separator: str) -> str:
    for other in SEPARATORS:
        if other != separator and len(values) == 1 and values[0].count(other) == num_names - 1:
            return f"1 instead of {num_names}; {other!r} would cut it"
    return f"{len(values)} instead of {num_names}"


def _with_columns(
    records: Iterator[tuple[int, Record]], path: str, required: Sequence[str]
) -> Iterator[tuple[int, Record]]:
    is_first = True
    for line, record in records:
        if is_first:
            require_columns(path, list(record), required)
            is_first = False
        yield line, record


def _parquet(path: str, required: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[int, Record]]:
    names = parquet_columns(path)
    require_columns(path, names, required)
    wanted = [name for name in dict.fromkeys((*required, *optional)) if name in names]
    yield from enumerate(parquet_rows(path, range(len(parquet_groups(path))), wanted), start=1)
