"""Scores for texts and pairs of any length, and what they say: labels, an order of documents, a choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from modernbert.encoder.activation import build_activation
from modernbert.errors import InputError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.inference.engine import Reading
from modernbert.inference.inputs import Text
from modernbert.inference.long_texts import Join, Overflow, pair_pieces, text_pieces
from modernbert.inference.results import Choice, Classification, Ranked
from modernbert.inference.scores import probabilities, require_finite, softmax
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float

Score = TypeVar("Score")


def read_to_score(
    texts: Sequence[Text],
    *,
    first: int = 0,
    prompt: str = "",
    tokenizer: Tokenizer,
    limit: int,
    overflow: Overflow,
    join: Join,
    meaning: Callable[[Float[np.ndarray, "C"]], Score],
) -> Reading[np.ndarray, Score]:
    """Texts, or pairs, to what the logits of each mean; `join` makes one row of the windows of a text.

    `first` texts came before these.
    """
    pairs = [(prompt + text[0], text[1]) for text in texts if not isinstance(text, str)]
    singles = [text for text in texts if isinstance(text, str)]
    assert not pairs or not singles, "texts and pairs are not mixed"
    if pairs:
        pieces = pair_pieces(tokenizer, pairs, limit=limit, overflow=overflow, first=first)
    else:
        pieces = text_pieces(tokenizer, singles, limit=limit, overflow=overflow, prompt=prompt, first=first)
    what = "pair" if pairs else "text"

    def finish(rows: list[np.ndarray]) -> list[Score]:
        joined = pieces.join(rows, by=join)
        require_finite(joined, what, first)
        return [meaning(row) for row in joined]

    return Reading(sequences=pieces.sequences, finish=finish, cut=pieces.cut)


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
