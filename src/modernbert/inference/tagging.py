"""Tagging texts of any length: each word has its label from the window that sees it best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from modernbert.inference.engine import Reading, SequenceIds
from modernbert.inference.entities import TaggedWord, merge_entities
from modernbert.inference.long_texts import overlap_for
from modernbert.inference.results import Entity
from modernbert.inference.scores import require_finite
from modernbert.inference.words import Span, first_tokens, split_words, word_spans
from modernbert.text.chunking import Window, text_windows
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadText:
    """A text as a tagger reads it, in training too.

    `words` are where its words are, in characters; `first` is the token that speaks for each, None for a word
    without one; `windows` are the sequences that hold its `num_tokens` tokens.
    """

    text: str
    words: Sequence[Span]
    first: Sequence[int | None]
    num_tokens: int
    windows: Sequence[Window]


def read_texts(texts: Sequence[str | Sequence[str]], *, tokenizer: Tokenizer, limit: int) -> list[ReadText]:
    """Texts in windows of at most `limit` tokens; one that comes as its words is joined by one space."""
    joined = [text if isinstance(text, str) else " ".join(text) for text in texts]
    overlap = overlap_for(limit - tokenizer.template.single.num_specials)
    found: list[ReadText] = []
    encodings = tokenizer.encode(joined, add_special_tokens=False)
    for given, text, encoding in zip(texts, joined, encodings, strict=True):
        words = split_words(text, encoding.offsets) if isinstance(given, str) else word_spans(given)
        found.append(
            ReadText(
                text=text,
                words=words,
                first=first_tokens(text, words, encoding.offsets),
                num_tokens=len(encoding.token_ids),
                windows=text_windows(encoding.token_ids, tokenizer.template, limit, overlap),
            )
        )
    return found


def read_to_tag(
    texts: Sequence[str | Sequence[str]],
    *,
    first: int = 0,
    tokenizer: Tokenizer,
    labels: Sequence[str],
    limit: int,
) -> Reading[np.ndarray, list[Entity]]:
    """Texts to the entities of each, by way of probabilities [n, C] of the tokens of each sequence.

    A text may come as its words, which are then joined by one space. `first` texts came before these.
    """
    read = read_texts(texts, tokenizer=tokenizer, limit=limit)
    flat = [
        SequenceIds(token_ids=window.token_ids, token_types=window.token_types)
        for each in read
        for window in each.windows
    ]

    def finish(scored: list[np.ndarray]) -> list[list[Entity]]:
        rows = iter(scored)
        seen = [_best_seen(each, [next(rows) for _ in each.windows]) for each in read]
        require_finite(seen, first=first)
        return [
            merge_entities(each.text, _tag_words(each, probabilities, labels))
            for each, probabilities in zip(read, seen, strict=True)
        ]

    return Reading(sequences=flat, finish=finish)


def best_windows(num_tokens: int, windows: Sequence[Window]) -> Int[np.ndarray, "n"]:
    """For each token of a text the window in which it stands farthest from an edge."""
    best = np.zeros(num_tokens, np.int64)
    distance = np.full(num_tokens, -1)
    for number, window in enumerate(windows):
        inside = np.arange(window.end - window.start)
        from_left = inside + (10**9 if window.start == 0 else 0)  # the text's own edges hide nothing
        from_right = inside[::-1] + (10**9 if window.end == num_tokens else 0)
        here = np.minimum(from_left, from_right)
        tokens = window.start + np.flatnonzero(here > distance[window.start : window.end])
        best[tokens] = number
        distance[tokens] = here[tokens - window.start]
    return best


def _best_seen(read: ReadText, scores: Sequence[Float[np.ndarray, "m C"]]) -> Float[np.ndarray, "n C"]:
    """One row for each token of the text, from the window that sees it best."""
    best = best_windows(read.num_tokens, read.windows)
    rows = np.zeros((read.num_tokens, scores[0].shape[1]), np.float32)
    for number, (window, score) in enumerate(zip(read.windows, scores, strict=True)):
        inside = np.flatnonzero(best[window.start : window.end] == number)
        rows[window.start + inside] = score[window.body_start + inside]
    return rows


def _tag_words(
    read: ReadText, probabilities: Float[np.ndarray, "n C"], labels: Sequence[str]
) -> list[TaggedWord]:
    """A word has the label of its first token, as in training; a word without a token has none."""
    tagged: list[TaggedWord] = []
    for (start, end), token in zip(read.words, read.first, strict=True):
        if token is not None:
            label = int(probabilities[token].argmax())
            score = float(probabilities[token, label])
            tagged.append(TaggedWord(start=start, end=end, tag=labels[label], score=score))
    return tagged
