"""Answers as stretches of a context of any length: each window scores its spans, and the best of all wins.

    question, context --windows--> scores of starts and ends --spans of all--> Candidates --ranked--> answers

Where the model has learned that a context may hold no answer, the threshold of its folder decides between the
best stretch and none.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from modernbert.errors import InputError, TooLongError
from modernbert.inference.engine import SequenceIds
from modernbert.inference.results import Answer
from modernbert.inference.scores import require_finite
from modernbert.text.chunking import Window, pair_windows
from modernbert.text.tokenizer import Template, Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float, Int

MOST_OVERLAP = 128
MOST_ANSWER_TOKENS = 64
# From sequences to the start and end scores [n, 2] of each of them.
SpanScorer = Callable[[list[SequenceIds]], list[np.ndarray]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """The best stretches of a context, best first, and what speaks for none of them.

    `no_answer` is an answer of empty text. `advantage` is the logit of no answer less that of the best
    stretch: the score difference of the official SQuAD 2.0 script.
    """

    answers: Sequence[Answer]
    no_answer: Answer
    advantage: float

    def ranked(self, threshold: float | None) -> list[Answer]:
        """The stretches; before them, where there is a threshold and the advantage is above it, none."""
        if threshold is None or self.advantage <= threshold:
            return list(self.answers)
        return [self.no_answer, *self.answers]


def find_answers(
    question: str,
    context: str,
    *,
    tokenizer: Tokenizer,
    limit: int,
    score_tokens: SpanScorer,
    top_k: int = 1,
    most_tokens: int = MOST_ANSWER_TOKENS,
    threshold: float | None = None,
) -> list[Answer]:
    """The best `top_k` of one context's candidates; with a threshold, an answer of empty text is one."""
    (found,) = find_candidates(
        [question],
        [context],
        tokenizer=tokenizer,
        limit=limit,
        score_tokens=score_tokens,
        top_k=top_k,
        most_tokens=most_tokens,
    )
    return found.ranked(threshold)[:top_k]


def find_candidates(
    questions: Sequence[str],
    contexts: Sequence[str],
    *,
    tokenizer: Tokenizer,
    limit: int,
    score_tokens: SpanScorer,
    top_k: int = 1,
    most_tokens: int = MOST_ANSWER_TOKENS,
) -> list[Candidates]:
    """The best `top_k` stretches of each question's context, each of at most `most_tokens` tokens.

    A span of tokens has the score exp(start + end logit), as a share of the sum over all spans of all
    windows and the "no answer" of each window (its first token). Blanks at the ends of a span do not count:
    spans that differ by them alone are one answer, with the sum of their scores, and spans of blanks are
    none. So the scores of a context sum to at most 1. A context holds no answer only as far as each window
    says so: the score of none is that of the window that says it least.
    """
    read = read_questions(questions, contexts, tokenizer=tokenizer, limit=limit)
    flat = [
        SequenceIds(token_ids=window.token_ids, token_types=window.token_types)
        for each in read
        for window in each.windows
    ]
    scored = score_tokens(flat)
    require_finite(scored, "window")
    rows = iter(scored)
    return [_best(each, list(itertools.islice(rows, len(each.windows))), top_k, most_tokens) for each in read]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadQuestion:
    """A question with its context as a finder of answers reads them, in training too.

    An answer that begins with token i begins at character `starts[i]`, and one that ends with it ends before
    `ends[i]`: at the next and behind the last visible character.
    """

    context: str
    starts: Int[np.ndarray, "n"]
    ends: Int[np.ndarray, "n"]
    windows: Sequence[Window]


def read_questions(
    questions: Sequence[str], contexts: Sequence[str], *, tokenizer: Tokenizer, limit: int
) -> list[ReadQuestion]:
    """Each question with windows over its context; a context that comes again is read once.

    Raises InputError for a context without text, TooLongError for a question that leaves it no room.
    """
    bodies: dict[str, tuple[list[int], np.ndarray, np.ndarray]] = {}
    different = list(dict.fromkeys(contexts))
    for context, encoding in zip(
        different, tokenizer.encode(different, add_special_tokens=False), strict=True
    ):
        bodies[context] = (encoding.token_ids, *_visible_bounds(context, encoding.offsets))
    found: list[ReadQuestion] = []
    ids = tokenizer.encode_ids(questions, add_special_tokens=False)
    for question_ids, context in zip(ids, contexts, strict=True):
        token_ids, starts, ends = bodies[context]
        if not (starts < ends).any():
            raise InputError("the context has no text to find an answer in; give one that is not empty")
        windows = _windows(question_ids, token_ids, tokenizer.template, limit)
        found.append(ReadQuestion(context=context, starts=starts, ends=ends, windows=windows))
    return found


def room_for_context(num_question_tokens: int, template: Template, limit: int) -> int:
    """How many tokens of the context stand beside a question in a window; 0 or less: none."""
    return limit - num_question_tokens - template.pair.num_specials


def _windows(
    question_ids: Sequence[int], context_ids: Sequence[int], template: Template, limit: int
) -> list[Window]:
    room = room_for_context(len(question_ids), template, limit)
    if room < 1:
        raise TooLongError(
            f"the question has {len(question_ids)} tokens, which leaves no room for the context in a "
            f"sequence of {limit}; shorten the question"
        )
    return pair_windows(question_ids, context_ids, template, limit, min(MOST_OVERLAP, room // 2))


def _best(
    read: ReadQuestion, scored: Sequence[Float[np.ndarray, "m 2"]], top_k: int, most_tokens: int
) -> Candidates:
    found: dict[tuple[int, int], float] = {}
    total, no_answer = -np.inf, np.inf
    for window, scores in zip(read.windows, scored, strict=True):
        inside = slice(window.start, window.end)
        body = scores[window.body_start :][: window.end - window.start].astype(np.float64)
        places, logits = _stretches(body, read.starts[inside], read.ends[inside], most_tokens)
        none_here = float(scores[0].sum())
        no_answer = min(no_answer, none_here)
        total = np.logaddexp(total, np.logaddexp.reduce(np.append(logits, none_here)))
        for best in np.argsort(-logits, kind="stable")[:top_k]:
            place = (int(places[best, 0]), int(places[best, 1]))
            found[place] = max(found.get(place, -np.inf), float(logits[best]))
    best_first = heapq.nlargest(top_k, found.items(), key=lambda item: item[1])
    answers = [
        Answer(text=read.context[start:end], start=start, end=end, score=float(np.exp(logit - total)))
        for (start, end), logit in best_first
    ]
    none = Answer(text="", start=0, end=0, score=float(np.exp(no_answer - total)))
    return Candidates(answers=answers, no_answer=none, advantage=no_answer - best_first[0][1])


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
