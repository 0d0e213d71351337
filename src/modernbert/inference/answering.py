"""Answers as stretches of a context of any length: each window scores its spans, and the best of all wins."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from modernbert.errors import InputError, TooLongError
from modernbert.inference.engine import SequenceIds
from modernbert.inference.results import Answer
from modernbert.inference.scores import require_finite
from modernbert.text.chunking import pair_windows
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float, Int

MOST_OVERLAP = 128
MOST_ANSWER_TOKENS = 64
# From sequences to the start and end scores [n, 2] of each of them.
SpanScorer = Callable[[list[SequenceIds]], list[np.ndarray]]


def find_answers(
    question: str,
    context: str,
    *,
    tokenizer: Tokenizer,
    limit: int,
    score_tokens: SpanScorer,
    top_k: int = 1,
    most_tokens: int = MOST_ANSWER_TOKENS,
) -> list[Answer]:
    """The best `top_k` stretches of the context, best first, each of at most `most_tokens` tokens.

    A span of tokens has the score exp(start + end logit), as a share of the sum over all spans of all
    windows and the "no answer" of each window (its first token). Blanks at the ends of a span do not count:
    spans that differ by them alone are one answer, with the sum of their scores, and spans of blanks are
    none. So the scores of a context sum to at most 1.
    """
    question_ids = tokenizer.encode_ids([question], add_special_tokens=False)[0]
    encoding = tokenizer.encode([context], add_special_tokens=False)[0]
    starts, ends = _visible_bounds(context, encoding.offsets)
    if not (starts < ends).any():
        raise InputError("the context has no text to find an answer in; give one that is not empty")
    room = limit - len(question_ids) - tokenizer.template.pair.num_specials
    if room < 1:
        raise TooLongError(
            f"the question has {len(question_ids)} tokens, which leaves no room for the context in a "
            f"sequence of {limit}; shorten the question"
        )
    overlap = min(MOST_OVERLAP, room // 2)
    windows = pair_windows(question_ids, encoding.token_ids, tokenizer.template, limit, overlap)
    scored = score_tokens([SequenceIds(token_ids=w.token_ids, token_types=w.token_types) for w in windows])
    require_finite(scored, "window")
    found: dict[tuple[int, int], float] = {}
    total = -np.inf
    for window, scores in zip(windows, scored, strict=True):
        inside = slice(window.start, window.end)
        body = scores[window.body_start :][: window.end - window.start].astype(np.float64)
        places, logits = _stretches(body, starts[inside], ends[inside], most_tokens)
        no_answer = float(scores[0].sum())
        total = np.logaddexp(total, np.logaddexp.reduce(np.append(logits, no_answer)))
        for best in np.argsort(-logits, kind="stable")[:top_k]:
            place = (int(places[best, 0]), int(places[best, 1]))
            found[place] = max(found.get(place, -np.inf), float(logits[best]))
    best_first = heapq.nlargest(top_k, found.items(), key=lambda item: item[1])
    return [
        Answer(text=context[start:end], start=start, end=end, score=float(np.exp(logit - total)))
        for (start, end), logit in best_first
    ]


def _visible_bounds(
    context: str, offsets: Sequence[tuple[int, int]]
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """The character where an answer begins that starts with each token, and where one ends that ends with it:
    those of the next and the last visible one.
    """
    is_visible = np.fromiter((not each.isspace() for each in context), dtype=bool, count=len(context))
    place = np.arange(len(context))
    following = np.minimum.accumulate(np.where(is_visible, place, len(context))[::-1])[::-1]
    previous = np.maximum.accumulate(np.where(is_visible, place + 1, 0))
    bounds = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    return np.append(following, len(context))[bounds[:, 0]], np.append(0, previous)[bounds[:, 1]]


def _stretches(
    scores: Float[np.ndarray, "n 2"],
    starts: Int[np.ndarray, "n"],
    ends: Int[np.ndarray, "n"],
    most_tokens: int,
) -> tuple[Int[np.ndarray, "m 2"], Float[np.ndarray, "m"]]:
    """Where the stretches of a window start and end, in characters, each once, and the logit of each."""
    first = np.repeat(np.arange(len(scores)), most_tokens)
    last = first + np.tile(np.arange(most_tokens), len(scores))
    first, last = first[last < len(scores)], last[last < len(scores)]
    is_text = starts[first] < ends[last]
    first, last = first[is_text], last[is_text]
    # one number for both ends: a sort of pairs takes ten times as long
    base = int(ends.max(initial=0)) + 1
    keys = starts[first] * base + ends[last]
    order = np.argsort(keys, kind="stable")
    keys, runs = np.unique(keys[order], return_index=True)
    logits = (scores[first, 0] + scores[last, 1])[order]
    merged = np.logaddexp.reduceat(logits, runs) if len(runs) else logits
    return np.stack(np.divmod(keys, base), axis=1), merged
