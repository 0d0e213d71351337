"""One vector for each text: pooled as the folder says, by the mean of its tokens where it says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import nn

from modernbert.encoder.encoder import Encoder
from modernbert.errors import InputError
from modernbert.heads.embed import EmbedHeadConfig, TextEmbedder
from modernbert.heads.model import ModelConfig
from modernbert.inference.inputs import require_whole
from modernbert.inference.long_texts import Pieces
from modernbert.inference.scores import mean_row, require_finite, unit
from modernbert.pretrained.sentence import TextSettings
from modernbert.text.batch import PackedBatch

if TYPE_CHECKING:
    from jaxtyping import Float

# Names that Sentence Transformers takes on every model, beside those that a folder may use for the same.
_ALWAYS = {"query": ("query",), "document": ("document", "passage", "corpus")}


def embed_head(config: ModelConfig) -> EmbedHeadConfig:
    """The folder's head for embeddings, or the one that a model without it is used with."""
    return config.head if isinstance(config.head, EmbedHeadConfig) else EmbedHeadConfig()


def text_embedder(module: nn.Module) -> TextEmbedder:
    """The module of `embed_head`."""
    if isinstance(module, TextEmbedder):
        return module
    return TextEmbedder(EmbedHeadConfig(), cast(Encoder, module.model))


def embedding_size(config: ModelConfig) -> int:
    """How many numbers a text's vector has."""
    head = embed_head(config)
    return head.dense[-1].out_features if head.dense else config.encoder.hidden_size * len(head.poolings)


def embed_batch(
    embedder: TextEmbedder, batch: PackedBatch, *, num_skipped: int, backend: str
) -> list[Float[np.ndarray, "E"]]:
    """A vector for each sequence; the first `num_skipped` tokens of each are seen, but not pooled."""
    if num_skipped == 0:
        return list(embedder(batch, backend).cpu().numpy())
    first = (batch.lengths - 1).clamp(max=num_skipped)  # [S], so that the last token is always pooled
    is_pooled = batch.position_ids >= first.repeat_interleave(batch.lengths)  # [T]
    cu_seqlens = nn.functional.pad((batch.lengths - first).cumsum(0), (1, 0))
    hidden = embedder.model(batch, backend)[is_pooled]
    return list(embedder.embed(hidden, cu_seqlens, first).cpu().numpy())


def join_vectors(
    pieces: Pieces, rows: Sequence[np.ndarray], *, size: int, dimensions: int | None, is_normalized: bool
) -> Float[np.ndarray, "N E"]:
    """One vector a text from the rows of its sequences, cut to `dimensions`; length 1 if `is_normalized`."""
    joined = pieces.join(rows, by=mean_row)
    require_finite(joined)
    vectors = np.array(joined, dtype=np.float32).reshape(-1, size)[:, :dimensions]
    return unit(vectors) if is_normalized else np.ascontiguousarray(vectors)


def prompt_named(name: str | None, settings: TextSettings, model_name: str) -> str:
    """The prompt of that name, or the folder's default; "query" and "document" are known to every model."""
    name = settings.default_prompt if name is None else name
    if name is None:
        return ""
    for known in _ALWAYS.get(name, (name,)):
        if known in settings.prompts:
            return settings.prompts[known]
    if name in _ALWAYS:
        return ""
    names = ", ".join(map(repr, settings.prompts)) or "none"
    raise InputError(f"{model_name} has no prompt {name!r}; its prompts are: {names}")


def require_dimensions(dimensions: int | None, size: int) -> None:
    """Raise InputError unless a vector of `size` numbers has so many."""
    if dimensions is None:
        return
    require_whole("dimensions", dimensions)
    if not 1 <= dimensions <= size:
        raise InputError(f"dimensions must lie between 1 and the model's {size}, found {dimensions}")
