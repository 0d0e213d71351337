import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import tokenizers

from modernbert.errors import InputError, TokenizerError
from modernbert.text.chunking import pair_windows, text_windows
from modernbert.text.tokenizer import Tokenizer

WORDS = [
    ["the", "man", "worked", "in", "New York"],
    ["", "Hello", "", "World", "!", ""],
    ["don't", "...", "\u4f60\u597d", "\u00a0", "e\u0301t\u00e9"],
    [],
    ["   "],
]


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


def test_fast_ids_equal_full_ones(any_folder, hard_texts):
    tokenizer = Tokenizer.from_folder(any_folder)
    for pairs in (None, list(reversed(hard_texts))):
        for special in (True, False):
            full = tokenizer.encode(hard_texts, pairs, add_special_tokens=special)
            fast = tokenizer.encode_ids(hard_texts, pairs, add_special_tokens=special)
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
