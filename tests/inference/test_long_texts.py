"""No text is cut without a word: windows, a warning, or an error."""

import tracemalloc
import warnings

import numpy as np
import pytest
import transformers

import modernbert
from modernbert.errors import InputError, TooLongError
from modernbert.heads.embed import EmbedHeadConfig
from modernbert.inference.long_texts import pair_pieces, text_pieces
from modernbert.pretrained.sentence import TextSettings
from tests.inference.tiny import MAX_LENGTH, byte_level, word_piece, write_tiny

SHORT, LONG = "Paris is the capital", "He walked to the store and bought some bread for Anna. " * 6


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level()


def bare(tokenizer, text):
    return tokenizer.encode_ids([text], add_special_tokens=False)[0]


def test_windows_cover_a_text_and_overlap_by_a_quarter(tokenizer):
    ids = bare(tokenizer, LONG)
    pieces = text_pieces(tokenizer, [SHORT, LONG], limit=22, overflow="windows")
    (short,), counts = pieces.num_tokens
    assert short == len(bare(tokenizer, SHORT))
    assert len(counts) > 3
    assert sum(counts) - 5 * (len(counts) - 1) == len(ids)
    covered = [piece.token_ids[1:-1] for piece in pieces.sequences[1:]]
    assert all(len(piece) == 20 for piece in covered[:-1])
    assert [token for piece in [covered[0], *(piece[5:] for piece in covered[1:])] for token in piece] == ids


def test_a_prompt_stands_in_every_window(tokenizer):
    pieces = text_pieces(tokenizer, [LONG], limit=22, overflow="windows", prompt="query: ")
    head = [tokenizer.cls_id, *bare(tokenizer, "query:")]
    assert len(pieces.sequences) > 3
    for piece in pieces.sequences:
        assert piece.token_ids[: len(head)] == head
        assert len(piece.token_ids) <= 22


def test_truncate_warns_once_with_texts_and_tokens_at_the_users_line(model_of):
    model = model_of("embed")
    num_lost = 2 * (len(bare(model.tokenizer, LONG)) - MAX_LENGTH + 2)
    with pytest.warns(UserWarning, match="texts were cut") as caught:
        model.embed([LONG, SHORT, LONG], overflow="truncate")
    (warning,) = caught
    assert str(warning.message) == f"2 of 3 texts were cut to 48 tokens; {num_lost} tokens were left out"
    assert warning.filename == __file__


@pytest.mark.parametrize(
    ("head", "ask"),
    [
        ("embed", lambda model: model.embed_tokens([LONG], overflow="truncate")),
        ("embed", lambda model: model.hidden_states([LONG], overflow="truncate")),
        ("classify", lambda model: model.classify([LONG], overflow="truncate")),
        ("classify", lambda model: model.classify([(SHORT, LONG)], overflow="truncate")),
        ("rerank", lambda model: model.rerank(SHORT, [LONG], overflow="truncate")),
    ],
    ids=["embed_tokens", "hidden_states", "classify", "classify pairs", "rerank"],
)
def test_every_method_warns_of_what_it_cuts_at_the_users_line(model_of, head, ask):
    with pytest.warns(UserWarning, match="1 of 1 texts were cut to 48 tokens") as caught:
        ask(model_of(head))
    assert caught[0].filename == __file__


@pytest.mark.parametrize("method", ["hidden_states", "embed_tokens"])
def test_methods_that_give_a_result_a_token_refuse_long_texts_and_windows(model_of, method):
    ask = getattr(model_of("embed"), method)
    with pytest.raises(TooLongError, match="1 of 2 texts are longer than 48 tokens; text 1 by"):
        ask([SHORT, LONG])
    with pytest.raises(InputError, match=f"{method} gives one result a token.*use 'error' or 'truncate'"):
        ask([SHORT], overflow="windows")


def test_error_refuses_pairs_that_are_too_long(model_of):
    model = model_of("classify")
    for pair in [(SHORT, LONG), (LONG, SHORT)]:
        with pytest.raises(TooLongError, match="1 of 1 texts"):
            model.classify([pair], overflow="error")
    with pytest.raises(TooLongError):
        model_of("choice").choose(SHORT, [LONG])


def test_a_first_text_that_fills_the_model_leaves_no_windows(model_of):
    with pytest.raises(
        TooLongError, match=r"pair 1: its first text .* has \d+ tokens, .* of 48\. .*overflow='truncate'"
    ):
        model_of("classify").classify([(SHORT, SHORT), (LONG, SHORT)])
    with pytest.warns(UserWarning, match="1 of 2 texts were cut to 48 tokens"):
        model_of("classify").classify([(SHORT, SHORT), (LONG, "")], overflow="truncate")


def test_a_first_text_that_just_fits_needs_no_windows(tokenizer):
    first = "bread " * 3
    limit = len(bare(tokenizer, first)) + tokenizer.template.pair.num_specials
    for overflow in ("windows", "truncate", "error"):
        pieces = pair_pieces(tokenizer, [(first, "")], limit=limit, overflow=overflow)
        assert [piece.token_ids for piece in pieces.sequences] == tokenizer.encode_ids([first], [""])
    with pytest.raises(
        InputError, match="a limit of 3 tokens leaves no room for text beside 3 special tokens"
    ):
        pair_pieces(tokenizer, [(first, "")], limit=3, overflow="truncate")


@pytest.mark.parametrize("method", ["embed", "classify", "hidden_states"])
def test_an_unknown_overflow_names_the_known(model_of, method):
    model = model_of("classify" if method == "classify" else "embed")
    with pytest.raises(InputError, match="overflow is one of windows, truncate, error, not 'cut'"):
        getattr(model, method)([SHORT], overflow="cut")


@pytest.mark.parametrize(
    ("max_length", "message"), [(2, "leaves no room for text"), (0, "must be 1 or more")]
)
def test_an_impossible_limit_says_so(model_of, max_length, message):
    with pytest.raises(InputError, match=message):
        model_of("embed").embed([SHORT], max_length=max_length)


def test_a_limit_past_the_learned_positions_says_so(model_of):
    with pytest.raises(
        InputError, match="max_length=500 is longer than the 48 positions that this model has"
    ):
        model_of("embed", "bert").embed([SHORT], max_length=500)


def test_a_folders_limit_past_the_learned_positions_is_lowered_to_them(tmp_path):
    settings = TextSettings(max_seq_length=500)
    folder = write_tiny(tmp_path / "model", EmbedHeadConfig(), family="bert", settings=settings)
    model = modernbert.load(folder, dtype="float32")
    assert model.max_length == 48
    assert model.embed([LONG]).shape == (1, 64)


def test_every_call_tells_what_it_cut(model_of):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            model_of("embed").embed([LONG], overflow="truncate")
    assert len(caught) == 3


def test_windows_of_a_long_text_take_little_memory(tokenizer):
    text = "abcdefg hijk " * 20_000
    num_tokens = len(bare(tokenizer, text))
    tracemalloc.start()
    pieces = text_pieces(tokenizer, [text], limit=1024, overflow="windows")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pieces.sequences) > 100
    # a Python number for each id, and its place in the text's list and in a window's lists of ids and types
    assert most <= num_tokens * (32 + 8 + 1.3 * 16)


def test_an_empty_text_without_special_tokens_is_refused():
    tokenizer = byte_level(template=False)
    with pytest.raises(InputError, match="a text is empty"):
        text_pieces(tokenizer, ["a", ""], limit=8, overflow="windows")


@pytest.mark.parametrize("limit", range(5, 30))
def test_a_cut_pair_has_the_ids_of_transformers(limit):
    """Both texts longer than half, one of them, the first longer than the second, and the reverse."""
    tokenizer = word_piece()
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer._parse)
    texts = ["some bread for Anna " * 2, "Paris", "the capital of Bulgaria and of France " * 2]
    pairs = [(a, b) for a in texts for b in texts]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* texts were cut")
        found = pair_pieces(tokenizer, pairs, limit=limit, overflow="truncate").sequences
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    expected = theirs(first, second, truncation=True, max_length=limit, return_token_type_ids=True)
    assert [each.token_ids for each in found] == expected["input_ids"]
    assert [each.token_types for each in found] == expected["token_type_ids"]


def test_the_windows_of_a_text_count_by_their_tokens(model_of):
    model = model_of("embed_raw")
    ids = bare(model.tokenizer, LONG)
    pieces = text_pieces(model.tokenizer, [LONG], limit=22, overflow="windows")
    texts = [model.tokenizer.decode(piece.token_ids[1:-1]) for piece in pieces.sequences]
    assert [id for text in texts for id in bare(model.tokenizer, text)][:20] == ids[:20]
    rows = model.embed(texts)
    expected = np.average(rows, axis=0, weights=pieces.num_tokens[0])
    assert np.abs(model.embed([LONG], max_length=22)[0] - expected).max() <= 1e-5
