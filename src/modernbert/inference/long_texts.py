"""From texts to sequences that fit the model, and what happens to the texts that do not.

windows    a long text becomes several overlapping sequences, whose results are put together again
truncate   its end is left out, and one warning says of how many texts and tokens
error      TooLongError
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from modernbert.errors import InputError, TooLongError
from modernbert.inference.engine import SequenceIds
from modernbert.text.chunking import Segment, pair_windows, windows
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
    `num_prompt_tokens` of every sequence come from the prompt and before it.
    """

    sequences: list[SequenceIds]
    num_tokens: list[list[int]]
    num_prompt_tokens: int = 0

    def join(self, rows: Sequence[Float[np.ndarray, "C"]], by: Join) -> list[Float[np.ndarray, "C"]]:
        """One row for each text from the rows of its sequences; the row itself where a text fitted."""
        bounds = [0, *accumulate(len(counts) for counts in self.num_tokens)]
        return [
            rows[start] if end == start + 1 else by(np.stack(rows[start:end]), counts)
            for (start, end), counts in zip(pairwise(bounds), self.num_tokens, strict=True)
        ]


def text_pieces(
    tokenizer: Tokenizer, texts: Sequence[str], *, limit: int, overflow: Overflow, prompt: str = ""
) -> Pieces:
    """One text each; `prompt` stands before every one of them, in every window."""
    _check(overflow)
    single = tokenizer.template.single
    # The blank that ends a prompt becomes a part of the text's first token, or a token that it lacks alone.
    num_prompt = len(_bare_ids(tokenizer, prompt.rstrip()))
    room = limit - single.num_specials - num_prompt
    if room < 1:
        raise InputError(
            f"a limit of {limit} tokens leaves no room for text beside {single.num_specials} special tokens"
            f" and {num_prompt} of the prompt; raise max_length"
        )
    sequences: list[SequenceIds] = []
    num_tokens: list[list[int]] = []
    lost: list[int] = []
    for ids in tokenizer.encode_ids([prompt + text for text in texts], add_special_tokens=False):
        head, body = list(ids[:num_prompt]), ids[num_prompt:]
        bodies, num_lost = _cut(body, room, overflow)
        sequences += [
            _sequence([single.prefix, _typed(head + part, single.text_type), single.suffix])
            for part in bodies
        ]
        num_tokens.append([len(part) for part in bodies])
        lost.append(num_lost)
    _report(lost, limit, overflow)
    _refuse_empty(sequences)
    # Sentence Transformers counts the prompt's last blank too, so that is what published models leave out.
    num_skipped = len(single.prefix) + len(_bare_ids(tokenizer, prompt)) if prompt else 0
    return Pieces(sequences=sequences, num_tokens=num_tokens, num_prompt_tokens=num_skipped)


def pair_pieces(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], *, limit: int, overflow: Overflow
) -> Pieces:
    """Two texts each; windows go over the second, and the first (a query, a premise) is whole in each."""
    _check(overflow)
    firsts = tokenizer.encode_ids([first for first, _ in pairs], add_special_tokens=False)
    seconds = tokenizer.encode_ids([second for _, second in pairs], add_special_tokens=False)
    room = limit - tokenizer.template.pair.num_specials
    lost = [max(0, len(first) + len(second) - room) for first, second in zip(firsts, seconds, strict=True)]
    _report(lost, limit, overflow)
    sequences: list[SequenceIds] = []
    num_tokens: list[list[int]] = []
    for first, second in zip(firsts, seconds, strict=True):
        if overflow == "truncate":
            first, second = _shorten(first, second, room)
        parts = pair_windows(first, second, tokenizer.template, limit, overlap_for(room - len(first)))
        sequences += [SequenceIds(token_ids=part.token_ids, token_types=part.token_types) for part in parts]
        num_tokens.append([part.end - part.start for part in parts])
    return Pieces(sequences=sequences, num_tokens=num_tokens)


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


def _cut(body: list[int], room: int, overflow: Overflow) -> tuple[list[list[int]], int]:
    """The parts of a text that fit, and how many of its tokens are in none."""
    if len(body) <= room:
        return [body], 0
    if overflow != "windows":
        return [body[:room]], len(body) - room
    return [body[start:end] for start, end in windows(len(body), room, overlap_for(room))], 0


def _shorten(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Take from the longer text until both fit, as transformers does ("longest_first")."""
    if len(first) + len(second) <= room:
        return first, second
    half = (room + (len(first) > len(second))) // 2  # of an odd room, the longer text has one more
    num_first = max(min(len(first), half), room - len(second))
    return first[:num_first], second[: room - num_first]


def _typed(token_ids: Sequence[int], token_type: int) -> Segment:
    return Segment(tuple(token_ids), (token_type,) * len(token_ids))


def _sequence(segments: Sequence[Segment]) -> SequenceIds:
    return SequenceIds(
        token_ids=[each for segment in segments for each in segment.token_ids],
        token_types=[each for segment in segments for each in segment.token_types],
    )


def _refuse_empty(sequences: Sequence[SequenceIds]) -> None:
    if not all(sequence.token_ids for sequence in sequences):
        raise InputError("a text is empty, and this tokenizer adds no special tokens that could stand for it")


def _report(lost: list[int], limit: int, overflow: Overflow) -> None:
    num_texts = sum(count > 0 for count in lost)
    if num_texts == 0 or overflow == "windows":
        return
    if overflow == "error":
        worst = max(range(len(lost)), key=lost.__getitem__)
        raise TooLongError(
            f"{num_texts} of {len(lost)} texts are longer than {limit} tokens; text {worst} by {lost[worst]}."
            " Pass overflow='truncate' or 'windows' where the method takes it, shorten the text, or raise "
            "max_length"
        )
    _warn_caller(
        f"{num_texts} of {len(lost)} texts were cut to {limit} tokens; {sum(lost)} tokens were left out"
    )


def _warn_caller(message: str) -> None:
    """Warn at the line outside this package that asked, however many calls lie between."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").startswith("modernbert."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _check(overflow: str) -> None:
    if overflow not in get_args(Overflow):
        raise InputError(f"overflow is one of {', '.join(get_args(Overflow))}, not {overflow!r}")
