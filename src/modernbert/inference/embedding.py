"""One vector for each text, pooled as the folder says, or one for each token, compared by MaxSim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from torch import nn

from modernbert.encoder.encoder import Encoder
from modernbert.errors import InputError, TaskError
from modernbert.heads.embed import EmbedHeadConfig, TextEmbedder, TokenEmbedHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.inference.engine import Reading, SequenceIds
from modernbert.inference.inputs import require_whole
from modernbert.inference.long_texts import Pieces
from modernbert.inference.scores import mean_row, require_finite, unit
from modernbert.pretrained.settings import QueryExpansion, TextSettings
from modernbert.text.batch import PackedBatch
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Products of token vectors that are in memory at once: 64 MB.
_AT_ONCE = 2**24
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


def vectors_of(
    pieces: Pieces, *, first: int, dimensions: int | None, kept: int | None, is_normalized: bool
) -> Reading[np.ndarray, Float[np.ndarray, "E"]]:
    """Pieces of texts to one vector each, cut to `dimensions`, of length 1 if `is_normalized`, cut to `kept`.

    `first` texts came before these.
    """

    def finish(rows: list[np.ndarray]) -> list[np.ndarray]:
        joined = pieces.join(rows, by=mean_row)
        require_finite(joined, first=first)
        vectors = np.array(joined, dtype=np.float32)[..., :dimensions]
        vectors = unit(vectors) if is_normalized else vectors
        # copies, so that whoever keeps a few vectors does not keep their neighbours too
        return [vector[:kept].copy() for vector in vectors]

    return Reading(sequences=pieces.sequences, finish=finish, cut=pieces.cut)


def token_vectors_of(
    pieces: Pieces, sequences: Sequence[SequenceIds], *, first: int, skipped: frozenset[int]
) -> Reading[Tensor, Float[np.ndarray, "n E"]]:
    """Pieces of texts to a vector for each token but the skipped ones; `sequences` may hold added tokens.

    `first` texts came before these.
    """

    def finish(rows: list[Tensor]) -> list[np.ndarray]:
        vectors = [each.float().numpy() for each in rows]
        require_finite(vectors, first=first)
        return without_skipped(vectors, sequences, skipped)

    return Reading(sequences=sequences, finish=finish, cut=pieces.cut)


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


def expanded(
    sequences: Sequence[SequenceIds], expansion: QueryExpansion | None, tokenizer: Tokenizer
) -> list[SequenceIds]:
    """Queries with masks behind them, as the folder says; those that are long enough as they are."""
    if expansion is None:
        return list(sequences)
    added = tokenizer.mask_id if expansion.token is None else tokenizer.id_of(expansion.token)
    if added is None:
        raise TaskError(
            f"queries are to be filled with {expansion.token or 'masks'}, which this tokenizer does not have"
        )
    found: list[SequenceIds] = []
    for each in sequences:
        num = max(0, expansion.length - len(each.token_ids))
        found.append(
            SequenceIds(
                token_ids=[*each.token_ids, *[added] * num], token_types=[*each.token_types, *[0] * num]
            )
        )
    return found


def skipped_ids(config: ModelConfig, tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens that documents keep no vector of; words that are no entry of the vocabulary are none."""
    words = config.head.skiplist if isinstance(config.head, TokenEmbedHeadConfig) else ()
    return frozenset(found for word in words if (found := tokenizer.id_of(word)) is not None)


def without_skipped(
    vectors: Sequence[Float[np.ndarray, "n E"]], sequences: Sequence[SequenceIds], skipped: frozenset[int]
) -> list[Float[np.ndarray, "n E"]]:
    """The vectors of documents, but for those of skipped tokens."""
    if not skipped:
        return list(vectors)
    return [
        each[[token not in skipped for token in sequence.token_ids]]
        for each, sequence in zip(vectors, sequences, strict=True)
    ]


def maxsim(
    queries: Sequence[Float[np.ndarray, "n E"]], documents: Sequence[Float[np.ndarray, "n E"]]
) -> Float[np.ndarray, "Q N"]:
    """For each query and document, the sum over the query's tokens of the largest product with a token of the
    document; 0 for a document without any.
    """
    counts = np.array([len(each) for each in queries])
    scores = np.zeros((len(queries), len(documents)), np.float32)
    if not len(queries):
        return scores
    asked = np.concatenate(queries)  # [n, E]
    first = 0
    while first < len(documents):
        last, num = first, 0
        while last < len(documents) and (
            last == first or (num + len(documents[last])) * len(asked) < _AT_ONCE
        ):
            num += len(documents[last])
            last += 1
        held = [place for place in range(first, last) if len(documents[place])]
        if held:
            lengths = np.array([len(documents[place]) for place in held])
            products = asked @ np.concatenate([documents[place] for place in held]).T  # [n, m]
            best = np.maximum.reduceat(products, lengths.cumsum() - lengths, axis=1)  # [n, documents]
            scores[:, held] = np.add.reduceat(best, counts.cumsum() - counts, axis=0)
        first = last
    return scores


def require_dimensions(dimensions: int | None, size: int) -> None:
    """Raise InputError unless a vector of `size` numbers has so many."""
    if dimensions is None:
        return
    require_whole("dimensions", dimensions)
    if not 1 <= dimensions <= size:
        raise InputError(f"dimensions must lie between 1 and the model's {size}, found {dimensions}")
