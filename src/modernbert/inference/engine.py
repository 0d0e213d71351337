"""Sequences through a model in packs of a token budget, results in the order of the input."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import nn

from modernbert.encoder.encoder import Encoder
from modernbert.progress import progress
from modernbert.text.batch import PackedBatch
from modernbert.text.packing import pack_by_budget

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Result = TypeVar("Result")

# Enough tokens to keep every core busy, few enough for a pack's activations to stay near the cores.
BUDGET_TOKENS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceIds:
    """One sequence, ready for the model: its token ids and their types."""

    token_ids: list[int]
    token_types: list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """Where and how modules run: the device, the attention kernel, and the tokens in a pack."""

    device: torch.device
    backend: str = "auto"
    budget_tokens: int = BUDGET_TOKENS

    def run(
        self,
        sequences: Sequence[SequenceIds],
        forward: Callable[[PackedBatch], Sequence[Result]],
        *,
        label: str,
    ) -> list[Result]:
        """Call `forward` on packs of the sequences; it gives one result for each sequence of its pack.

        The results come back in the order of `sequences`. A bar named `label` shows on a terminal.
        """
        results: dict[int, Result] = {}
        packs = pack_by_budget([len(sequence.token_ids) for sequence in sequences], self.budget_tokens)
        # Not inference_mode: hidden states may go on into a user's own training, where its tensors cannot.
        with torch.no_grad():
            for pack in progress(packs, label=label, total=len(packs), unit="pack"):
                members = [sequences[index] for index in pack]
                batch = PackedBatch.from_sequences(
                    [member.token_ids for member in members], [member.token_types for member in members]
                )
                results |= dict(zip(pack, forward(batch.to(self.device)), strict=True))
        return [results[index] for index in range(len(sequences))]

    def rows(
        self, module: nn.Module, sequences: Sequence[SequenceIds], *, label: str
    ) -> list[Float[np.ndarray, "C"]]:
        """The row of scores that the module gives for each sequence, in float32."""

        def forward(batch: PackedBatch) -> list[np.ndarray]:
            return list(module(batch, self.backend).float().cpu().numpy())

        return self.run(sequences, forward, label=label)

    def tokens(
        self, module: nn.Module, sequences: Sequence[SequenceIds], *, label: str
    ) -> list[Float[Tensor, "n ..."]]:
        """What the module gives for the tokens of each sequence, on the CPU, each in memory of its own."""

        def forward(batch: PackedBatch) -> list[Tensor]:
            return [piece.clone() for piece in batch.split(module(batch, self.backend).cpu())]

        return self.run(sequences, forward, label=label)


def outside_training(module: nn.Module) -> nn.Module:
    """The module without dropout: itself, or, where it is in training mode, a copy with the same tensors.

    The module is left as it is, so that a thread may train it while another asks.
    """
    if not any(part.training for part in module.modules()):
        return module
    twin = copy.copy(module)
    twin.training = False
    if isinstance(module, Encoder):
        vars(twin)["native"] = module.native.for_twin(module)
    twin._modules = {  # pyright: ignore[reportPrivateUsage]  # a module's parts have no other door
        name: None if part is None else outside_training(part)
        for name, part in module._modules.items()  # pyright: ignore[reportPrivateUsage]
    }
    return twin
