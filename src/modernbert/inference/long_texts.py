"""From texts to sequences that fit the model, and what happens to the texts that do not.

windows    a long text becomes several overlapping sequences, whose results the caller puts together
truncate   its end is left out, and one warning says of how many texts and tokens
error      TooLongError
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from modernbert.errors import InputError, TooLongError
from modernbert.inference.engine import SequenceIds
from modernbert.text.chunking import Segment, pair_windows, windows
from modernbert.text.tokenizer import Tokenizer

Overflow = Literal["windows", "truncate", "error"]
MOST_OVERLAP = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """The sequences that the texts became: `of_text[i]` are the places of text i's in `sequences`, and `weights[j]` how
    many tokens of its text sequence j holds. `num_prompt_tokens` of each sequence come from the prompt and before it."""

    sequences: list[SequenceIds]
    of_text: list[list[int]]
    weights: list[int]
    num_prompt_tokens: int = 0


def text_pieces(
    tokenizer: Tokenizer, texts: Sequence[str], *, limit: int, overflow: Overflow, prompt: str = ""
) -> Pieces:
    """One text each; `prompt` stands before every one of them, in every window."""
    _check(overflow)
    single = tokenizer.template.single
    num_prompt = len(tokenizer.encode_ids([prompt.rstrip()], add_special_tokens=False)[0]) if prompt else 0
    encoded = tokenizer.encode_ids([prompt + text for text in texts], add_special_tokens=False)
    cuts: list[list[list[int]]] = []
    lost: list[int] = []
    for ids in encoded:
        head, body = ids[:num_prompt], ids[num_prompt:]
        room = limit - single.num_specials - len(head)
        bodies, num_lost = _cut(body, room, limit, overflow)
        lost.append(num_lost)
        cuts.append([[*head, *part] for part in bodies])
    _report(lost, limit, overflow)
    before, after = list(single.prefix.token_ids), list(single.suffix.token_ids)
    types_before, types_after = list(single.prefix.token_types), list(single.suffix.token_types)
    sequences = [
        SequenceIds(
            token_ids=before + part + after,
            token_types=types_before + [single.text_type] * len(part) + types_after,
        )
        for parts in cuts
        for part in parts
    ]
    return Pieces(
        sequences=sequences,
        of_text=_places([len(parts) for parts in cuts]),
        weights=[max(1, len(part) - num_prompt) for parts in cuts for part in parts],
        num_prompt_tokens=len(before) + num_prompt if num_prompt else 0,
    )


def pair_pieces(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], *, limit: int, overflow: Overflow
) -> Pieces:
    """Two texts each. Windows go over the second text; the first (a query, a premise) is whole in each of them."""
    _check(overflow)
    firsts = tokenizer.encode_ids([first for first, _ in pairs], add_special_tokens=False)
    seconds = tokenizer.encode_ids([second for _, second in pairs], add_special_tokens=False)
    room = limit - tokenizer.template.pair.num_specials
    sequences: list[SequenceIds] = []
    weights: list[int] = []
    counts: list[int] = []
    lost: list[int] = []
    for first, second in zip(firsts, seconds, strict=True):
        lost.append(max(0, len(first) + len(second) - room))
        kept_first, kept_second = _shorten(first, second, room) if overflow == "truncate" else (first, second)
        overlap = min(MOST_OVERLAP, max(0, room - len(kept_first)) // 4)
        parts = pair_windows(kept_first, kept_second, tokenizer.template, limit, overlap)
        sequences += [SequenceIds(token_ids=part.token_ids, token_types=part.token_types) for part in parts]
        weights += [max(1, part.end - part.start) for part in parts]
        counts.append(len(parts))
    _report(lost, limit, overflow)
    return Pieces(sequences=sequences, of_text=_places(counts), weights=weights)


def overlap_for(room: int) -> int:
    """Tokens that neighbouring windows share: a quarter of what fits, at most MOST_OVERLAP."""
    return min(MOST_OVERLAP, max(0, room) // 4)


def segment(token_ids: Sequence[int], token_type: int) -> Segment:
    """Tokens of one type."""
    return Segment(tuple(token_ids), (token_type,) * len(token_ids))


def _cut(body: list[int], room: int, limit: int, overflow: Overflow) -> tuple[list[list[int]], int]:
    if room < 1:
        raise InputError(
            f"a limit of {limit} tokens leaves no room for text behind the special tokens and the prompt"
        )
    if len(body) <= room:
        return [body], 0
    if overflow != "windows":
        return [body[:room]], len(body) - room
    return [body[start:end] for start, end in windows(len(body), room, overlap_for(room))], 0


def _shorten(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Take from the longer text until both fit; a text of at most half the room stays whole."""
    half = room // 2
    num_first = (
        max(min(len(first), half), room - len(second)) if len(first) + len(second) > room else len(first)
    )
    return first[:num_first], second[: room - num_first]


def _report(lost: list[int], limit: int, overflow: Overflow) -> None:
    num_texts = sum(count > 0 for count in lost)
    if num_texts == 0 or overflow == "windows":
        return
    if overflow == "error":
        worst = max(range(len(lost)), key=lost.__getitem__)
        raise TooLongError(
            f"{num_texts} of {len(lost)} texts are longer than {limit} tokens; text {worst} by {lost[worst]}. Pass "
            "overflow='truncate' or 'windows' where the method takes it, shorten the text, or raise max_length"
        )
    warnings.warn(
        f"{num_texts} of {len(lost)} texts were cut to {limit} tokens; {sum(lost)} tokens were left out",
        stacklevel=4,
    )


def _places(counts: Sequence[int]) -> list[list[int]]:
    places: list[list[int]] = []
    start = 0
    for count in counts:
        places.append(list(range(start, start + count)))
        start += count
    return places


def _check(overflow: str) -> None:
    if overflow not in get_args(Overflow):
        raise InputError(f"overflow is one of {', '.join(get_args(Overflow))}, not {overflow!r}")
