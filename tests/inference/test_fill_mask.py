"""Candidates for masks: the right words, and the text with each in place."""

import json
from collections.abc import Sequence

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from modernbert.errors import InputError, TaskError, TooLongError
from modernbert.inference.filling import read_to_fill
from modernbert.text.batch import PackedBatch
from modernbert.text.tokenizer import Tokenizer
from tests.inference.tiny import byte_level, word_piece

TEXT = "He walked to the [MASK]."


def filled(tokenizer, text, raw_tokens: Sequence[str | int]):
    """What becomes of a text for which a model proposes these vocabulary entries for every mask."""
    ids = [raw if isinstance(raw, int) else tokenizer.id_of(raw) for raw in raw_tokens]
    assert None not in ids

    def score_masks(sequences):
        num_masks = [sequence.token_ids.count(tokenizer.mask_id) for sequence in sequences]
        scores = torch.arange(len(ids), 0, -1) / 10
        return [(scores.expand(n, -1), torch.tensor(ids).expand(n, -1)) for n in num_masks]

    reading = read_to_fill([text], tokenizer=tokenizer, limit=48)
    return reading.finish(score_masks(reading.sequences))[0]


@pytest.fixture(scope="module")
def bpe():
    return byte_level()


@pytest.fixture(scope="module")
def pieces():
    return word_piece()


def test_a_word_stands_behind_one_blank_where_the_mask_took_it(bpe):
    first, second = filled(bpe, TEXT, ["\u0120the", "."])
    assert (first.token, first.raw_token, first.text) == ("the", "\u0120the", "He walked to the the.")
    assert (second.token, second.raw_token, second.text) == (".", ".", "He walked to the..")
    assert (first.score, second.score) == (pytest.approx(0.2), pytest.approx(0.1))


def test_a_mask_at_the_start_or_inside_a_word_adds_no_blank(bpe):
    assert filled(bpe, "[MASK] walked", ["\u0120the"])[0].text == "the walked"
    assert filled(bpe, "([MASK])", ["\u0120the"])[0].text == "(the)"


def test_the_blanks_before_a_mask_stay_as_they_are(bpe):
    assert filled(bpe, "to\n  [MASK].", ["\u0120the"])[0].text == "to\n  the."


def test_word_piece_joins_pieces_and_keeps_blanks_before_words(pieces):
    piece = next(raw for raw in map(pieces.token, range(pieces.vocab_size)) if raw.startswith("##"))
    word, joined = filled(pieces, TEXT, ["the", piece])
    assert (word.token, word.text) == ("the", "He walked to the the.")
    assert (joined.token, joined.raw_token) == (piece[2:], piece)
    assert joined.text == f"He walked to the{piece[2:]}."


def test_several_masks_are_filled_one_at_a_time_in_their_order(bpe):
    found = filled(bpe, "[MASK] to [MASK].", ["\u0120the", "\u0120to"])
    assert [fill.mask for fill in found] == [0, 0, 1, 1]
    assert [fill.text for fill in found] == [
        "the to [MASK].", "to to [MASK].", "[MASK] to the.", "[MASK] to to.",
    ]  # fmt: skip


def test_sentence_piece_words_stand_behind_their_blank():
    vocabulary = [("<unk>", 0.0), ("<mask>", 0.0), ("\u2581the", -1.0), ("\u2581to", -1.0), ("\u2581", -3.0)]
    raw = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    raw.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True)])
    config = json.dumps({"mask_token": "<mask>"}).encode()
    tokenizer = Tokenizer({"tokenizer.json": raw.to_str().encode(), "tokenizer_config.json": config})
    assert filled(tokenizer, "to <mask>", ["\u2581the"])[0].text == "to the"


def test_an_id_without_an_entry_is_shown_by_its_number(bpe):
    (found,) = filled(bpe, TEXT, [bpe.vocab_size])
    assert found.raw_token == f"<{bpe.vocab_size}>"


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_scores_are_the_models_probabilities(model_of, family):
    model = model_of("mlm", family)
    (encoding,) = model.tokenizer.encode([TEXT], special_tokens="parse")
    place = encoding.token_ids.index(model.tokenizer.mask_id)
    logits = model.module(PackedBatch.from_sequences([encoding.token_ids]))[place]
    expected = logits.softmax(dim=-1)[: model.tokenizer.vocab_size].topk(5)
    found = model.fill_mask(TEXT)
    assert [fill.token_id for fill in found] == expected.indices.tolist()
    assert [fill.score for fill in found] == pytest.approx(expected.values.tolist(), abs=1e-5)


def test_rows_behind_the_vocabulary_are_no_candidates(model_of):
    model = model_of("mlm")
    assert model.config.encoder.vocab_size > model.tokenizer.vocab_size
    found = model.fill_mask(TEXT, top_k=10_000)
    assert len(found) == model.tokenizer.vocab_size
    assert sum(fill.score for fill in found) < 1


def test_many_texts_at_once_are_each_as_alone(model_of):
    model = model_of("mlm")
    texts = [TEXT, "[MASK] and [MASK]", "bread [MASK]"]
    for together, text in zip(model.fill_masks(texts, top_k=3), texts, strict=True):
        alone = model.fill_mask(text, top_k=3)
        assert [(fill.token_id, fill.text) for fill in together] == [(f.token_id, f.text) for f in alone]
        assert [fill.score for fill in together] == pytest.approx([fill.score for fill in alone], abs=1e-5)


def test_special_tokens_in_the_text_count_as_such(model_of):
    model = model_of("mlm")
    assert [fill.mask for fill in model.fill_mask("a [SEP] [MASK] b", top_k=2)] == [0, 0]
    assert model.fill_mask("a [SEP] [MASK]") != model.fill_mask("a [ SEP ] [MASK]")


def test_a_text_without_a_mask_says_so(model_of):
    with pytest.raises(InputError, match=r"the text has no \[MASK\]; put one.*'He walked'"):
        model_of("mlm").fill_mask("He walked")


def test_a_tokenizer_without_a_mask_token_says_so():
    raw = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(TaskError, match="no mask token"):
        read_to_fill(["a"], tokenizer=Tokenizer({"tokenizer.json": raw.to_str().encode()}), limit=8)


def test_a_text_that_does_not_fit_is_refused(model_of):
    with pytest.raises(TooLongError, match="longer than the model's 48"):
        model_of("mlm").fill_mask("bread " * 100 + "[MASK]")


def test_wrong_arguments_say_so(model_of):
    with pytest.raises(InputError, match="top_k must be 1 or more"):
        model_of("mlm").fill_mask(TEXT, top_k=0)
    with pytest.raises(InputError, match="the text is one string, not of type list"):
        model_of("mlm").fill_mask([TEXT])
