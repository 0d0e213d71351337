"""From texts to sequences that fit the model, and what happens to the texts that do not.

windows    a long text becomes several overlapping sequences, whose results are put together again
truncate   its end is left out, and what was cut is counted, for one warning a call
error      TooLongError
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from modernbert.errors import InputError, TooLongError
from modernbert.inference.cuts import CutWarning
from modernbert.inference.engine import SequenceIds
from modernbert.text.chunking import PairTemplate, SingleTemplate, windows
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float

Overflow = Literal["windows", "truncate", "error"]
MOST_OVERLAP = 64
# From the rows [n, C] of a text's windows and the tokens that each holds, one row [C].
Join = Callable[[np.ndarray, Sequence[int]], np.ndarray]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """The sequences that the texts became, in the order of the texts.

    `num_tokens[i]` are the tokens of its text that each sequence of text i holds, one number a sequence.
    `num_prompt_tokens` of every sequence come from the prompt and before it. `cut` counts what was left out.
    """

    sequences: list[SequenceIds]
    num_tokens: list[list[int]]
    num_prompt_tokens: int = 0
    cut: CutWarning | None = None

    def join(self, rows: Sequence[Float[np.ndarray, "C"]], by: Join) -> list[Float[np.ndarray, "C"]]:
        """One row for each text from the rows of its sequences; the row itself where a text fitted."""
        bounds = [0, *accumulate(len(counts) for counts in self.num_tokens)]
        return [
            rows[start] if end == start + 1 else by(np.stack(rows[start:end]), counts)
            for (start, end), counts in zip(pairwise(bounds), self.num_tokens, strict=True)
        ]


def text_pieces(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    limit: int,
    overflow: Overflow,
    prompt: str = "",
    first: int = 0,
) -> Pieces:
    """One text each; `prompt` stands before every one of them, in every window.

    An error names a text by its place; `first` texts came before these.
    """
    single = tokenizer.template.single
    num_prompt = require_room(tokenizer, limit=limit, overflow=overflow, prompt=prompt)
    room = limit - single.num_specials - num_prompt
    sequences: list[SequenceIds] = []
    num_tokens: list[list[int]] = []
    lost: list[int] = []
    for ids in tokenizer.encode_ids([prompt + text for text in texts], add_special_tokens=False):
        bodies, num_lost = _cut(max(0, len(ids) - num_prompt), room, overflow)
        sequences += [
            _sequence(single, [*ids[:num_prompt], *ids[num_prompt + start : num_prompt + end]])
            for start, end in bodies
        ]
        num_tokens.append([end - start for start, end in bodies])
        lost.append(num_lost)
    cut = _count(lost, limit, overflow, first)
    _refuse_empty(sequences)
    # Sentence Transformers counts the prompt's last blank too, so that is what published models leave out.
    num_skipped = len(single.prefix) + len(_bare_ids(tokenizer, prompt)) if prompt else 0
    return Pieces(sequences=sequences, num_tokens=num_tokens, num_prompt_tokens=num_skipped, cut=cut)


def require_room(tokenizer: Tokenizer, *, limit: int, overflow: Overflow, prompt: str = "") -> int:
    """Tokens of the prompt; InputError where they leave no room for a text, or there is no such overflow."""
    _check(overflow)
    num_specials = tokenizer.template.single.num_specials
    # The blank that ends a prompt becomes a part of the text's first token, or a token that it lacks alone.
    num_prompt = len(_bare_ids(tokenizer, prompt.rstrip()))
    if limit - num_specials - num_prompt < 1:
        raise InputError(
            f"a limit of {limit} tokens leaves no room for text beside {num_specials} special tokens"
            f" and {num_prompt} of the prompt; raise that limit"
        )
    return num_prompt


def pair_pieces(
    tokenizer: Tokenizer,
    pairs: Sequence[tuple[str, str]],
    *,
    limit: int,
    overflow: Overflow,
    first: int = 0,
) -> Pieces:
    """Two texts each; windows go over the second, and the first (a query, a premise) is whole in each.

    An error names a pair by its place; `first` pairs came before these.
    """
    _check(overflow)
    firsts = tokenizer.encode_ids([first for first, _ in pairs], add_special_tokens=False)
    seconds = tokenizer.encode_ids([second for _, second in pairs], add_special_tokens=False)
    room = limit - tokenizer.template.pair.num_specials
    if room < 1:
        raise InputError(
            f"a limit of {limit} tokens leaves no room for text beside {limit - room} special tokens"
        )
    lost = [max(0, len(a) + len(b) - room) for a, b in zip(firsts, seconds, strict=True)]
    cut = _count(lost, limit, overflow, first)
    sequences: list[SequenceIds] = []
    num_tokens: list[list[int]] = []
    for index, (one, other) in enumerate(zip(firsts, seconds, strict=True), start=first):
        if overflow == "truncate":
            one, other = _shorten(one, other, room)
        bounds = [(0, len(other))]
        if len(one) + len(other) > room:
            left = _require_left(room - len(one), index, len(one), limit)
            bounds = windows(len(other), left, overlap_for(left))
        sequences += [_pair_sequence(tokenizer.template.pair, one, other[s:e]) for s, e in bounds]
        num_tokens.append([end - start for start, end in bounds])
    return Pieces(sequences=sequences, num_tokens=num_tokens, cut=cut)


def overlap_for(room: int) -> int:
    """Tokens that neighbouring windows share: a quarter of what fits, at most MOST_OVERLAP."""
    return min(MOST_OVERLAP, max(0, room) // 4)


def refuse_windows(overflow: Overflow, method: str) -> Overflow:
    """InputError for windows, where the overlaps would repeat tokens in the result."""
    if overflow == "windows":
        raise InputError(
            f"{method} gives one result a token, which windows would repeat; use 'error' or 'truncate'"
        )
    return overflow


def _bare_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode_ids([text], add_special_tokens=False)[0]


def _cut(num_tokens: int, room: int, overflow: Overflow) -> tuple[list[tuple[int, int]], int]:
    """From where to where the parts of a text go that fit, and how many of its tokens are in none."""
    if num_tokens <= room:
        return [(0, num_tokens)], 0
    if overflow != "windows":
        return [(0, room)], num_tokens - room
    return windows(num_tokens, room, overlap_for(room)), 0


def _shorten(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Take from the longer text until both fit, as transformers does ("longest_first")."""
    if len(first) + len(second) <= room:
        return first, second
    half = (room + (len(first) > len(second))) // 2  # of an odd room, the longer text has one more
    num_first = max(min(len(first), half), room - len(second))
    return first[:num_first], second[: room - num_first]


def _sequence(template: SingleTemplate, text: list[int]) -> SequenceIds:
    before, after = template.prefix, template.suffix
    return SequenceIds(
        token_ids=[*before.token_ids, *text, *after.token_ids],
        token_types=[*before.token_types, *[template.text_type] * len(text), *after.token_types],
    )


def _require_left(left: int, index: int, num_first: int, limit: int) -> int:
    """The room that the first text of a pair leaves for windows over the second."""
    if left < 1:
        raise TooLongError(
            f"pair {index}: its first text (a query, a premise) has {num_first} tokens, which leaves no room "
            f"for the second in a sequence of {limit}. Windows go over the second text alone: shorten the "
            "first, or pass overflow='truncate', which cuts the longer of the two"
        )
    return left


def _pair_sequence(template: PairTemplate, first: list[int], second: list[int]) -> SequenceIds:
    segments = (template.prefix, template.middle, template.suffix)
    before, between, after = (list(segment.token_ids) for segment in segments)
    types_before, types_between, types_after = (list(segment.token_types) for segment in segments)
    types_of_first, types_of_second = [template.first_type] * len(first), [template.second_type] * len(second)
    return SequenceIds(
        token_ids=[*before, *first, *between, *second, *after],
        token_types=[*types_before, *types_of_first, *types_between, *types_of_second, *types_after],
    )


def _refuse_empty(sequences: Sequence[SequenceIds]) -> None:
    if not all(sequence.token_ids for sequence in sequences):
        raise InputError("a text is empty, and this tokenizer adds no special tokens that could stand for it")


def _count(lost: list[int], limit: int, overflow: Overflow, first: int) -> CutWarning | None:
    """What was cut of texts, if anything; TooLongError where nothing may be."""
    num_texts = sum(count > 0 for count in lost)
    if num_texts == 0 or overflow == "windows":
        return None
    if overflow == "error":
        worst = max(range(len(lost)), key=lost.__getitem__)
        raise TooLongError(
            f"{num_texts} of {len(lost)} texts are longer than {limit} tokens; text {first + worst} by "
            f"{lost[worst]}. Pass overflow='truncate' or 'windows' where the method takes it, shorten the "
            "text, or raise max_length"
        )
    return CutWarning(num_cut=num_texts, num_texts=len(lost), limit=limit, num_tokens=sum(lost))


def _check(overflow: str) -> None:
    if overflow not in get_args(Overflow):
        raise InputError(f"overflow is one of {', '.join(get_args(Overflow))}, not {overflow!r}")
