"""Long texts as overlapping windows of tokens.

A text is encoded once, without special tokens; its bare ids are cut into windows, and each window gets the
special tokens that the tokenizer's template puts around a text. Every token is in a window, and each window
knows where it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modernbert.errors import InputError


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens that stand together, each with its token type."""

    token_ids: tuple[int, ...] = ()
    token_types: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class SingleTemplate:
    """What goes around one text: prefix, text, suffix."""

    prefix: Segment
    text_type: int
    suffix: Segment

    @property
    def num_specials(self) -> int:
        """How many tokens the template adds to a text."""
        return len(self.prefix) + len(self.suffix)


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """What goes around two texts: prefix, first, middle, second, suffix."""

    prefix: Segment
    first_type: int
    middle: Segment
    second_type: int
    suffix: Segment

    @property
    def num_specials(self) -> int:
        """How many tokens the template adds to a pair."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


@dataclass(frozen=True, slots=True)
class Template:
    """The special tokens that a tokenizer puts around one text and around a pair."""

    single: SingleTemplate
    pair: PairTemplate


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens start..end of a text, ready for the model.

    The first is `token_ids[body_start]`, so token i of the text is `token_ids[body_start + i - start]`.
    """

    token_ids: list[int]
    token_types: list[int]
    start: int
    end: int
    body_start: int


def windows(num_tokens: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Half-open ranges of at most `size` that cover 0..num_tokens; neighbours share `overlap` tokens.

    All are full but the last, which is as short as what is left. No tokens give one empty window.

        windows(8, size=4, overlap=1)    0 1 2 3
                                               3 4 5 6
                                                     6 7
    """
    if num_tokens < 0 or size < 1 or not 0 <= overlap < size:
        raise InputError(
            f"no windows of {size} tokens that overlap by {overlap} can cover {num_tokens} tokens\n"
            "hint: a window needs room for more tokens than the overlap has"
        )
    starts = range(0, max(num_tokens - overlap, 1), size - overlap)
    return [(start, min(start + size, num_tokens)) for start in starts]


def text_windows(token_ids: Sequence[int], template: Template, max_length: int, overlap: int) -> list[Window]:
    """Cut the bare ids of a text into windows of at most `max_length` tokens, special tokens included."""
    single = template.single
    room = _room(max_length, overlap, num_specials=single.num_specials)
    return [
        _assemble(
            [single.prefix, _typed(token_ids[start:end], single.text_type), single.suffix], start, end, 1
        )
        for start, end in windows(len(token_ids), room, overlap)
    ]


def pair_windows(
    first_ids: Sequence[int], second_ids: Sequence[int], template: Template, max_length: int, overlap: int
) -> list[Window]:
    """Cut the bare ids of the second text only; each window holds the whole first one (a question) too."""
    pair = template.pair
    room = _room(max_length, overlap, num_specials=pair.num_specials, num_first=len(first_ids))
    before = [pair.prefix, _typed(first_ids, pair.first_type), pair.middle]
    return [
        _assemble([*before, _typed(second_ids[start:end], pair.second_type), pair.suffix], start, end, 3)
        for start, end in windows(len(second_ids), room, overlap)
    ]


def _room(max_length: int, overlap: int, *, num_specials: int, num_first: int = 0) -> int:
    """How many tokens of the text to cut fit into a window."""
    room = max_length - num_specials - num_first
    taken = f"{num_specials} special tokens" + (f" and {num_first} of the first text" if num_first else "")
    if room < 1:
        raise InputError(
            f"a limit of {max_length} tokens leaves no room for text: there are {taken}\n"
            f"hint: the limit must be {num_specials + num_first + overlap + 1} or more"
        )
    if not 0 <= overlap < room:
        raise InputError(
            f"an overlap of {overlap} does not fit a limit of {max_length} tokens: with {taken},\n"
            f"windows hold {room} tokens of text\n"
            f"hint: the overlap must be from 0 to {room - 1}"
        )
    return room


def _typed(token_ids: Sequence[int], token_type: int) -> Segment:
    return Segment(tuple(token_ids), (token_type,) * len(token_ids))


def _assemble(segments: list[Segment], start: int, end: int, body: int) -> Window:
    token_ids = [each for segment in segments for each in segment.token_ids]
    token_types = [each for segment in segments for each in segment.token_types]
    return Window(token_ids, token_types, start, end, sum(len(segment) for segment in segments[:body]))
