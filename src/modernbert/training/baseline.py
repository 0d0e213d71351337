"""What a user would get without any model: the majority, and words counted with a linear classifier.

TF-IDF of words (1 and 2) and of characters inside them (2 to 4), with logistic or ridge regression, by
scikit-learn. Time and memory have a bound, whatever the file: rows are a seeded sample where there are more
than MOST_ROWS, of very long texts the beginnings count, and words are numbered by hashes, so that no list of
them is kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modernbert.errors import ModernBertError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

MOST_ROWS = 50_000
# Characters of all texts together whose words, and whose characters, are counted.
MOST_FOR_WORDS, MOST_FOR_CHARACTERS = 25_000_000, 5_000_000
_VIEWS: tuple[tuple[int, Mapping[str, Any]], ...] = (
    (MOST_FOR_WORDS, {"ngram_range": (1, 2)}),
    (MOST_FOR_CHARACTERS, {"analyzer": "char_wb", "ngram_range": (2, 4)}),
)
_NUM_HASHES = 2**22
_MOST_FEATURES = 200_000  # of each view
_MOST_WEIGHTS = 10_000_000  # features by classes
_BLOCK = 1_000  # texts that are counted at once
# The inverse of the penalty, as in published figures of this kind of baseline.
_TRUST = 10.0
# What the exact solver may cost: it keeps some 25 vectors of weights, and walks all counts at each iteration.
_MOST_EXACT_WEIGHTS, _MOST_EXACT_COUNTS = 1_000_000, 8_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """Scores for held-out texts: of the linear model, and of always saying the same; rows learned from.

    `read` says how many characters of each text were read for words, and for characters; None: all.
    """

    scores: Float[np.ndarray, "N C"]
    constant: Float[np.ndarray, "N C"]
    num_rows: int
    read: tuple[int | None, int | None]


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
    seen = np.unique(labels)
    counts = _Counts(texts, len(seen))
    probabilities = np.zeros((len(held), num_classes))
    if len(seen) == 1:
        probabilities[:, seen] = 1.0
    else:
        model = _logistic(counts.learned, labels, len(seen))
        probabilities[:, seen] = np.concatenate([model.predict_proba(each) for each in counts.of(held)])
    return Baseline(
        scores=probabilities,
        constant=np.tile(shares, (len(held), 1)),
        num_rows=len(texts),
        read=counts.read,
    )


def set_baseline(texts: Sequence[str], labels: Bool[np.ndarray, "M C"], held: Sequence[str]) -> Baseline:
    """A probability for each label by itself, where any number of them may hold."""
    counts = _Counts(texts, labels.shape[1])
    constant = np.tile(labels.mean(axis=0), (len(held), 1))
    scores = constant.copy()
    told_apart = np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0))
    models = [_logistic(counts.learned, labels[:, column], 2) for column in told_apart]
    start = 0
    for block in counts.of(held):
        stop = start + block.shape[0]
        for column, model in zip(told_apart, models, strict=True):
            scores[start:stop, column] = model.predict_proba(block)[:, 1]
        start = stop
    return Baseline(scores=scores, constant=constant, num_rows=len(texts), read=counts.read)


def value_baseline(texts: Sequence[str], values: Float[np.ndarray, "M"], held: Sequence[str]) -> Baseline:
    """Values by ridge regression; the constant is their mean."""
    counts = _Counts(texts, 1)
    model = _sklearn("linear_model").Ridge(alpha=1.0, solver="sparse_cg").fit(counts.learned, values)
    given = np.concatenate([model.predict(each) for each in counts.of(held)])
    constant = np.full((len(held), 1), values.mean())
    return Baseline(scores=given[:, None], constant=constant, num_rows=len(texts), read=counts.read)


class _Counts:
    """Words and characters of texts as sparse vectors, learned from some and then taken of others."""

    def __init__(self, texts: Sequence[str], num_classes: int) -> None:
        most = min(_MOST_FEATURES, _MOST_WEIGHTS // len(_VIEWS) // num_classes)
        self._views = [_View(texts, budget, most, how) for budget, how in _VIEWS]
        self.read: tuple[int | None, int | None] = (self._views[0].limit, self._views[1].limit)
        self.learned = _side_by_side([view.take_learned() for view in self._views])

    def of(self, texts: Sequence[str]) -> Iterator[Any]:
        """The vectors of texts, a block of them at a time."""
        for start in range(0, len(texts), _BLOCK):
            block = texts[start : start + _BLOCK]
            yield _side_by_side([view.vectors(block) for view in self._views])


class _View:
    """Words, or characters: hashed, the most frequent kept, weighted by TF-IDF, each text of length 1."""

    def __init__(self, texts: Sequence[str], budget: int, most: int, how: Mapping[str, Any]) -> None:
        text = _sklearn("feature_extraction.text")
        self.limit = reading_limit([len(each) for each in texts], budget)
        self._hashes = text.HashingVectorizer(
            n_features=_NUM_HASHES, alternate_sign=False, norm=None, dtype=np.float32, **how
        )
        blocks = [self._counted(texts[i : i + _BLOCK]) for i in range(0, len(texts), _BLOCK)]
        totals = np.zeros(_NUM_HASHES, np.float32)
        for block in blocks:
            totals += np.bincount(block.indices, block.data, _NUM_HASHES)
        self._kept = _most_frequent(totals, most)
        for place, block in enumerate(blocks):  # one by one: all of them twice would be much
            blocks[place] = block[:, self._kept]
        learned = _stacked(blocks)
        del blocks
        self._weights = text.TfidfTransformer(sublinear_tf=True).fit(learned)
        self._learned = self._weights.transform(learned, copy=False)

    def take_learned(self) -> Any:
        """The vectors of the texts that it was made from; once, so that they lie in memory once."""
        learned, self._learned = self._learned, None
        return learned

    def vectors(self, texts: Sequence[str]) -> Any:
        return self._weights.transform(self._counted(texts)[:, self._kept], copy=False)

    def _counted(self, texts: Sequence[str]) -> Any:
        return self._hashes.transform([each[: self.limit] for each in texts])


def reading_limit(lengths: Sequence[int], budget: int) -> int | None:
    """How much of each text can be read so that all make `budget` together; None where they are less.

    Shorter texts leave their share to longer ones.
    """
    ordered = np.sort(np.asarray(lengths, np.int64))
    if ordered.sum() <= budget:
        return None
    # what all make together if none is read further than each of them is long
    totals = np.cumsum(ordered) + ordered * np.arange(len(ordered) - 1, -1, -1)
    num_whole = int(np.searchsorted(totals, budget, side="right"))
    return int((budget - ordered[:num_whole].sum()) // (len(ordered) - num_whole))


def _most_frequent(totals: Float[np.ndarray, "N"], most: int) -> Int[np.ndarray, "K"]:
    found = np.flatnonzero(totals)
    if len(found) > most:
        found = np.sort(found[np.argsort(-totals[found], kind="stable")[:most]])
    return found if len(found) else np.zeros(1, int)  # a column of nothing, where texts have nothing


def _logistic(vectors: Any, labels: np.ndarray, num_classes: int) -> Any:
    """Logistic regression, of all classes together; to the end where that is cheap, else for some rounds.

    The second way (SAGA, Defazio et al. 2014) keeps little besides the weights, and stops where they hardly
    change.
    """
    num_columns = num_classes if num_classes > 2 else 1
    is_cheap = (
        num_columns * vectors.shape[1] <= _MOST_EXACT_WEIGHTS
        and num_columns * vectors.nnz <= _MOST_EXACT_COUNTS
    )
    how: dict[str, Any] = {"max_iter": 200} if is_cheap else {"solver": "saga", "max_iter": 30, "tol": 1e-2}
    model = _sklearn("linear_model").LogisticRegression(C=_TRUST, random_state=0, **how)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _sklearn("exceptions").ConvergenceWarning)
        return model.fit(vectors, labels)


def _side_by_side(parts: Sequence[Any]) -> Any:
    """The columns of all parts, put together a block of rows at a time: at once would take twice the room."""
    from scipy import sparse

    num_rows, num_columns = parts[0].shape[0], sum(part.shape[1] for part in parts)
    bounds = np.sum([part.indptr for part in parts], axis=0)
    numbers, columns = np.empty(bounds[-1], np.float32), np.empty(bounds[-1], np.int32)
    for start in range(0, num_rows, _BLOCK):
        stop = min(start + _BLOCK, num_rows)
        block: Any = sparse.hstack([part[start:stop] for part in parts], format="csr")
        numbers[bounds[start] : bounds[stop]] = block.data
        columns[bounds[start] : bounds[stop]] = block.indices
    return sparse.csr_matrix((numbers, columns, bounds), shape=(num_rows, num_columns))


def _stacked(blocks: Sequence[Any]) -> Any:
    from scipy import sparse

    return sparse.vstack(blocks, format="csr")


def _sklearn(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise ModernBertError(
            f"the baseline of a report needs scikit-learn ({error}): pip install 'modernbert[train]'"
        ) from error
