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
    from jaxtyping import Float

MOST_ROWS = 50_000
_MOST_FEATURES = 200_000
_MOST_ITERATIONS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """Scores for held-out texts: of the linear model, and of always saying the same; rows learned from."""

    scores: Float[np.ndarray, "N C"]
    constant: Float[np.ndarray, "N C"]
    num_rows: int


def class_baseline(
    texts: Sequence[str], labels: Sequence[int], held: Sequence[str], num_classes: int, *, seed: int
) -> Baseline:
    """Probabilities of classes; the constant is the share of each class in training."""
    chosen = _sample(len(texts), seed)
    learned, counts = [texts[row] for row in chosen], np.array([labels[row] for row in chosen])
    shares = np.bincount(counts, minlength=num_classes) / len(counts)
    vectors, others = _vectors(learned, held)
    probabilities = np.zeros((len(held), num_classes))
    seen = np.unique(counts)
    probabilities[:, seen] = 1.0 if len(seen) == 1 else _logistic(vectors, counts, others)
    return Baseline(scores=probabilities, constant=np.tile(shares, (len(held), 1)), num_rows=len(chosen))


def set_baseline(
    texts: Sequence[str], labels: Float[np.ndarray, "M C"], held: Sequence[str], *, seed: int
) -> Baseline:
    """A probability for each label by itself, where any number of them may hold."""
    chosen = _sample(len(texts), seed)
    vectors, others = _vectors([texts[row] for row in chosen], held)
    shares = labels[chosen].mean(axis=0)
    columns = [
        _logistic(vectors, labels[chosen, column].astype(int), others)[:, 1]
        if 0 < share < 1
        else np.full(len(held), share)
        for column, share in enumerate(shares)
    ]
    return Baseline(
        scores=np.stack(columns, axis=1), constant=np.tile(shares, (len(held), 1)), num_rows=len(chosen)
    )


def value_baseline(
    texts: Sequence[str], values: Float[np.ndarray, "M"], held: Sequence[str], *, seed: int
) -> Baseline:
    """Values by ridge regression; the constant is their mean."""
    linear = _sklearn("linear_model")
    chosen = _sample(len(texts), seed)
    vectors, others = _vectors([texts[row] for row in chosen], held)
    model = linear.Ridge(alpha=1.0, random_state=seed).fit(vectors, values[chosen])
    return Baseline(
        scores=model.predict(others)[:, None],
        constant=np.full((len(held), 1), values[chosen].mean()),
        num_rows=len(chosen),
    )


def _sample(num: int, seed: int) -> list[int]:
    if num <= MOST_ROWS:
        return list(range(num))
    numbers = np.random.Generator(np.random.PCG64DXSM(seed))
    return np.sort(numbers.choice(num, MOST_ROWS, replace=False)).tolist()


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
