"""A trained tokenizer has the form that was asked for, reads every text, and is the same for transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from modernbert.errors import TokenizerError
from modernbert.text.tokenizer import Tokenizer
from modernbert.text.tokenizer_training import train_tokenizer

ENGLISH = [
    "The man worked as a lawyer in New York, and the woman as a mechanic.",
    "Hello World! It's a quick brown fox; isn't it? We're here, they'll come.",
    "def encode(text):\n    for token in text:\n        yield token\n",
]
BULGARIAN = [
    "София е столицата на България и най-големият град в нея.",  # noqa: RUF001
    "Българският език е славянски език.",  # noqa: RUF001
]
TEXTS = (ENGLISH + BULGARIAN) * 6
SPECIALS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_tokenizer(TEXTS, vocab_size=448)


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.token(each) for each in tokenizer.encode_ids([text], add_special_tokens=False)[0]]


def test_the_form_is_that_of_modernbert(trained, data_root, tmp_path):
    trained.save(tmp_path)
    ours = json.loads((tmp_path / "tokenizer.json").read_bytes())
    theirs = json.loads((data_root / "tokenizer" / "modernbert" / "tokenizer.json").read_bytes())
    for part in ("version", "normalizer", "pre_tokenizer", "decoder", "padding", "truncation"):
        assert ours[part] == theirs[part], part
    for part in ("single", "pair"):
        assert ours["post_processor"][part] == theirs["post_processor"][part]
    different = {name for name in theirs["model"] if ours["model"][name] != theirs["model"][name]}
    assert different == {"vocab", "merges"}
    flags = {
        token["content"]: {k: v for k, v in token.items() if k != "id"} for token in theirs["added_tokens"]
    }
    for token in ours["added_tokens"]:
        assert {k: v for k, v in token.items() if k != "id"} == flags[token["content"]]
    named = [
        json.loads((folder / "special_tokens_map.json").read_bytes())
        for folder in (tmp_path, data_root / "tokenizer" / "modernbert")
    ]
    assert named[0] == named[1]
    config = json.loads((tmp_path / "tokenizer_config.json").read_bytes())
    assert config["model_max_length"] == 8192


def test_special_tokens_come_first_and_frame_a_text(trained):
    assert [trained.token(each) for each in range(5)] == SPECIALS
    assert trained.special_ids == frozenset(range(5))
    assert (trained.unk_id, trained.cls_id, trained.sep_id, trained.pad_id, trained.mask_id) == (
        0,
        1,
        2,
        3,
        4,
    )
    (single,) = trained.encode_ids(["a"])
    (pair,) = trained.encode_ids(["a"], ["b"])
    assert (single[0], single[-1]) == (1, 2)
    assert [each for each in pair if each < 5] == [1, 2, 2]
    parsed = trained.encode(["of [MASK]."], special_tokens="parse")[0].token_ids
    assert trained.mask_id in parsed
    assert trained.id_of("\u0120") not in parsed, "the mask takes the blank before it"
    assert trained.mask_id not in trained.encode_ids(["of [MASK]."])[0]


@pytest.mark.parametrize(
    "text",
    [
        *TEXTS[:5],
        "\u4f60\u597d \U0001f600\U0001f468\u200d\U0001f469 \u0130stanbul \ufdfa",
        "a\0b \ufeff\u2028 \t\n\n  x",
        "[CLS] is text here, and [unused3] too",
        " " * 30,
    ],
)
def test_any_text_comes_back(trained, text):
    (ids,) = trained.encode_ids([text], add_special_tokens=False)
    assert trained.decode(ids) == text


def test_text_is_composed_first(trained):
    assert trained.encode_ids(["cafe\u0301"]) == trained.encode_ids(["caf\u00e9"])


def test_the_text_is_what_is_learned():
    english, bulgarian = (train_tokenizer(each * 6, vocab_size=384) for each in (ENGLISH, BULGARIAN))
    for text, near, far in ((ENGLISH[0], english, bulgarian), (BULGARIAN[0], bulgarian, english)):
        assert len(tokens(near, text)) * 2 < len(tokens(far, text))


@pytest.mark.parametrize(("asked", "given"), [(384, 384), (385, 448), (400, 448), (100_000, None)])
def test_the_number_of_ids_is_a_multiple_of_64(asked, given):
    tokenizer = train_tokenizer(TEXTS, vocab_size=asked)
    assert tokenizer.vocab_size % 64 == 0
    assert given in (None, tokenizer.vocab_size)
    assert tokenizer.vocab_size < 2000
    names = [tokenizer.token(each) for each in range(tokenizer.vocab_size)]
    assert len(set(names)) == len(names)
    unused = [name for name in names if name.startswith("[unused")]
    assert names[len(names) - len(unused) :] == [f"[unused{each}]" for each in range(len(unused))]
    assert len(unused) < 64
    assert given is None or len(unused) == given - asked


def test_the_same_texts_give_the_same_bytes(tmp_path):
    for name, texts in (("one", TEXTS), ("two", TEXTS), ("reversed", TEXTS[::-1])):
        train_tokenizer(iter(texts), vocab_size=448).save(tmp_path / name)
    files = [
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in sorted(tmp_path.iterdir())
    ]
    assert files[0] == files[1] == files[2]


def test_transformers_reads_the_same_ids(trained, tmp_path, hard_texts):
    transformers = pytest.importorskip("transformers")
    trained.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == trained.vocab_size
    texts = [*hard_texts, *TEXTS[:5], "of [MASK] and [SEP]"]
    ours = trained.encode(texts, special_tokens="parse")
    assert [each.token_ids for each in ours] == theirs(texts)["input_ids"]
    pairs = trained.encode(texts, texts[::-1], special_tokens="parse")
    assert [each.token_ids for each in pairs] == theirs(texts, texts[::-1])["input_ids"]
    assert theirs.model_max_length == 8192
    assert theirs.mask_token_id == trained.mask_id
    assert set(theirs(["a"])) == {"input_ids", "attention_mask"}


def test_runs_of_blanks_can_be_tokens():
    tokenizer = train_tokenizer(TEXTS, vocab_size=448, space_runs=24)
    assert tokens(tokenizer, " " * 24) == [" " * 24]
    assert tokens(tokenizer, "a" + " " * 3 + "b")[1] == " " * 3
    assert tokenizer.decode(tokenizer.encode_ids(["a   b"], add_special_tokens=False)[0]) == "a   b"
    assert tokenizer.special_ids == frozenset(range(5))


@pytest.mark.parametrize(
    "name", ["small_folder", "roberta_folder", "xlmr_folder", "bert_folder", "minilm_folder"]
)
def test_the_form_of_any_tokenizer_takes_a_new_vocabulary(request, name, tmp_path):
    folder = request.getfixturevalue(name)
    old, new = Tokenizer.from_folder(folder), train_tokenizer(TEXTS, vocab_size=700, like=folder)
    for role in ("cls_id", "sep_id", "pad_id", "mask_id", "unk_id"):
        ids = [getattr(each, role) for each in (old, new)]
        assert (ids[0] is None) == (ids[1] is None), role
        if ids[0] is not None:
            assert old.token(ids[0]) == new.token(ids[1]), role
    assert {old.token(each) for each in old.special_ids} == {new.token(each) for each in new.special_ids}
    assert sorted(new.special_ids) == list(range(len(new.special_ids)))
    assert new.model_max_length == old.model_max_length

    def named(tokenizer: Tokenizer) -> list[list[str]]:
        template = tokenizer.template
        around = (template.single.prefix, template.single.suffix, template.pair.middle, template.pair.suffix)
        return [[tokenizer.token(each) for each in segment.token_ids] for segment in around]

    assert named(new) == named(old)
    assert new.vocab_size % 64 == 0
    text = BULGARIAN[0]
    assert new.token(new.unk_id or 0) not in tokens(new, text)
    assert len(tokens(new, text)) < len(text)
    new.save(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    assert again.encode_ids([text], [text]) == new.encode_ids([text], [text])


@pytest.mark.parametrize("name", ["small_folder", "roberta_folder", "minilm_folder"])
def test_transformers_reads_such_a_tokenizer_too(request, name, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = request.getfixturevalue(name)
    new = train_tokenizer(TEXTS, vocab_size=700, like=folder)
    new.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert [each.token_ids for each in new.encode(TEXTS[:5], special_tokens="parse")] == theirs(TEXTS[:5])[
        "input_ids"
    ]


def test_a_new_vocabulary_for_the_form_of_modernbert(data_root):
    folder = data_root / "tokenizer" / "modernbert"
    new = train_tokenizer(TEXTS, vocab_size=448, like=folder)
    assert {new.token(each) for each in new.special_ids} >= set(SPECIALS)
    assert tokens(new, "|||IP_ADDRESS|||" + " " * 24) == ["|||IP_ADDRESS|||", " " * 24]
    assert new.id_of("[unused82]") is None


def test_real_bulgarian_text_teaches_its_words(data_root):
    bg = data_root.parent / "corpus" / "bg" / "valid.jsonl.zst"
    if not bg.exists():
        pytest.skip("needs the Bulgarian corpus")
    zstandard = pytest.importorskip("zstandard")
    with zstandard.open(bg, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    tokenizer = train_tokenizer(texts, vocab_size=4096)
    published = Tokenizer.from_folder(data_root / "tokenizer" / "modernbert")
    text = texts[0]
    (ours,), (theirs,) = (each.encode_ids([text]) for each in (tokenizer, published))
    assert tokenizer.decode(ours, skip_special_tokens=True) == text
    assert len(ours) * 1.5 < len(theirs), "4,096 entries of Bulgarian say more than 50,280 of English"


def test_what_cannot_be_trained_is_told(tmp_path):
    with pytest.raises(TokenizerError, match=r"a vocabulary of 261 leaves nothing to learn: .* take 261"):
        train_tokenizer(TEXTS, vocab_size=261)
    with pytest.raises(TokenizerError, match="the texts taught nothing"):
        train_tokenizer([], vocab_size=400)
    with pytest.raises(TokenizerError, match="has no tokenizer"):
        train_tokenizer(TEXTS, vocab_size=400, like=tmp_path)


def test_a_form_that_does_not_cut_words_is_refused(tmp_path):
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Replace("\u2581", " ")
    trainer = trainers.BpeTrainer(
        vocab_size=100, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(ENGLISH, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="does not cut texts into words"):
        train_tokenizer(TEXTS, vocab_size=700, like=tmp_path)


def test_bytes_that_stand_in_for_unknown_characters_stay(tmp_path):
    names = ["<unk>", "<s>", "</s>", *(f"<0x{each:02X}>" for each in range(256))]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.add_special_tokens(names[:3])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    new = train_tokenizer(TEXTS, vocab_size=700, like=tmp_path)
    assert tokens(new, "\u4f60")[-3:] == ["<0xE4>", "<0xBD>", "<0xA0>"]
    assert new.special_ids == frozenset(range(3))


def test_an_error_of_the_texts_is_their_own():
    def broken():
        yield TEXTS[0]
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        train_tokenizer(broken(), vocab_size=400)


def test_a_folder_like_is_not_changed(small_folder: Path):
    before = {path.name: path.read_bytes() for path in small_folder.iterdir()}
    train_tokenizer(TEXTS, vocab_size=448, like=small_folder)
    assert {path.name: path.read_bytes() for path in small_folder.iterdir()} == before
