"""Rows of tokens without end, in an order that can be gone on with from any step.

    documents --cut--> pieces --shuffle--> order of a source --mix--> one order --pack--> rows --deal--> ranks

In go documents as token ids, out come `(step, state)`. A step is some rows of sequences laid end to end. The
state is small and JSON-ready. The steps after it are the same to the bit, on any number of processes: each
computes the whole order, which is cheap, and reads the tokens of its own rows only.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from modernbert.corpus.mixture import BY_SIZE, MixedPieces, Mixture, Portion, portions
from modernbert.corpus.packer import Packer
from modernbert.corpus.pieces import Piece, permutation
from modernbert.errors import CorpusError

if TYPE_CHECKING:
    from jaxtyping import Int64
    from numpy import ndarray

    from modernbert.corpus.split import Documents

State = dict[str, Any]

# Pieces to choose from when a row is filled, and rows' worth of tokens: short pieces need more of them.
NUM_WAITING, ROWS_WAITING = 1024, 2
FORMAT = 1  # of the state, and of the order that follows from it


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Row:
    """Sequences laid end to end, at most `row_tokens` together: prefix, tokens of a piece, suffix, and again.

    `number` counts the rows since the stream began, over all processes.
    """

    number: int
    pieces: tuple[Piece, ...]
    token_ids: Int64[ndarray, "T"]
    lengths: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Step:
    """What all processes learn from at once.

    `rows` are those of this process, every `world_size`-th from `rank` on: there may be none. The rest tells
    of all processes: `num_tokens` counts special tokens too, `pieces` are those of each row.
    """

    rows: tuple[Row, ...]
    num_rows: int
    num_tokens: int
    pieces: tuple[tuple[Piece, ...], ...]


@final
class Stream:
    """Rows of at most `row_tokens` tokens, made of sequences of at most `seq_len`, special tokens included.

        stream = Stream(shards, seq_len=1024, row_tokens=8192, prefix=[cls_id], suffix=[sep_id], seed=17)
        for step, state in stream.steps(lambda tokens: 16):
            ...

    Every epoch of a source holds each of its tokens once. An epoch's end is no end: pieces that wait for a
    row stay in the buffer, and the next epoch follows. CorpusError where there are no documents, `row_tokens`
    is below `seq_len`, or the mixture names a source that is not there.
    """

    def __init__(
        self,
        documents: Documents,
        *,
        seq_len: int,
        row_tokens: int,
        prefix: Sequence[int],
        suffix: Sequence[int],
        mixture: Mixture = BY_SIZE,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert 0 <= rank < world_size
        num_specials = len(prefix) + len(suffix)
        _check_numbers(seq_len, row_tokens, num_specials, seed)
        self._documents = documents
        self._prefix = np.array(prefix, dtype=np.int64)
        self._suffix = np.array(suffix, dtype=np.int64)
        self._num_specials = num_specials
        self._row_tokens = row_tokens
        self._seed = seed
        self._rank, self._world_size = rank, world_size
        self._portions = portions(
            documents, mixture, max_tokens=seq_len - num_specials, num_specials=num_specials
        )
        self._belongs_to = {
            "format": FORMAT,
            "seed": seed,
            "seq_len": seq_len,
            "row_tokens": row_tokens,
            "prefix": self._prefix.tolist(),
            "suffix": self._suffix.tolist(),
            "weights": None if mixture.weights is None else dict(mixture.weights),
            "long_share": mixture.long_share,
            "long_at_least": mixture.long_at_least,
            "documents": {source: _summary(documents, source) for source in documents.sources},
            # numpy may change how it shuffles from one version to another (NEP 19)
            "order_of_numpy": zlib.crc32(permutation(256, 0, "numpy", 0).tobytes()),
        }

    def steps(
        self, num_rows: Callable[[int], int], state: State | None = None
    ) -> Iterator[tuple[Step, State]]:
        """Steps without end, each with the state from which the next one follows.

        `num_rows` says how many rows the next step has, over all processes, after so many tokens of this
        stream. CorpusError where `state` comes from a stream of other settings or other documents.
        """
        place = _Place(self._portions, self._row_tokens, self._seed, self._num_specials)
        if state is not None:
            self._require_ours(state)
            place.go_to(state)
        while True:
            count = num_rows(place.num_tokens)
            if count < 1:
                raise CorpusError(f"a step needs at least one row; num_rows({place.num_tokens}) gave {count}")
            before, first = place.num_tokens, place.num_rows
            rows = tuple(place.next_row() for _ in range(count))
            mine = range(self._rank, count, self._world_size)
            step = Step(
                rows=tuple(self._read(first + index, rows[index]) for index in mine),
                num_rows=count,
                num_tokens=place.num_tokens - before,
                pieces=rows,
            )
            yield step, {**place.state(), "belongs_to": self._belongs_to}

    def _read(self, number: int, pieces: tuple[Piece, ...]) -> Row:
        parts: list[Int64[ndarray, "n"]] = []
        for piece in pieces:
            tokens = self._documents.tokens(piece.source, piece.document, piece.start, piece.end)
            parts += [self._prefix, tokens, self._suffix]
        lengths = tuple(piece.end - piece.start + self._num_specials for piece in pieces)
        return Row(number=number, pieces=pieces, token_ids=np.concatenate(parts), lengths=lengths)

    def _require_ours(self, state: State) -> None:
        theirs: dict[str, Any] = state.get("belongs_to", {})
        different = [name for name, value in self._belongs_to.items() if theirs.get(name) != value]
        if different:
            lines = (
                f"  {name}: {theirs.get(name)} there, {self._belongs_to[name]} here" for name in different
            )
            raise CorpusError(
                "the state comes from another stream and cannot be gone on with; what differs:\n"
                + "\n".join(lines)
                + "\nhint: go on with the settings, the shards and the numpy it was made with, or begin anew "
                "without it"
            )


@final
class _Place:
    """How far the order has come: what was drawn, what waits for a row, and what was given."""

    def __init__(self, portions: Sequence[Portion], row_tokens: int, seed: int, num_specials: int) -> None:
        self.num_rows = 0
        self.num_tokens = 0
        self._portions = portions
        self._seed = seed
        self._num_specials = num_specials
        self._mixed = MixedPieces(portions, seed=seed, num_specials=num_specials)
        self._packer: Packer[tuple[int, int, Piece]] = Packer(row_tokens)

    def next_row(self) -> tuple[Piece, ...]:
        packer = self._packer
        while len(packer) < NUM_WAITING or packer.num_tokens < ROWS_WAITING * packer.row_tokens:
            self._add(*self._mixed.draw())
        waited = packer.num_tokens
        row = packer.row()
        self.num_rows += 1
        self.num_tokens += waited - packer.num_tokens
        return tuple(piece for _, _, piece in row)

    def state(self) -> State:
        """All that the rest of the order follows from; a piece is a portion's place and a number there."""
        return {
            "rows": self.num_rows,
            "tokens": self.num_tokens,
            "drawn": self._mixed.counters(),
            "waiting": [[place, number] for place, number, _ in self._packer.items()],
        }

    def go_to(self, state: State) -> None:
        """Stand where a new place would be after the rows of `state`."""
        self.num_rows, self.num_tokens = state["rows"], state["tokens"]
        self._mixed = MixedPieces(
            self._portions, seed=self._seed, num_specials=self._num_specials, counters=state["drawn"]
        )
        for place, number in state["waiting"]:
            (piece,) = self._portions[place].table.pieces([number])
            self._add(place, number, piece)

    def _add(self, place: int, number: int, piece: Piece) -> None:
        self._packer.add((place, number, piece), piece.end - piece.start + self._num_specials)


def _check_numbers(seq_len: int, row_tokens: int, num_specials: int, seed: int) -> None:
    if seed < 0:
        raise CorpusError(f"a seed must be 0 or above, found {seed}")
    if seq_len <= num_specials:
        raise CorpusError(
            f"a sequence of {seq_len} tokens has no room for text beside its {num_specials} special tokens: "
            "raise seq_len"
        )
    if row_tokens < seq_len:
        raise CorpusError(
            f"a row of {row_tokens} tokens cannot hold a sequence of {seq_len}: raise row_tokens, or lower "
            "seq_len"
        )


def _summary(documents: Documents, source: str) -> str:
    lengths = documents.lengths(source).astype(np.int64)
    checksum = zlib.crc32(lengths.tobytes())
    return f"{len(lengths)} documents, {lengths.sum()} tokens, crc32 of their lengths {checksum:08x}"
