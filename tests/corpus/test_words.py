import numpy as np
import pytest

from modernbert.corpus.words import LONGEST_WORD, WordBounds

BYTE_LEVEL = [
    "\u0120the",
    "\u0120un",
    "\u0120",
    "do",
    "ing",
    ".",
    "\u0120(",
    "self",
    "_",
    "x",
    "12",
    "3",
    "\u010a",
    "\u00d0",
    "\u00b0",
    "\u00e2\u0122\u013e",
    None,
]
UNIGRAM = ["\u2581the", "\u2581un", "do", "ing", ".", "\u2581"]
WORDPIECE = ["the", "un", "##do", "##ing", ".", "(", "##", "##."]


def split(tokens: list[str | None], text: list[str | None]) -> list[int]:
    """Tokens in each word."""
    token_ids = np.array([tokens.index(each) for each in text])
    begins = np.flatnonzero(WordBounds.of(tokens).begin(token_ids, np.random.default_rng(0)))
    return np.diff(begins, append=len(text)).tolist()


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        (["\u0120the", "\u0120un", "do", "ing", "."], [1, 3, 1]),
        (["do", "ing", "\u0120the"], [2, 1]),
        (["\u0120(", "self", ".", "x", "_", "x"], [1, 1, 1, 1, 1, 1]),
        (["x", "12", "3", "x"], [1, 2, 1]),
        ([".", ".", ".", "do"], [3, 1]),
        (["do", "\u010a", "do", "\u010a", "\u010a"], [1, 1, 1, 1, 1]),
        (["\u0120the", "\u00d0", "\u00b0", "do"], [4]),  # the two halves of a Cyrillic letter
        (["do", "\u00e2\u0122\u013e", "do"], [1, 1, 1]),  # a quotation mark of three bytes
        (["do", None, "do"], [1, 1, 1]),
        (["do", "\u0120", "do", "\u0120", "\u0120", "."], [1, 2, 1, 2]),
    ],
)
def test_words_of_byte_level_entries(text, sizes):
    assert split(BYTE_LEVEL, text) == sizes


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        (["\u2581the", "\u2581un", "do", "ing", "."], [1, 3, 1]),
        (["\u2581", "do", "ing", "\u2581un"], [3, 1]),
    ],
)
def test_words_of_unigram_entries(text, sizes):
    assert split(UNIGRAM, text) == sizes


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        (["the", "un", "##do", "##ing", "."], [1, 3, 1]),
        (["##do", "##ing", "the", "the"], [2, 1, 1]),
        (["(", "##.", "##", "."], [2, 1, 1]),
    ],
)
def test_words_of_wordpiece_entries(text, sizes):
    assert split(WORDPIECE, text) == sizes


def test_what_has_no_end_is_cut():
    assert split(BYTE_LEVEL, ["do"] * (2 * LONGEST_WORD + 3)) == [LONGEST_WORD, LONGEST_WORD, 3]
