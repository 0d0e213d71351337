"""What a model can do, by the head on it, and its description in a few words."""

from __future__ import annotations

from modernbert.heads.classify import ChoiceHeadConfig, ClassifyHeadConfig
from modernbert.heads.embed import EmbedHeadConfig, PoolerHeadConfig, TokenEmbedHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import HeadPart
from modernbert.heads.tokens import SpanHeadConfig, TagHeadConfig

_EMBED = ("embed", "embed_tokens", "similarity")
# Each head, what it is, and the methods of Model that it serves; `hidden_states` every model does.
_HEADS: tuple[tuple[type, str, tuple[str, ...]], ...] = (
    (MlmHeadConfig, "a masked language model", ("fill_mask", "fill_masks", *_EMBED)),
    (ClassifyHeadConfig, "a classifier", ("classify",)),
    (TagHeadConfig, "a tagger", ("tag",)),
    (SpanHeadConfig, "a finder of answers", ("answer", "answers")),
    (ChoiceHeadConfig, "a chooser among answers", ("choose",)),
    (EmbedHeadConfig, "an encoder for embeddings", _EMBED),
    (PoolerHeadConfig, "an encoder with a pooler", _EMBED),
    (TokenEmbedHeadConfig, "an encoder with a vector for each token", ("embed_tokens", "maxsim")),
)
MOST_LABELS_SHOWN = 8


def tasks_of(head: HeadPart) -> tuple[str, ...]:
    """The names of the methods that a model with this head serves."""
    tasks = next((tasks for part, _, tasks in _HEADS if isinstance(head, part)), ())
    if isinstance(head, ClassifyHeadConfig) and len(head.labels) == 1:
        tasks = (*tasks, "rerank")
    return (*tasks, "hidden_states")


def describe(head: HeadPart) -> str:
    """The head in a few words, with its labels where it has some."""
    words = next((words for part, words, _ in _HEADS if isinstance(head, part)), f"a {type(head).__name__}")
    if not isinstance(head, ClassifyHeadConfig | TagHeadConfig):
        return words
    more = ", ..." if len(head.labels) > MOST_LABELS_SHOWN else ""
    return f"{words} of {', '.join(head.labels[:MOST_LABELS_SHOWN])}{more}"
