"""Tagging texts of any length: each word has its label from the window that sees it best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from modernbert.inference.engine import SequenceIds
from modernbert.inference.entities import TaggedWord, merge_entities
from modernbert.inference.long_texts import overlap_for
from modernbert.inference.results import Entity
from modernbert.inference.scores import require_finite
from modernbert.inference.words import Span, first_tokens, split_words, word_spans
from modernbert.text.chunking import Window, text_windows
from modernbert.text.tokenizer import Tokenizer

# From sequences to one array of probabilities [n, C] for each of them.
TokenScorer = Callable[[list[SequenceIds]], list[np.ndarray]]


def tag_texts(
    texts: Sequence[str | Sequence[str]],
    *,
    tokenizer: Tokenizer,
    labels: Sequence[str],
    limit: int,
    score_tokens: TokenScorer,
) -> list[list[Entity]]:
    """Entities of each text; a text may come as its words, which are then joined by one space."""
    joined = [text if isinstance(text, str) else " ".join(text) for text in texts]
    encodings = tokenizer.encode(joined, add_special_tokens=False)
    words = [
        split_words(text, encoding.offsets) if isinstance(text, str) else word_spans(text)
        for text, encoding in zip(texts, encodings, strict=True)
    ]
    room = limit - tokenizer.template.single.num_specials
    windows = [text_windows(e.token_ids, tokenizer.template, limit, overlap_for(room)) for e in encodings]
    flat = [SequenceIds(token_ids=w.token_ids, token_types=w.token_types) for group in windows for w in group]
    scored = iter(score_tokens(flat))
    seen = [
        _best_seen(len(encoding.token_ids), group, [next(scored) for _ in group])
        for encoding, group in zip(encodings, windows, strict=True)
    ]
    require_finite(seen)
    results: list[list[Entity]] = []
    for text, spans, encoding, probabilities in zip(joined, words, encodings, seen, strict=True):
        tagged = _tag_words(text, spans, encoding.offsets, probabilities, labels)
        results.append(merge_entities(text, tagged))
    return results


def _best_seen(num_tokens: int, windows: Sequence[Window], scores: Sequence[np.ndarray]) -> np.ndarray:
    """One row for each token of the text, from the window in which it stands farthest from an edge."""
    best = np.zeros((num_tokens, scores[0].shape[1]), dtype=np.float32)
    distance = np.full(num_tokens, -1)
    for window, score in zip(windows, scores, strict=True):
        inside = np.arange(window.end - window.start)
        from_left = inside + (10**9 if window.start == 0 else 0)  # the text's own edges hide nothing
        from_right = inside[::-1] + (10**9 if window.end == num_tokens else 0)
        here = np.minimum(from_left, from_right)
        is_better = here > distance[window.start : window.end]
        rows = window.start + inside[is_better]
        best[rows] = score[window.body_start + inside[is_better]]
        distance[rows] = here[is_better]
    return best


def _tag_words(
    text: str,
    words: Sequence[Span],
    offsets: Sequence[Span],
    probabilities: np.ndarray,
    labels: Sequence[str],
) -> list[TaggedWord]:
    """A word has the label of its first token, as in training; a word without a token has none."""
    tagged: list[TaggedWord] = []
    for (start, end), token in zip(words, first_tokens(text, words, offsets), strict=True):
        if token is not None:
            label = int(probabilities[token].argmax())
            score = float(probabilities[token, label])
            tagged.append(TaggedWord(start=start, end=end, tag=labels[label], score=score))
    return tagged
