"""Pretraining as a job of the loop: shards and a recipe in, a model folder out.

    shards --stream--> rows --mask--> micro-batches --> masked-language-model loss

A run's folder holds recipe.json, the journal, checkpoints, pictures, and at the end final/, a model folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modernbert.corpus.masking import Masker
from modernbert.corpus.prefetch import prefetched
from modernbert.corpus.split import Documents
from modernbert.corpus.stream import Row, Step, Stream
from modernbert.heads.mlm import MaskedLanguageModel
from modernbert.text.batch import PackedBatch
from modernbert.text.tokenizer import Tokenizer
from modernbert.training.context import set_global_theta
from modernbert.training.loop import Micro, TrainingStep
from modernbert.training.parallel import Group
from modernbert.training.recipe import Phase, Recipe
from modernbert.training.throughput import training_flops
from modernbert.training.validation import Validation

# Steps that are read and masked while the model computes.
NUM_AHEAD = 2


class MaskedLoss(nn.Module):
    """The model with its loss, as one module that can be spread over processes: sums, not means."""

    def __init__(
        self,
        model: MaskedLanguageModel,
        *,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.model = model
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss
        self.backend = backend

    def forward(self, batch: PackedBatch, positions: Tensor, labels: Tensor) -> Tensor:
        """The summed loss, the summed negative log-likelihood and the number of right guesses, [3]."""
        found = self.model.loss(
            batch,
            positions,
            labels,
            backend=self.backend,
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
        )
        return torch.stack([found.loss, found.nll, found.num_correct.to(found.loss.dtype)])


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedRows:
    """Rows of a stream as micro-batches of masked tokens, whose masks follow from the row's number alone."""

    masker: Masker
    seed: tuple[int, ...]

    @classmethod
    def of(cls, recipe: Recipe, tokenizer: Tokenizer) -> MaskedRows:
        """Masks as the recipe wants them."""
        return cls(masker=Masker.of(tokenizer, unit=recipe.masking), seed=(recipe.seed,))

    def of_phase(self, index: int) -> MaskedRows:
        """The same with masks of its own, as rows are counted anew in each phase."""
        return replace(self, seed=(*self.seed, index))

    def micro(self, row: Row, rate: float) -> Micro:
        """One row, with so many of its tokens to be guessed."""
        masked = self.masker.mask(row.token_ids, row.lengths, rate=rate, seed=(*self.seed, row.number))
        batch = packed(masked.token_ids, row.lengths)
        inputs = (batch, torch.from_numpy(masked.positions), torch.from_numpy(masked.labels))
        return Micro(inputs=inputs, weight=len(masked.labels), number=row.number)

    def micros(self, rows: Sequence[Row], rate: float, num_micros: int) -> list[Micro]:
        """So many micro-batches of a process's rows; fillers where it has fewer rows than others."""
        found = [self.micro(row, rate) for row in rows]
        return found + [self.filler()] * (num_micros - len(found))

    def filler(self) -> Micro:
        """The smallest thing that goes through the model, and counts for nothing."""
        token = torch.tensor([self.masker.mask_id])
        batch = packed(token.numpy(), (1,))
        return Micro(inputs=(batch, torch.tensor([0]), token), weight=0, number=0)


class PretrainingJob:
    """The steps of all phases of a recipe, one after the other."""

    sums = ("loss", "nll", "accuracy")

    def __init__(
        self,
        recipe: Recipe,
        documents: Documents,
        tokenizer: Tokenizer,
        model: MaskedLanguageModel,
        group: Group,
        validation: Validation | None,
    ) -> None:
        self.recipe = recipe
        self.num_tokens = recipe.num_tokens
        self._documents = documents
        self._around = tokenizer.template.single
        self._rows = MaskedRows.of(recipe, tokenizer)
        self._model = model
        self._group = group
        self._validation = validation

    def steps(self, state: dict[str, Any] | None) -> Iterator[tuple[TrainingStep, dict[str, Any]]]:
        """The steps after `state`, read ahead in a thread of their own."""
        return prefetched(self._all_steps(state), NUM_AHEAD)

    def enter(self, stage: str) -> None:
        """Give the layers that see everything the theta of the phase."""
        for phase in self.recipe.phases:
            if phase.global_theta is not None:
                set_global_theta(self._model.model, phase.global_theta)
            if phase.name == stage:
                return

    def evaluate(self, module: nn.Module) -> dict[str, Any] | None:
        """Losses and accuracies on held-out text, by source."""
        return None if self._validation is None else self._validation.figures(module, self._group)

    def _all_steps(self, state: dict[str, Any] | None) -> Iterator[tuple[TrainingStep, dict[str, Any]]]:
        first = 0 if state is None else int(state["phase"])
        for index in range(first, len(self.recipe.phases)):
            inside = state if state is not None and index == first else None
            yield from self._phase_steps(index, inside)

    def _phase_steps(
        self, index: int, state: dict[str, Any] | None
    ) -> Iterator[tuple[TrainingStep, dict[str, Any]]]:
        phase = self.recipe.phases[index]
        tokens = 0 if state is None else int(state["tokens"])
        stream = self._stream(index)
        steps = stream.steps(phase.rows_at, state=None if state is None else state["stream"])
        masks = self._rows.of_phase(index)
        while tokens < phase.tokens:
            step, stream_state = next(steps)
            before, tokens = tokens, tokens + step.num_tokens
            training_step = self._training_step(phase, step, masks, before, is_last=tokens >= phase.tokens)
            yield training_step, {"phase": index, "tokens": tokens, "stream": stream_state}

    def _stream(self, index: int) -> Stream:
        phase = self.recipe.phases[index]
        return Stream(
            self._documents,
            seq_len=phase.seq_len,
            row_tokens=phase.row_tokens,
            prefix=self._around.prefix.token_ids,
            suffix=self._around.suffix.token_ids,
            mixture=phase.mixture,
            seed=self.recipe.seed + index,
            rank=self._group.rank,
            world_size=self._group.world_size,
        )

    def _training_step(
        self, phase: Phase, step: Step, masks: MaskedRows, before: int, *, is_last: bool
    ) -> TrainingStep:
        """Rates are those of the middle of the step: a first step at rate 0 would teach nothing."""
        middle = before + step.num_tokens // 2
        rate = phase.mask_rate(min(1.0, middle / phase.tokens))
        num_micros = -(-step.num_rows // self._group.world_size)
        return TrainingStep(
            micros=masks.micros(step.rows, rate, num_micros),
            num_tokens=step.num_tokens,
            peak_learning_rate=phase.learning_rate,
            learning_rate_share=phase.schedule(middle),
            stage=phase.name,
            is_last_of_stage=is_last,
            facts={
                "mask_rate": rate,
                "num_rows": step.num_rows,
                "efficiency": round(step.num_tokens / (step.num_rows * phase.row_tokens), 5),
            },
            documents=partial(describe, self._documents, step),
            flops=training_flops(self._model, self._lengths(step), rate),
        )

    def _lengths(self, step: Step) -> list[int]:
        """Tokens of each sequence of a step, special ones included."""
        around = len(self._around.prefix.token_ids) + len(self._around.suffix.token_ids)
        return [piece.end - piece.start + around for row in step.pieces for piece in row]


def describe(documents: Documents, step: Step) -> list[str]:
    """Where each document of a step came from, each once, in the order of the rows."""
    pieces = [piece for row in step.pieces for piece in row]
    return list(dict.fromkeys(documents.describe(piece.source, piece.document) for piece in pieces))


def packed(token_ids: np.ndarray, lengths: Sequence[int]) -> PackedBatch:
    """A pack from arrays, without going through lists."""
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    positions = np.arange(len(token_ids)) - np.repeat(bounds[:-1], lengths)
    return PackedBatch(
        token_ids=torch.from_numpy(token_ids),
        position_ids=torch.from_numpy(positions),
        cu_seqlens=torch.from_numpy(bounds),
        max_seqlen=max(lengths),
    )
