import tracemalloc

import pytest

from modernbert.inference.words import first_tokens, split_words, word_spans


def test_first_tokens_take_no_memory_for_each_character():
    text = "a" * 1_000_000
    tracemalloc.start()
    assert first_tokens(text, [(0, len(text))], [(0, len(text))]) == [0]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10_000


def words_of(text, offsets=()):
    return [text[start:end] for start, end in split_words(text, offsets)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n", []),
        ("He said: 'no'.", ["He", "said", ":", "'", "no", "'", "."]),
        ("2.5 km_h", ["2", ".", "5", "km_h"]),
        ("caf\u00e9 cafe\u0301s", ["caf\u00e9", "cafe\u0301s"]),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092d\u093e\u0937\u093e",
            ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u092d\u093e\u0937\u093e"],
        ),
        (
            "\u0421\u043e\u0444\u0438\u044f\u2013\u0412\u0430\u0440\u043d\u0430",
            ["\u0421\u043e\u0444\u0438\u044f", "\u2013", "\u0412\u0430\u0440\u043d\u0430"],
        ),
        ("a\U0001f600b", ["a", "\U0001f600", "b"]),
    ],
    ids=["empty", "blank", "signs", "numbers", "accents", "Hindi", "Bulgarian", "emoji"],
)
def test_words_are_letters_and_digits_together_or_one_sign(text, words):
    assert words_of(text) == words


def test_without_blanks_a_token_is_a_word():
    """Chinese; the first two characters are one token, and the Latin word is two."""
    text = "\u5317\u4eac\u662f ParisBC"
    offsets = [(0, 2), (2, 3), (3, 6), (6, 11)]
    assert words_of(text, offsets) == ["\u5317\u4eac", "\u662f", "ParisBC"]


def test_words_that_are_given_stand_one_space_apart():
    assert word_spans(["New York", "", "is"]) == [(0, 8), (9, 9), (10, 12)]
    assert word_spans([]) == []


def test_a_word_is_spoken_for_by_its_first_token():
    text = "New York!"
    offsets = [(0, 1), (1, 3), (3, 6), (6, 8), (8, 9)]  # "N", "ew", " Yo", "rk", "!"
    assert first_tokens(text, [(0, 3), (4, 8), (8, 9)], offsets) == [0, 2, 4]


def test_a_token_belongs_to_the_word_of_its_first_visible_character():
    text = "dog. a"
    offsets = [(0, 4), (4, 5), (5, 6)]  # "dog.", " ", "a"
    assert first_tokens(text, [(0, 3), (3, 4), (5, 6)], offsets) == [0, None, 2]


def test_an_empty_word_and_a_word_without_a_token_have_none():
    assert first_tokens("a  b", [(0, 1), (2, 2), (3, 4)], [(0, 1)]) == [0, None, None]
