"""The verbs about text: tokenizer train and shard, from files to shards and what is printed of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from modernbert.cli import verbs
from modernbert.corpus.bad_lines import MAX_BAD_SHARE
from modernbert.corpus.shards import Shards
from modernbert.text.tokenizer import Tokenizer
from tests.cli.conftest import assert_fails, json_lines
from tests.corpus.small_corpus import rows, texts, write_lines


def run(*args: object) -> Result:
    return CliRunner().invoke(verbs, [str(each) for each in args], prog_name="modernbert")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    lines = [*rows(texts(30)), "{broken"]
    write_lines(tmp_path / "corpus" / "books.jsonl.zst", lines)
    write_lines(tmp_path / "corpus" / "code" / "a.py", ["def f(x):\n    return x"])
    (tmp_path / "corpus" / "picture.png").write_bytes(b"x")
    return tmp_path / "corpus"


@pytest.fixture
def tokenizer_folder(corpus: Path, tmp_path: Path) -> Path:
    result = run("tokenizer", "train", corpus, "--vocab-size", 384, "--out", tmp_path / "tok")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    return tmp_path / "tok"


def test_a_tokenizer_is_trained_from_files(tokenizer_folder, corpus):
    assert Tokenizer.from_folder(tokenizer_folder).vocab_size == 384
    again = run("tokenizer", "train", corpus, "--vocab-size", 384, "--out", tokenizer_folder)
    assert_fails(again, f"{tokenizer_folder} holds a tokenizer already")


def test_what_was_left_out_of_the_training_is_told(corpus, tmp_path):
    result = run("tokenizer", "train", corpus, "--vocab-size", 384, "--out", tmp_path / "tok")
    assert "files of other kinds, left out: .png 1" in result.stderr
    assert "1 of 32 lines hold no document:\n  not JSON 1" in result.stderr
    assert f"{corpus}/books.jsonl.zst, line 31: Expecting" in result.stderr
    assert "tok is written: 384 ids, learned from 31 documents" in result.stderr


def test_a_tokenizer_can_be_like_another(tokenizer_folder, corpus, tmp_path):
    out = tmp_path / "other"
    call = ("tokenizer", "train", corpus, "--like", tokenizer_folder, "--out", out)
    assert run(*call, "--vocab-size", 448).exit_code == 0
    assert Tokenizer.from_folder(out).vocab_size == 448
    call = ("tokenizer", "train", corpus, "--out", tmp_path / "third")
    both = run(*call, "--vocab-size", 448, "--like", out, "--space-runs", 4)
    assert_fails(both, "--space-runs is for ModernBERT's form", code=2)
    assert_fails(run(*call), "--vocab-size", code=2)


def test_training_reads_no_more_than_asked_and_of_each_source_the_same(tmp_path):
    for source, letter in (("a", "x"), ("b", "y"), ("c", "z")):
        write_lines(tmp_path / f"{source}.jsonl", [{"text": f"{letter}{letter}{letter} " * 25}] * 50)
    out = tmp_path / "tok"
    call = ("tokenizer", "train", tmp_path, "--vocab-size", 300, "--max-bytes", 900, "--out", out)
    result = run(*call)
    assert "learned from 9 documents" in result.stderr
    trained = Tokenizer.from_folder(out)
    assert all(trained.id_of(f"\u0120{letter * 3}") for letter in "xyz")


def test_shards_are_written_and_described(corpus, tokenizer_folder, tmp_path):
    out = tmp_path / "shards"
    result = run("shard", corpus, "--tokenizer", tokenizer_folder, "--out", out, "--workers", 1)
    assert result.exit_code == 0, result.stderr
    head, books, code, everything = result.stdout.splitlines()
    assert head.split() == ["source", "documents", "tokens", "bytes", "of", "text", "bytes/token"]
    assert (books.split()[:2], code.split()[:2]) == (["books", "30"], ["code", "1"])
    assert everything.split()[:2] == ["all", "31"]
    assert "1 of 32 lines hold no document" in result.stderr
    assert "left out: .png 1" in result.stderr
    assert Shards.open(out).lengths("books").size == 30


def test_shards_are_described_as_json(corpus, tokenizer_folder, tmp_path):
    call = ("shard", f"text={corpus}", "--tokenizer", tokenizer_folder, "--out", tmp_path / "shards")
    (described,) = json_lines(run(*call, "--workers", 1, "--json"))
    assert described["sources"]["text"]["documents"] == 31
    assert described["bad_lines"]["faults"] == {"not JSON": 1}
    assert described["tokenizer_sha256"] == Shards.open(tmp_path / "shards").tokenizer_sha256
    again = json_lines(run(*call, "--workers", 1, "--json"))
    assert again == [described], "all is done, and only opened"


def test_sources_can_come_from_a_field(tokenizer_folder, tmp_path):
    lines = [
        {"body": text, "register": "prose" if place % 2 else "code"} for place, text in enumerate(texts(6))
    ]
    path = write_lines(tmp_path / "valid.jsonl", lines)
    call = ("shard", path, "--tokenizer", tokenizer_folder, "--out", tmp_path / "shards", "--workers", 1)
    result = run(*call, "--field", "body", "--source-field", "register")
    assert result.exit_code == 0, result.stderr
    assert Shards.open(tmp_path / "shards").sources == ("code", "prose")


def test_verify_finds_a_flipped_byte(corpus, tokenizer_folder, tmp_path):
    out = tmp_path / "shards"
    run("shard", corpus, "--tokenizer", tokenizer_folder, "--out", out, "--workers", 1)
    result = run("shard", out, "--verify")
    assert result.exit_code == 0
    assert "is right: every block of every file is as it was written" in result.stderr
    path = out / "000000-000000.tokens"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert_fails(run("shard", out, "--verify"), "is damaged", "000000-000000.tokens, block 0")
    assert_fails(run("shard", corpus, "--verify"), "holds no shards")


def test_too_many_bad_lines_stop_the_verb(corpus, tokenizer_folder, tmp_path):
    call = ("shard", corpus, "--tokenizer", tokenizer_folder, "--out", tmp_path / "shards", "--workers", 1)
    assert_fails(run(*call, "--field", "body"), "no field 'body'; there are 'id', 'text'")
    assert_fails(run(*call, "--max-bad-share", 0), "1 of 31 lines hold no document", "--max-bad-share allows")
    assert run(*call).exit_code == 0


def test_wrong_calls_are_told(corpus, tokenizer_folder, tmp_path):
    assert_fails(run("shard", corpus), "--tokenizer and --out are needed", code=2)
    assert_fails(run("shard", corpus, "--tokenizer", corpus, "--out", tmp_path / "x"), "has no tokenizer")
    assert_fails(
        run("shard", corpus / "no", "--tokenizer", tokenizer_folder, "--out", tmp_path / "x"),
        "neither a file",
    )
    assert_fails(run("shard", "--verify"), "INPUT", code=2)


def test_ctrl_c_says_that_it_can_go_on(corpus, tokenizer_folder, tmp_path, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("modernbert.corpus.shard_writing.PartWriter.__call__", interrupt)
    call = ("shard", corpus, "--tokenizer", tokenizer_folder, "--out", tmp_path / "shards", "--workers", 1)
    result = run(*call)
    assert result.exit_code == 130
    assert "run the same again, and it goes on" in result.stderr


def test_the_share_of_bad_lines_is_the_same_in_python():
    shares = [
        option.default
        for command in (verbs.commands["shard"], verbs.commands["tokenizer"].commands["train"])  # pyright: ignore
        for option in command.params
        if option.name == "max_bad_share"
    ]
    assert shares == [MAX_BAD_SHARE] * 2


def test_the_manifest_is_json_that_anyone_can_read(corpus, tokenizer_folder, tmp_path):
    run("shard", corpus, "--tokenizer", tokenizer_folder, "--out", tmp_path / "shards", "--workers", 1)
    manifest = json.loads((tmp_path / "shards" / "manifest.json").read_text())
    assert manifest["files"] == [f"{corpus}/books.jsonl.zst", f"{corpus}/code/a.py"]
