"""From a label for each word to entities: BIO, IOB, BILOU and BIOES tags, and labels without a scheme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modernbert.inference.results import Entity

_OPENS = frozenset("BUS")
_CLOSES = frozenset("LEUS")
OUTSIDE = "O"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaggedWord:
    """A word with its place in the text and what the model says of it."""

    start: int
    end: int
    tag: str
    score: float


def merge_entities(text: str, words: Sequence[TaggedWord]) -> list[Entity]:
    """Join neighbouring words of one entity; an entity's score is the mean of its words'."""
    groups: list[list[TaggedWord]] = []
    is_open = False
    for word in words:
        position, label = split_tag(word.tag)
        if label == OUTSIDE:
            is_open = False
            continue
        continues = is_open and position not in _OPENS and label == split_tag(groups[-1][-1].tag)[1]
        if continues:
            groups[-1].append(word)
        else:
            groups.append([word])
        is_open = position not in _CLOSES
    return [_entity(text, group) for group in groups]


def split_tag(tag: str) -> tuple[str, str]:
    """The position in its entity that a tag names ("B", "I", ...; "" without a scheme), and the label."""
    position, dash, label = tag.partition("-")
    if dash and position in set("BILUES"):
        return position, label
    return "", tag


def _entity(text: str, words: list[TaggedWord]) -> Entity:
    start, end = words[0].start, words[-1].end
    return Entity(
        label=split_tag(words[0].tag)[1],
        text=text[start:end],
        start=start,
        end=end,
        score=sum(word.score for word in words) / len(words),
    )
