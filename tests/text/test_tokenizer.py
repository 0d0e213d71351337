import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tokenizers

from modernbert.errors import InputError, TokenizerError
from modernbert.text.chunking import pair_windows, text_windows
from modernbert.text.tokenizer import Tokenizer

TEXTS = [
    "",
    " ",
    "Hello World!",
    "  the man  worked\tas a\n\nlawyer   in New York ",
    "caf\u00e9 cafe\u0301 \U0001f600\U0001f468\u200d\U0001f469 \u4f60\u597d \u0421\u043e\u0444\u0438\u044f",
    "a\u0000b \ufeff \u2028 \u0130stanbul \ufdfa",
    "|||IP_ADDRESS||| 127.0.0.1",
]
WORDS = [
    ["the", "man", "worked", "in", "New York"],
    ["", "Hello", "", "World", "!", ""],
    ["don't", "...", "\u4f60\u597d", "\u00a0", "e\u0301t\u00e9"],
    [],
    ["   "],
]


@pytest.fixture(scope="module")
def small(small_folder):
    return Tokenizer.from_folder(small_folder)


# What comes out


def test_encoding_lists_are_equally_long_and_offsets_name_the_text(small):
    text = "the man worked, caf\u00e9"
    (encoding,) = small.encode([text])
    assert encoding.token_ids[0] == small.cls_id
    assert encoding.token_ids[-1] == small.sep_id
    assert encoding.offsets[0] == encoding.offsets[-1] == (0, 0)
    assert encoding.sequence_ids == [None, *[0] * (len(encoding.token_ids) - 2), None]
    assert {len(each) for each in (encoding.token_types, encoding.offsets, encoding.word_ids)} == {
        len(encoding.token_ids)
    }
    covered = {i for start, end in encoding.offsets for i in range(start, end)}
    assert covered == set(range(len(text)))


def test_fast_ids_equal_full_ones(any_folder):
    tokenizer = Tokenizer.from_folder(any_folder)
    for pairs in (None, list(reversed(TEXTS))):
        for special in (True, False):
            full = tokenizer.encode(TEXTS, pairs, add_special_tokens=special)
            fast = tokenizer.encode_ids(TEXTS, pairs, add_special_tokens=special)
            assert fast == [encoding.token_ids for encoding in full]


def test_an_empty_text_gives_only_special_tokens(small):
    assert small.encode_ids([""]) == [[small.cls_id, small.sep_id]]
    assert small.encode_ids([""], add_special_tokens=False) == [[]]


def test_no_text_gives_no_encoding(small):
    assert small.encode([]) == small.encode_ids([]) == small.encode_words([]) == []
    assert small.encode([], []) == []


def test_the_second_text_of_a_pair_has_its_own_offsets(bert_folder):
    (encoding,) = Tokenizer.from_folder(bert_folder).encode(["hello"], ["the world"])
    assert encoding.sequence_ids == [None, 0, None, 1, 1, 1, None]
    assert encoding.offsets == [(0, 0), (0, 5), (0, 0), (0, 3), (4, 7), (7, 9), (0, 0)]
    assert encoding.token_types == [0, 0, 0, 1, 1, 1, 1]


def test_decode_gives_the_text_back(small):
    ids = small.encode_ids(["Hello World! caf\u00e9"])[0]
    assert small.decode(ids, skip_special_tokens=True) == "Hello World! caf\u00e9"
    assert small.decode(ids) == "[CLS]Hello World! caf\u00e9[SEP]"


def test_tokens_and_ids_are_each_others_inverse(any_folder):
    tokenizer = Tokenizer.from_folder(any_folder)
    for token_id in (0, 3, tokenizer.vocab_size - 1):
        assert tokenizer.id_of(tokenizer.token(token_id)) == token_id
    assert tokenizer.id_of("no such token") is None


@pytest.mark.parametrize("token_id", [-1, 10**6, 2**40])
def test_an_unknown_id_is_named(small, token_id):
    with pytest.raises(
        InputError, match=f"no token has id {token_id}; ids go from 0 to {small.vocab_size - 1}"
    ):
        small.token(token_id)
    with pytest.raises(InputError, match=f"no token has id {token_id}"):
        small.decode([5, token_id])


# Special tokens


def test_special_tokens_are_found_by_their_names(small, bert_folder, roberta_folder, xlmr_folder):
    assert [small.token(each) for each in (small.cls_id, small.sep_id, small.pad_id)] == [
        "[CLS]",
        "[SEP]",
        "[PAD]",
    ]
    assert small.mask_token == "[MASK]"
    assert small.special_ids == {small.id_of(f"[{name}]") for name in ("UNK", "CLS", "SEP", "PAD", "MASK")}
    for folder in (roberta_folder, xlmr_folder):
        other = Tokenizer.from_folder(folder)
        assert [other.token(each) for each in (other.cls_id, other.sep_id, other.mask_id)] == [
            "<s>",
            "</s>",
            "<mask>",
        ]
        assert other.special_ids == {0, 1, 2, 3, other.mask_id}
    assert Tokenizer.from_folder(bert_folder).special_ids == {0, 1, 2, 3, 4}


def test_special_names_may_be_strings_or_dicts_in_either_file(small_folder):
    files = {"tokenizer.json": (small_folder / "tokenizer.json").read_bytes()}
    config = json.dumps({"cls_token": "[PAD]", "sep_token": {"content": "[UNK]"}}).encode()
    names = json.dumps({"pad_token": {"content": "[SEP]"}, "cls_token": "[SEP]"}).encode()
    tokenizer = Tokenizer({**files, "tokenizer_config.json": config, "special_tokens_map.json": names})
    found = [tokenizer.token(each) for each in (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id)]
    assert found == ["[PAD]", "[UNK]", "[SEP]"]


def test_a_tokenizer_without_special_tokens_has_none():
    bare = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer = Tokenizer({"tokenizer.json": bare.to_str().encode()})
    assert (tokenizer.cls_id, tokenizer.mask_id, tokenizer.mask_token) == (None, None, None)
    assert tokenizer.template.pair.num_specials == tokenizer.template.single.num_specials == 0


def test_special_names_in_a_text_are_plain_text_unless_parsed(any_folder):
    tokenizer = Tokenizer.from_folder(any_folder)
    names = [tokenizer.token(each) for each in (tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)]
    for text in (*names, f"the{names[1]}man", f"the {names[1]} man", "".join(names)):
        (plain,) = tokenizer.encode_ids([text], add_special_tokens=False)
        (parsed,) = tokenizer.encode_ids([text], add_special_tokens=False, special_tokens="parse")
        assert not {*plain} & (tokenizer.special_ids - {tokenizer.unk_id}), text
        assert {*parsed} & tokenizer.special_ids, text


def test_added_tokens_that_are_not_special_match_in_plain_text_too(small):
    for mode in ("plain", "parse"):
        (ids,) = small.encode_ids(["a   b |||IP_ADDRESS|||"], special_tokens=mode)
        assert {small.id_of("   "), small.id_of("|||IP_ADDRESS|||")} <= {*ids}


def test_the_mask_takes_the_blank_before_it(small):
    (encoding,) = small.encode(["as a [MASK]."], special_tokens="parse")
    tokens = [small.token(each) for each in encoding.token_ids]
    place = encoding.token_ids.index(small.mask_id)
    assert encoding.offsets[place] == (4, 11)
    assert tokens[place - 1].endswith("a")


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


def test_a_special_token_that_tokenizer_json_does_not_mark_is_marked(small_folder):
    definition = json.loads((small_folder / "tokenizer.json").read_text())
    definition["added_tokens"] = [t for t in definition["added_tokens"] if t["content"] != "[SEP]"]
    tokenizer = Tokenizer({"tokenizer.json": json.dumps(definition).encode()})
    assert tokenizer.sep_id in tokenizer.special_ids
    assert tokenizer.encode_ids(["[SEP]"], add_special_tokens=False, special_tokens="parse") == [
        [tokenizer.sep_id]
    ]


def test_threads_can_mix_both_readings(small):
    texts = ["a [SEP] b [MASK] c", "plain words", "[CLS]"] * 20
    expected = {mode: small.encode_ids(texts, special_tokens=mode) for mode in ("plain", "parse")}
    assert expected["plain"] != expected["parse"]
    modes = ["plain", "parse"] * 100
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda mode: small.encode_ids(texts, special_tokens=mode), modes))
    assert found == [expected[mode] for mode in modes]


def test_an_unknown_reading_is_an_error(small):
    with pytest.raises(InputError, match="special_tokens is 'plain' or 'parse', not 'all'"):
        small.encode(["a"], special_tokens="all")


# Words


def test_words_have_the_ids_of_the_joined_text_and_belong_to_their_words(any_folder):
    tokenizer = Tokenizer.from_folder(any_folder)
    found = tokenizer.encode_words(WORDS)
    assert [encoding.token_ids for encoding in found] == tokenizer.encode_ids(
        [" ".join(words) for words in WORDS]
    )
    for words, encoding in zip(WORDS, found, strict=True):
        starts = [len(" ".join([*words[:i], ""])) for i in range(len(words))]
        for word, (start, end), sequence in zip(
            encoding.word_ids, encoding.offsets, encoding.sequence_ids, strict=True
        ):
            if word is None:
                assert sequence is None or not " ".join(words)[start:end].strip()
            else:
                assert start < starts[word] + len(words[word])
                assert end > starts[word]


def test_words_keep_the_space_that_byte_level_tokenizers_need(small):
    (encoding,) = small.encode_words([["the", "man", "worked"]], add_special_tokens=False)
    assert encoding.token_ids == small.encode_ids(["the man worked"], add_special_tokens=False)[0]
    assert sorted(set(encoding.word_ids)) == [0, 1, 2]


def test_empty_words_have_no_token_and_words_with_spaces_keep_theirs(bert_folder):
    words = ["hello", "", "the world", "!"]
    (encoding,) = Tokenizer.from_folder(bert_folder).encode_words([words])
    assert encoding.word_ids == [None, 0, 2, 2, 2, 3, None]
    assert [" ".join(words)[start:end] for start, end in encoding.offsets[1:-1]] == [
        "hello",
        "the",
        "wor",
        "ld",
        "!",
    ]


def test_a_mask_among_words_belongs_to_its_word(small):
    (encoding,) = small.encode_words([["as", "a", "[MASK]", "."]], special_tokens="parse")
    assert encoding.word_ids[encoding.token_ids.index(small.mask_id)] == 2


# Templates


def test_windows_from_the_template_equal_whole_encodings(any_folder):
    tokenizer = Tokenizer.from_folder(any_folder)
    first, second = "the man", "worked in New York"
    bare_first, bare_second = tokenizer.encode_ids([first, second], add_special_tokens=False)
    (single,) = tokenizer.encode([second])
    (pair,) = tokenizer.encode([first], [second])
    for whole, cut in (
        (single, text_windows(bare_second, tokenizer.template, max_length=99, overlap=0)),
        (pair, pair_windows(bare_first, bare_second, tokenizer.template, max_length=99, overlap=0)),
    ):
        (window,) = cut
        assert window.token_ids == whole.token_ids
        assert window.token_types == whole.token_types
        assert window.body_start == whole.sequence_ids.index(1 if whole is pair else 0)


def test_a_template_that_turns_texts_around_is_refused(small_folder):
    definition = json.loads((small_folder / "tokenizer.json").read_text())
    definition["post_processor"]["pair"].reverse()
    with pytest.raises(
        TokenizerError, match=r"memory/tokenizer.json: the template repeats, drops or reorders"
    ):
        Tokenizer({"tokenizer.json": json.dumps(definition).encode()})


# Files


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


def test_a_saved_folder_reads_the_same(any_folder, tmp_path):
    tokenizer = Tokenizer.from_folder(any_folder)
    tokenizer.save(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    assert again.encode(TEXTS, TEXTS) == tokenizer.encode(TEXTS, TEXTS)
    assert again.template == tokenizer.template


def test_a_pickled_tokenizer_still_reads_plain_text(small):
    again = pickle.loads(pickle.dumps(small))
    assert again.encode(["a [SEP] b"]) == small.encode(["a [SEP] b"])
    assert again.encode_ids(["[SEP]"], special_tokens="parse") == small.encode_ids(
        ["[SEP]"], special_tokens="parse"
    )


def test_wordpiece_from_vocab_txt_equals_the_published_tokenizer_json(minilm_folder):
    published = Tokenizer.from_folder(minilm_folder)
    names = ("vocab.txt", "tokenizer_config.json")
    built = Tokenizer({name: (minilm_folder / name).read_bytes() for name in names})
    assert built.encode(TEXTS, TEXTS) == published.encode(TEXTS, TEXTS)
    assert built.encode(TEXTS, special_tokens="parse") == published.encode(TEXTS, special_tokens="parse")
    assert built.decode(range(1000, 1100)) == published.decode(range(1000, 1100))


def test_letter_case_follows_the_config(bert_folder):
    vocabulary = {"vocab.txt": (bert_folder / "vocab.txt").read_bytes()}
    lower = Tokenizer(vocabulary)
    cased = Tokenizer({**vocabulary, "tokenizer_config.json": b'{"do_lower_case": false}'})
    assert lower.encode_ids(["HELLO"]) == cased.encode_ids(["hello"])
    assert cased.encode_ids(["HELLO"]) == [[cased.cls_id, cased.unk_id, cased.sep_id]]


def test_byte_level_from_vocab_and_merges_equals_tokenizer_json(roberta_folder):
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
    assert built.encode(TEXTS, TEXTS) == original.encode(TEXTS, TEXTS)
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


def test_a_failure_while_encoding_names_the_tokenizer():
    broken = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="[UNK]"))
    tokenizer = Tokenizer({"tokenizer.json": broken.to_str().encode()})
    for encode in (tokenizer.encode, tokenizer.encode_ids):
        with pytest.raises(TokenizerError, match="memory: the tokenizer failed: WordLevel error: Missing"):
            encode(["b"])


# Bad texts


@pytest.mark.parametrize(
    ("bad", "kind"), [(3, "int"), (None, "NoneType"), (b"x", "bytes"), (("a", "b"), "tuple")]
)
def test_what_is_no_string_is_named_by_place_and_type(small, bad, kind):
    for encode in (small.encode, small.encode_ids):
        with pytest.raises(InputError, match=f"^text 1 is of type {kind}, not str"):
            encode(["fine", bad])
        with pytest.raises(InputError, match=f"second text 0 is of type {kind}, not str"):
            encode(["fine"], [bad])
    with pytest.raises(InputError, match=f"sentence 1: word 0 is of type {kind}, not str"):
        small.encode_words([["fine"], [bad, "fine"]])


def test_a_lone_surrogate_is_named_by_text_and_position(small):
    message = r"text 1 has '\\ud800' at 4: a lone surrogate, half a character\nhint: .* mends a text"
    with pytest.raises(InputError, match=message):
        small.encode_ids(["\u00e9", "caf\u00e9\ud800"])
    with pytest.raises(InputError, match=r"sentence 0: word 1 has '\\udc00' at 0"):
        small.encode_words([["a", "\udc00"]])
    mended = "caf\u00e9\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert small.encode_ids([mended])


@pytest.mark.parametrize("bad", ["one text", b"bytes", 3, None])
def test_what_is_no_list_of_texts_is_an_error(small, bad):
    with pytest.raises(InputError, match=f"texts come as a list of strings, not as one {type(bad).__name__}"):
        small.encode(bad)
    with pytest.raises(InputError, match="sentence 0: words come as a list of strings"):
        small.encode_words([bad])


def test_each_text_needs_its_second_text(small):
    with pytest.raises(InputError, match="2 texts but 1 second texts: each needs one"):
        small.encode(["a", "b"], ["c"])


@pytest.mark.parametrize("folder", ["small_folder", "bert_folder"])
def test_a_word_of_a_megabyte_is_encoded_whole(folder, request):
    tokenizer = Tokenizer.from_folder(request.getfixturevalue(folder))
    (encoding,) = tokenizer.encode(["ab" * 500_000])
    assert encoding.offsets[1][0] == 0
    assert encoding.offsets[-2][1] == 1_000_000


# The same as transformers, on every text of real data sets

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
def test_hard_texts_equal_transformers(both):
    ours, theirs = both
    texts = [*TEXTS, "as a [MASK] [SEP]"]
    expected = theirs(texts, return_offsets_mapping=True)
    found = ours.encode(texts, special_tokens="parse")
    assert [each.token_ids for each in found] == expected["input_ids"]
    assert [each.offsets for each in found] == expected["offset_mapping"]
    assert ours.encode_ids(texts) == theirs(texts, split_special_tokens=True)["input_ids"]


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
