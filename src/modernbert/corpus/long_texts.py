"""Cutting a long text where no tokenizer here joins what is cut, so that it is read piece by piece.

A tokenizer needs some hundred bytes of memory for each character at once, and one text is one thread's work.
A large file as one text would take gigabytes. Between two words that a single blank parts, the tokens of the
pieces are those of the whole: byte-level, WordPiece and blank-marking tokenizers all begin a word there.
"""

from __future__ import annotations

import re

LONGEST = 2**20
# Letters and digits on both sides: no combining mark is torn off, and no run of blanks is cut. The second is
# for text without blanks; tokenizers that mark the beginning of a text may have a token more at such a cut.
_PLACES = (re.compile(r"(?<=\w) (?=\w)"), re.compile(r"(?<=\S)\n(?=\w)"))
_NEAR = 2**14


def cut(text: str, longest: int = LONGEST) -> list[str]:
    """The pieces of a text, of at most `longest` characters, or more where there is no place to cut."""
    pieces: list[str] = []
    start = 0
    while len(text) - start > longest:
        end = _place(text, start, start + longest)
        pieces.append(text[start:end])
        start = end
    if start < len(text):
        pieces.append(text[start:])
    return pieces


def _place(text: str, start: int, aim: int) -> int:
    """The last place to cut in start..aim, else the first one behind, else the end."""
    for near in (max(start + 1, aim - _NEAR), start + 1):
        for pattern in _PLACES:
            found = [match.start() for match in pattern.finditer(text, near, aim + 1)]
            if found:
                return found[-1]
    behind = [match.start() for pattern in _PLACES if (match := pattern.search(text, aim))]
    return min(behind, default=len(text))
