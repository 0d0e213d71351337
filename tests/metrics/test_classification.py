"""Figures of classifiers agree with scikit-learn's, and make sense where there is nothing to count."""

import numpy as np
import pytest
from sklearn import metrics

from modernbert.metrics import classification
from modernbert.metrics.similarity import pearson

# Both sides compute in fp64.
TOLERANCE = 1e-12


@pytest.fixture
def rows():
    numbers = np.random.default_rng(4)
    labels = numbers.choice(4, 300, p=[0.6, 0.25, 0.1, 0.05])
    scores = numbers.random((300, 4)) + np.eye(4)[labels] * 0.4
    return labels, scores / scores.sum(axis=1, keepdims=True)


def test_figures_of_classes_are_those_of_scikit_learn(rows):
    labels, scores = rows
    predicted = scores.argmax(axis=1)
    found = classification.classes(labels, scores)
    wanted = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
        "weighted_f1": metrics.f1_score(labels, predicted, average="weighted"),
        "mcc": metrics.matthews_corrcoef(labels, predicted),
        "auc": metrics.roc_auc_score(labels, scores, multi_class="ovr"),
    }
    assert found == pytest.approx(wanted, abs=TOLERANCE)
    counts = classification.confusion(labels, predicted, 4)
    assert np.array_equal(counts, metrics.confusion_matrix(labels, predicted))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(labels, predicted)
    for place, each in enumerate(classification.per_class(counts)):
        assert (each.precision, each.recall, each.f1) == pytest.approx(
            (precision[place], recall[place], f1[place])
        )
        assert each.support == support[place]


def test_two_classes_have_the_area_of_the_second():
    numbers = np.random.default_rng(0)
    labels = numbers.integers(2, size=100)
    score = np.round(numbers.random(100), 1)  # with ties
    found = classification.area_under_roc(labels, np.stack([1 - score, score], axis=1))
    assert found == pytest.approx(metrics.roc_auc_score(labels, score), abs=TOLERANCE)


def test_average_precision_and_its_curve_are_scikit_learns(rows):
    labels, scores = rows
    right, score = labels == 1, np.round(scores[:, 1], 1)
    assert classification.average_precision(right, score) == pytest.approx(
        metrics.average_precision_score(right, score), abs=TOLERANCE
    )
    precision, recall, thresholds = metrics.precision_recall_curve(right, score)
    found = classification.precision_recall(right, score)
    assert np.allclose(found[2][::-1], thresholds)
    assert np.allclose(found[0][::-1], precision[:-1], atol=TOLERANCE)
    assert np.allclose(found[1][::-1], recall[:-1], atol=TOLERANCE)


def test_figures_of_sets_are_those_of_scikit_learn():
    numbers = np.random.default_rng(1)
    labels, predicted = numbers.random((80, 5)) < 0.3, numbers.random((80, 5)) < 0.4
    wanted = {
        "micro_f1": metrics.f1_score(labels, predicted, average="micro"),
        "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
        "subset_accuracy": metrics.accuracy_score(labels, predicted),
    }
    assert classification.label_sets(labels, predicted) == pytest.approx(wanted, abs=TOLERANCE)


def test_figures_of_values_are_those_of_scipy_and_scikit_learn():
    from scipy import stats

    numbers = np.random.default_rng(2)
    wanted = np.round(numbers.random(60) * 5)
    given = wanted + numbers.standard_normal(60)
    found = classification.values(wanted, given)
    assert found == pytest.approx(
        {
            "spearman": stats.spearmanr(wanted, given).statistic,
            "pearson": stats.pearsonr(wanted, given).statistic,
            "mse": metrics.mean_squared_error(wanted, given),
            "mae": metrics.mean_absolute_error(wanted, given),
            "r2": metrics.r2_score(wanted, given),
        },
        abs=1e-10,
    )


def test_a_label_that_the_model_does_not_know_counts_as_wrong():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    assert classification.classes(np.array([0, 1, -1]), scores)["accuracy"] == pytest.approx(2 / 3)


def test_nothing_divides_by_zero():
    one = classification.classes(np.array([0, 0]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    assert one == {"accuracy": 1.0, "macro_f1": 1.0, "weighted_f1": 1.0, "mcc": 0.0, "auc": 0.5}
    assert classification.classes(np.zeros(0, int), np.zeros((0, 2)))["accuracy"] == 0.0
    assert pearson(np.ones(3), np.arange(3)) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_a_threshold_has_the_best_f1_there_is(seed):
    numbers = np.random.default_rng(seed)
    right = numbers.random(40) < 0.3
    scores = np.round(np.clip(numbers.random(40) * 0.7 + right * 0.3, 0, 1), 2)
    found = classification.best_threshold(right, scores)
    given = scores >= np.linspace(0, 1, 401)[:, None]  # every threshold that can differ, and more
    best = (2 * (given & right).sum(axis=1) / (given.sum(axis=1) + right.sum())).max()
    assert metrics.f1_score(right, scores >= found, zero_division=0) == pytest.approx(best)


def test_of_equal_thresholds_the_one_next_to_a_half_is_taken():
    assert classification.best_threshold(np.array([True, False]), np.array([0.9, 0.1])) == pytest.approx(0.5)
    assert classification.best_threshold(np.array([False, False]), np.array([0.9, 0.1])) == 0.5
