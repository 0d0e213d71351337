"""Shards give back the tokens that were written, say where they came from, and find what was changed."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from modernbert.corpus import shards as module
from modernbert.corpus.documents import Fields
from modernbert.corpus.shard_writing import write_shards
from modernbert.corpus.shards import Shards
from modernbert.errors import CorpusError
from modernbert.text.tokenizer import Tokenizer
from modernbert.text.tokenizer_training import train_tokenizer
from tests.corpus.small_corpus import SENTENCES, small_tokenizer, texts, write_lines

SOURCES = ("books", "code", "web")
NUM_DOCUMENTS = 90


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture(scope="module")
def lines() -> list[dict[str, str]]:
    found = texts(NUM_DOCUMENTS, seed=3)
    return [{"text": text, "of": SOURCES[place % 7 % 3]} for place, text in enumerate(found)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tokenizer, lines) -> Path:
    """Shards of several parts, each with documents of three sources."""
    folder = tmp_path_factory.mktemp("shards")
    path = write_lines(folder / "all.jsonl.zst", lines)
    write_shards(
        [str(path)],
        folder / "shards",
        tokenizer=tokenizer,
        fields=Fields(source="of"),
        num_workers=1,
        chunk_bytes=9_000,
    )
    return folder / "shards"


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def expected(tokenizer: Tokenizer, lines: list[dict[str, str]], source: str) -> list[list[int]]:
    return tokenizer.encode_ids(
        [line["text"] for line in lines if line["of"] == source], add_special_tokens=False
    )


def test_every_token_of_every_document_comes_back(written, tokenizer, lines):
    shards = Shards.open(written)
    assert len(shards.manifest["parts"]) > 3
    assert shards.sources == SOURCES
    assert shards.vocab_size == tokenizer.vocab_size
    for source in SOURCES:
        documents = expected(tokenizer, lines, source)
        lengths = shards.lengths(source)
        assert lengths.dtype == np.int64
        assert lengths.tolist() == [len(each) for each in documents]
        for document, ids in enumerate(documents):
            tokens = shards.tokens(source, document, 0, len(ids))
            assert tokens.dtype == np.int64
            assert tokens.tolist() == ids
            assert shards.tokens(source, document, 1, len(ids) - 1).tolist() == ids[1:-1]
            assert shards.tokens(source, document, 2, 2).tolist() == []


def test_no_special_token_is_in_the_shards(written, tokenizer):
    shards = Shards.open(written)
    for source in SOURCES:
        for document, length in enumerate(shards.lengths(source)):
            assert not tokenizer.special_ids & set(shards.tokens(source, document, 0, int(length)).tolist())


def test_a_document_says_where_it_stood(written, lines):
    shards = Shards.open(written)
    file = shards.manifest["files"][0]
    for source in SOURCES:
        places = [number for number, line in enumerate(lines, start=1) if line["of"] == source]
        described = [shards.describe(source, document) for document in range(len(places))]
        assert described == [f"{file}, line {place}" for place in places]


def test_the_manifest_counts(written, tokenizer, lines):
    manifest = Shards.open(written).manifest
    for source in SOURCES:
        of_source = [line["text"] for line in lines if line["of"] == source]
        assert manifest["sources"][source] == {
            "documents": len(of_source),
            "tokens": sum(map(len, expected(tokenizer, lines, source))),
            "text_bytes": sum(len(text.encode()) for text in of_source),
        }
    assert manifest["bad_lines"] == {"lines": NUM_DOCUMENTS, "faults": {}, "first": []}
    assert manifest["packages"].keys() == {"modernbert", "tokenizers"}
    assert np.dtype(manifest["dtype"]) == np.uint16


def test_shards_go_through_pickle(written):
    shards = Shards.open(written)
    again = pickle.loads(pickle.dumps(shards))
    assert again.tokens("code", 3, 0, 5).tolist() == shards.tokens("code", 3, 0, 5).tolist()


def starts_of_all(shards: Shards) -> list[list[int]]:
    return [
        shards.tokens(source, document, 0, 3).tolist()
        for source in SOURCES
        for document in reversed(range(len(shards.lengths(source))))
    ]


def test_few_parts_are_mapped_at_once(written, monkeypatch):
    whole = starts_of_all(Shards.open(written))
    monkeypatch.setattr(module, "_OPEN_PARTS", 1)
    assert starts_of_all(Shards.open(written)) == whole


def test_threads_read_at_once_though_only_one_part_is_mapped(written, monkeypatch):
    whole = starts_of_all(Shards.open(written))
    monkeypatch.setattr(module, "_OPEN_PARTS", 1)
    shards = Shards.open(written)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            read = list(threads.map(starts_of_all, [shards] * 100))
    finally:
        sys.setswitchinterval(before)
    assert read == [whole] * 100


def test_what_is_not_there_is_an_error(written):
    shards = Shards.open(written)
    length = int(shards.lengths("code")[0])
    with pytest.raises(CorpusError, match=r"no source 'poems'; it has books, code, web"):
        shards.lengths("poems")
    with pytest.raises(CorpusError, match=r"there is no document 90"):
        shards.tokens("code", 90, 0, 1)
    for start, end in ((0, length + 1), (-1, 2), (3, 2)):
        with pytest.raises(CorpusError, match=f"has {length} tokens; asked for {start} to {end}"):
            shards.tokens("code", 0, start, end)


def test_the_tokenizer_travels_with_the_shards(written, tokenizer):
    shards = Shards.open(written)
    text = SENTENCES[3]
    assert shards.tokenizer().encode_ids([text]) == tokenizer.encode_ids([text])
    shards.require_tokenizer(tokenizer)


def test_the_same_tokenizer_in_other_bytes_is_the_same(written, tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    definition = json.loads((tmp_path / "tokenizer.json").read_bytes())
    definition["model"]["merges"] = [" ".join(pair) for pair in definition["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    Shards.open(written).require_tokenizer(Tokenizer.from_folder(tmp_path))


def test_another_tokenizer_is_told_from_the_first_id_that_differs(written):
    shards = Shards.open(written)
    with pytest.raises(CorpusError, match=r"320 ids instead of 384"):
        shards.require_tokenizer(train_tokenizer(SENTENCES, vocab_size=310))
    with pytest.raises(CorpusError, match=r"id \d+ is '.*' instead of '.*'"):
        shards.require_tokenizer(train_tokenizer([text.upper() for text in SENTENCES * 4], vocab_size=384))


def test_a_changed_tokenizer_is_found(copy):
    path = copy / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text().replace("NFC", "NFD"))
    with pytest.raises(CorpusError, match=r"tokenizer\.json is not the file that made these shards"):
        Shards.open(copy).tokenizer()


def read_all(shards: Shards) -> None:
    for source in shards.sources:
        for document in range(len(shards.lengths(source))):
            shards.tokens(source, document, 0, 1)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0b100
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0, 777, -1])
def test_a_flipped_byte_of_tokens_is_found_at_the_first_read_and_by_verify(copy, place):
    path = sorted(copy.glob("*.tokens"))[1]
    flip(path, place)
    shards = Shards.open(copy)
    with pytest.raises(CorpusError, match=rf"is damaged: {path.name}, block 0"):
        read_all(shards)
    with pytest.raises(CorpusError, match=rf"{path.name}, block 0\n"):
        shards.verify()


def test_only_the_block_with_the_flipped_byte_is_bad(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 256)
    monkeypatch.setattr("modernbert.corpus.parts.BLOCK_BYTES", 256)
    path = write_lines(tmp_path / "x.jsonl", [{"text": text} for text in texts(30)])
    shards = write_shards([str(path)], tmp_path / "shards", tokenizer=tokenizer, num_workers=1)
    shards.verify()
    flip(tmp_path / "shards" / "000000-000000.tokens", 5 * 256 + 17)
    shards = Shards.open(tmp_path / "shards")
    ends = np.cumsum(shards.lengths("x"))
    first_bad, last_bad = 5 * 128, 6 * 128 - 1  # two bytes a token
    for document, end in enumerate(ends):
        start = int(end - shards.lengths("x")[document])
        if start <= last_bad and end > first_bad:
            with pytest.raises(CorpusError, match="block 5"):
                shards.tokens("x", document, 0, int(end) - start)
        else:
            shards.tokens("x", document, 0, int(end) - start)
    with pytest.raises(CorpusError, match="tokens, block 5\n"):
        shards.verify()


def test_a_flipped_byte_of_an_index_is_found(copy):
    path = sorted(copy.glob("*.index"))[0]
    flip(path, 40)
    shards = Shards.open(copy)
    with pytest.raises(CorpusError, match=rf"{path.name}, block 0"):
        shards.lengths("books")
    with pytest.raises(CorpusError, match=rf"{path.name}, block 0"):
        shards.verify()


def test_a_cut_or_missing_file_is_found_on_opening(copy):
    path = sorted(copy.glob("*.tokens"))[-1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    with pytest.raises(
        CorpusError, match=rf"{path.name} has {len(whole) - 2} bytes; {len(whole)} were written"
    ):
        Shards.open(copy)
    path.unlink()
    with pytest.raises(CorpusError, match=rf"{path.name} is missing"):
        Shards.open(copy)


def test_a_changed_manifest_is_found_on_opening(copy):
    path = copy / "manifest.json"
    whole = path.read_text()
    path.write_text(whole.replace('"documents": ', '"documents": 1', 1))
    with pytest.raises(CorpusError, match=r"manifest\.json is not as it was written"):
        Shards.open(copy)
    path.write_text(whole[:100])
    with pytest.raises(CorpusError, match=r"manifest\.json is not JSON"):
        Shards.open(copy)
    path.write_text("[]")
    with pytest.raises(CorpusError, match="is no manifest of shards"):
        Shards.open(copy)
    path.write_text(whole.replace("modernbert shards 1", "modernbert shards 2"))
    with pytest.raises(CorpusError, match="write the shards anew"):
        Shards.open(copy)


def test_a_folder_without_shards_says_how_to_write_them(tmp_path):
    with pytest.raises(
        CorpusError, match=r"holds no shards: it has no manifest\.json\nhint: .*modernbert shard"
    ):
        Shards.open(tmp_path)
    (tmp_path / "shards.unfinished").mkdir()
    with pytest.raises(CorpusError, match=r"shards\.unfinished is there: run the same .*goes on"):
        Shards.open(tmp_path / "shards")
