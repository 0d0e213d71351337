"""Shards are the same whoever writes them, however often they are begun; what cannot be written is told."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modernbert.corpus import shard_writing
from modernbert.corpus.documents import Fields
from modernbert.corpus.parts import token_dtype
from modernbert.corpus.shard_writing import write_shards
from modernbert.corpus.shards import Shards
from modernbert.errors import CorpusError
from modernbert.text.tokenizer import Tokenizer
from modernbert.text.tokenizer_training import train_tokenizer
from tests.corpus.small_corpus import SENTENCES, rows, small_tokenizer, texts, write_lines
from tests.faults.children import snapshot

CHUNK_BYTES = 8_000


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    write_lines(folder / "books.jsonl.zst", rows(texts(60, seed=1)))
    write_lines(folder / "web.jsonl", [*rows(texts(40, seed=2)), "{broken", {"no": "text"}])
    for number, text in enumerate(texts(20, seed=3)):
        write_lines(folder / "code" / f"{number:02d}.py", [text])
    return folder


def write(corpus: Path, out: Path, tokenizer: Tokenizer, num_workers: int = 1, **how: object) -> Shards:
    how = {"chunk_bytes": CHUNK_BYTES, "num_workers": num_workers, **how}
    return write_shards([str(corpus)], out, tokenizer=tokenizer, **how)


def test_the_number_of_workers_changes_no_byte(corpus, tmp_path, tokenizer):
    shards = [write(corpus, tmp_path / f"{n}", tokenizer, num_workers=n) for n in (1, 2, 3)]
    assert len(shards[0].manifest["parts"]) > 8
    assert shards[0].sources == ("books", "code", "web")
    one, two, three = (snapshot(each.folder) for each in shards)
    assert one == two == three
    assert not list(tmp_path.glob("*unfinished*"))


def test_where_chunks_end_changes_no_token(corpus, tmp_path, tokenizer):
    small = write(corpus, tmp_path / "small", tokenizer)
    large = write(corpus, tmp_path / "large", tokenizer, chunk_bytes=10**7)
    for source in small.sources:
        lengths = small.lengths(source)
        assert lengths.tolist() == large.lengths(source).tolist()
        for document, length in enumerate(lengths):
            assert small.describe(source, document) == large.describe(source, document)
            tokens = [each.tokens(source, document, 0, int(length)) for each in (small, large)]
            assert np.array_equal(*tokens)


class Stopped(Exception):
    pass


def test_a_stopped_run_goes_on_and_keeps_what_is_done(corpus, tmp_path, tokenizer, monkeypatch):
    whole = snapshot(write(corpus, tmp_path / "whole", tokenizer).folder)
    written: list[str] = []
    call = shard_writing.PartWriter.__call__

    def stop_after(limit: int) -> None:
        def writing(self, chunk):
            if len(written) == limit:
                raise Stopped
            written.append(chunk.name)
            return call(self, chunk)

        monkeypatch.setattr(shard_writing.PartWriter, "__call__", writing)

    for limit in (1, 3, 6, 10):
        stop_after(limit)
        with pytest.raises(Stopped):
            write(corpus, tmp_path / "out", tokenizer)
        assert not (tmp_path / "out").exists()
    stop_after(-1)
    assert snapshot(write(corpus, tmp_path / "out", tokenizer).folder) == whole
    assert len(written) == len(set(written)), "a part that was done was written again"


def test_files_that_are_done_are_not_read_again(corpus, tmp_path, tokenizer, monkeypatch):
    call, fails = shard_writing.PartWriter.__call__, True

    def fail_in_web(self, chunk):
        if fails and chunk.inputs[0].source == "web":
            raise Stopped
        return call(self, chunk)

    monkeypatch.setattr(shard_writing.PartWriter, "__call__", fail_in_web)
    with pytest.raises(Stopped):
        write(corpus, tmp_path / "out", tokenizer)
    size = (corpus / "books.jsonl.zst").stat().st_size
    (corpus / "books.jsonl.zst").write_bytes(b"x" * size)  # reading it would fail
    fails = False
    assert write(corpus, tmp_path / "out", tokenizer).lengths("books").size == 60


def test_all_done_is_only_opened(corpus, tmp_path, tokenizer, monkeypatch):
    first = write(corpus, tmp_path / "out", tokenizer)
    monkeypatch.setattr(shard_writing, "_write_parts", None)
    again = write(corpus, tmp_path / "out", tokenizer)
    assert again.manifest == first.manifest


@pytest.mark.parametrize("is_finished", [True, False])
def test_another_plan_for_the_same_folder_names_what_differs(
    corpus, tmp_path, tokenizer, monkeypatch, is_finished
):
    def stop(*_: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch, contextlib.suppress(Stopped):
        if not is_finished:
            patch.setattr(shard_writing, "_finish", stop)
        write(corpus, tmp_path / "out", tokenizer)
    before = snapshot(tmp_path)
    with pytest.raises(CorpusError, match="chunk_bytes was 8000, and is 8001 now"):
        write(corpus, tmp_path / "out", tokenizer, chunk_bytes=8001)
    with pytest.raises(CorpusError, match=r"fields was .*'text'.* and is .*'body'"):
        write(corpus, tmp_path / "out", tokenizer, fields=Fields(text="body"))
    with pytest.raises(CorpusError, match="tokenizer_sha256 was"):
        write(corpus, tmp_path / "out", train_tokenizer(SENTENCES, vocab_size=384))
    assert snapshot(tmp_path) == before
    write_lines(corpus / "books.jsonl.zst", rows(texts(3)))
    with pytest.raises(CorpusError, match=r"file_bytes, number 0 was \d+, and is \d+ now"):
        write(corpus, tmp_path / "out", tokenizer)
    write_lines(corpus / "code" / "20.py", ["more"])
    with pytest.raises(CorpusError, match=r"files, number 22 was 'none', and is .*20\.py"):
        write(corpus, tmp_path / "out", tokenizer)


def test_a_run_that_wrote_no_token_does_not_hold_the_next(tmp_path, tokenizer):
    path = write_lines(tmp_path / "x.jsonl", [{"body": "a text"}] * 3)
    with pytest.raises(CorpusError, match="no field 'text'; there are 'body'"):
        write(path, tmp_path / "out", tokenizer)
    assert write(path, tmp_path / "out", tokenizer, fields=Fields(text="body")).lengths("x").size == 3


def test_a_folder_of_other_things_is_left_alone(corpus, tmp_path, tokenizer):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(CorpusError, match=r"out is there and holds no shards"):
        write(corpus, tmp_path / "out", tokenizer)
    (tmp_path / "out" / "mine.txt").unlink()
    write(corpus, tmp_path / "out", tokenizer)  # an empty folder is as good as none


def test_bad_lines_are_counted_and_kept_in_the_manifest(corpus, tmp_path, tokenizer):
    shards = write(corpus, tmp_path / "out", tokenizer)
    bad = shards.manifest["bad_lines"]
    assert (bad["lines"], bad["faults"]) == (122, {"no such field": 1, "not JSON": 1})
    files = shards.manifest["files"]
    assert [(files[each["file"]], each["line"]) for each in bad["first"]] == [
        (f"{corpus}/web.jsonl", 41),
        (f"{corpus}/web.jsonl", 42),
    ]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_too_many_bad_lines_stop_the_job(corpus, tmp_path, tokenizer, num_workers):
    with pytest.raises(
        CorpusError, match=r"2 of \d+ lines hold no document(.|\n)*web\.jsonl, line 41: Expecting"
    ):
        write(corpus, tmp_path / "out", tokenizer, num_workers, max_bad_share=0.0005)
    with pytest.raises(CorpusError, match=r"lines hold no document(.|\n)*--max-bad-share"):
        write(corpus, tmp_path / "out", tokenizer, num_workers, max_bad_share=0)
    assert not (tmp_path / "out").exists()
    write(corpus, tmp_path / "out", tokenizer, num_workers)  # with the share that there is, it goes on


def test_an_empty_corpus_is_an_error(tmp_path, tokenizer):
    empty = write_lines(tmp_path / "x.jsonl", [])
    with pytest.raises(CorpusError, match=r"no documents in .*x\.jsonl: no lines"):
        write(empty, tmp_path / "out", tokenizer)
    write_lines(tmp_path / "y.jsonl", ['{"body": "a"}'] * 3)
    with pytest.raises(CorpusError, match=r"each of 3 lines is bad:(.|\n)*y\.jsonl, line 1: no field 'text'"):
        write(tmp_path / "y.jsonl", tmp_path / "out-y", tokenizer)
    assert not (tmp_path / "out-y").exists()


@pytest.mark.parametrize("num_workers", [1, 4])
def test_one_document_of_one_token_is_a_corpus(tmp_path, tokenizer, num_workers):
    path = write_lines(tmp_path / "x.jsonl", [{"text": "a"}])
    shards = write(path, tmp_path / "out", tokenizer, num_workers)
    assert shards.lengths("x").tolist() == [1]
    assert shards.tokenizer().decode(shards.tokens("x", 0, 0, 1)) == "a"


def test_texts_without_tokens_are_left_out_and_counted(tmp_path, data_root):
    tokenizer = Tokenizer.from_folder(data_root / "tokenizer" / "bert-base-uncased")
    path = write_lines(tmp_path / "x.jsonl", [{"text": "\u0001\u0002"}, {"text": "good"}, {"text": "\u0301"}])
    shards = write(path, tmp_path / "out", tokenizer)
    assert shards.describe("x", 0) == f"{path}, line 2"
    assert shards.manifest["without_tokens"] == 3 - shards.lengths("x").size > 0
    path = write_lines(tmp_path / "y.jsonl", [{"text": "\u0001\u0002"}])
    with pytest.raises(CorpusError, match="no text gave a token, in 1 documents"):
        write(path, tmp_path / "out-y", tokenizer)


def test_mended_texts_are_counted(tmp_path, tokenizer):
    path = write_lines(tmp_path / "x.jsonl", [r'{"text": "a\ud800b"}', {"text": "a\0b"}])
    shards = write(path, tmp_path / "out", tokenizer)
    assert shards.manifest["mended"] == 1
    decoded = [
        shards.tokenizer().decode(shards.tokens("x", each, 0, int(length)))
        for each, length in enumerate(shards.lengths("x"))
    ]
    assert decoded == ["a\ufffdb", "a\0b"]


def test_a_field_that_names_documents_is_no_source(tmp_path, tokenizer):
    lines = [{"text": "a", "id": f"document {number}"} for number in range(1001)]
    path = write_lines(tmp_path / "x.jsonl", lines)
    with pytest.raises(CorpusError, match=r"more than 1000 sources, .*'id' name each document"):
        write(path, tmp_path / "out", tokenizer, fields=Fields(source="id"))


def test_arguments_out_of_range_are_errors(corpus, tmp_path, tokenizer):
    for how in ({"num_workers": 0}, {"chunk_bytes": 0}, {"max_bad_share": 1.5}):
        with pytest.raises(CorpusError, match="at least 1 and max_bad_share is from 0 to 1"):
            write(corpus, tmp_path / "out", tokenizer, **how)


def test_large_vocabularies_take_four_bytes_a_token(tmp_path):
    assert token_dtype(65_536).itemsize == 2
    assert token_dtype(65_537).itemsize == 4
    words = [f"w{number}" for number in range(70_000)]
    definition = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {w: n for n, w in enumerate(words)}, "unk_token": "w0"},
    }
    tokenizer = Tokenizer({"tokenizer.json": json.dumps(definition).encode()})
    path = write_lines(tmp_path / "x.jsonl", [{"text": "w1 w65535 w65536 w69999"}])
    shards = write(path, tmp_path / "out", tokenizer)
    assert shards.tokens("x", 0, 0, 4).tolist() == [1, 65_535, 65_536, 69_999]


PEAK = """
import re, sys
from pathlib import Path
from modernbert.corpus.shard_writing import write_shards
from modernbert.text.tokenizer import Tokenizer
write_shards([sys.argv[1]], Path(sys.argv[2]), tokenizer=Tokenizer.from_folder(Path(sys.argv[3])),
             num_workers=1, chunk_bytes=2**18)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
# The peak of a process differs from run to run by what its allocator and thread pool keep: 5 MiB here.
MEMORY_NOISE_KIB = 16 * 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "tokenizer")
    peaks: list[int] = []
    for size in (3_000, 60_000):  # 1.4 and 29 MB of text
        path = write_lines(tmp_path / f"{size}.jsonl.zst", rows(texts(size)))
        call = [sys.executable, "-c", PEAK, path, tmp_path / f"out{size}", tmp_path / "tokenizer"]
        peaks.append(int(subprocess.run(call, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] - peaks[0] < MEMORY_NOISE_KIB, peaks
