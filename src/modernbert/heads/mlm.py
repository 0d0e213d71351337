"""Masked language modelling: from hidden states to a score for every entry of the vocabulary, and to the loss
of guessing masked tokens, which never holds all of these scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from modernbert.encoder.config import Part
from modernbert.encoder.encoder import Encoder, initialize_like
from modernbert.heads.transform import TransformConfig, build_transform
from modernbert.kernels.cross_entropy import CrossEntropySums, linear_cross_entropy

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from modernbert.text.batch import PackedBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class MlmHeadConfig(Part):
    """A transform and a decoder; `is_tied` takes the decoder's matrix from the token embeddings."""

    kind: ClassVar[str] = "mlm_head"
    transform: TransformConfig | None = TransformConfig()
    has_decoder_bias: bool = True
    is_tied: bool = True

    def build(self, encoder: Encoder) -> MaskedLanguageModel:
        """The encoder with this head on it."""
        return MaskedLanguageModel(self, encoder)


class MaskedLanguageModel(nn.Module):
    """Parameters as published: `model`, `head.dense`, `head.norm`, `decoder`."""

    def __init__(self, config: MlmHeadConfig, encoder: Encoder) -> None:
        super().__init__()
        vocab_size, hidden_size = encoder.config.vocab_size, encoder.config.hidden_size
        self.head = build_transform(config.transform, hidden_size)
        self.decoder = nn.Linear(hidden_size, vocab_size, bias=config.has_decoder_bias)
        initialize_like(self, encoder.config)  # before the encoder joins, whose weights are drawn already
        self.model = encoder
        if config.is_tied:
            self.decoder.weight = encoder.get_parameter("embeddings.tok_embeddings.weight")

    def forward(
        self, batch: PackedBatch, backend: str = "auto", positions: Int[Tensor, "M"] | None = None
    ) -> Float[Tensor, "M V"]:
        """Logits at the tokens named by `positions` (indices into the pack), or at all T of them."""
        return self.logits(self.model(batch, backend, positions))

    def loss(
        self,
        batch: PackedBatch,
        positions: Int[Tensor, "M"],
        labels: Int[Tensor, "M"],
        backend: str = "auto",
        *,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ) -> CrossEntropySums:
        """How badly the tokens at `positions` (indices into the pack) are guessed: sums, not means.

        Head, decoder and the last layer's share run at these positions only, and the logits never exist all
        at once (`kernels.cross_entropy`, which also defines the two options).
        """
        hidden = self.head(self.model(batch, backend, positions))  # [M, D]
        return linear_cross_entropy(
            hidden,
            self.decoder.weight,
            self.decoder.bias,
            labels,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
        )

    def logits(self, hidden: Float[Tensor, "M D"]) -> Float[Tensor, "M V"]:
        """Scores of every vocabulary entry from hidden states."""
        return self.decoder(self.head(hidden))


def log_probabilities(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M V"]:
    """Logits as log-probabilities, in fp32."""
    return torch.log_softmax(logits.float(), dim=-1)
