"""Rows of texts as sequences that fit the model, many at a time, with what was cut counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from modernbert.corpus.labelled import Row
from modernbert.inference.cuts import CutWarning
from modernbert.inference.engine import SequenceIds
from modernbert.inference.inputs import Text, lowered
from modernbert.inference.long_texts import pair_pieces, text_pieces
from modernbert.inference.pipeline import Model
from modernbert.training.tasks.task import Notes

_ROWS_AT_ONCE = 1000


def sequences_of(
    rows: Iterable[Row],
    texts: Callable[[Row], Text],
    model: Model,
    limit: int,
    notes: Notes,
    *,
    prompt: str = "",
) -> Iterator[tuple[Row, SequenceIds]]:
    """Each row with its text, or pair of texts, as one sequence of at most `limit` tokens.

    The end of a longer text is left out; how many there were is noted at the end.
    """
    num_cut = num_lost = 0
    for batch in batches(rows):
        found, cuts = encode([texts(row) for row in batch], model, limit, prompt=prompt)
        num_cut += sum(cut.num_cut for cut in cuts)
        num_lost += sum(cut.num_tokens for cut in cuts)
        yield from zip(batch, found, strict=True)
    if num_cut:
        notes.warn(
            f"{num_cut:,} texts are longer than {limit} tokens; {num_lost:,} tokens at their ends "
            "were left out (raise max_length if the model has room)"
        )


def encode(
    texts: Sequence[Text], model: Model, limit: int, *, prompt: str = ""
) -> tuple[list[SequenceIds], list[CutWarning]]:
    """Texts, or pairs, each as one sequence, and what was cut."""
    if model.pretrained.settings.lowercases:
        texts, prompt = lowered(texts), prompt.lower()
    if isinstance(texts[0], str):
        singles = [text for text in texts if isinstance(text, str)]
        pieces = text_pieces(model.tokenizer, singles, limit=limit, overflow="truncate", prompt=prompt)
    else:
        pairs = [(prompt + text[0], text[1]) for text in texts if not isinstance(text, str)]
        pieces = pair_pieces(model.tokenizer, pairs, limit=limit, overflow="truncate")
    return pieces.sequences, [] if pieces.cut is None else [pieces.cut]


def batches(rows: Iterable[Row], size: int = _ROWS_AT_ONCE) -> Iterator[list[Row]]:
    """Rows in lists of `size`, the last as long as what is left."""
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch
