"""Answers as stretches of a context of any length: every window scores its spans, and the best span of all wins."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from modernbert.errors import InputError
from modernbert.inference.engine import SequenceIds
from modernbert.inference.results import Answer
from modernbert.text.chunking import Window, pair_windows
from modernbert.text.tokenizer import Tokenizer

MOST_OVERLAP = 128
MOST_ANSWER_TOKENS = 64
# From sequences to one array of start and end scores [n, 2] for each of them.
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

    A span's score is exp(start + end logit) as a share of the sum over all spans of all windows and the "no answer" of each
    window (its first token), so that the scores of a context sum to at most 1.
    """
    question_ids = tokenizer.encode_ids([question], add_special_tokens=False)[0]
    encoding = tokenizer.encode([context], add_special_tokens=False)[0]
    if not encoding.token_ids:
        raise InputError("the context has no text to find an answer in; give one that is not empty")
    overlap = _overlap(limit, len(question_ids), tokenizer)
    windows = pair_windows(question_ids, encoding.token_ids, tokenizer.template, limit, overlap)
    scores = score_tokens([SequenceIds(token_ids=w.token_ids, token_types=w.token_types) for w in windows])
    spans: dict[tuple[int, int], float] = {}
    logits: list[np.ndarray] = []
    for window, score in zip(windows, scores, strict=True):
        logits.append(_score_window(window, score, top_k, most_tokens, spans))
    total = np.logaddexp.reduce(np.concatenate(logits))
    best = heapq.nlargest(top_k, spans.items(), key=lambda item: item[1])
    return [_answer(context, encoding.offsets, span, float(np.exp(logit - total))) for span, logit in best]


def _overlap(limit: int, num_question: int, tokenizer: Tokenizer) -> int:
    room = limit - num_question - tokenizer.template.pair.num_specials
    return min(MOST_OVERLAP, max(0, room) // 2)


def _score_window(
    window: Window, score: np.ndarray, top_k: int, most_tokens: int, spans: dict[tuple[int, int], float]
) -> np.ndarray:
    """Add the window's best spans to `spans`; gives the logits of all its spans and of its "no answer"."""
    body = score[window.body_start : window.body_start + window.end - window.start].astype(np.float64)
    total = body[:, 0][:, None] + body[:, 1][None, :]  # [n, n], start by end
    length = np.arange(len(body))[None, :] - np.arange(len(body))[:, None]
    is_span = (length >= 0) & (length < most_tokens)
    starts, ends = np.nonzero(is_span)
    logits = total[is_span]
    for place in np.argsort(logits)[-top_k:]:
        span = (int(starts[place]) + window.start, int(ends[place]) + window.start)
        spans[span] = max(spans.get(span, -np.inf), float(logits[place]))
    return np.append(logits, float(score[0].sum()))


def _answer(context: str, offsets: Sequence[tuple[int, int]], span: tuple[int, int], score: float) -> Answer:
    start, end = offsets[span[0]][0], offsets[span[1]][1]
    text = context[start:end]
    start += len(text) - len(text.lstrip())
    text = text.strip()
    return Answer(text=text, start=start, end=start + len(text), score=score)
