"""What a user would get without any model: the majority, and words counted with a linear classifier.

TF-IDF of words (1 and 2) and characters (2 to 4) with logistic regression, by scikit-learn. It learns from a
seeded sample where there are more rows than MOST_ROWS, which is a matter of minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from modernbert.errors import ModernBertError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

MOST_ROWS = 50_000
_MOST_FEATURES = 200_000
_MOST_ITERATIONS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """Scores for held-out texts: of the linear model, and of always saying the same; rows learned from."""

    scores: Float[np.ndarray, "N C"]
    constant: Float[np.ndarray, "N C"]
    num_rows: int


def sample(num: int, seed: int) -> list[int]:
    """All numbers below `num`, or MOST_ROWS of them, sorted: the rows that a baseline learns from."""
    if num <= MOST_ROWS:
        return list(range(num))
    numbers = np.random.Generator(np.random.PCG64DXSM(seed))
    return np.sort(numbers.choice(num, MOST_ROWS, replace=False)).tolist()


def class_baseline(
    texts: Sequence[str], labels: Int[np.ndarray, "M"], held: Sequence[str], num_classes: int
) -> Baseline:
    """Probabilities of classes; the constant is the share of each class in training."""
    shares = np.bincount(labels, minlength=num_classes) / len(labels)
    vectors, others = _vectors(texts, held)
    probabilities = np.zeros((len(held), num_classes))
    seen = np.unique(labels)
    probabilities[:, seen] = 1.0 if len(seen) == 1 else _logistic(vectors, labels, others)
    return Baseline(scores=probabilities, constant=np.tile(shares, (len(held), 1)), num_rows=len(texts))


def set_baseline(texts: Sequence[str], labels: Bool[np.ndarray, "M C"], held: Sequence[str]) -> Baseline:
    """A probability for each label by itself, where any number of them may hold."""
    vectors, others = _vectors(texts, held)
    shares = labels.mean(axis=0)
    columns = [
        _logistic(vectors, labels[:, column].astype(int), others)[:, 1]
        if 0 < share < 1
        else np.full(len(held), share)
        for column, share in enumerate(shares)
    ]
    constant = np.tile(shares, (len(held), 1))
    return Baseline(scores=np.stack(columns, axis=1), constant=constant, num_rows=len(texts))


def value_baseline(texts: Sequence[str], values: Float[np.ndarray, "M"], held: Sequence[str]) -> Baseline:
    """Values by ridge regression; the constant is their mean."""
    vectors, others = _vectors(texts, held)
    model = _sklearn("linear_model").Ridge(alpha=1.0, random_state=0).fit(vectors, values)
    constant = np.full((len(held), 1), values.mean())
    return Baseline(scores=model.predict(others)[:, None], constant=constant, num_rows=len(texts))


def _vectors(learned: Sequence[str], held: Sequence[str]) -> tuple[Any, Any]:
    text, pipeline = _sklearn("feature_extraction.text"), _sklearn("pipeline")
    common: dict[str, Any] = {"sublinear_tf": True, "max_features": _MOST_FEATURES, "dtype": np.float32}
    union = pipeline.FeatureUnion(
        [
            ("words", text.TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\S+", **common)),
            ("characters", text.TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **common)),
        ]
    )
    return union.fit_transform(learned), union.transform(held)


def _logistic(vectors: Any, labels: np.ndarray, others: Any) -> np.ndarray:
    linear = _sklearn("linear_model")
    model = linear.LogisticRegression(C=10.0, max_iter=_MOST_ITERATIONS)
    return cast(np.ndarray, model.fit(vectors, labels).predict_proba(others))


def _sklearn(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ModernBertError(
            f"the baseline of a report needs scikit-learn ({error}): pip install 'modernbert[train]'"
        ) from error
