"""How good vectors are for what they were not trained for: telling labels apart, finding the other half.

Every number follows from the vectors alone, without chance. Sums run in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modernbert.training.probe_texts import Halves, LabelledTexts

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

# How far a covariance is drawn to its diagonal: a few hundred texts do not tell D * D numbers. Of 0.05 to 1,
# 0.2 to 0.5 served an untrained and a young model best; it matters little for a good one.
SHRINKAGE = 0.3
# Added to variances as a share of their mean, so that a number that never changes divides nothing by 0.
_FLOOR = 1e-6
_TINY = float(np.finfo(np.float64).tiny)


def classification_scores(vectors: Float[np.ndarray, "N D"], texts: LabelledTexts) -> dict[str, Any]:
    """How well labels are told apart: learned from one half of the texts and asked of the other, both ways.

    `recall` is the share of each label's texts that are found, `balanced_accuracy` the mean of these;
    `majority` is what always naming the most frequent label would reach of it, 1 / number of labels.
    """
    names, classes = np.unique(np.array(texts.labels), return_inverse=True)
    guesses = np.empty_like(classes)
    for is_asked in (texts.is_second, ~texts.is_second):
        guesses[is_asked] = discriminate(vectors[~is_asked], classes[~is_asked], vectors[is_asked])
    recalls = [float(np.mean(guesses[classes == number] == number)) for number in range(len(names))]
    return {
        "labels": texts.origin,
        "balanced_accuracy": float(np.mean(recalls)),
        "majority": 1.0 / len(names),
        "num_texts": len(vectors),
        "recall": dict(zip(names.tolist(), recalls, strict=True)),
    }


def discriminate(
    known: Float[np.ndarray, "N D"], classes: Int[np.ndarray, "N"], asked: Float[np.ndarray, "A D"]
) -> Int[np.ndarray, "A"]:
    """The class of each vector in `asked`, by a linear discriminant with equal priors.

    That is the nearest class mean, measured by the covariance inside classes, which is drawn to its diagonal
    (Friedman 1989, Regularized Discriminant Analysis). `classes` are 0, 1, ... without a gap.
    """
    means = np.stack([known[classes == number].mean(axis=0) for number in range(int(classes.max()) + 1)])
    weights = np.linalg.solve(_covariance(known - means[classes]), means.T)  # [D, C]
    scores = asked @ weights - 0.5 * np.sum(means.T * weights, axis=0)  # [A, C]
    return scores.argmax(axis=1)


def retrieval_scores(both: Float[np.ndarray, "N D"], halves: Halves) -> dict[str, Any]:
    """How high the second half of a document stands among those of all, by its cosine with the first half.

    `both` are the vectors of all first halves, then of all second ones. They are whitened before (Su et al.
    2021, arXiv 2103.15316): mean-pooled vectors of a masked language model share most of their direction.
    `mrr` is the mean of 1 / rank, `accuracy_at_1` the share of first places, `words_mrr` what the words alone
    reach, without a model.
    """
    queries, documents = (each - each.mean(axis=0) for each in np.split(both, 2))
    precision = np.linalg.inv(_covariance(np.concatenate([queries, documents])))
    whitening = np.linalg.cholesky(precision)  # [D, D]
    ranks = _ranks(queries @ whitening, documents @ whitening)
    reciprocal, sources = 1.0 / ranks, np.array(halves.sources)
    return {
        "mrr": float(reciprocal.mean()),
        "accuracy_at_1": float(np.mean(ranks == 1)),
        "words_mrr": words_mrr(halves),
        "num_documents": len(ranks),
        "mrr_by_source": {
            name: float(reciprocal[sources == name].mean()) for name in sorted(set(halves.sources))
        },
    }


def words_mrr(halves: Halves) -> float:
    """The mean reciprocal rank of token counts as vectors: roots of counts, rare tokens weighing more."""
    queries, documents = _counts(halves.queries, halves.documents)
    num_with = np.count_nonzero(documents, axis=0)
    weights = np.log((1 + len(documents)) / (1 + num_with))
    return float(np.mean(1.0 / _ranks(np.sqrt(queries) * weights, np.sqrt(documents) * weights)))


def _ranks(queries: Float[np.ndarray, "N D"], documents: Float[np.ndarray, "N D"]) -> Int[np.ndarray, "N"]:
    """The rank of document i for query i, from 1; documents that are as near as it stand before it."""
    cosines = _unit(queries) @ _unit(documents).T  # [N, N]
    is_before: Bool[np.ndarray, "N N"] = cosines >= np.diag(cosines)[:, None]
    return is_before.sum(axis=1)


def _covariance(centred: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "D D"]:
    covariance = centred.T @ centred / len(centred)
    variances = np.diag(covariance)
    floor = _FLOOR * (float(variances.mean()) or 1.0)
    return (1 - SHRINKAGE) * covariance + np.diag(SHRINKAGE * variances + floor)


def _counts(*parts: Sequence[Int[np.ndarray, "n"]]) -> list[Float[np.ndarray, "N V"]]:
    """How often each token stands in each text; columns are the tokens that are met at all."""
    known = np.unique(np.concatenate([text for part in parts for text in part]))
    return [
        np.stack([np.bincount(np.searchsorted(known, text), minlength=len(known)) for text in part]) * 1.0
        for part in parts
    ]


def _unit(vectors: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
