"""A kind of foreign model folder: how its config.json reads and writes, and how its tensors are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from modernbert.errors import ConfigError, WeightsError
from modernbert.heads.classify import ChoiceHeadConfig, ClassifyHeadConfig, Problem
from modernbert.heads.embed import EmbedHeadConfig, TokenEmbedHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import HeadPart, ModelConfig
from modernbert.heads.tokens import SpanHeadConfig, TagHeadConfig
from modernbert.pretrained.keys import Keys, label_keys, labels_from
from modernbert.pretrained.weights import FLOATS


class NotExpressible(Exception):
    """A family's config.json has no words for the model; the message says which part. Users never meet it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """A foreign kind of folder, named by its `model_type`.

    `read` takes the keys and the kind of head and gives the model; `write` gives the keys, or raises
    NotExpressible. `to_ours` renames the tensors of a file to the parameters of our module, `to_theirs` does
    the reverse.
    """

    model_type: str
    read: Callable[[Keys, str], ModelConfig]
    write: Callable[[ModelConfig], dict[str, Any]]
    to_ours: Callable[[ModelConfig, Mapping[str, Tensor]], dict[str, Tensor]]
    to_theirs: Callable[[ModelConfig, Mapping[str, Tensor]], dict[str, Tensor]]
    class_prefix: str


# The endings of transformers' class names, beside the head that each stands for.
HEAD_KINDS: Mapping[str, str] = {
    "ForMaskedLM": "mlm",
    "ForPreTraining": "mlm",
    "ForSequenceClassification": "classify",
    "ForTokenClassification": "tag",
    "ForQuestionAnswering": "span",
    "ForMultipleChoice": "choice",
    "Model": "none",
}
_KINDS_BY_PART: tuple[tuple[type, str], ...] = (
    (MlmHeadConfig, "mlm"),
    (ClassifyHeadConfig, "classify"),
    (TagHeadConfig, "tag"),
    (SpanHeadConfig, "span"),
    (ChoiceHeadConfig, "choice"),
    (EmbedHeadConfig, "none"),
    (TokenEmbedHeadConfig, "none"),
)
_PROBLEMS: Mapping[str | None, Problem] = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}


def head_kind(raw: Mapping[str, Any], source: str) -> str:
    """The kind of head that `architectures` names; a config without any describes a bare encoder."""
    architectures = raw.get("architectures") or ["Model"]
    if not isinstance(architectures, list):
        raise ConfigError(f"{source}: 'architectures' must be a list of names, found {architectures!r}")
    name = str(cast("list[object]", architectures)[0])
    for ending, kind in HEAD_KINDS.items():
        if name.endswith(ending):
            return kind
    raise ConfigError(
        f"{source}: the architecture {name!r} is not supported; supported endings are {', '.join(HEAD_KINDS)}"
    )


def kind_of(head: HeadPart) -> str:
    """The kind of a head of ours; NotExpressible for a user's own."""
    for part, kind in _KINDS_BY_PART:
        if isinstance(head, part):
            return kind
    raise NotExpressible(f"the head {type(head).__name__}")


def architecture(family: Family, head: HeadPart, foreign: Mapping[str, Any]) -> str:
    """transformers' class for this head; of several the one that the model came from."""
    kind = kind_of(head)
    names = [family.class_prefix + ending for ending, known in HEAD_KINDS.items() if known == kind]
    given = foreign.get("architectures") or names
    return given[0] if given[0] in names else names[0]


def read_problem(keys: Keys, labels: tuple[str, ...]) -> Problem:
    """What the scores of a classifier mean; one of one label would say nothing: a lone score is a value."""
    problem = keys.raw.get("problem_type")
    if problem in (None, "single_label_classification"):
        return "regression" if len(labels) == 1 else "single_label"
    if problem not in tuple(_PROBLEMS):  # which may be anything, also what cannot be a key
        raise ConfigError(
            f"{keys.source}: unknown problem_type {problem!r}; known are {', '.join(map(str, _PROBLEMS))}"
        )
    return _PROBLEMS[problem]


def head_keys(head: HeadPart) -> dict[str, Any]:
    """The keys of config.json that every family writes in the same way for a head."""
    if isinstance(head, ClassifyHeadConfig):
        need(len(head.labels) > 1 or head.problem != "single_label", "a choice of one among one label")
        theirs = next(name for name, problem in _PROBLEMS.items() if problem == head.problem)
        return {"problem_type": theirs} | label_keys(head.labels)
    if isinstance(head, TagHeadConfig):
        return label_keys(head.labels)
    return {}


def labels_of(keys: Keys) -> tuple[str, ...]:
    """The labels that a config names."""
    return labels_from(keys.raw, keys.source)


def drop_tied_decoder(tensors: dict[str, Tensor], name: str) -> None:
    """Take away the decoder that a tied model's file repeats; WeightsError where it is another matrix."""
    decoder, embeddings = tensors.pop(name, None), tensors.get("model.embeddings.tok_embeddings.weight")
    if decoder is None or embeddings is None or embeddings.dtype not in FLOATS:  # `fill` refuses the last
        return
    if not torch.equal(decoder, embeddings):
        raise WeightsError(
            f"config.json says tie_word_embeddings=true, but the weights hold a {name} that is not the token "
            "embeddings; set tie_word_embeddings to false, or take the decoder out of the file"
        )


def need(is_so: bool, what: str) -> None:
    """Raise NotExpressible, naming the part, unless the claim holds."""
    if not is_so:
        raise NotExpressible(what)
