"""Files, folders, patterns and addresses become files in a fixed order, each with its source."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from modernbert.corpus.inputs import find_inputs
from modernbert.errors import CorpusError
from tests.corpus.small_corpus import good, read, write_lines


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    names = [
        "code/b.py",
        "code/deep/a.rs",
        "books.jsonl.zst",
        "web/part-0001.jsonl.gz",
        "notes.md",
        "picture.png",
        "data.bin",
        ".git/x.txt",
        "code/.hidden.py",
    ]
    for name in names:
        write_lines(folder / name, ['{"text": "a text"}'])
    return folder


def found(*inputs: object) -> dict[str, str]:
    return {file.path: file.source for file in find_inputs([str(each) for each in inputs]).files}


def test_a_folder_gives_all_it_knows_in_a_fixed_order(tree):
    inputs = find_inputs([str(tree)])
    assert [str(Path(file.path).relative_to(tree)) for file in inputs.files] == [
        "books.jsonl.zst",
        "notes.md",
        "code/b.py",
        "code/deep/a.rs",
        "web/part-0001.jsonl.gz",
    ]
    assert [file.source for file in inputs.files] == ["books", "corpus", "code", "code", "web"]
    assert [file.kind for file in inputs.files] == ["lines", "document", "document", "document", "lines"]
    assert inputs.left_out == {".png": 1, ".bin": 1}
    assert all(file.size == Path(file.path).stat().st_size for file in inputs.files)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("books.jsonl", "books"),
        ("books.JSONL.GZ", "books"),
        ("train-00003-of-00064.parquet", "train"),
        ("web-0001.jsonl.zst", "web"),
        ("c4-train.00000-of-01024.json.gz", "c4-train"),
        ("wiki2018.jsonl", "wiki2018"),
        ("wiki-2018.jsonl", "wiki-2018"),
        ("0001.jsonl", "0001"),
        ("novel.txt.gz", "shelf"),
        ("main.c", "shelf"),
    ],
)
def test_a_file_names_its_source(tmp_path, name, source):
    path = tmp_path / "shelf" / name
    path.parent.mkdir()
    path.write_bytes(b"x")
    assert found(path) == {str(path): source}


def test_a_source_can_be_named(tree):
    assert set(found(f"mine={tree / 'code'}").values()) == {"mine"}
    assert set(found(f"a.b-c={tree}/*.zst").values()) == {"a.b-c"}


def test_a_path_with_an_equals_sign_is_a_path(tmp_path, monkeypatch):
    write_lines(tmp_path / "lang=en" / "x.jsonl", [])
    monkeypatch.chdir(tmp_path)
    assert list(found("lang=en/x.jsonl")) == ["lang=en/x.jsonl"]


def test_names_with_the_signs_of_patterns_are_names(tmp_path):
    path = write_lines(tmp_path / "a[1].jsonl", [{"text": "one"}])
    assert [document.text for document in good(read(path))] == ["one"]


def test_a_pattern_is_sorted_and_each_file_comes_once(tree):
    paths = list(found(f"{tree}/**/*.py", f"{tree}/code"))
    assert paths == [f"{tree}/code/b.py", f"{tree}/code/deep/a.rs"]


def test_what_names_nothing_is_an_error(tree, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="matches no file"):
        find_inputs([f"{tree}/*.parquet"])
    with pytest.raises(CorpusError, match="neither a file nor a folder"):
        find_inputs([f"{tree}/nowhere"])
    with pytest.raises(CorpusError, match=r"no files to read; files of other kinds: none"):
        find_inputs([str(tmp_path / "empty")])
    with pytest.raises(CorpusError, match="no files to read"):
        find_inputs([])


def test_a_file_of_an_unknown_kind_is_an_error_where_it_was_named(tree):
    with pytest.raises(CorpusError, match=r"picture\.png is of no kind .*\.jsonl"):
        find_inputs([f"{tree}/picture.png"])


def test_addresses_are_read_through_fsspec():
    system = fsspec.filesystem("memory")
    for name in ("web/a-0001.jsonl", "web/sub/b.jsonl", "web/.hidden/c.jsonl", "web/d.png"):
        system.pipe(f"/{name}", b'{"text": "of %s"}\n' % name.encode())
    assert found("memory://web") == {"memory:///web/a-0001.jsonl": "a", "memory:///web/sub/b.jsonl": "sub"}
    assert found("x=memory://web/*.jsonl") == {"memory:///web/a-0001.jsonl": "x"}
    assert found("memory://web/sub/b.jsonl") == {"memory:///web/sub/b.jsonl": "b"}
    assert [document.text for document in good(read("memory://web"))] == [
        "of web/a-0001.jsonl",
        "of web/sub/b.jsonl",
    ]
    with pytest.raises(CorpusError, match="matches no file"):
        find_inputs(["memory://web/*.parquet"])
    with pytest.raises(CorpusError, match="cannot be read"):
        find_inputs(["memory://nowhere/x.jsonl"])


def test_an_address_of_an_unknown_kind_says_what_is_needed():
    with pytest.raises(CorpusError, match="cannot be opened"):
        find_inputs(["nonsense://x/y.jsonl"])
