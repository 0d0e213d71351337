import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from modernbert.metrics.similarity import pearson, spearman


@pytest.mark.parametrize("num_levels", [3, 1000], ids=["many ties", "few ties"])
def test_the_correlation_equals_scipy(num_levels):
    generator = np.random.default_rng(0)
    given, wanted = generator.integers(num_levels, size=(2, 500)) / 7
    assert spearman(given, wanted) == pytest.approx(spearmanr(given, wanted).statistic, abs=1e-12)
    assert pearson(given, wanted) == pytest.approx(pearsonr(given, wanted).statistic, abs=1e-12)


def test_only_the_order_counts():
    values = np.array([0.1, 0.5, 0.2, 0.9])
    assert spearman(values, np.exp(9 * values)) == pytest.approx(1.0)
    assert spearman(values, -values) == pytest.approx(-1.0)


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_what_does_not_vary_correlates_with_nothing(correlation):
    assert correlation(np.ones(4), np.arange(4.0)) == 0.0
    assert correlation(np.arange(4.0), np.ones(4)) == 0.0
    assert correlation(np.zeros(1), np.zeros(1)) == correlation(np.zeros(0), np.zeros(0)) == 0.0
