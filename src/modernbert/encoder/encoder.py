"""The encoder: embeddings, a list of blocks, a last norm. A pack of token ids in, one vector for each token
out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from modernbert.encoder.block import Block
from modernbert.encoder.config import Part, require_positive
from modernbert.encoder.embedding import EmbeddingConfig, NormPart
from modernbert.encoder.init import InitConfig, initialize
from modernbert.encoder.native import NativeEncoder, Plan
from modernbert.encoder.norm import LayerNormConfig
from modernbert.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from modernbert.text.batch import PackedBatch


class BlockPart(Protocol):
    """A layer: one of block.py's, or a user's own; its module is called as `module(x, batch, backend)`."""

    def build(self, hidden_size: int) -> nn.Module:
        """The module: [T, D] -> [T, D]."""
        ...


class EmbeddingPart(Protocol):
    """From a batch to vectors: `EmbeddingConfig` or a user's own; its module has the attribute
    `tok_embeddings`.
    """

    def build(self, vocab_size: int, hidden_size: int) -> nn.Module:
        """The module: a batch -> [T, D]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig(Part):
    """An encoder, as data: one part for each block, in order.

    `max_positions` is the longest sequence that the model is meant for, in tokens; rotary positions compute
    past it.
    """

    kind: ClassVar[str] = "encoder"
    vocab_size: int
    hidden_size: int
    blocks: tuple[BlockPart, ...]
    embedding: EmbeddingPart = EmbeddingConfig()
    final_norm: NormPart | None = LayerNormConfig()
    init: InitConfig = InitConfig()
    max_positions: int = 8192
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        require_positive(self, "vocab_size", "hidden_size", "max_positions")
        if not isinstance(cast(object, self.blocks), tuple) or not self.blocks:
            raise ConfigError(
                f"EncoderConfig.blocks must be a tuple of at least one block, found {self.blocks!r}"
            )
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ConfigError(
                f"pad_token_id {self.pad_token_id} lies outside the vocabulary of {self.vocab_size}"
            )

    def build(self) -> Encoder:
        """The encoder with freshly drawn weights, from torch's global generator."""
        return Encoder(self)


class Encoder(nn.Module):
    """Call it with a PackedBatch; parameters are named as published, so that their files load as they are.

    With `recomputes_layers` set, training keeps what goes into each layer and computes the rest again in the
    backward pass (gradient checkpointing): memory for time.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.recomputes_layers = False
        self.native = NativeEncoder()
        self.embeddings = config.embedding.build(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(block.build(config.hidden_size) for block in config.blocks)
        self.final_norm = (
            nn.Identity() if config.final_norm is None else config.final_norm.build(config.hidden_size)
        )
        initialize_like(self, config)

    def forward(
        self, batch: PackedBatch, backend: str = "auto", positions: Int[Tensor, "M"] | None = None
    ) -> Float[Tensor, "T D"]:
        """The last hidden state of every token of the pack; `backend` names the attention kernel.

        With `positions`, indices into the pack, only these tokens', [M, D]: the last layer then leaves out
        what the others would cost.
        """
        plan = self._native_plan(batch, backend)
        if plan is not None:
            hidden = plan.forward(batch)
            return hidden if positions is None else hidden.index_select(0, positions)
        x = self.embeddings(batch)  # [T, D]
        *first, last = self.layers
        for layer in first:
            x = self._through(layer, x, batch, backend)
        if positions is None:
            x = self._through(last, x, batch, backend)
        elif isinstance(last, Block):
            x = self._through(last, x, batch, backend, positions)  # [M, D]
        else:
            x = self._through(last, x, batch, backend)[positions]
        return self.final_norm(x)

    def _native_plan(self, batch: PackedBatch, backend: str) -> Plan | None:
        """The plan where the native library does it all; BackendError where it was asked for and cannot."""
        if self.training:
            self.native.drop()  # its weights are about to change
        is_asked = backend == "native"
        if not is_asked and (backend != "auto" or not self.native.is_on or self.training):
            return None
        plan = self.native.plan_for(self, batch)
        if isinstance(plan, Plan):
            return plan
        if not is_asked and not self.native.is_int8:
            return None
        raise BackendError(
            "the native backend cannot run this encoder:\n"
            + "\n".join(f"  it {reason}" for reason in plan)
            + ("\nhint: load the model with another dtype" if self.native.is_int8 else "")
            + ("\nhint: pass backend='auto', which then takes another" if is_asked else "")
        )

    def _through(self, layer: nn.Module, *inputs: Any) -> Tensor:
        if self.recomputes_layers and torch.is_grad_enabled():
            return cast("Tensor", checkpoint(layer, *inputs, use_reentrant=False))
        return layer(*inputs)


def initialize_like(module: nn.Module, config: EncoderConfig) -> None:
    """Draw the weights of an encoder, or of a head on it, by the encoder's initialisation."""
    if any(parameter.is_meta for parameter in module.parameters()):
        return  # built without storage, to be filled from a file
    with torch.no_grad():
        initialize(
            module,
            config.init,
            num_layers=len(config.blocks),
            hidden_size=config.hidden_size,
            pad_token_id=config.pad_token_id,
        )
