"""Scores for texts and pairs of any length, and what they say: labels, an order of documents, a choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from modernbert.encoder.activation import build_activation
from modernbert.errors import InputError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.inference.engine import SequenceIds
from modernbert.inference.inputs import Text
from modernbert.inference.long_texts import Join, Overflow, pair_pieces, text_pieces
from modernbert.inference.results import Choice, Classification, Ranked
from modernbert.inference.scores import probabilities, require_finite, softmax
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float

# From sequences to one row of logits [C] for each of them.
RowScorer = Callable[[list[SequenceIds]], list[np.ndarray]]


def score_texts(
    texts: Sequence[Text],
    *,
    prompt: str,
    tokenizer: Tokenizer,
    limit: int,
    overflow: Overflow,
    score_rows: RowScorer,
    join: Join,
) -> list[Float[np.ndarray, "C"]]:
    """The logits of each text, or of each pair; `join` makes one row of the windows of a text."""
    pairs = [(prompt + text[0], text[1]) for text in texts if not isinstance(text, str)]
    singles = [text for text in texts if isinstance(text, str)]
    assert not pairs or not singles, "texts and pairs are not mixed"
    if pairs:
        pieces = pair_pieces(tokenizer, pairs, limit=limit, overflow=overflow)
    else:
        pieces = text_pieces(tokenizer, singles, limit=limit, overflow=overflow, prompt=prompt)
    rows = pieces.join(score_rows(pieces.sequences), by=join)
    require_finite(rows, "pair" if pairs else "text")
    return rows


def classification(logits: Float[np.ndarray, "C"], head: ClassifyHeadConfig) -> Classification:
    """The labels with their scores, best first."""
    scores = probabilities(logits, head.problem)
    best_first = np.argsort(-scores, kind="stable")
    return Classification(scores={head.labels[i]: float(scores[i]) for i in best_first})


def rank(
    documents: Sequence[str], rows: Sequence[Float[np.ndarray, "1"]], activation: str, top_k: int | None
) -> list[Ranked]:
    """The documents by their score, which is the activation of their logit, best first."""
    logits = torch.tensor([float(row[0]) for row in rows])
    scores = build_activation(activation)(logits).numpy()
    order: list[int] = np.argsort(-scores, kind="stable")[:top_k].tolist()
    return [Ranked(index=i, score=float(scores[i]), document=documents[i]) for i in order]


def best_choice(choices: Sequence[str], rows: Sequence[Float[np.ndarray, "1"]]) -> Choice:
    """The choice with the largest logit."""
    if not choices:
        raise InputError("there must be at least one choice, found none")
    scores = softmax(np.concatenate(rows))
    best = int(scores.argmax())
    return Choice(index=best, text=choices[best], score=float(scores[best]))
