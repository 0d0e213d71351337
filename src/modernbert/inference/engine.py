"""Sequences through a model in packs of a token budget, results in the order of the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from modernbert.progress import progress
from modernbert.text.batch import PackedBatch
from modernbert.text.packing import pack_by_budget

Result = TypeVar("Result")

# Enough tokens to keep every core busy, few enough for a pack's activations to stay near the cores.
BUDGET_TOKENS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceIds:
    """One sequence, ready for the model: its token ids, and their types where it is a pair."""

    token_ids: list[int]
    token_types: list[int]


def run(
    sequences: Sequence[SequenceIds],
    forward: Callable[[PackedBatch], Sequence[Result]],
    *,
    device: torch.device,
    label: str,
    budget_tokens: int = BUDGET_TOKENS,
) -> list[Result]:
    """Call `forward` on packs of the sequences, without gradients; it gives one result for each sequence of its pack.

    The results come back in the order of `sequences`. A bar named `label` shows on a terminal.
    """
    results: dict[int, Result] = {}
    packs = pack_by_budget([len(sequence.token_ids) for sequence in sequences], budget_tokens)
    with torch.inference_mode():
        for pack in progress(packs, label=label, total=len(packs), unit="pack"):
            members = [sequences[index] for index in pack]
            batch = PackedBatch.from_sequences(
                [member.token_ids for member in members], [member.token_types for member in members]
            ).to(device)
            results |= dict(zip(pack, forward(batch), strict=True))
    return [results[index] for index in range(len(sequences))]
