"""What changes while a run goes on, all by tokens: the learning rate, the rows of a step, the mask rate.

Each is a frozen value of plain numbers, called like a function. Learning rates are shares of a peak, by
tokens of the phase:

    share   1   ______________            Constant             warm-up, 1
               /              `-.         Cosine               warm-up, half a cosine down
              /                  `        WarmupStableDecay    warm-up, 1, a straight line down
            0 |----------------------|    OneMinusSqrt         warm-up, 1, fast and then slowly down
              0     tokens        total

Warm-up is a straight line from 0. From `total_tokens` on, the share stays what it is there: `final`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Protocol, Self

from modernbert.errors import TrainingError


class Schedule(Protocol):
    """Tokens of the phase so far -> the share of the peak learning rate, in [0, 1]."""

    def __call__(self, tokens: int) -> float:
        """The share after so many tokens."""
        ...

    def scaled(self, by: float) -> Self:
        """The same course over `by` times as many tokens."""
        ...


class MaskRate(Protocol):
    """How far the phase is, in [0, 1] -> the share of tokens that are to be guessed."""

    def __call__(self, progress: float) -> float:
        """The rate there."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant:
    """A warm-up, then the peak for as long as it lasts."""

    warmup_tokens: int = 0

    def __post_init__(self) -> None:
        _check_course(self, warmup_tokens=self.warmup_tokens, decay_tokens=0, total_tokens=None, final=0.0)

    def __call__(self, tokens: int) -> float:
        """The share after so many tokens."""
        return _warmup(tokens, self.warmup_tokens)

    def scaled(self, by: float) -> Constant:
        """The same course over `by` times as many tokens."""
        return replace(self, warmup_tokens=round(self.warmup_tokens * by))


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmupStableDecay:
    """A warm-up, the peak, and over the last `decay_tokens` a straight line down to `final`."""

    total_tokens: int
    decay_tokens: int
    warmup_tokens: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_course(
            self,
            warmup_tokens=self.warmup_tokens,
            decay_tokens=self.decay_tokens,
            total_tokens=self.total_tokens,
            final=self.final,
        )

    def __call__(self, tokens: int) -> float:
        """The share after so many tokens."""
        past = _past(tokens, self.total_tokens, self.decay_tokens)
        return min(_warmup(tokens, self.warmup_tokens), self.final + (1.0 - self.final) * (1.0 - past))

    def scaled(self, by: float) -> WarmupStableDecay:
        """The same course over `by` times as many tokens."""
        total, warmup = _scaled(self.total_tokens, self.warmup_tokens, by)
        decay = min(round(self.decay_tokens * by), total - warmup)
        return replace(self, total_tokens=total, warmup_tokens=warmup, decay_tokens=decay)


@dataclass(frozen=True, kw_only=True, slots=True)
class OneMinusSqrt:
    """The peak, and over the last `decay_tokens` down to `final`, by one minus the root of what is past.

    With d the share of the decay that is past: final + (1 - final) * (1 - sqrt(d)). Hagele et al. 2024 (arXiv
    2405.18392); ModernBERT's last phase is all decay, to 0.001.
    """

    total_tokens: int
    decay_tokens: int
    warmup_tokens: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_course(
            self,
            warmup_tokens=self.warmup_tokens,
            decay_tokens=self.decay_tokens,
            total_tokens=self.total_tokens,
            final=self.final,
        )

    def __call__(self, tokens: int) -> float:
        """The share after so many tokens."""
        past = _past(tokens, self.total_tokens, self.decay_tokens)
        return min(
            _warmup(tokens, self.warmup_tokens), self.final + (1.0 - self.final) * (1.0 - math.sqrt(past))
        )

    def scaled(self, by: float) -> OneMinusSqrt:
        """The same course over `by` times as many tokens."""
        total, warmup = _scaled(self.total_tokens, self.warmup_tokens, by)
        decay = min(round(self.decay_tokens * by), total - warmup)
        return replace(self, total_tokens=total, warmup_tokens=warmup, decay_tokens=decay)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cosine:
    """A warm-up, then half a cosine from the peak down to `final` at `total_tokens`."""

    total_tokens: int
    warmup_tokens: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_course(
            self,
            warmup_tokens=self.warmup_tokens,
            decay_tokens=0,
            total_tokens=self.total_tokens,
            final=self.final,
        )

    def __call__(self, tokens: int) -> float:
        """The share after so many tokens."""
        past = _past(tokens, self.total_tokens, self.total_tokens - self.warmup_tokens)
        falling = self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * past))
        return min(_warmup(tokens, self.warmup_tokens), falling)

    def scaled(self, by: float) -> Cosine:
        """The same course over `by` times as many tokens."""
        total, warmup = _scaled(self.total_tokens, self.warmup_tokens, by)
        return replace(self, total_tokens=total, warmup_tokens=warmup)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchWarmup:
    """Rows of a step that grow from `first` to `last`, `increment` at a time, over `tokens`.

    Each size gets the same number of steps: size b lasts tokens * b / (sum of the sizes below `last`), and
    the n-th bound is that, summed and rounded up, as in ModernBERT's training (`sequence_packer.py`). At
    first small steps teach more for each token (McCandlish et al. 2018, arXiv 1812.06162).
    """

    first: int
    last: int
    tokens: int
    increment: int = 1

    def __post_init__(self) -> None:
        if self.increment < 1 or not 1 <= self.first <= self.last or self.tokens < 0:
            raise TrainingError(
                f"{self} cannot be: rows grow from `first`, at least 1, to `last`, by at least 1 at a time"
            )

    def __call__(self, tokens: int) -> int:
        """The rows of a step that begins after so many tokens."""
        sizes = range(self.first, self.last, self.increment)
        place = bisect_right(self.bounds(), tokens)
        return sizes[place] if place < len(sizes) else self.last

    def bounds(self) -> list[int]:
        """For each size but the last the tokens at which it ends."""
        sizes = range(self.first, self.last, self.increment)
        total = sum(sizes)
        return [-(-self.tokens * done // total) for done in accumulate(sizes)]

    def scaled(self, by: float) -> BatchWarmup:
        """The same growth over `by` times as many tokens."""
        return replace(self, tokens=round(self.tokens * by))


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstantRate:
    """One mask rate; ModernBERT's is 0.3 (Wettig et al. 2022, arXiv 2202.08005: more than BERT's 0.15)."""

    rate: float

    def __post_init__(self) -> None:
        _check_rates(self, (self.rate,))

    def __call__(self, progress: float) -> float:
        """The rate, which is the same everywhere."""
        del progress
        return self.rate


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRates:
    """One mask rate after another, such as (0.30, 0.20, 0.18, 0.16, 0.14).

    `bounds` are where each but the last ends, as shares of the phase; without them all last equally long.
    """

    rates: tuple[float, ...]
    bounds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check_rates(self, self.rates)
        if self.bounds is None:
            return
        if len(self.bounds) != len(self.rates) - 1 or list(self.bounds) != sorted({*self.bounds}):
            raise TrainingError(f"{self} cannot be: it needs a bound between each rate and the next, rising")
        if any(not 0.0 < bound < 1.0 for bound in self.bounds):
            raise TrainingError(f"{self} cannot be: bounds are shares of the phase, between 0 and 1")

    def __call__(self, progress: float) -> float:
        """The rate there; a bound belongs to what follows it."""
        count = len(self.rates)
        place = math.floor(progress * count) if self.bounds is None else bisect_right(self.bounds, progress)
        return self.rates[max(0, min(place, count - 1))]


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearRate:
    """From `first` to `last` in a straight line."""

    first: float
    last: float

    def __post_init__(self) -> None:
        _check_rates(self, (self.first, self.last))

    def __call__(self, progress: float) -> float:
        """The rate there; before 0 and after 1 it stays what it is at those ends."""
        past = min(1.0, max(0.0, progress))
        return self.first * (1.0 - past) + self.last * past


def _warmup(tokens: int, warmup_tokens: int) -> float:
    return 1.0 if tokens >= warmup_tokens else tokens / warmup_tokens


def _past(tokens: int, total_tokens: int, decay_tokens: int) -> float:
    """How much of a decay that ends at `total_tokens` is past, in [0, 1]."""
    left = total_tokens - tokens
    if left <= 0:
        return 1.0
    return 0.0 if left >= decay_tokens else 1.0 - left / decay_tokens


def _scaled(total_tokens: int, warmup_tokens: int, by: float) -> tuple[int, int]:
    """Both times `by`, rounded so that the one still fits into the other."""
    total = max(1, round(total_tokens * by))
    return total, min(round(warmup_tokens * by), total)


def _check_course(
    course: object, *, warmup_tokens: int, decay_tokens: int, total_tokens: int | None, final: float
) -> None:
    longest = math.inf if total_tokens is None else total_tokens
    if min(warmup_tokens, decay_tokens) < 0 or warmup_tokens + decay_tokens > longest or longest < 1:
        raise TrainingError(
            f"{course} cannot be: tokens are 0 or more, and warm-up and decay must fit into total_tokens"
        )
    if not 0.0 <= final <= 1.0:
        raise TrainingError(f"{course} cannot be: final is a share of the peak, between 0 and 1")


def _check_rates(rate: object, rates: tuple[float, ...]) -> None:
    if not rates or not all(0.0 < each < 1.0 for each in rates):
        raise TrainingError(f"{rate} cannot be: mask rates lie between 0 and 1")
