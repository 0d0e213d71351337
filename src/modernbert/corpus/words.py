"""Where words begin in a row of token ids, found from the form of the vocabulary's entries alone.

Three forms are known. Byte-level BPE (GPT-2, ModernBERT) writes a leading blank as U+0120, Unigram as U+2581.
There a token goes on with a word if it has none and its first character is of the kind of the last one
before: letters, digits or signs, as in the pattern by which GPT-2 splits words. WordPiece (BERT) marks what
goes on with "##".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from modernbert.errors import CorpusError

if TYPE_CHECKING:
    from jaxtyping import Bool, Int8, Int64
    from numpy import ndarray

BYTE_BLANK, UNIGRAM_BLANK, WORDPIECE_MARK = "\u0120", "\u2581", "##"
# Writing without blanks, such as Chinese, has no end of a word in this sense; nor have some lines of code.
LONGEST_WORD = 8

_BLANK, _LETTER, _DIGIT, _SIGN, _GOES_ON, _OPEN = range(6)


@final
@dataclass(frozen=True, slots=True, eq=False)
class WordBounds:
    """How each entry of a vocabulary begins and ends, by id."""

    first: Int8[ndarray, "V"]
    last: Int8[ndarray, "V"]

    @classmethod
    def of(cls, tokens: Sequence[str | None]) -> WordBounds:
        """From the entries of a vocabulary, None for what belongs to no word. CorpusError where they show no
        bounds of words.
        """
        marks = (BYTE_BLANK, UNIGRAM_BLANK, WORDPIECE_MARK)
        counts = [sum(token is not None and token.startswith(mark) for token in tokens) for mark in marks]
        mark = marks[int(np.argmax(counts))]
        if not max(counts):
            raise CorpusError(
                "whole words cannot be masked: no entry of the vocabulary begins with U+0120, U+2581 or "
                "'##', so that nothing tells where words begin\nhint: mask tokens or spans instead"
            )
        kinds = [_kinds(token, mark) for token in tokens]
        first, last = (np.array(each, dtype=np.int8) for each in zip(*kinds, strict=True))
        return cls(first, last)

    def begin(self, token_ids: Int64[ndarray, "T"], generator: np.random.Generator) -> Bool[ndarray, "T"]:
        """True where a word begins; one of more than LONGEST_WORD tokens is cut."""
        first, last_before = self.first[token_ids], self.last[np.roll(token_ids, 1)]
        is_first = (first != last_before) & (first != _GOES_ON) & (last_before != _OPEN) | (first == _BLANK)
        is_first[:1] = True
        places = np.arange(len(token_ids))
        since = places - np.maximum.accumulate(np.where(is_first, places, 0))
        return since % LONGEST_WORD == 0


def _kinds(token: str | None, mark: str) -> tuple[int, int]:
    """The kinds of a token's first and last character."""
    if not token:
        return _BLANK, _BLANK
    if mark == WORDPIECE_MARK:
        return (_GOES_ON if token.startswith(mark) and token != mark else _BLANK), _LETTER
    if token == mark:  # the blank before a word, which had no entry together with it
        return _BLANK, _OPEN
    text = _from_bytes(token) if mark == BYTE_BLANK else token.replace(UNIGRAM_BLANK, " ")
    return _kind(text[0]), _kind(text[-1])


def _kind(character: str) -> int:
    if character == "\ufffd":  # a part of a character; letters are the most common of those of several bytes
        return _LETTER
    match unicodedata.category(character)[0]:
        case "L" | "M":
            return _LETTER
        case "N":
            return _DIGIT
        case "P" | "S":
            return _SIGN
        case _:
            return _BLANK


def _from_bytes(token: str) -> str:
    """The text of an entry that has a character for each byte, U+FFFD for parts of characters."""
    whole = b"".join(_BYTE_OF[each] if each in _BYTE_OF else each.encode() for each in token)
    return whole.decode(errors="replace")


def _byte_of() -> dict[str, bytes]:
    """GPT-2's table: visible characters of Latin-1 stand for themselves, U+0100 and on for other bytes."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in visible]
    table = {chr(byte): bytes([byte]) for byte in visible}
    return table | {chr(0x100 + place): bytes([byte]) for place, byte in enumerate(others)}


_BYTE_OF = _byte_of()
