"""How fast text becomes shards, beside the tokenizer alone: tokens a second of both, in one run.

    python benchmarks/sharding.py                                   the text corpus of docs/data.md, a sample
    python benchmarks/sharding.py --inputs 'my/*.jsonl.zst' --mebibytes 64

"alone" is `encode_batch` of the tokenizers package on texts that lie in memory, with all its threads, 1,000
texts at a time; nothing is read and nothing is kept. "shards" is all that `modernbert shard` does: starting
its processes, reading, parsing, tokenizing, checksums, writing and syncing to disk. Both read the same
documents, in turns, so that a busy moment hits both. The tokenizer is trained on the sample first, or named.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
from common import description, write_results

from modernbert.corpus.documents import Document, Fields, documents_of, read_chunks
from modernbert.corpus.inputs import find_inputs
from modernbert.corpus.shard_writing import write_shards
from modernbert.corpus.workers import num_processors
from modernbert.text.tokenizer import Tokenizer
from modernbert.text.tokenizer_training import train_tokenizer

CORPUS = [
    f"{os.environ.get('MODERNBERT_DATA', '../shared')}/corpus/{name}.jsonl.zst"
    for name in ("books", "prose", "docs", "code")
]
LIMIT = 0.8
TEXTS_AT_ONCE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", nargs="+", default=CORPUS)
    parser.add_argument("--tokenizer", type=Path, help="a folder; else one of 16,384 ids is trained")
    parser.add_argument("--mebibytes", type=int, default=32, help="how much text, the same of each file")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        texts = sample(arguments.inputs, arguments.mebibytes * 2**20)
        path = Path(folder) / "sample.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        tokenizer = (
            Tokenizer.from_folder(arguments.tokenizer)
            if arguments.tokenizer
            else train_tokenizer(texts, vocab_size=16_384)
        )
        measured = measure(texts, path, tokenizer, arguments.turns)
    show(measured)
    data = {"inputs": [Path(each).name for each in arguments.inputs], **measured}
    print(f"wrote {write_results('sharding', data)}")


def sample(inputs: list[str], num_bytes: int) -> list[str]:
    """The first documents of each input, the same of all of them in bytes."""
    texts: list[str] = []
    for each in inputs:
        room = num_bytes // len(inputs)
        chunks = read_chunks(find_inputs([each]).files)
        for document in itertools.chain.from_iterable(documents_of(chunk, Fields()) for chunk in chunks):
            if room <= 0:
                break
            if isinstance(document, Document):
                texts.append(document.text)
                room -= len(document.text.encode())
    return texts


def measure(texts: list[str], path: Path, tokenizer: Tokenizer, num_turns: int) -> dict[str, Any]:
    """Seconds of each turn, after one to warm up, and how much text and how many tokens it was."""
    tokenizer.save(path.parent / "tokenizer")
    bare = tokenizers.Tokenizer.from_file(str(path.parent / "tokenizer" / "tokenizer.json"))
    out = path.parent / "shards"
    num_tokens = 0

    def alone() -> None:
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            bare.encode_batch(texts[start : start + TEXTS_AT_ONCE], add_special_tokens=False)

    def shards() -> None:
        nonlocal num_tokens
        shutil.rmtree(out, ignore_errors=True)
        written = write_shards([str(path)], out, tokenizer=tokenizer, chunk_bytes=chunk_bytes)
        num_tokens = sum(each["tokens"] for each in written.manifest["sources"].values())

    # The default fits corpora of gigabytes: with so few chunks of a small sample, the last ones leave workers
    # idle, and the benchmark would measure that.
    chunk_bytes = min(2**24, max(2**20, path.stat().st_size // (16 * num_processors())))
    works: dict[str, Callable[[], None]] = {"alone": alone, "shards": shards}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(num_turns + 1):
        for name, work in works.items():
            print(f"turn {turn}: {name}", file=sys.stderr)
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    return {
        "documents": len(texts),
        "text_bytes": sum(len(text.encode()) for text in texts),
        "tokens": num_tokens,
        "workers": num_processors(),
        "chunk_bytes": chunk_bytes,
        "seconds": {name: found[1:] for name, found in seconds.items()},
    }


def show(measured: dict[str, Any]) -> None:
    seconds: dict[str, list[float]] = measured["seconds"]
    print(f"{description()}\n")
    print(
        f"{measured['documents']:,} documents, {measured['text_bytes']:,} bytes, {measured['tokens']:,} "
        f"tokens, {measured['workers']} workers, medians of {len(seconds['alone'])} turns"
    )
    for name, found in seconds.items():
        median = statistics.median(found)
        print(f"{name:<8}{median:8.2f} s  {measured['tokens'] / median:12,.0f} tokens/s")
    ratios = [one / other for one, other in zip(seconds["alone"], seconds["shards"], strict=True)]
    print(
        f"shards reach {statistics.median(ratios):.0%} of the tokenizer alone; at least {LIMIT:.0%} is asked"
    )


if __name__ == "__main__":
    main()
