"""Files, folders, patterns and addresses become files in a fixed order, each with its source."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from modernbert.corpus.inputs import find_inputs
from modernbert.corpus.raw_files import read_blocks
from modernbert.errors import CorpusError
from tests.corpus.small_corpus import good, read, write_lines
from tests.corpus.small_remotes import SmallHub, SmallStore
from tests.inference.tiny import byte_level


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
    with pytest.raises(CorpusError, match="is not there"):
        find_inputs(["memory://nowhere/x.jsonl"])


def test_an_address_of_an_unknown_kind_says_what_is_needed():
    with pytest.raises(
        CorpusError, match=r"nonsense://x/y.jsonl cannot be read: Protocol not known: nonsense"
    ):
        find_inputs(["nonsense://x/y.jsonl"])


@pytest.mark.parametrize(
    ("place", "module", "package"),
    [
        ("hf://datasets/a/b", "huggingface_hub", "huggingface_hub"),
        ("s3://a/b.jsonl", "s3fs", "s3fs"),
        ("gs://a/b.jsonl", "gcsfs", "gcsfs"),
    ],
)
def test_an_address_whose_package_is_missing_names_it(monkeypatch, place, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    known = sys.modules["fsspec.registry"]._registry
    monkeypatch.delitem(known, place.partition(":")[0], raising=False)
    with pytest.raises(CorpusError, match=rf"(?s){place} cannot be read: .*\nhint: pip install {package}$"):
        find_inputs([place])


# The real clients, in a process of their own: they read their environment when they are imported.

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
NOBODY = "http://127.0.0.1:9"  # the port of a service that no machine runs today


def parquet(*texts: str) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), buffer, row_group_size=2)
    return buffer.getvalue()


def json_lines(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.fixture(scope="module")
def remotes() -> Iterator[tuple[SmallHub, SmallStore]]:
    data_set = {
        "org/name/data/train-00000-of-00002.parquet": parquet("one row", "another", "a third"),
        "org/name/data/deep/extra.parquet": parquet("far down"),
        "org/name/data/notes.bin": b"no text",
    }
    buckets = {
        "bucket/docs/a.jsonl.zst": zstandard.compress(json_lines("a line", "a second")),
        "bucket/docs/picture.png": b"no text",
        "bucket/other/b.jsonl": json_lines("elsewhere"),
    }
    with SmallHub(data_set) as hub, SmallStore(buckets) as store:
        yield hub, store


@pytest.fixture
def shard(remotes, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call `modernbert shard` on addresses of the hub and the store, where no one else can be reached."""
    hub, store = remotes
    byte_level().save(tmp_path / "tok")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "AWS_"))}
    ours |= {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "AWS_ENDPOINT_URL": store.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(tmp_path),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }

    def shard(*places: str, **environment: str) -> subprocess.CompletedProcess[str]:
        out = ("--tokenizer", str(tmp_path / "tok"), "--out", str(tmp_path / "shards"), "--workers", "1")
        return subprocess.run(
            [sys.executable, "-m", "modernbert", "shard", *places, *out, "--json"],
            env=ours | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return shard


def test_a_data_set_of_the_hub_and_a_bucket_become_shards(shard, remotes):
    pytest.importorskip("s3fs")
    done = shard("hf://datasets/org/name/**/*.parquet", "s3://bucket/docs/*.jsonl.zst", **CREDENTIALS)
    assert done.returncode == 0, done.stderr
    sources = json.loads(done.stdout)["sources"]
    assert {name: each["documents"] for name, each in sources.items()} == {"train": 3, "extra": 1, "a": 2}
    hub, store = remotes
    read = {path: span for _, path, span in hub.asked + store.asked if span}
    assert "datasets/org/name/resolve/main/data/deep/extra.parquet" in read
    assert not any("notes.bin" in path or "picture.png" in path for path in read)


def test_a_whole_data_set_and_a_whole_bucket_are_read_like_folders(shard):
    pytest.importorskip("s3fs")
    done = shard("hf://datasets/org/name", "s3://bucket", **CREDENTIALS)
    assert done.returncode == 0, done.stderr
    sources = json.loads(done.stdout)["sources"]
    assert {name: each["documents"] for name, each in sources.items()} == {"data": 4, "docs": 2, "other": 1}
    assert "left out: .bin 1, .png 1" in done.stderr


@pytest.mark.parametrize(
    ("place", "environment", "parts"),
    [
        ("hf://datasets/org/name/*.jsonl", {}, ["matches no file"]),
        ("hf://datasets/org/none/*.jsonl", {}, ["is not there", "repository not found", "private"]),
        (
            "hf://datasets/org/name",
            {"HF_ENDPOINT": NOBODY},
            ["cannot be read", "is there a connection", "HF_TOKEN"],
        ),
        ("hf://datasets/org/name", {"HF_HUB_OFFLINE": "1"}, ["cannot be read", "offline"]),
        ("s3://bucket/docs/*.parquet", CREDENTIALS, ["matches no file"]),
        ("s3://none/x.jsonl", CREDENTIALS, ["is not there", "NoSuchBucket"]),
        ("s3://bucket/docs/none.jsonl", CREDENTIALS, ["is not there"]),
        ("s3://bucket/docs/*.zst", {}, ["cannot be read", "credentials", "AWS_ACCESS_KEY_ID"]),
        ("s3://bucket/docs/*.zst", {"FSSPEC_S3_ANON": "true"}, ["cannot be read", "AccessDenied"]),
        (
            "s3://bucket/docs/*.zst",
            {**CREDENTIALS, "AWS_ENDPOINT_URL": NOBODY, "AWS_MAX_ATTEMPTS": "1"},
            ["cannot be read", "Could not connect", "is there a connection"],
        ),
    ],
)
def test_an_address_that_gives_nothing_says_why_in_one_message(shard, place, environment, parts):
    if place.startswith("s3:"):
        pytest.importorskip("s3fs")
    done = shard(place, **environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(f"modernbert: error: {place} ")
    assert not [part for part in parts if part not in done.stderr], done.stderr


def test_an_object_that_goes_away_while_it_is_read_is_an_error(monkeypatch):
    system = fsspec.filesystem("memory")
    system.pipe("/gone/a.jsonl", json_lines("a text"))
    inputs = find_inputs(["memory://gone"])

    class TransportError(Exception):
        """Of a client; it derives from nothing that we could know."""

    def broken(*_: object, **__: object) -> object:
        raise TransportError("the connection was reset")

    monkeypatch.setattr(type(system), "open", broken)
    with pytest.raises(
        CorpusError, match=r"a\.jsonl cannot be read: the connection was reset .TransportError"
    ):
        list(read_blocks(inputs.files[0].path))
