"""Several sources as one order of pieces: how much of each, and whose turn it is.

Turns are not drawn by lot. Each time the source comes whose tokens lag most behind its share, so that any
stretch of the stream holds the mixture asked for, and the whole order follows from a few counters.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from modernbert.corpus.pieces import Piece, PieceOrder, PieceTable
from modernbert.errors import CorpusError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modernbert.corpus.split import Documents


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """How much comes from where.

    `weights` are shares of tokens by source, in any unit; sources that it does not name are left out. None
    takes every source by its size, so that all of them end an epoch together.

    `long_share` is for context extension: so much of each source's tokens comes from documents of at least
    `long_at_least` tokens, where a source has both kinds. None leaves the documents as they are. Then the two
    kinds have epochs of their own.
    """

    weights: Mapping[str, float] | None = None
    long_share: float | None = None
    long_at_least: int = 4096

    def __post_init__(self) -> None:
        if self.weights is not None:
            if not self.weights:
                raise CorpusError(
                    "a mixture without a source: name one in weights, or leave weights out for all"
                )
            for source, weight in self.weights.items():
                if not (weight > 0 and math.isfinite(weight)):
                    raise CorpusError(
                        f"the weight of source {source!r} must be a number above 0, found {weight}; to leave "
                        "a source out, do not name it"
                    )
        if self.long_share is not None and not 0.0 <= self.long_share <= 1.0:
            raise CorpusError(f"long_share must lie between 0 and 1, found {self.long_share}")
        if self.long_at_least < 1:
            raise CorpusError(f"long_at_least must be at least 1 token, found {self.long_at_least}")


BY_SIZE = Mixture()


@dataclass(frozen=True, kw_only=True, slots=True)
class Portion:
    """The pieces that come from one source, or from its long or its short documents, and their share."""

    table: PieceTable
    share: float


def portions(documents: Documents, mixture: Mixture, *, max_tokens: int, num_specials: int) -> list[Portion]:
    """What to mix, in a fixed order; shares add up to 1.

    `max_tokens` are those of a piece, without the `num_specials` that go around it. CorpusError where there
    is nothing to draw from, or the mixture names a source that is not there.
    """
    tables = {
        source: _tables(source, documents.lengths(source), mixture, max_tokens)
        for source in _chosen_sources(documents, mixture)
    }
    sizes = {
        source: sum(table.num_tokens + num_specials * len(table) for table, _ in parts)
        for source, parts in tables.items()
    }
    for source in mixture.weights or ():
        if not sizes[source]:
            raise CorpusError(f"the mixture names source {source!r}, which has no documents: leave it out")
    weights = mixture.weights or {source: size for source, size in sizes.items() if size}
    total = math.fsum(weights.values())
    if not total:
        raise CorpusError(
            "there is nothing to stream: the shards hold no documents\nhint: write them from more text"
        )
    return [
        Portion(table=table, share=weights[source] / total * share)
        for source in sorted(weights)
        for table, share in tables[source]
    ]


@final
class MixedPieces:
    """Draws pieces of all portions, each time from the one whose tokens lag most behind its share.

    With n portions, none is ever ahead of its share of the tokens drawn so far by more than one sequence, nor
    behind it by more than n sequences times its share. `counters` is where an earlier one stood.
    """

    def __init__(
        self,
        portions: Sequence[Portion],
        *,
        seed: int,
        num_specials: int,
        counters: Sequence[Sequence[int]] | None = None,
    ) -> None:
        stood = counters or [(0, 0, 0)] * len(portions)
        self._shares = [portion.share for portion in portions]
        self._orders = [
            PieceOrder(portion.table, seed=seed, epoch=epoch, position=position)
            for portion, (epoch, position, _) in zip(portions, stood, strict=True)
        ]
        self._drawn = [tokens for _, _, tokens in stood]
        self._num_specials = num_specials
        self._turns = [
            (drawn / share, place)
            for place, (drawn, share) in enumerate(zip(self._drawn, self._shares, strict=True))
        ]
        heapq.heapify(self._turns)

    def draw(self) -> tuple[int, int, Piece]:
        """The place of a portion in the list of them, the number of a piece in its table, and the piece."""
        place = self._turns[0][1]
        number, piece = self._orders[place].draw()
        self._drawn[place] += piece.end - piece.start + self._num_specials
        heapq.heapreplace(self._turns, (self._drawn[place] / self._shares[place], place))
        return place, number, piece

    def counters(self) -> list[list[int]]:
        """Of each portion its epoch, the pieces drawn in it, and the tokens drawn since the beginning."""
        return [
            [order.epoch, order.position, drawn]
            for order, drawn in zip(self._orders, self._drawn, strict=True)
        ]


def _chosen_sources(documents: Documents, mixture: Mixture) -> Sequence[str]:
    if mixture.weights is None:
        return documents.sources
    unknown = sorted(set(mixture.weights) - set(documents.sources))
    if unknown:
        raise CorpusError(
            f"the mixture names {', '.join(map(repr, unknown))}, but the shards have the sources "
            f"{', '.join(map(repr, documents.sources))}"
        )
    return sorted(mixture.weights)


def _tables(
    source: str, lengths: NDArray[Any], mixture: Mixture, max_tokens: int
) -> list[tuple[PieceTable, float]]:
    """The pieces of a source, in one table, or in two where long documents have a share of their own."""
    is_long = lengths >= mixture.long_at_least
    if mixture.long_share is None or is_long.all() or not is_long.any():
        kinds = {"all": (np.ones(len(lengths), np.bool_), 1.0)}
    else:
        kinds = {"long": (is_long, mixture.long_share), "short": (~is_long, 1.0 - mixture.long_share)}
    found: list[tuple[PieceTable, float]] = []
    for kind, (is_here, share) in kinds.items():
        if share:
            numbers = np.flatnonzero(is_here)
            name = f"{source}/{kind}"
            table = PieceTable(
                name=name, source=source, documents=numbers, lengths=lengths[numbers], max_tokens=max_tokens
            )
            found.append((table, share))
    return found
