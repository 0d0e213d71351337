"""Examples as what goes through a model: one pack of all their sequences, or several small ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modernbert.inference.engine import SequenceIds
from modernbert.text.batch import PackedBatch
from modernbert.training.examples import Example

if TYPE_CHECKING:
    from jaxtyping import Float


def pack(sequences: Sequence[SequenceIds]) -> PackedBatch:
    """Sequences laid end to end, in their order."""
    return PackedBatch.from_sequences(
        [each.token_ids for each in sequences], [each.token_types for each in sequences]
    )


def pack_examples(examples: Sequence[Example]) -> PackedBatch:
    """All sequences of the examples laid end to end, in their order."""
    return pack([sequence for example in examples for sequence in example.sequences])


def targets_of(examples: Sequence[Example]) -> Float[Tensor, "..."]:
    """The numbers to learn of all examples, end to end, as float32."""
    return torch.from_numpy(np.concatenate([np.asarray(each.targets, np.float32) for each in examples]))


@dataclass(frozen=True, slots=True)
class Chunks:
    """Packs that go through the model one after another, such as those of a very large batch."""

    packs: tuple[PackedBatch, ...]

    def to(self, device: torch.device | str) -> Chunks:
        """The same packs on another device."""
        return Chunks(tuple(each.to(device) for each in self.packs))


def chunks_of(sequences: Sequence[SequenceIds], budget_tokens: int) -> Chunks:
    """Sequences in packs of at most `budget_tokens` tokens, in their order."""
    packs: list[list[SequenceIds]] = []
    room = 0
    for sequence in sequences:
        length = len(sequence.token_ids)
        if not packs or length > room:
            packs.append([])
            room = budget_tokens
        packs[-1].append(sequence)
        room -= length
    return Chunks(tuple(pack(each) for each in packs))


def in_chunks(module: nn.Module, chunks: Chunks, backend: str) -> Float[Tensor, "S E"]:
    """What a module gives for each sequence, pack by pack, with the activations of one pack in memory.

    Each pack is computed again in the backward pass, which gives the gradients of the whole batch: the cached
    gradient of Gao et al. 2021 (arXiv 2101.06983), by torch's checkpoints.
    """
    if len(chunks.packs) == 1 or not torch.is_grad_enabled():
        return torch.cat([module(each, backend) for each in chunks.packs])
    found = [checkpoint(module, each, backend, use_reentrant=False) for each in chunks.packs]
    return torch.cat(found)
