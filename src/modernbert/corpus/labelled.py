"""Rows of a user's table, checked, and kept on disk: memory holds one number a row, however long the texts.

    reviews.csv  --read_table-->  {"text": ..., "label": ..., "line": 2}  --Rows.write-->  rows[17]

CSV and TSV with any of four separators, JSON lines, a JSON list and Parquet; plain, .gz or .zst, here or at
an address. A table with faults is refused with all of them in one message, each with its line.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, overload

import numpy as np

from modernbert.corpus.faults import Faults
from modernbert.corpus.tables import read_records
from modernbert.corpus.text_files import mended
from modernbert.errors import CorpusError
from modernbert.files import file_being_written

Row = dict[str, Any]
_BLOCK_BYTES = 2**22
_AS_JSON = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder for every row


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of the file, and a row's key for it; an empty value is a fault unless it is allowed."""

    name: str
    role: str
    is_optional: bool = False
    may_be_empty: bool = False


class Rows(Sequence[Row]):
    """Rows in a file of JSON lines, read one by one; may be pickled and read by several processes."""

    def __init__(self, path: Path, starts: np.ndarray) -> None:
        self.path = path
        self._starts = starts  # int64 [rows + 1]

    @classmethod
    def write(cls, path: Path, rows: Iterable[Row]) -> Rows:
        """Write all rows, or nothing where one of them raises, and open them."""
        with file_being_written(path) as temporary, temporary.open("wb") as file:
            for row in rows:
                file.write(_AS_JSON(row).encode() + b"\n")
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Rows:
        """The rows of a file that `write` made."""
        ends: list[np.ndarray] = [np.zeros(1, np.int64)]
        place = 0
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                ends.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + place + 1)
                place += len(block)
        return cls(path, np.concatenate(ends))

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, number: int) -> Row: ...
    @overload
    def __getitem__(self, number: slice) -> list[Row]: ...
    def __getitem__(self, number: int | slice) -> Row | list[Row]:
        if isinstance(number, slice):
            return [self[each] for each in range(len(self))[number]]
        number = range(len(self))[number]
        with self.path.open("rb") as file:
            file.seek(int(self._starts[number]))
            return json.loads(file.read(int(self._starts[number + 1] - self._starts[number])))

    def __iter__(self) -> Iterator[Row]:
        with self.path.open("rb") as file:
            for line in file:
                yield json.loads(line)

    def column(self, name: str) -> list[Any]:
        """One value of every row; equal texts, such as labels, are held once."""
        held: dict[str, str] = {}
        values = (row[name] for row in self)
        return [held.setdefault(value, value) if isinstance(value, str) else value for value in values]


def read_table(path: str | Path, columns: Sequence[Column], *, encoding: str = "utf-8") -> Generator[Row]:
    """The rows of a table with their columns under their roles, and the "line" each began in.

    Values are text as the file has it; numbers and truth values of JSON become their JSON text, lists stay.
    Raises CorpusError: at once for a column that is not there, a wrong encoding or a file of another kind; at
    the end for rows with faults, which are counted and named.
    """
    faults = Faults(source=str(path))
    records = read_records(
        str(path),
        required=[column.name for column in columns if not column.is_optional],
        optional=[column.name for column in columns if column.is_optional],
        encoding=encoding,
        faults=faults,
    )
    for line, record in records:
        row = _checked(record, columns, line, faults)
        if row is not None:
            yield row
    faults.require_none()


def as_text(value: object) -> str | list[Any] | None:
    """A value of a table: text, a list of what JSON knows, or nothing; CorpusError for an object."""
    if isinstance(value, str):
        return mended(value)
    if value is None or (isinstance(value, float) and value != value):  # NaN: nothing, in Parquet of pandas
        return None
    if isinstance(value, list):
        return [each if isinstance(each, int | float) else as_text(each) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        raise CorpusError("an object")
    return json.dumps(value, default=str).strip('"')  # of Parquet also dates and decimals


def _checked(record: Row, columns: Sequence[Column], line: int, faults: Faults) -> Row | None:
    row: Row = {}
    for column in columns:
        value = record.get(column.name)
        if not (isinstance(value, str) and value.isascii()):
            try:
                value = as_text(value)
            except CorpusError as error:
                faults.add(line, f"{error} in column {column.name!r}")
                return None
        if value and not (isinstance(value, str) and value.isspace()):
            row[column.role] = value
        elif not column.is_optional:
            if not column.may_be_empty:
                faults.add(line, f"nothing in column {column.name!r}")
                return None
            row[column.role] = "" if value is None else value
    row["line"] = line
    return row
