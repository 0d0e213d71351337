"""The same documents come out of every form of file, whatever the chunks; what is no document is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from modernbert.corpus.documents import Fields, read_chunks
from modernbert.corpus.inputs import find_inputs
from modernbert.errors import CorpusError
from tests.corpus.small_corpus import bad, good, read, rows, texts, write_lines

TEXTS = texts(50)


def write_parquet(path: Path, columns: dict[str, list[Any]], rows_a_group: int = 7) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=rows_a_group)
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst", ".json.gz"])
def test_lines_are_read_from_every_form(tmp_path, ending):
    documents = read(write_lines(tmp_path / f"books{ending}", rows(TEXTS)))
    assert [each.text for each in documents] == TEXTS
    assert [(each.source, each.file, each.line) for each in documents] == [
        ("books", 0, line) for line in range(1, 51)
    ]


@pytest.mark.parametrize("chunk_bytes", [1, 500, 5_000, 10**6])
def test_chunks_change_nothing(tmp_path, chunk_bytes):
    lines = write_lines(tmp_path / "lines.jsonl", rows(TEXTS))
    table = write_parquet(tmp_path / "table.parquet", {"text": TEXTS, "id": list(range(50))})
    for text in range(3):
        (tmp_path / f"{text}.txt").write_text(TEXTS[text])
    documents = read(lines, table, tmp_path / "*.txt", chunk_bytes=chunk_bytes)
    assert documents == read(lines, table, tmp_path / "*.txt")
    assert [each.text for each in documents] == [*TEXTS, *TEXTS, *TEXTS[:3]]
    assert [each.line for each in documents] == [*range(1, 51), *range(1, 51), 0, 0, 0]
    assert [each.file for each in documents] == [0] * 50 + [1] * 50 + [2, 3, 4]


def test_the_last_chunk_of_a_file_says_so_and_all_bytes_are_counted(tmp_path):
    write_lines(tmp_path / "a.jsonl.gz", rows(TEXTS))
    write_lines(tmp_path / "b.jsonl", rows(TEXTS))
    write_parquet(tmp_path / "c.parquet", {"text": TEXTS})
    files = find_inputs([str(tmp_path)]).files
    chunks = list(read_chunks(files, chunk_bytes=2_000))
    names = [chunk.name for chunk in chunks]
    assert names == sorted(set(names))
    for number, file in enumerate(files):
        of_file = [chunk for chunk in chunks if chunk.file == number]
        assert [chunk.is_last for chunk in of_file] == [False] * (len(of_file) - 1) + [True]
        assert len(of_file) > 2
        assert sum(chunk.size for chunk in of_file) == pytest.approx(file.size, abs=len(of_file))
    assert [chunk.file for chunk in read_chunks(files, is_done={0, 2}.__contains__)] == [1]


def test_a_line_longer_than_many_blocks_stays_whole(tmp_path):
    long = "word " * 700_000
    path = write_lines(tmp_path / "x.jsonl", [{"text": "a"}, {"text": long}, {"text": "b"}])
    assert [each.text for each in read(path, chunk_bytes=1000)] == ["a", long, "b"]


def test_text_files_are_one_document_each(tmp_path):
    (tmp_path / "a.md").write_bytes(b"\xef\xbb\xbf# Head\r\n\r\ntext")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "c.py").write_bytes(b"x = '\xff'")
    (tmp_path / "d.txt").write_bytes(b" \n")
    found = read(tmp_path)
    assert [(each.text, each.file, each.line) for each in good(found)] == [
        ("# Head\r\n\r\ntext", 0, 0),
        ("packed", 1, 0),
    ]
    assert [(each.fault, each.file, each.line) for each in bad(found)] == [
        ("not UTF-8", 2, 0),
        ("empty text", 3, 0),
    ]


@pytest.mark.parametrize(
    ("line", "fault", "detail"),
    [
        ('{"text": "cut', "not JSON", "Unterminated string"),
        ("[" * 100_000, "not JSON", ""),
        (b'{"text": "caf\xe9"}', "not UTF-8", "0xe9"),
        ('["text"]', "not an object", "list"),
        ('{"body": "x"}', "no such field", "no field 'text'; there are 'body'"),
        ('{"text": null}', "not a text", "found null"),
        ('{"text": 17}', "not a text", "found 17"),
        ('{"text": " \\n "}', "empty text", ""),
        ('{"text": ""}', "empty text", ""),
    ],
)
def test_a_bad_line_is_told_with_its_place(tmp_path, line, fault, detail):
    path = write_lines(tmp_path / "x.jsonl", ['{"text": "good"}', line, "", '{"text": "good too"}'])
    found = read(path)
    assert [each.text for each in good(found)] == ["good", "good too"]
    (wrong,) = bad(found)
    assert (wrong.line, wrong.fault) == (2, fault)
    assert detail in wrong.detail
    assert good(found)[1].line == 4


def test_fields_can_be_named(tmp_path):
    path = write_lines(
        tmp_path / "x.jsonl",
        [{"body": "one", "kind": "a"}, {"body": "two", "kind": "b"}, {"body": "three"}],
    )
    found = read(path, fields=Fields(text="body", source="kind"))
    assert [(each.text, each.source) for each in good(found)] == [("one", "a"), ("two", "b")]
    assert [each.fault for each in bad(found)] == ["no source"]


def test_halves_of_characters_are_mended_and_nuls_stay(tmp_path):
    lines = [r'{"text": "a\ud800b"}', r'{"text": "\ud83d\ude00"}', r'{"text": "a\u0000b"}']
    found = read(write_lines(tmp_path / "x.jsonl", lines))
    assert [each.text for each in found] == ["a\ufffdb", "\U0001f600", "a\0b"]
    assert [each.is_mended for each in found] == [True, False, False]


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", [b'\xef\xbb\xbf{"text": "one"}', '{"text": "two"}\r'])
    assert [each.text for each in read(path)] == ["one", "two"]


def test_several_frames_are_one_file(tmp_path):
    halves = [b'{"text": "one"}\n{"te', b'xt": "two"}\n']
    for ending, compress in ((".gz", gzip.compress), (".zst", zstandard.compress)):
        path = tmp_path / f"x.jsonl{ending}"
        path.write_bytes(b"".join(map(compress, halves)))
        assert [each.text for each in read(path)] == ["one", "two"]
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b"".join(halves)) + bytes(40_000))
    assert [each.text for each in read(tmp_path / "x.jsonl.gz")] == ["one", "two"]


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
def test_a_cut_file_is_no_file(tmp_path, ending):
    path = write_lines(tmp_path / f"x{ending}", rows(TEXTS))
    whole = path.read_bytes()
    for length in (4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CorpusError, match=rf"x{ending} is cut"):
            read(path)
    path.write_bytes(b"this is no compressed file")
    with pytest.raises(CorpusError, match=rf"x{ending} is no (gzip|zstd) file, or a broken one"):
        read(path)


def test_a_file_that_is_gone_is_named(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", rows(TEXTS))
    files = find_inputs([str(path)]).files
    path.unlink()
    with pytest.raises(CorpusError, match=r"x\.jsonl cannot be read: .*No such file"):
        list(read_chunks(files))


def test_parquet_is_read_by_row_groups(tmp_path):
    columns = {"body": [*TEXTS[:20], None], "lang": ["en", "bg"] * 10 + ["en"], "more": list(range(21))}
    path = write_parquet(tmp_path / "x.parquet", columns)
    found = read(path, chunk_bytes=1, fields=Fields(text="body", source="lang"))
    assert [(each.text, each.source, each.line) for each in good(found)] == [
        (text, lang, line)
        for line, (text, lang) in enumerate(zip(TEXTS[:20], columns["lang"], strict=False), start=1)
    ]
    assert [(each.line, each.fault) for each in bad(found)] == [(21, "not a text")]
    chunks = read_chunks(find_inputs([str(path)]).files, chunk_bytes=1)
    assert [chunk.rows for chunk in chunks] == [(0,), (1,), (2,)]


def test_parquet_without_the_column_says_which_there_are(tmp_path):
    path = write_parquet(tmp_path / "x.parquet", {"body": ["a"], "id": [1]})
    with pytest.raises(CorpusError, match=r"x\.parquet has no column 'text'; it has 'body', 'id'"):
        read(path)
    path.write_bytes(b"PAR1 and nothing more PAR1")
    with pytest.raises(CorpusError, match=r"x\.parquet is no Parquet file"):
        read(path)


def test_empty_files_hold_nothing(tmp_path):
    (tmp_path / "x.jsonl").touch()
    write_parquet(tmp_path / "y.parquet", {"text": pyarrow.array([], pyarrow.string())})
    assert read(tmp_path) == []


def test_json_that_is_not_ascii_is_the_same_text(tmp_path):
    text = "\u0421\u043e\u0444\u0438\u044f \U0001f600"
    lines = [json.dumps({"text": text}), json.dumps({"text": text}, ensure_ascii=False)]
    assert [each.text for each in read(write_lines(tmp_path / "x.jsonl", lines))] == [text, text]
