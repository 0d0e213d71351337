import numpy as np
import pytest
from scipy.stats import spearmanr

from modernbert.metrics.similarity import spearman


@pytest.mark.parametrize("num_levels", [3, 1000], ids=["many ties", "few ties"])
def test_the_correlation_equals_scipy(num_levels):
    generator = np.random.default_rng(0)
    given, wanted = generator.integers(num_levels, size=(2, 500)) / 7
    assert spearman(given, wanted) == pytest.approx(spearmanr(given, wanted).statistic, abs=1e-12)


def test_only_the_order_counts():
    values = np.array([0.1, 0.5, 0.2, 0.9])
    assert spearman(values, np.exp(9 * values)) == pytest.approx(1.0)
    assert spearman(values, -values) == pytest.approx(-1.0)
