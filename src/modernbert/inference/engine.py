"""Texts through a model in packs of a token budget, results in the order of the input.

    texts --windows, read ahead--> sequences --packs--> forward --> rows --finish--> a result for each text

A `Task` says how texts become sequences, what the model gives for a pack of them, and what becomes of that.
Of a list as of an endless stream only a few windows are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from modernbert.errors import ModernBertError
from modernbert.inference.cuts import Cuts, CutWarning
from modernbert.inference.inputs import TextOrWords
from modernbert.inference.windows import (
    PATIENCE_S,
    Entry,
    ReadWindow,
    Window,
    fits_first_window,
    read_ahead,
)
from modernbert.kernels.hardware import num_threads, settle_threads
from modernbert.progress import Pace
from modernbert.text.batch import PackedBatch
from modernbert.text.packing import pack_by_budget

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from torch import Tensor, nn

Item = TypeVar("Item")
Row = TypeVar("Row")
Result = TypeVar("Result")

# Enough tokens to keep every core busy, few enough for a pack's activations to stay near the cores. Ctrl-C is
# heard between packs.
TOKENS_OF_A_THREAD, FEWEST_TOKENS, MOST_TOKENS = 1024, 1024, 4096


def budget_for(num_threads: int) -> int:
    """Tokens of a pack for so many threads."""
    return max(FEWEST_TOKENS, min(MOST_TOKENS, TOKENS_OF_A_THREAD * num_threads))


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceIds:
    """One sequence, ready for the model: its token ids and their types."""

    token_ids: list[int]
    token_types: list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading(Generic[Row, Result]):
    """What some texts became: sequences, and the way from the model's rows for those to a result a text."""

    sequences: Sequence[SequenceIds]
    finish: Callable[[list[Row]], Sequence[Result]]
    cut: CutWarning | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Task(Generic[Row, Result]):
    """What is done with texts: `read` tokenises a window of them, in any thread, and `forward` gives one row
    for each sequence of a pack.

    With `reads_all` a list is read whole before any of it is computed, so that an error in it costs nothing.
    """

    label: str
    read: Callable[[Window[Any]], Reading[Row, Result]]
    forward: Callable[[PackedBatch], Sequence[Row]]
    reads_all: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """Where and how modules run: the device, the attention kernel, and the tokens in a pack.

    Holds nothing that changes; any number of threads may use one at once.
    """

    device: torch.device
    backend: str = "auto"
    budget_tokens: int = field(default_factory=lambda: budget_for(num_threads()))

    def ask(self, texts: Sequence[TextOrWords], task: Task[Row, Result]) -> Generator[Result]:
        """A result for each text of a list, in its order; the texts are checked already.

        A bar shows on a terminal. Raises what the task does; one warning at the end says what was cut.
        """
        if task.reads_all or fits_first_window(texts):
            window = Window(items=list(texts), texts=list(texts), first=0)
            windows = _only(ReadWindow(window=window, reading=task.read(window)))
        else:
            windows = read_ahead(((text, text) for text in texts), task.read, patience_s=None)
        cuts = Cuts()
        with closing(windows), closing(Pace(label=task.label, total=len(texts), unit="text")) as pace:
            for found in windows:
                if isinstance(found.reading, ModernBertError):
                    raise found.reading
                yield from self._results(found.window, found.reading, task, pace, cuts)
            cuts.tell()

    def stream(
        self, entries: Iterable[Entry[Item]], task: Task[Row, Result]
    ) -> Generator[tuple[Item, Result]]:
        """Each item of the entries with the result for its text, in their order, as they come.

        The entries are read in a thread of its own, which ends when they do or this is closed. Where they
        raise, or a text has no result, that error comes behind the results of all before it. The first cuts
        are told at once, the others at the end.
        """
        windows = read_ahead(entries, task.read, patience_s=PATIENCE_S)
        cuts, was_told = Cuts(), False
        with closing(windows), closing(Pace(label=task.label, total=None, unit="text")) as pace:
            try:
                for found in windows:
                    yield from self._results_up_to_an_error(found, task, pace, cuts)
                    was_told = was_told or cuts.tell()
            except Exception:
                cuts.tell()
                raise
            cuts.tell()

    def run(
        self, sequences: Sequence[SequenceIds], forward: Callable[[PackedBatch], Sequence[Row]], *, label: str
    ) -> list[Row]:
        """Call `forward` on packs of the sequences; it gives one row for each sequence of its pack.

        The rows come back in the order of `sequences`. A bar named `label` shows on a terminal.
        """
        with closing(Pace(label=label, total=len(sequences), unit="text")) as pace:
            return self._rows(sequences, forward, pace, num_texts=len(sequences))

    def row_of_each(self, module: nn.Module) -> Callable[[PackedBatch], list[Float[np.ndarray, "C"]]]:
        """A forward: the row of scores that the module gives for each sequence, in float32."""

        def forward(batch: PackedBatch) -> list[np.ndarray]:
            return list(module(batch, self.backend).float().cpu().numpy())

        return forward

    def tokens_of_each(self, module: nn.Module) -> Callable[[PackedBatch], list[Float[Tensor, "n ..."]]]:
        """A forward: what the module gives for the tokens of each sequence, on the CPU, each in memory of its
        own.
        """

        def forward(batch: PackedBatch) -> list[Tensor]:
            return [piece.clone() for piece in batch.split(module(batch, self.backend).cpu())]

        return forward

    def _results_up_to_an_error(
        self,
        found: ReadWindow[Item, Reading[Row, Result]],
        task: Task[Row, Result],
        pace: Pace,
        cuts: Cuts,
    ) -> Generator[tuple[Item, Result]]:
        """The results of a window; where one of its texts has none, those before it, and then its error."""
        window, results, error = found.window, (), None
        try:
            if isinstance(found.reading, ModernBertError):
                raise found.reading
            results = self._results(window, found.reading, task, pace, cuts)
        except ModernBertError as raised:
            if len(window) == 1:
                raise
            error = raised
        yield from zip(window.items, results, strict=error is None)
        if error is not None:
            for half in window.halves():
                try:
                    reading = task.read(half)
                except ModernBertError as raised:
                    reading = raised
                again = ReadWindow(window=half, reading=reading)
                yield from self._results_up_to_an_error(again, task, pace, cuts)

    def _results(
        self,
        window: Window[Any],
        reading: Reading[Row, Result],
        task: Task[Row, Result],
        pace: Pace,
        cuts: Cuts,
    ) -> Sequence[Result]:
        rows = self._rows(reading.sequences, task.forward, pace, num_texts=len(window))
        results = reading.finish(rows)
        cuts.add(reading.cut, len(window))
        pace.hide()  # the caller may print, to the terminal on which the bar is
        return results

    def _rows(
        self,
        sequences: Sequence[SequenceIds],
        forward: Callable[[PackedBatch], Sequence[Row]],
        pace: Pace,
        *,
        num_texts: int,
    ) -> list[Row]:
        if self.device.type == "cpu":
            settle_threads()
        rows: dict[int, Row] = {}
        for pack in pack_by_budget([len(sequence.token_ids) for sequence in sequences], self.budget_tokens):
            members = [sequences[index] for index in pack]
            batch = PackedBatch.from_sequences(
                [member.token_ids for member in members], [member.token_types for member in members]
            )
            # Not inference_mode: hidden states may go on into a user's own training; its tensors cannot.
            # And never around a yield: what happens there is the caller's.
            with torch.no_grad():
                found = forward(batch.to(self.device))
            num_before = len(rows)
            rows |= dict(zip(pack, found, strict=True))
            # windows of one long text are some of it each
            num_done = num_texts * len(rows) // len(sequences) - num_texts * num_before // len(sequences)
            pace.advance(num_done, num_tokens=batch.num_tokens)
        return [rows[index] for index in range(len(sequences))]


def _only(found: ReadWindow[Item, Reading[Row, Result]]) -> Generator[ReadWindow[Item, Reading[Row, Result]]]:
    yield found
