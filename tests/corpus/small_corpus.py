"""A tokenizer trained on a page of text, and small corpora in every form that is read."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zstandard

from modernbert.corpus.documents import BadLine, Document, Fields, documents_of, read_chunks
from modernbert.corpus.inputs import find_inputs
from modernbert.text.tokenizer import Tokenizer
from modernbert.text.tokenizer_training import train_tokenizer

TEXT_ALONE = Fields()
SENTENCES = [
    "The man worked as a lawyer in New York, and the woman as a mechanic.",
    "Hello World! It's a quick brown fox; isn't it?",
    "def encode(text):\n    return [token for token in text]\n",
    "\u0421\u043e\u0444\u0438\u044f \u0435 \u0441\u0442\u043e\u043b\u0438\u0446\u0430\u0442\u0430.",
    "Caf\u00e9 au lait for 1,248,452 people \U0001f600",
]


def small_tokenizer() -> Tokenizer:
    return train_tokenizer(SENTENCES * 4, vocab_size=384)


def texts(number: int, *, seed: int = 0) -> list[str]:
    """Texts of one to twenty sentences."""
    generator = random.Random(seed)
    return [" ".join(generator.choices(SENTENCES, k=generator.randint(1, 20))) for _ in range(number)]


def rows(found: Iterable[str]) -> list[dict[str, Any]]:
    return [{"id": number, "text": text} for number, text in enumerate(found)]


def write_lines(path: Path, found: Iterable[Any]) -> Path:
    """JSON lines, compressed as the ending says; strings go in as they are."""
    lines = [each if isinstance(each, str | bytes) else json.dumps(each) for each in found]
    content = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        content = gzip.compress(content)
    if path.suffix == ".zst":
        content = zstandard.compress(content)
    path.write_bytes(content)
    return path


def read(*inputs: Path | str, chunk_bytes: int = 2**20, fields: Fields = TEXT_ALONE) -> list[Any]:
    """Everything in the inputs: documents and bad lines."""
    files = find_inputs([str(each) for each in inputs]).files
    chunks = read_chunks(files, chunk_bytes=chunk_bytes)
    return [found for chunk in chunks for found in documents_of(chunk, fields)]


def good(found: Iterable[Any]) -> list[Document]:
    return [each for each in found if isinstance(each, Document)]


def bad(found: Iterable[Any]) -> list[BadLine]:
    return [each for each in found if isinstance(each, BadLine)]
