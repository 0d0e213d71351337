"""Where the words of a text are, in characters, and which token speaks for each."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

Span = tuple[int, int]

# Letters and digits together, or one other visible character alone, as tagged corpora split their words.
_WORD = re.compile(r"\w+|[^\w\s]")
# Thai to Lao, Burmese, Khmer, Japanese and Chinese are written without blanks between words.
_NO_BLANKS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def split_words(text: str, offsets: Sequence[Span]) -> list[Span]:
    """The words of a text whose tokens are at `offsets`; in scripts without blanks, a token is a word."""
    starts = {start for start, _ in offsets}
    words: list[Span] = []
    for start, end in _joined(text):
        inside = [c for c in range(start + 1, end) if c in starts and _NO_BLANKS.search(text[c - 1 : c + 1])]
        words += pairwise([start, *inside, end])
    return words


def word_spans(words: Sequence[str]) -> list[Span]:
    """Where each word stands in the words joined by one space."""
    spans: list[Span] = []
    start = 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return spans


def first_tokens(text: str, words: Sequence[Span], offsets: Sequence[Span]) -> list[int | None]:
    """The first token of each word, as in training; None for a word without a token of its own.

    A token belongs to the word that its first visible character stands in.
    """
    starts = [start for start, _ in words]
    first: dict[int, int] = {}
    for token, (start, end) in enumerate(offsets):
        visible = next((c for c in range(start, end) if not text[c].isspace()), None)
        if visible is None:
            continue
        word = bisect_right(starts, visible) - 1  # the last that starts here or before
        if word >= 0 and visible < words[word][1]:
            first.setdefault(word, token)
    return [first.get(word) for word in range(len(words))]


def _joined(text: str) -> list[Span]:
    """Words by pattern, with combining marks kept in the word they stand in: Hindi has them in every word."""
    words: list[Span] = []
    for match in _WORD.finditer(text):
        start, end = match.span()
        touches = bool(words) and words[-1][1] == start
        if touches and (_is_mark(text[start]) or (_is_mark(text[start - 1]) and text[start].isalnum())):
            words[-1] = (words[-1][0], end)
        else:
            words.append((start, end))
    return words


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
