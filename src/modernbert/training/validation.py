"""Losses on held-out text: the same rows with the same masks every time, so that figures can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from modernbert.corpus.split import Documents
from modernbert.corpus.stream import Piece, Row
from modernbert.text.packing import pack_by_budget
from modernbert.training.parallel import Group
from modernbert.training.probes import Probes

if TYPE_CHECKING:
    from modernbert.training.pretraining import MaskedRows


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """What is measured: up to `num_tokens` of held-out text, the same share of it from every source.

    `precision` is the dtype of autocast, as in training. Figures are means over masked tokens; those of
    `probes` come beside them, where there are some.
    """

    documents: Documents
    rows: MaskedRows
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    seq_len: int
    row_tokens: int
    mask_rate: float
    num_tokens: int
    precision: torch.dtype
    probes: Probes | None = None

    @torch.no_grad()
    def figures(self, module: nn.Module, group: Group) -> dict[str, Any]:
        """Loss and accuracy by source, and over all of them; every process takes its share of the rows."""
        was_training = module.training
        module.eval()
        total = np.zeros(3)
        sources: dict[str, dict[str, float]] = {}
        for source in self.documents.sources:
            sums = self._sums(module, group, source)
            sources[source] = _means(sums)
            total += sums
        figures = {**_means(total), "sources": sources}
        if self.probes is not None:
            figures["probes"] = self.probes.figures(module, group)
        module.train(was_training)
        return figures

    def _sums(self, module: nn.Module, group: Group, source: str) -> np.ndarray:
        """Summed negative log-likelihood, right guesses and masked tokens of one source."""
        rows = self._rows_of(source)
        mine = rows[group.rank :: group.world_size]
        micros = self.rows.micros(mine, self.mask_rate, -(-len(rows) // group.world_size))
        sums = torch.zeros(3, dtype=torch.float64, device=group.device)
        for micro in micros:
            with torch.autocast(group.device.type, self.precision, self.precision != torch.float32):
                found = module(*(each.to(group.device) for each in micro.inputs))
            if micro.weight:
                sums[:2] += found[1:].double()
                sums[2] += micro.weight
        return group.sum(sums).cpu().numpy()

    def _rows_of(self, source: str) -> list[Row]:
        """Documents in their order, cut as in training, until this source has given its share of tokens."""
        room = self.num_tokens // len(self.documents.sources)
        most = self.seq_len - len(self.prefix) - len(self.suffix)
        pieces: list[Piece] = []
        for document, length in enumerate(self.documents.lengths(source).tolist()):
            for start in range(0, length, most):
                if room <= 0:
                    break
                pieces.append(
                    Piece(source=source, document=document, start=start, end=min(start + most, length))
                )
                room -= pieces[-1].end - start
        sizes = [piece.end - piece.start + len(self.prefix) + len(self.suffix) for piece in pieces]
        packs = pack_by_budget(sizes, self.row_tokens)
        return [self._row(number, [pieces[index] for index in pack]) for number, pack in enumerate(packs)]

    def _row(self, number: int, pieces: Sequence[Piece]) -> Row:
        texts = [
            np.concatenate(
                [
                    self.prefix,
                    self.documents.tokens(each.source, each.document, each.start, each.end),
                    self.suffix,
                ]
            ).astype(np.int64)
            for each in pieces
        ]
        return Row(
            number=number,
            pieces=tuple(pieces),
            token_ids=np.concatenate(texts),
            lengths=tuple(len(text) for text in texts),
        )


def _means(sums: np.ndarray) -> dict[str, float]:
    nll, num_correct, weight = (float(value) for value in sums)
    weight = max(weight, 1.0)
    return {"loss": nll / weight, "accuracy": num_correct / weight, "num_masked": weight}
