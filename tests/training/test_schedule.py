"""Schedules, batch sizes and mask rates against values worked out by hand, and what must hold everywhere."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.errors import TrainingError
from modernbert.training.schedule import (
    BatchWarmup,
    Constant,
    ConstantRate,
    Cosine,
    LinearRate,
    OneMinusSqrt,
    StepRates,
    WarmupStableDecay,
)

CONSTANT = Constant(warmup_tokens=10)
STABLE = WarmupStableDecay(total_tokens=100, warmup_tokens=10, decay_tokens=40, final=0.2)
ROOT = OneMinusSqrt(total_tokens=100, decay_tokens=100, final=0.001)
ROOT_AT_THE_END = OneMinusSqrt(total_tokens=100, warmup_tokens=20, decay_tokens=16)
COSINE = Cosine(total_tokens=110, warmup_tokens=10, final=0.1)
ALL = (CONSTANT, STABLE, ROOT, ROOT_AT_THE_END, COSINE)


@pytest.mark.parametrize(
    ("schedule", "tokens", "share"),
    [
        (CONSTANT, 0, 0.0),
        (CONSTANT, 4, 0.4),
        (CONSTANT, 10, 1.0),
        (CONSTANT, 10**12, 1.0),
        (Constant(), 0, 1.0),
        (STABLE, 0, 0.0),
        (STABLE, 5, 0.5),
        (STABLE, 10, 1.0),
        (STABLE, 60, 1.0),
        (STABLE, 70, 0.8),  # 0.2 + 0.8 * (1 - 10 / 40)
        (STABLE, 80, 0.6),
        (STABLE, 100, 0.2),
        (STABLE, 101, 0.2),
        (WarmupStableDecay(total_tokens=10, decay_tokens=0), 9, 1.0),
        (WarmupStableDecay(total_tokens=10, decay_tokens=0), 10, 0.0),
        (ROOT, 0, 1.0),
        (ROOT, 1, 0.001 + 0.999 * 0.9),  # sqrt(1 / 100)
        (ROOT, 25, 0.001 + 0.999 * 0.5),
        (ROOT, 64, 0.001 + 0.999 * 0.2),
        (ROOT, 100, 0.001),
        (ROOT, 1000, 0.001),
        (ROOT_AT_THE_END, 10, 0.5),
        (ROOT_AT_THE_END, 84, 1.0),
        (ROOT_AT_THE_END, 88, 0.5),
        (ROOT_AT_THE_END, 93, 0.25),
        (COSINE, 5, 0.5),
        (COSINE, 10, 1.0),
        (COSINE, 60, 0.55),  # half way: 0.1 + 0.9 * 0.5
        (COSINE, 35, 0.1 + 0.45 * (1 + math.sqrt(0.5))),
        (COSINE, 110, 0.1),
        (COSINE, 111, 0.1),
    ],
)
def test_a_schedule_gives_the_value_worked_out_by_hand(schedule, tokens, share):
    assert schedule(tokens) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize("schedule", ALL)
@given(st.integers(0, 200), st.integers(0, 200))
def test_a_share_lies_between_0_and_1_and_only_falls_after_the_warm_up(schedule, one, other):
    first, second = sorted((one, other))
    assert 0.0 <= schedule(first) <= 1.0
    if first >= schedule.warmup_tokens:
        assert schedule(second) <= schedule(first) + 1e-12
    if second <= schedule.warmup_tokens:
        assert schedule(first) <= schedule(second)


@pytest.mark.parametrize("schedule", ALL)
@given(st.integers(0, 200))
def test_a_scaled_schedule_is_the_same_course_over_more_tokens(schedule, tokens):
    assert schedule.scaled(1000)(1000 * tokens) == pytest.approx(schedule(tokens), abs=1e-9)


@given(st.integers(0, 1000), st.integers(0, 1000), st.floats(0, 3))
def test_any_scale_gives_a_course_that_can_be(warmup, decay, by):
    for kind in (WarmupStableDecay, OneMinusSqrt):
        course = kind(total_tokens=warmup + decay + 1, warmup_tokens=warmup, decay_tokens=decay, final=0.1)
        assert course.scaled(by)(10**6) == pytest.approx(0.1)
    assert Cosine(total_tokens=warmup + 1, warmup_tokens=warmup).scaled(by)(10**6) == 0.0


def test_the_shares_do_not_jump():
    for schedule in ALL:
        slow = schedule.scaled(1000)
        shares = [slow(tokens) for tokens in range(0, 120_000, 10)]
        assert max(abs(a - b) for a, b in pairwise(shares)) < 0.03


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Constant(warmup_tokens=-1),
        lambda: WarmupStableDecay(total_tokens=10, warmup_tokens=6, decay_tokens=5),
        lambda: WarmupStableDecay(total_tokens=0, decay_tokens=0),
        lambda: OneMinusSqrt(total_tokens=10, decay_tokens=11),
        lambda: OneMinusSqrt(total_tokens=10, decay_tokens=1, final=1.5),
        lambda: Cosine(total_tokens=10, warmup_tokens=11),
        lambda: Cosine(total_tokens=10, final=-0.1),
        lambda: BatchWarmup(first=0, last=4, tokens=10),
        lambda: BatchWarmup(first=5, last=4, tokens=10),
        lambda: BatchWarmup(first=1, last=4, tokens=10, increment=0),
        lambda: ConstantRate(rate=0.0),
        lambda: LinearRate(first=0.3, last=1.0),
        lambda: StepRates(rates=()),
        lambda: StepRates(rates=(0.3, 0.2), bounds=(0.3, 0.6)),
        lambda: StepRates(rates=(0.3, 0.2, 0.1), bounds=(0.6, 0.3)),
        lambda: StepRates(rates=(0.3, 0.2), bounds=(1.0,)),
    ],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(TrainingError, match="cannot be"):
        wrong()


# Rows of a step


def test_batch_warm_up_has_the_bounds_of_the_published_training():
    # base, on a device: 1 to 6 rows over 50 billion tokens of 8 devices; 6.25e9 / 15 times 1, 3, 6, 10, 15
    warmup = BatchWarmup(first=1, last=6, tokens=6_250_000_000)
    assert warmup.bounds() == [416_666_667, 1_250_000_000, 2_500_000_000, 4_166_666_667, 6_250_000_000]
    assert [warmup(tokens) for tokens in (0, 416_666_666, 416_666_667, 1_249_999_999, 1_250_000_000)] == [
        1,
        1,
        2,
        2,
        3,
    ]
    assert warmup(6_249_999_999) == 5
    assert warmup(6_250_000_000) == warmup(10**12) == 6


def test_rows_may_grow_by_more_than_one():
    warmup = BatchWarmup(first=8, last=48, tokens=1200, increment=8)
    assert warmup.bounds() == [80, 240, 480, 800, 1200]
    assert [warmup(tokens) for tokens in (0, 80, 240, 480, 800, 1200)] == [8, 16, 24, 32, 40, 48]
    assert BatchWarmup(first=1, last=4, tokens=10, increment=2).bounds() == [3, 10]  # 1, 3, then 4


def test_rows_that_do_not_grow_are_constant():
    assert BatchWarmup(first=4, last=4, tokens=100)(0) == 4
    assert BatchWarmup(first=1, last=4, tokens=0)(0) == 4


@given(st.integers(1, 9), st.integers(0, 40), st.integers(1, 10**7), st.integers(1, 5))
def test_each_size_gets_about_as_many_steps(first, growth, tokens, increment):
    warmup = BatchWarmup(first=first, last=first + growth, tokens=tokens, increment=increment)
    sizes = range(first, first + growth, increment)
    lasts = np.diff([0, *warmup.bounds()])
    if len(sizes):
        num_steps = tokens / sum(sizes)  # in units of tokens a row
        assert (np.abs(lasts - num_steps * np.array(sizes)) <= 1).all()
        assert warmup.bounds()[-1] == tokens
    found = [warmup(point) for point in np.linspace(0, 1.1 * tokens, 50).astype(int).tolist()]
    assert found == sorted(found)
    assert set(found) <= {*sizes, first + growth}
    assert found[-1] == first + growth


# Mask rates


def test_rates_step_down_over_equal_chunks():
    rates = StepRates(rates=(0.30, 0.20, 0.18, 0.16, 0.14))
    found = [rates(progress) for progress in (0.0, 0.19, 0.2, 0.39, 0.4, 0.6, 0.8, 0.99, 1.0)]
    assert found == [0.30, 0.30, 0.20, 0.20, 0.18, 0.16, 0.14, 0.14, 0.14]


def test_rates_step_at_given_bounds():
    rates = StepRates(rates=(0.3, 0.15, 0.05), bounds=(0.5, 0.75))
    assert [rates(progress) for progress in (0.0, 0.49, 0.5, 0.74, 0.75, 1.0)] == [
        0.3,
        0.3,
        0.15,
        0.15,
        0.05,
        0.05,
    ]


def test_a_rate_moves_in_a_straight_line():
    rate = LinearRate(first=0.3, last=0.1)
    assert [rate(progress) for progress in (-1.0, 0.0, 0.25, 0.5, 1.0, 2.0)] == pytest.approx(
        [0.3, 0.3, 0.25, 0.2, 0.1, 0.1]
    )
    assert ConstantRate(rate=0.3)(0.7) == 0.3


@given(st.floats(0, 1))
def test_a_rate_stays_among_what_was_given(progress):
    assert StepRates(rates=(0.3, 0.2))(progress) in (0.3, 0.2)
    assert 0.1 - 1e-12 <= LinearRate(first=0.1, last=0.3)(progress) <= 0.3 + 1e-12


@pytest.mark.parametrize(
    "value",
    [*ALL, BatchWarmup(first=1, last=4, tokens=10), ConstantRate(rate=0.3), StepRates(rates=(0.3, 0.2))],
)
def test_values_are_plain(value):
    assert pickle.loads(pickle.dumps(value)) == value
    again = json.loads(json.dumps(asdict(value)))
    assert type(value)(**{name: tuple(x) if isinstance(x, list) else x for name, x in again.items()}) == value
