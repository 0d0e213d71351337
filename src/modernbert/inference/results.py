"""What the tasks give back: small frozen values with plain fields."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Fill:
    """A candidate for a mask.

    `token` is the word as a person would write it, `raw_token` the vocabulary's entry, `score` its
    probability; `text` is the text with this candidate in place; `mask` counts the masks of the text from 0.
    """

    token: str
    raw_token: str
    token_id: int
    score: float
    text: str
    mask: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Classification:
    """The labels of a text with their scores, best first.

    Scores are probabilities that sum to 1 (one label holds), probabilities each (any number hold), or values
    (regression).
    """

    scores: dict[str, float]

    @property
    def label(self) -> str:
        """The label with the best score."""
        return next(iter(self.scores))

    @property
    def score(self) -> float:
        """The best score."""
        return next(iter(self.scores.values()))

    def above(self, threshold: float = 0.5) -> list[str]:
        """The labels whose score reaches `threshold`, for multi-label models."""
        return [label for label, score in self.scores.items() if score >= threshold]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entity:
    """A labelled stretch of a text, from character `start` up to `end`.

    `score` is the mean probability of its words.
    """

    label: str
    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The stretch of a context that answers, from character `start` up to `end`, with its probability.

    An empty `text` says that the context holds no answer; `start` and `end` are 0 then.
    """

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranked:
    """A document with its score for the query; `index` is its place in the list that was given."""

    index: int
    score: float
    document: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The choice with the best score; `score` is its probability among the choices."""

    index: int
    text: str
    score: float
