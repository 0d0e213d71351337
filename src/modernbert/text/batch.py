"""The one form in which tokens reach a model: sequences laid end to end, with the bounds between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch

from modernbert.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Int, Shaped
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedBatch:
    """Sequences laid end to end, with no padding.

        token_ids     [c h a t | o n | m a t h]
        position_ids   0 1 2 3   0 1   0 1 2 3
        cu_seqlens     0         4     6        10

    Layers that treat tokens one by one need not know the bounds; attention and pooling do. `token_types`
    tells the first text of a pair (0) from the second (1) for models that learned the difference; None means
    all 0.
    """

    token_ids: Int[Tensor, "T"]
    position_ids: Int[Tensor, "T"]
    cu_seqlens: Int[Tensor, "S+1"]
    max_seqlen: int
    token_types: Int[Tensor, "T"] | None = None

    @classmethod
    def from_sequences(
        cls, sequences: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]] | None = None
    ) -> PackedBatch:
        """Lay lists of token ids end to end. Each must have at least one token."""
        lengths = [len(sequence) for sequence in sequences]
        if token_types is not None and [len(types) for types in token_types] != lengths:
            raise InputError("token_types must have the lengths of the sequences, one type for each token")
        flat = [token for sequence in sequences for token in sequence]
        types = None if token_types is None else [t for sequence_types in token_types for t in sequence_types]
        return _from_flat(
            torch.tensor(flat, dtype=torch.long),
            lengths,
            None if types is None else torch.tensor(types, dtype=torch.long),
        )

    @classmethod
    def from_padded(
        cls,
        input_ids: Int[Tensor, "B N"],
        attention_mask: Int[Tensor, "B N"],
        token_type_ids: Int[Tensor, "B N"] | None = None,
    ) -> PackedBatch:
        """Take the real tokens out of a padded batch, padding on either side; a row without any is an
        InputError.
        """
        if input_ids.shape != attention_mask.shape or input_ids.dim() != 2:
            raise InputError(
                "input_ids and attention_mask must both be [batch, length], "
                f"found {tuple(input_ids.shape)} and {tuple(attention_mask.shape)}"
            )
        is_real = attention_mask.bool()
        types = None if token_type_ids is None else token_type_ids[is_real]
        return _from_flat(input_ids[is_real], is_real.sum(dim=1).tolist(), types)

    @property
    def num_tokens(self) -> int:
        """T: tokens in the whole pack."""
        return self.token_ids.shape[0]

    @property
    def num_sequences(self) -> int:
        """S: sequences in the pack."""
        return self.cu_seqlens.shape[0] - 1

    @property
    def lengths(self) -> Int[Tensor, "S"]:
        """Tokens in each sequence."""
        return self.cu_seqlens.diff()

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on another device."""
        return replace(
            self,
            token_ids=self.token_ids.to(device),
            position_ids=self.position_ids.to(device),
            cu_seqlens=self.cu_seqlens.to(device),
            token_types=None if self.token_types is None else self.token_types.to(device),
        )

    def split(self, per_token: Shaped[Tensor, "T ..."]) -> list[Shaped[Tensor, "n ..."]]:
        """Cut what a layer gave for each token into one tensor for each sequence."""
        return list(per_token.split(self.lengths.tolist()))


def _from_flat(token_ids: Tensor, lengths: list[int], token_types: Tensor | None) -> PackedBatch:
    if not lengths:
        raise InputError("a batch needs at least one sequence, found none")
    if 0 in lengths:
        raise InputError(
            f"sequence {lengths.index(0)} of the batch has no tokens; leave it out or give it a special token"
        )
    device = token_ids.device
    starts = [0, *accumulate(lengths)]
    # by NumPy: threads of torch would be woken for it, and spin on for a while where the encoder needs cores
    positions = np.arange(len(token_ids)) - np.repeat(starts[:-1], lengths)
    return PackedBatch(
        token_ids=token_ids,
        position_ids=torch.from_numpy(positions).to(device),
        cu_seqlens=torch.tensor(starts, dtype=torch.int32, device=device),
        max_seqlen=max(lengths),
        token_types=token_types,
    )
