"""The same ids, types and offsets as transformers, on every text of real data sets."""

import json
from pathlib import Path

import pytest

from modernbert.text.tokenizer import Tokenizer

TEXT_SETS = {
    "sst2": ("classification/sst2", "text"),
    "trec": ("classification/trec", "text"),
    "sms_spam": ("classification/sms_spam", "text"),
    "cinexio_bg": ("classification/cinexio_bg", "text"),
    "clinc150": ("classification/clinc150", "text"),
    "wnut17": ("tokens/wnut17", "tokens"),
    "conala": ("code/conala", "text"),
}
PAIR_SETS = ["stsb", "rte", "mrpc"]
FOLDERS = ["modernbert_folder", "minilm_folder"]


def read_rows(folder: Path) -> list[dict[str, str]]:
    files = sorted(folder.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text("utf-8").split("\n") if line]


def read_texts(data_root: Path, name: str) -> list[str]:
    folder, field = TEXT_SETS[name]
    values = [row[field] for row in read_rows(data_root / folder)]
    return [value if isinstance(value, str) else " ".join(value) for value in values]


@pytest.fixture(scope="module")
def both(request):
    transformers = pytest.importorskip("transformers")
    folder = request.getfixturevalue(request.param)
    return Tokenizer.from_folder(folder), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("both", FOLDERS, indirect=True)
@pytest.mark.parametrize("name", TEXT_SETS)
def test_ids_and_offsets_of_texts_equal_transformers(both, data_root, name):
    ours, theirs = both
    texts = read_texts(data_root, name)
    assert len(texts) > 2000
    expected = theirs(texts, return_offsets_mapping=True)
    found = ours.encode(texts, special_tokens="parse")
    assert [each.token_ids for each in found] == expected["input_ids"]
    assert [each.offsets for each in found] == expected["offset_mapping"]
    assert ours.encode_ids(texts) == theirs(texts, split_special_tokens=True)["input_ids"]


@pytest.mark.parametrize("both", FOLDERS, indirect=True)
@pytest.mark.parametrize("name", PAIR_SETS)
def test_ids_types_and_offsets_of_pairs_equal_transformers(both, data_root, name):
    ours, theirs = both
    rows = read_rows(data_root / "pairs" / name)
    first, second = [row["text_a"] for row in rows], [row["text_b"] for row in rows]
    expected = theirs(first, second, return_offsets_mapping=True, return_token_type_ids=True)
    found = ours.encode(first, second)
    assert [each.token_ids for each in found] == expected["input_ids"]
    assert [each.token_types for each in found] == expected["token_type_ids"]
    assert [each.offsets for each in found] == expected["offset_mapping"]


@pytest.mark.parametrize("both", ["minilm_folder"], indirect=True)
def test_hard_texts_equal_transformers(both, hard_texts):
    ours, theirs = both
    texts = [*hard_texts, "as a [MASK] [SEP]"]
    expected = theirs(texts, return_offsets_mapping=True)
    found = ours.encode(texts, special_tokens="parse")
    assert [each.token_ids for each in found] == expected["input_ids"]
    assert [each.offsets for each in found] == expected["offset_mapping"]
    assert ours.encode_ids(texts) == theirs(texts, split_special_tokens=True)["input_ids"]


@pytest.mark.parametrize("both", FOLDERS, indirect=True)
def test_words_of_real_sentences_have_the_ids_of_the_joined_text(both, data_root):
    ours, theirs = both
    sentences = [row["tokens"] for row in read_rows(data_root / "tokens" / "wnut17")]
    found = ours.encode_words(sentences, special_tokens="parse")
    assert [each.token_ids for each in found] == theirs([" ".join(words) for words in sentences])["input_ids"]
    assert all(
        {*range(len(words))} >= {*each.word_ids} - {None}
        for words, each in zip(sentences, found, strict=True)
    )


@pytest.mark.parametrize("both", ["minilm_folder"], indirect=True)
def test_words_of_real_sentences_equal_transformers(both, data_root):
    ours, theirs = both
    sentences = [row["tokens"] for row in read_rows(data_root / "tokens" / "wnut17")]
    expected = theirs(sentences, is_split_into_words=True)
    found = ours.encode_words(sentences, special_tokens="parse")
    assert [each.token_ids for each in found] == expected["input_ids"]
    assert [each.word_ids for each in found] == [expected.word_ids(i) for i in range(len(sentences))]


@pytest.mark.parametrize("both", ["modernbert_folder"], indirect=True)
def test_modernbert_has_its_published_ids(both):
    ours, _ = both
    assert ours.encode_ids(["Hello World!"]) == [[50281, 12092, 3645, 2, 50282]]
    assert (ours.cls_id, ours.sep_id, ours.pad_id, ours.mask_id, ours.unk_id) == (
        50281,
        50282,
        50283,
        50284,
        50280,
    )
    assert (ours.vocab_size, ours.model_max_length, ours.mask_token) == (50368, 8192, "[MASK]")
    (ids,) = ours.encode_ids(["the man worked as a [MASK]."], special_tokens="parse")
    assert ids[-4:] == [ours.id_of("\u0120a"), 50284, ours.id_of("."), 50282]
