"""How many tokens a sequence may have: by its folder, by its tokenizer, and by the positions of its model.

Learned positions end somewhere, and nothing is computed past them. Others do not: a limit for them is what
the model was trained for, which a caller may go beyond.
"""

from __future__ import annotations

from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.errors import InputError
from modernbert.inference.inputs import require_positive
from modernbert.pretrained.settings import TextSettings
from modernbert.text.tokenizer import Tokenizer


def learned_positions(encoder: EncoderConfig) -> int | None:
    """How many positions the model has learned; None where they are computed."""
    embedding = encoder.embedding
    positions = embedding.positions if isinstance(embedding, EmbeddingConfig) else None
    return positions.num_positions if isinstance(positions, LearnedPositionsConfig) else None


def longest_possible(encoder: EncoderConfig) -> int:
    """The most tokens that the positions can take, whatever limit a folder sets below that."""
    learned = learned_positions(encoder)
    return encoder.max_positions if learned is None else learned


def longest_by_default(encoder: EncoderConfig, settings: TextSettings, tokenizer: Tokenizer) -> int:
    """The folder's limit, else the tokenizer's or the positions'."""
    named = settings.max_seq_length
    limits = (tokenizer.model_max_length, encoder.max_positions)
    if named is not None:
        limits = (named, learned_positions(encoder))
    return min(limit for limit in limits if limit is not None)


def require_computable(max_length: int, encoder: EncoderConfig) -> None:
    """Raise InputError for a limit that is no whole number above 0, or past the learned positions."""
    require_positive("max_length", max_length)
    learned = learned_positions(encoder)
    if learned is not None and max_length > learned:
        raise InputError(
            f"max_length={max_length} is longer than the {learned} positions that this model has learned"
        )
