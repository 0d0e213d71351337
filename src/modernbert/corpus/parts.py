"""Writing a part of the shards: the documents of one chunk as token ids, with where each of them stood.

A part is done once its record, NAME.json, is there: it is written last. The same chunk gives the same bytes,
whoever writes it and whenever.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modernbert.corpus.bad_lines import BadLines
from modernbert.corpus.documents import BadLine, Chunk, Document, Fields, documents_of
from modernbert.corpus.long_texts import cut
from modernbert.corpus.shards import BLOCK_BYTES, DOCUMENT, checksums
from modernbert.files import write_atomic
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Record = dict[str, Any]

_CHARACTERS_AT_ONCE = 2**21
_LARGEST_UINT16 = 2**16


@dataclass(frozen=True, slots=True)
class PartWriter:
    """Writes the part of a chunk into `folder`; may be pickled."""

    folder: Path
    tokenizer: Tokenizer
    fields: Fields

    def __call__(self, chunk: Chunk) -> Record:
        """Write the files of the part and return its record."""
        gathered = _gather(chunk, self.tokenizer, self.fields)
        record: Record = {
            "name": chunk.name,
            "file": chunk.file,
            "number": chunk.number,
            "is_last": chunk.is_last,
            "input_bytes": chunk.size,
            "bad_lines": gathered.bad.as_data(),
            "without_tokens": gathered.num_without_tokens,
            "mended": gathered.num_mended,
            "sources": {source: each.counts() for source, each in sorted(gathered.sources.items())},
        }
        if gathered.sources:
            tokens, index = gathered.joined()
            for ending, content in ((".tokens", tokens.tobytes()), (".index", index.tobytes())):
                write_atomic(self.folder / f"{chunk.name}{ending}", content)
                record[ending] = {"bytes": len(content), "crc32": checksums(_blocks(content))}
        write_atomic(self.folder / f"{chunk.name}.json", json.dumps(record))
        return record


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest of uint16 and uint32 that holds every id."""
    return np.dtype("<u2" if vocab_size <= _LARGEST_UINT16 else "<u4")


@dataclass(slots=True)
class _OfSource:
    """The documents of one source: their tokens, in order, and (tokens, line, file) of each."""

    tokens: list[NDArray[Any]] = field(default_factory=list["NDArray[Any]"])
    documents: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])
    text_bytes: int = 0

    def counts(self) -> dict[str, int]:
        num_tokens = sum(length for length, _, _ in self.documents)
        return {"documents": len(self.documents), "tokens": num_tokens, "text_bytes": self.text_bytes}


@dataclass(slots=True)
class _Gathered:
    bad: BadLines
    sources: dict[str, _OfSource] = field(default_factory=dict[str, _OfSource])
    num_without_tokens: int = 0
    num_mended: int = 0

    def add(self, document: Document, tokens: list[NDArray[Any]]) -> None:
        length = sum(map(len, tokens))
        self.num_mended += document.is_mended
        if not length:
            self.num_without_tokens += 1
            return
        of_source = self.sources.setdefault(document.source, _OfSource())
        of_source.tokens += tokens
        of_source.documents.append((length, document.line, document.file))
        of_source.text_bytes += len(document.text if document.text.isascii() else document.text.encode())

    def joined(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """All tokens and the index, one source after another in the order of their names."""
        ordered = [each for _, each in sorted(self.sources.items())]
        documents = [document for each in ordered for document in each.documents]
        lengths, lines, files = zip(*documents, strict=True)
        index = np.zeros(len(documents), DOCUMENT)
        index["end"], index["line"], index["file"] = np.cumsum(lengths), lines, files
        return np.concatenate([tokens for each in ordered for tokens in each.tokens]), index


def _gather(chunk: Chunk, tokenizer: Tokenizer, fields: Fields) -> _Gathered:
    gathered = _Gathered(BadLines(files=()))
    dtype = token_dtype(tokenizer.vocab_size)
    for documents in _batches(_good(documents_of(chunk, fields), gathered.bad)):
        pieces = [cut(document.text) for document in documents]
        found = iter(
            tokenizer.encode_ids((text for each in pieces for text in each), add_special_tokens=False)
        )
        for document, each in zip(documents, pieces, strict=True):
            gathered.add(document, [np.array(next(found), dtype) for _ in each])
    return gathered


def _good(found: Iterable[Document | BadLine], bad: BadLines) -> Iterator[Document]:
    for each in found:
        bad.num_lines += 1
        if isinstance(each, BadLine):
            bad.add(each)
        else:
            yield each


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    num_characters = 0
    for document in documents:
        batch.append(document)
        num_characters += len(document.text)
        if num_characters >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, num_characters = [], 0
    if batch:
        yield batch


def _blocks(content: bytes) -> Iterator[memoryview]:
    view = memoryview(content)
    return (view[start : start + BLOCK_BYTES] for start in range(0, len(view), BLOCK_BYTES))
