"""Calibration: the error of known tables, and a temperature that undoes one."""

import numpy as np
import pytest
from scipy import optimize, special
from sklearn.metrics import brier_score_loss

from modernbert.metrics.calibration import brier_score, calibration_error, fit_temperature, reliability


def test_the_error_is_the_distance_of_accuracy_and_confidence():
    probabilities = np.array([[0.95, 0.05]] * 4 + [[0.35, 0.65]] * 4)
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 0])
    # bins at 0.95 (3 of 4 right) and 0.65 (2 of 4 right)
    assert calibration_error(labels, probabilities) == pytest.approx(
        0.5 * abs(0.75 - 0.95) + 0.5 * abs(0.5 - 0.65)
    )
    assert reliability(labels, probabilities) == [
        (pytest.approx(0.65), 0.5, 4),
        (pytest.approx(0.95), 0.75, 4),
    ]


def test_a_confidence_of_one_has_a_bin():
    assert calibration_error(np.array([0]), np.array([[1.0, 0.0]])) == 0.0


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_the_temperature_is_where_scipy_finds_the_least_loss(temperature):
    numbers = np.random.default_rng(0)
    true = numbers.standard_normal((4000, 3)) * 2
    labels = np.array([numbers.choice(3, p=row) for row in special.softmax(true, axis=1)])
    logits = true * temperature

    def loss(t):
        return -special.log_softmax(logits / t, axis=1)[np.arange(4000), labels].mean()

    best = optimize.minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}).x
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(best, rel=1e-5)
    assert found == pytest.approx(temperature, rel=0.1)


def test_logits_that_are_always_right_get_the_lowest_temperature():
    assert fit_temperature(np.array([[2.0, 0.0], [0.0, 3.0]]), np.array([0, 1])) == pytest.approx(0.05)


def test_the_score_of_brier_is_scikit_learns():
    numbers = np.random.default_rng(3)
    labels, probabilities = (
        numbers.integers(4, size=200),
        special.softmax(numbers.standard_normal((200, 4)), axis=1),
    )
    wanted = brier_score_loss(labels, probabilities, scale_by_half=False)
    assert brier_score(labels, probabilities) == pytest.approx(wanted, abs=1e-12)
    assert brier_score(np.array([1]), np.array([[1.0, 0.0]])) == 2.0


def test_without_rows_nothing_is_wrong_and_the_temperature_changes_nothing():
    labels, scores = np.zeros(0, int), np.zeros((0, 3))
    assert calibration_error(labels, scores) == brier_score(labels, scores) == 0.0
    assert fit_temperature(scores, labels) == 1.0
