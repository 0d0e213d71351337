"""From files to documents, a chunk of a file at a time.

A chunk is as much as one worker reads at once: some lines, some files of one document each, or some row
groups of a Parquet file. Where chunks begin and end depends on the files alone. A line that holds no document
is a BadLine, and says what is wrong with it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from modernbert.corpus.inputs import InputFile
from modernbert.corpus.raw_files import parquet_groups, parquet_rows, read_blocks
from modernbert.corpus.text_files import mended

CHUNK_BYTES = 16 * 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """Which fields of a row hold its text and, where a row names its own, its source."""

    text: str = "text"
    source: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A text, whose it is, and where it stood: a file by its number, and a line from 1 (0: the whole file).

    `is_mended`: it held halves of characters (lone surrogates), each now U+FFFD.
    """

    source: str
    text: str
    file: int
    line: int
    is_mended: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class BadLine:
    """A line, row or file without a document: `fault` for counting, `detail` for a person."""

    file: int
    line: int
    fault: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A part of the inputs: `number` counts those that begin in the file `file`.

    Holds `content`, whole lines from `first` on; or else `rows`, row groups with `first` rows before them; or
    else whole `documents`. `size` is how many bytes of the inputs it took.
    """

    file: int
    number: int
    inputs: tuple[InputFile, ...]
    first: int
    size: int
    is_last: bool
    content: bytes = b""
    rows: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The same for the same files, whoever reads them."""
        return f"{self.file:06d}-{self.number:06d}"


def read_chunks(
    files: Iterable[InputFile],
    *,
    chunk_bytes: int = CHUNK_BYTES,
    is_done: Callable[[int], bool] = lambda file: False,
) -> Iterator[Chunk]:
    """The chunks of all files in order; a file (by number) that `is_done` is not opened."""
    numbered = enumerate(files)
    for kind, group in itertools.groupby(numbered, key=lambda each: each[1].kind):
        if kind == "document":
            yield from _document_chunks(group, chunk_bytes, is_done)
            continue
        read = _line_chunks if kind == "lines" else _row_chunks
        for number, file in group:
            if not is_done(number):
                yield from read(number, file, chunk_bytes)


def documents_of(chunk: Chunk, fields: Fields) -> Iterator[Document | BadLine]:
    """The documents in a chunk, and what is no document."""
    kind = chunk.inputs[0].kind
    if kind == "document":
        for number, file in enumerate(chunk.inputs, start=chunk.file):
            yield _whole_document(number, file)
    elif kind == "lines":
        yield from _line_documents(chunk, fields)
    else:
        yield from _row_documents(chunk, fields)


# Chunks


def _document_chunks(
    files: Iterable[tuple[int, InputFile]], chunk_bytes: int, is_done: Callable[[int], bool]
) -> Iterator[Chunk]:
    for first, inputs, size in _gathered(files, chunk_bytes):
        if not is_done(first):
            yield Chunk(file=first, number=0, inputs=inputs, first=0, size=size, is_last=True)


def _gathered(
    files: Iterable[tuple[int, InputFile]], chunk_bytes: int
) -> Iterator[tuple[int, tuple[InputFile, ...], int]]:
    """Neighbours, each time until they have `chunk_bytes`: the number of the first, all, and their bytes."""
    gathered: list[InputFile] = []
    first = size = 0
    for number, file in files:
        first = first if gathered else number
        gathered.append(file)
        size += file.size
        if size >= chunk_bytes:
            yield first, tuple(gathered), size
            gathered, size = [], 0
    if gathered:
        yield first, tuple(gathered), size


def _line_chunks(number: int, file: InputFile, chunk_bytes: int) -> Iterator[Chunk]:
    first = 1
    chunks = itertools.chain(_whole_lines(file, chunk_bytes), [None])
    for place, (this, following) in enumerate(itertools.pairwise(chunks)):
        assert this is not None
        content, size = this
        yield Chunk(
            file=number,
            number=place,
            inputs=(file,),
            first=first,
            size=size,
            is_last=following is None,
            content=content,
        )
        first += content.count(b"\n")


def _whole_lines(file: InputFile, chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Whole lines, each time until they have `chunk_bytes`, and the bytes of the file that they took."""
    gathered: list[bytes] = []
    num_bytes = size = 0
    for block, num_read in read_blocks(file.path):
        gathered.append(block)
        num_bytes, size = num_bytes + len(block), size + num_read
        if num_bytes < chunk_bytes or b"\n" not in block:
            continue
        joined = b"".join(gathered)
        while end := joined.find(b"\n", chunk_bytes - 1) + 1:
            yield joined[:end], size
            joined, size = joined[end:], 0
        gathered, num_bytes = [joined], len(joined)
    if num_bytes:
        yield b"".join(gathered), size


def _row_chunks(number: int, file: InputFile, chunk_bytes: int) -> Iterator[Chunk]:
    groups = parquet_groups(file.path)
    gathered: list[int] = []
    first = num_rows = num_bytes = place = 0
    for group, (group_rows, group_bytes) in enumerate(groups):
        gathered.append(group)
        num_rows, num_bytes = num_rows + group_rows, num_bytes + group_bytes
        is_last = group == len(groups) - 1
        if num_bytes >= chunk_bytes or is_last:
            yield Chunk(
                file=number,
                number=place,
                inputs=(file,),
                first=first,
                size=file.size * len(gathered) // len(groups),
                is_last=is_last,
                rows=tuple(gathered),
            )
            first, place, num_rows, num_bytes, gathered = first + num_rows, place + 1, 0, 0, []


# Documents


def _whole_document(number: int, file: InputFile) -> Document | BadLine:
    content = b"".join(block for block, _ in read_blocks(file.path))
    try:
        text = content.removeprefix(_BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        return BadLine(file=number, line=0, fault="not UTF-8", detail=_undecodable(content, error))
    if "\0" in text:
        detail = f"character {text.index(chr(0)) + 1} is NUL: UTF-16, or no text"
        return BadLine(file=number, line=0, fault="not UTF-8", detail=detail)
    return _document(text, file.source, number, 0)


def _line_documents(chunk: Chunk, fields: Fields) -> Iterator[Document | BadLine]:
    lines = chunk.content.split(b"\n")
    for line_number, line in enumerate(lines, start=chunk.first):
        if line_number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line.strip():
            yield _line_document(line, line_number, chunk, fields)


def _line_document(line: bytes, line_number: int, chunk: Chunk, fields: Fields) -> Document | BadLine:
    def bad(fault: str, detail: str) -> BadLine:
        return BadLine(file=chunk.file, line=line_number, fault=fault, detail=detail)

    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return bad("not UTF-8", _undecodable(line, error))
    except (ValueError, RecursionError) as error:
        return bad("not JSON", str(error))
    if not isinstance(row, dict):
        return bad("not an object", f"found {type(row).__name__}: {_shown(row)}")
    return _row_document(cast("dict[str, Any]", row), line_number, chunk, fields)


def _row_documents(chunk: Chunk, fields: Fields) -> Iterator[Document | BadLine]:
    columns = [fields.text] if fields.source is None else [fields.text, fields.source]
    rows = parquet_rows(chunk.inputs[0].path, chunk.rows, columns)
    for row_number, row in enumerate(rows, start=chunk.first + 1):
        yield _row_document(row, row_number, chunk, fields)


def _row_document(row: dict[str, Any], line: int, chunk: Chunk, fields: Fields) -> Document | BadLine:
    def bad(fault: str, detail: str) -> BadLine:
        return BadLine(file=chunk.file, line=line, fault=fault, detail=detail)

    source = chunk.inputs[0].source
    if fields.source is not None:
        named = row.get(fields.source)
        if not isinstance(named, str) or not named.strip():
            return bad("no source", f"the field {fields.source!r} must name a source, found {_shown(named)}")
        source = named
    if fields.text not in row:
        return bad(
            "no such field", f"no field {fields.text!r}; there are {', '.join(map(repr, row)) or 'none'}"
        )
    text = row[fields.text]
    if not isinstance(text, str):
        return bad("not a text", f"the field {fields.text!r} must be a text, found {_shown(text)}")
    return _document(text, source, chunk.file, line)


def _document(text: str, source: str, file: int, line: int) -> Document | BadLine:
    if not text or text.isspace():
        return BadLine(file=file, line=line, fault="empty text", detail="nothing but blanks")
    whole = text if text.isascii() else mended(text)
    return Document(source=source, text=whole, file=file, line=line, is_mended=whole is not text)


def _undecodable(content: bytes, error: UnicodeDecodeError) -> str:
    return f"byte {error.start + 1}, 0x{content[error.start]:02x}, is not UTF-8"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."
