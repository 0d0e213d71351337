"""Hiding tokens for a model to guess: masked language modelling's input and labels from a row of tokens.

Of a row's tokens, special ones aside, the share `rate` is chosen. Of these 80 % become the mask token, 10 % a
random token and 10 % stay as they are (Devlin et al. 2019, arXiv 1810.04805); all of them are to be guessed.
Nothing is remembered between rows: the same row and seed give the same masks, whoever asks and whenever.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, final

import numpy as np

from modernbert.corpus.words import WordBounds
from modernbert.errors import CorpusError, InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64
    from numpy import ndarray

    from modernbert.text.tokenizer import Tokenizer

Unit = Literal["token", "word", "span"]

SHARE_MASK, SHARE_RANDOM = 0.8, 0.1
# Joshi et al. 2020 (SpanBERT, arXiv 1907.10529): geometric lengths, p = 0.2, at most 10; 3.8 on average.
SPAN_P, LONGEST_SPAN = 0.2, 10
# Entries that stand for something that is no text: reserved places, and what data cleaning puts in.
_NO_TEXT = re.compile(r"\[unused\d+\]|<unused_?\d+>|<extra_id_\d+>|\|\|\|[A-Z_]+\|\|\|")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Masked:
    """A row to learn from: what the model sees, and at `positions` of the row what it should have seen."""

    token_ids: Int64[ndarray, "T"]
    positions: Int64[ndarray, "M"]
    labels: Int64[ndarray, "M"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Masker:
    """The facts about a vocabulary that masking needs, found once.

        masker = Masker.of(tokenizer)
        masked = masker.mask(row.token_ids, row.lengths, rate=0.3, seed=(17, row.number))

    `is_maskable` tells special tokens from others, by id; random replacements are drawn from `real_ids`.
    """

    mask_id: int
    is_maskable: Bool[ndarray, "V"]
    real_ids: Int64[ndarray, "R"]
    units: Units

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, unit: Unit = "token") -> Masker:
        """Masks for texts of this tokenizer. CorpusError where it has no mask token, or `unit` is "word" and
        its vocabulary does not tell where words begin.
        """
        if tokenizer.mask_id is None:
            raise CorpusError(f"{tokenizer!r} has no mask token: nothing can be hidden with it")
        tokens = _vocabulary(tokenizer)
        is_maskable = np.array([token is not None for token in tokens])
        is_text = [token is not None and not _NO_TEXT.fullmatch(token) for token in tokens]
        return cls(
            mask_id=tokenizer.mask_id,
            is_maskable=is_maskable,
            real_ids=np.flatnonzero(is_text),
            units=_units(unit, tokens),
        )

    def mask(
        self, token_ids: Int64[ndarray, "T"], lengths: Sequence[int], *, rate: float, seed: Sequence[int]
    ) -> Masked:
        """Hide so many of a row's tokens; `lengths` are those of its sequences, `seed` is the row's own.

        Their number is no matter of chance, so that rows weigh the same: it is as near to `rate` as whole
        units come, and at least one unit where the row has a token that may be hidden, as a loss over nothing
        is no number. All tokens of a unit share their fate.
        """
        if not 0.0 < rate <= 1.0:
            raise CorpusError(f"a mask rate must lie above 0 and not above 1, found {rate}")
        maskable = np.flatnonzero(self.is_maskable[token_ids])
        masked = token_ids.copy()
        if not len(maskable):
            return Masked(token_ids=masked, positions=maskable, labels=token_ids[maskable])
        generator = np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed)))
        sizes = self._unit_sizes(token_ids, lengths, maskable, generator)
        is_chosen = _choose(sizes, rate * len(maskable), generator)
        is_hidden = np.repeat(is_chosen, sizes)
        fates = np.repeat(generator.random(len(sizes)), sizes)[is_hidden]  # [M]
        positions = maskable[is_hidden]
        masked[positions[fates < SHARE_MASK]] = self.mask_id
        replaced = positions[(fates >= SHARE_MASK) & (fates < SHARE_MASK + SHARE_RANDOM)]
        masked[replaced] = self.real_ids[generator.integers(len(self.real_ids), size=len(replaced))]
        return Masked(token_ids=masked, positions=positions, labels=token_ids[positions])

    def _unit_sizes(
        self,
        token_ids: Int64[ndarray, "T"],
        lengths: Sequence[int],
        maskable: Int64[ndarray, "N"],
        generator: np.random.Generator,
    ) -> Int64[ndarray, "U"]:
        """Tokens in each unit of the row, in order; a special token and a sequence's end end a unit."""
        is_first = self.units.begin(token_ids, generator)
        is_first[np.cumsum(lengths)[:-1]] = True
        is_first[1:] |= ~self.is_maskable[token_ids[:-1]]
        units = np.cumsum(is_first)[maskable]
        begins = np.flatnonzero(np.diff(units, prepend=-1))
        return np.diff(begins, append=len(maskable))


class Units(Protocol):
    """What is hidden together."""

    def begin(self, token_ids: Int64[ndarray, "T"], generator: np.random.Generator) -> Bool[ndarray, "T"]:
        """True at the first token of each unit."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Tokens:
    """Each token by itself."""

    def begin(self, token_ids: Int64[ndarray, "T"], generator: np.random.Generator) -> Bool[ndarray, "T"]:
        """True everywhere."""
        return np.ones(len(token_ids), np.bool_)


@final
@dataclass(frozen=True, slots=True)
class Spans:
    """Runs of tokens of random lengths, whatever they hold."""

    def begin(self, token_ids: Int64[ndarray, "T"], generator: np.random.Generator) -> Bool[ndarray, "T"]:
        """True where a run begins; other draws cut the same row elsewhere."""
        drawn = generator.geometric(SPAN_P, size=len(token_ids))
        lengths = (drawn - 1) % LONGEST_SPAN + 1  # the tail folds back in the proportions of the rest
        is_first = np.zeros(len(token_ids), np.bool_)
        ends = np.cumsum(lengths)
        is_first[ends[ends < len(token_ids)]] = True
        is_first[:1] = True
        return is_first


def _units(unit: str, tokens: Sequence[str | None]) -> Units:
    match unit:
        case "token":
            return Tokens()
        case "word":
            return WordBounds.of(tokens)
        case "span":
            return Spans()
        case _:
            raise CorpusError(f"what is masked together is 'token', 'word' or 'span', not {unit!r}")


def _choose(
    sizes: Int64[ndarray, "U"], num_wanted: float, generator: np.random.Generator
) -> Bool[ndarray, "U"]:
    """Units in a random order until their tokens are as near to `num_wanted` as can be; at least one."""
    order = generator.permutation(len(sizes))
    count = int(np.abs(np.cumsum(sizes[order]) - num_wanted).argmin()) + 1
    is_chosen = np.zeros(len(sizes), np.bool_)
    is_chosen[order[:count]] = True
    return is_chosen


def _vocabulary(tokenizer: Tokenizer) -> list[str | None]:
    """The entry of each id, None for special tokens and for ids that no token has, [V]."""
    found: list[str | None] = []
    for token_id in range(tokenizer.vocab_size):
        try:
            found.append(None if token_id in tokenizer.special_ids else tokenizer.token(token_id))
        except InputError:
            found.append(None)
    return found
