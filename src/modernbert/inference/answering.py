"""Answers as stretches of a context of any length: each window scores its spans, and the best of all wins."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from modernbert.errors import InputError
from modernbert.inference.engine import SequenceIds
from modernbert.inference.results import Answer
from modernbert.text.chunking import Window, pair_windows
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float

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
    """The best `top_k` spans of the context, best first, each of at most `most_tokens` tokens.

    A span's score is exp(start + end logit) as a share of the sum over all spans of all windows and the "no
    answer" of each window (its first token), so that the scores of a context sum to at most 1.
    """
    question_ids = tokenizer.encode_ids([question], add_special_tokens=False)[0]
    encoding = tokenizer.encode([context], add_special_tokens=False)[0]
    if not encoding.token_ids:
        raise InputError("the context has no text to find an answer in; give one that is not empty")
    room = limit - len(question_ids) - tokenizer.template.pair.num_specials
    overlap = min(MOST_OVERLAP, max(0, room) // 2)
    windows = pair_windows(question_ids, encoding.token_ids, tokenizer.template, limit, overlap)
    scored = score_tokens([SequenceIds(token_ids=w.token_ids, token_types=w.token_types) for w in windows])
    spans: dict[tuple[int, int], float] = {}
    total = -np.inf
    for window, scores in zip(windows, scored, strict=True):
        logits = _span_logits(window, scores.astype(np.float64), most_tokens)
        no_answer = float(scores[0].sum())
        total = np.logaddexp(total, np.logaddexp.reduce(np.append(logits, no_answer)))
        for span, logit in _best_spans(logits, top_k):
            here = (window.start + span[0], window.start + span[1])
            spans[here] = max(spans.get(here, -np.inf), logit)
    best = heapq.nlargest(top_k, spans.items(), key=lambda item: item[1])
    return [_answer(context, encoding.offsets, span, float(np.exp(logit - total))) for span, logit in best]


def _span_logits(
    window: Window, scores: Float[np.ndarray, "n 2"], most_tokens: int
) -> Float[np.ndarray, "m k"]:
    """The logit of the span from token i to token i + d of the context, at [i, d]; -inf past the end."""
    body = scores[window.body_start : window.body_start + window.end - window.start]
    ends = np.append(body[:, 1], np.full(most_tokens - 1, -np.inf))
    return body[:, :1] + np.lib.stride_tricks.sliding_window_view(ends, most_tokens)


def _best_spans(logits: Float[np.ndarray, "m k"], top_k: int) -> Iterator[tuple[tuple[int, int], float]]:
    num_kept = min(top_k, int(np.isfinite(logits).sum()))
    for place in np.argsort(-logits, axis=None, kind="stable")[:num_kept]:
        start, more = divmod(int(place), logits.shape[1])
        yield (start, start + more), float(logits[start, more])


def _answer(context: str, offsets: Sequence[tuple[int, int]], span: tuple[int, int], score: float) -> Answer:
    start, end = offsets[span[0]][0], offsets[span[1]][1]
    text = context[start:end]
    start += len(text) - len(text.lstrip())
    text = text.strip()
    return Answer(text=text, start=start, end=start + len(text), score=score)
