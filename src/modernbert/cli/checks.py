"""Whether a model folder works: its numbers, its tokenizer, and a run of the model on a few tokens.

That every file is there and that tensors fit the configuration is known already: `read_folder` saw to it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from modernbert.pretrained.folder import Pretrained
from modernbert.pretrained.weights import not_numbers
from modernbert.text.batch import PackedBatch

# Of the largest number. In fp32, sums in another order differ by less; sequences that see each other by more.
TOLERANCE = 1e-4
_LENGTHS = (3, 9, 5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What was looked at, whether it is right, and what was found."""

    name: str
    is_right: bool
    found: str

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def check_model(folder: Path, pretrained: Pretrained) -> list[Check]:
    """Every check on a model as it was read; its module computes in float32 on the CPU afterwards."""
    pretrained.module.float()
    numbers = _check_numbers(pretrained)
    checks = [numbers, _check_tokenizer(folder, pretrained)]
    return [*checks, *_check_forward(pretrained)] if numbers.is_right else checks


def _check_numbers(pretrained: Pretrained) -> Check:
    wrong = not_numbers(pretrained.module)
    shown = ", ".join(f"{name} ({count:,})" for name, count in list(wrong.items())[:5])
    found = f"NaN or infinite in {len(wrong)} tensors: {shown}" if wrong else "all are finite"
    return Check(name="weights", is_right=not wrong, found=found)


def _check_tokenizer(folder: Path, pretrained: Pretrained) -> Check:
    tokenizer, rows = pretrained.tokenizer, pretrained.config.encoder.vocab_size
    if tokenizer is None:
        return Check(
            name="tokenizer", is_right=False, found=f"{folder} has no tokenizer files, so it takes no texts"
        )
    ids = tokenizer.encode_ids(["a few words"])[0]
    is_right = tokenizer.vocab_size <= rows and len(ids) > 0 and max(ids) < rows
    found = f"{tokenizer.vocab_size:,} entries for {rows:,} rows of the embedding"
    return Check(name="tokenizer", is_right=is_right, found=found)


def _check_forward(pretrained: Pretrained) -> list[Check]:
    rows = pretrained.config.encoder.vocab_size
    drawn = torch.randint(rows, (sum(_LENGTHS),), generator=torch.Generator().manual_seed(0))
    sequences = [part.tolist() for part in drawn.split(_LENGTHS)]
    encoder = pretrained.module.get_submodule("model")
    with torch.inference_mode():
        packed = PackedBatch.from_sequences(sequences)
        together = encoder(packed)  # [T, D]
        alone = torch.cat([encoder(PackedBatch.from_sequences([sequence])) for sequence in sequences])
        scores = pretrained.module(packed)
    apart = float((together - alone).abs().max() / together.abs().max().clamp(min=1e-12))
    is_finite = bool(together.isfinite().all() and scores.isfinite().all())
    return [
        Check(
            name="forward",
            is_right=is_finite,
            found=f"{len(drawn)} tokens give {'finite' if is_finite else 'NaN or infinite'} numbers",
        ),
        Check(
            name="packing",
            is_right=apart <= TOLERANCE,
            found=f"sequences in one pack and each alone differ by {apart:.1e} of the largest number",
        ),
    ]
