import json
import pickle

import pytest
import tokenizers

from modernbert.errors import TokenizerError
from modernbert.text.tokenizer import Tokenizer

# Names and flags


def test_special_names_may_be_strings_or_dicts_in_either_file(small_folder):
    files = {"tokenizer.json": (small_folder / "tokenizer.json").read_bytes()}
    config = json.dumps({"cls_token": "[PAD]", "sep_token": {"content": "[UNK]"}}).encode()
    names = json.dumps({"pad_token": {"content": "[SEP]"}, "cls_token": "[SEP]"}).encode()
    tokenizer = Tokenizer({**files, "tokenizer_config.json": config, "special_tokens_map.json": names})
    found = [tokenizer.token(each) for each in (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id)]
    assert found == ["[PAD]", "[UNK]", "[SEP]"]


MASK = {"content": "[MASK]", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {"4": MASK}}),
        ("tokenizer_config.json", {"mask_token": MASK}),
        ("special_tokens_map.json", {"mask_token": MASK}),
    ],
    ids=["added_tokens_decoder", "config", "map"],
)
def test_a_mask_flag_that_tokenizer_json_lost_is_read_from_its_neighbours(
    small_folder, tmp_path, name, content
):
    definition = json.loads((small_folder / "tokenizer.json").read_text())
    mask = next(token for token in definition["added_tokens"] if token["content"] == "[MASK]")
    mask["lstrip"] = False
    original = json.dumps(definition).encode()
    without = Tokenizer({"tokenizer.json": original})
    healed = Tokenizer({"tokenizer.json": original, name: json.dumps(content).encode()})
    assert offsets_of_mask(without) == (5, 11)
    assert offsets_of_mask(healed) == (4, 11)
    assert healed.special_ids == without.special_ids
    healed.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == original


def offsets_of_mask(tokenizer):
    (encoding,) = tokenizer.encode(["as a [MASK]."], special_tokens="parse")
    return encoding.offsets[encoding.token_ids.index(tokenizer.mask_id)]


# Reading and saving


def test_truncation_and_padding_of_the_file_are_off_and_the_file_stays(minilm_folder, tmp_path):
    tokenizer = Tokenizer.from_folder(minilm_folder)
    short, long = tokenizer.encode_ids(["word", "word " * 1000])
    assert (len(short), len(long)) == (3, 1002)
    assert b'"max_length":128' in (minilm_folder / "tokenizer.json").read_bytes()
    tokenizer.save(tmp_path / "copy")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (minilm_folder / name).read_bytes()


def test_saving_writes_only_the_files_that_came(small_folder, tmp_path):
    Tokenizer.from_folder(small_folder).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_a_saved_folder_reads_the_same(any_folder, tmp_path, hard_texts):
    tokenizer = Tokenizer.from_folder(any_folder)
    tokenizer.save(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    assert again.encode(hard_texts, hard_texts) == tokenizer.encode(hard_texts, hard_texts)
    assert again.template == tokenizer.template


def test_a_pickled_tokenizer_still_reads_plain_text(small):
    again = pickle.loads(pickle.dumps(small))
    assert again.encode(["a [SEP] b"]) == small.encode(["a [SEP] b"])
    assert again.encode_ids(["[SEP]"], special_tokens="parse") == small.encode_ids(
        ["[SEP]"], special_tokens="parse"
    )


def test_wordpiece_from_vocab_txt_equals_the_published_tokenizer_json(minilm_folder, hard_texts):
    published = Tokenizer.from_folder(minilm_folder)
    names = ("vocab.txt", "tokenizer_config.json")
    built = Tokenizer({name: (minilm_folder / name).read_bytes() for name in names})
    assert built.encode(hard_texts, hard_texts) == published.encode(hard_texts, hard_texts)
    assert built.encode(hard_texts, special_tokens="parse") == published.encode(
        hard_texts, special_tokens="parse"
    )
    assert built.decode(range(1000, 1100)) == published.decode(range(1000, 1100))


def test_letter_case_follows_the_config(bert_folder):
    vocabulary = {"vocab.txt": (bert_folder / "vocab.txt").read_bytes()}
    lower = Tokenizer(vocabulary)
    cased = Tokenizer({**vocabulary, "tokenizer_config.json": b'{"do_lower_case": false}'})
    assert lower.encode_ids(["HELLO"]) == cased.encode_ids(["hello"])
    assert cased.encode_ids(["HELLO"]) == [[cased.cls_id, cased.unk_id, cased.sep_id]]


def test_byte_level_from_vocab_and_merges_equals_tokenizer_json(roberta_folder, hard_texts):
    original = Tokenizer.from_folder(roberta_folder)
    model = json.loads((roberta_folder / "tokenizer.json").read_text())["model"]
    vocabulary = {**model["vocab"], "<mask>": original.mask_id}
    merges = "#version: 0.2\n" + "\n".join(" ".join(merge) for merge in model["merges"]) + "\n"
    built = Tokenizer(
        {
            "vocab.json": json.dumps(vocabulary).encode(),
            "merges.txt": merges.encode(),
            "tokenizer_config.json": b'{"add_prefix_space": true}',
        }
    )
    assert built.encode(hard_texts, hard_texts) == original.encode(hard_texts, hard_texts)
    masked = ["the <mask>", "<mask> man </s>"]
    assert built.encode(masked, special_tokens="parse") == original.encode(masked, special_tokens="parse")


@pytest.mark.parametrize(
    ("config", "length"),
    [(b'{"model_max_length": 512}', 512), (b'{"model_max_length": 1e30}', None), (b"{}", None)],
    ids=["512", "absurd", "absent"],
)
def test_model_max_length_is_read_or_none(small_folder, config, length):
    definition = (small_folder / "tokenizer.json").read_bytes()
    assert (
        Tokenizer({"tokenizer.json": definition, "tokenizer_config.json": config}).model_max_length == length
    )


@pytest.mark.parametrize("length", ['"512"', "0", "-5", "NaN", "[]"])
def test_a_length_that_is_none_is_an_error(small_folder, length):
    files = {"tokenizer.json": (small_folder / "tokenizer.json").read_bytes()}
    with pytest.raises(TokenizerError, match=r"tokenizer_config.json: model_max_length is .* not a length"):
        Tokenizer({**files, "tokenizer_config.json": f'{{"model_max_length": {length}}}'.encode()})


# Bad files


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(
        TokenizerError, match=r"looked for tokenizer.json, for vocab.txt[^;]*\n[^;]*; found none of them"
    ):
        Tokenizer.from_folder(tmp_path)


def test_half_a_vocabulary_says_what_was_found(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"merges.txt \(byte-level BPE\); found vocab.json"):
        Tokenizer.from_folder(tmp_path)


def test_a_vocabulary_without_special_tokens_says_which(tmp_path):
    (tmp_path / "vocab.txt").write_text("a\nb\n[CLS]\n[UNK]\n")
    with pytest.raises(TokenizerError, match=r"from vocab.txt: the vocabulary has none of \[SEP\], </s>"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_cut_tokenizer_json_is_named(small_folder, tmp_path, share):
    whole = (small_folder / "tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(
        TokenizerError, match=rf"{tmp_path}/tokenizer.json is not JSON: .*\n.* may have been cut"
    ):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"{}", b'{"model": {}}', b'{"model": {"type": "Nothing"}}', b'{"model": 3, "added_tokens": 4}'],
)
def test_a_tokenizer_json_of_another_kind_is_named(content):
    with pytest.raises(
        TokenizerError, match=r"memory/tokenizer.json is no tokenizer file, or a broken one: "
    ):
        Tokenizer({"tokenizer.json": content})


@pytest.mark.parametrize(("content", "message"), [(b"[]", "holds a list"), (b"\xff\xfe\x00", "is not JSON")])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_a_file_that_is_no_json_object_is_named(small_folder, name, content, message):
    files = {"tokenizer.json": (small_folder / "tokenizer.json").read_bytes(), name: content}
    with pytest.raises(TokenizerError, match=f"memory/{name} {message}"):
        Tokenizer(files)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(TokenizerError, match=r"tokenizer.json cannot be read: Is a directory"):
        Tokenizer.from_folder(tmp_path)


# What the Rust library cannot do

WORDPIECE = {
    "type": "WordPiece",
    "unk_token": "a",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 9,
}
SOUND = {"version": "1.0", "added_tokens": [], "model": {**WORDPIECE, "vocab": {"a": 0, "b": 1}}}


@pytest.mark.parametrize(
    "part",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    ],
    ids=["at loading", "at probing"],
)
def test_a_panic_while_loading_is_a_tokenizer_error(part):
    with pytest.raises(TokenizerError, match=r"memory/tokenizer.json"):
        Tokenizer({"tokenizer.json": json.dumps(SOUND | part).encode()})


def test_a_panic_while_decoding_is_a_tokenizer_error():
    decoder = {"type": "Strip", "content": "a", "start": 1000, "stop": 1000}
    tokenizer = Tokenizer({"tokenizer.json": json.dumps({**SOUND, "decoder": decoder}).encode()})
    with pytest.raises(TokenizerError, match="memory: the tokenizer failed: index out of bounds"):
        tokenizer.decode([0])


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_request_to_stop_is_not_turned_into_an_error(small_folder, monkeypatch, stop):
    class Stopping:
        def encode_batch(self, *_, **__):
            raise stop

    tokenizer = Tokenizer.from_folder(small_folder)
    monkeypatch.setattr(tokenizer, "_plain", Stopping())
    with pytest.raises(stop):
        tokenizer.encode(["a"])


def test_a_failure_while_encoding_names_the_tokenizer():
    broken = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="[UNK]"))
    tokenizer = Tokenizer({"tokenizer.json": broken.to_str().encode()})
    for encode in (tokenizer.encode, tokenizer.encode_ids):
        with pytest.raises(TokenizerError, match="memory: the tokenizer failed: WordLevel error: Missing"):
            encode(["b"])
