"""Classes, several labels at once, or values, for texts and for pairs of texts.

    reviews.csv        text,label            classes: one holds            cross entropy
    topics.jsonl       text,labels           any number of labels hold     binary cross entropy
    pairs.csv          text_a,text_b,score   a value                       squared error

What is fitted after training goes into the weights, so that every tool gives the same answers: a temperature
divides the scores of classes, and thresholds of labels move their scores so that 0.5 decides.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor, nn

from modernbert.corpus.labelled import Column, Row, Rows, read_table
from modernbert.errors import CorpusError
from modernbert.heads.classify import ClassifyHeadConfig, Problem
from modernbert.heads.model import HeadPart
from modernbert.heads.transform import TransformConfig
from modernbert.inference.pipeline import Model
from modernbert.text.batch import PackedBatch
from modernbert.training.examples import Example
from modernbert.training.limits import require
from modernbert.training.tasks import classify_scores
from modernbert.training.tasks.classify_scores import text_of
from modernbert.training.tasks.packs import pack_examples, targets_of
from modernbert.training.tasks.sequences import sequences_of
from modernbert.training.tasks.task import Evaluation, Notes, Parts, ReportContext, Section

if TYPE_CHECKING:
    from jaxtyping import Float

ClassWeights = Literal["equal", "balanced"]
BASELINE_SEED = 17


@dataclass(frozen=True, kw_only=True, slots=True)
class Classify:
    """Learn the labels in a column of a table.

    `second` names the column of the second text of a pair. Labels of a multi-label row are a JSON list, or
    text split at `separator`. `class_weights="balanced"` lets each class count alike, whatever its share.
    """

    text: str = "text"
    second: str | None = None
    label: str = "label"
    problem: Problem = "single_label"
    separator: str = "|"
    class_weights: ClassWeights = "equal"
    label_smoothing: float = 0.0
    encoding: str = "utf-8"
    name: str = "classify"

    def __post_init__(self) -> None:
        require("0 or more and below 1", label_smoothing=self.label_smoothing)

    def read(self, source: str, notes: Notes) -> Iterator[Row]:
        """Rows of "text", "second" where there are pairs, and "label"."""
        columns = [Column(name=self.text, role="text"), Column(name=self.label, role="label")]
        if self.second is not None:
            columns.insert(1, Column(name=self.second, role="second"))
        for row in read_table(source, columns, encoding=self.encoding):
            row["label"] = self._label(row["label"], source, row["line"])
            yield row

    def strata(self, rows: Rows) -> Sequence[str] | None:
        """The labels; values and sets of labels are split at random."""
        return rows.column("label") if self.problem == "single_label" else None

    def groups(self, rows: Rows) -> Iterable[str] | None:
        """The texts: of two rows with the same text one would give away the other's label."""
        return map(_key, rows)

    def texts(self, row: Row) -> Sequence[str]:
        """The text, or both of a pair."""
        return [row["text"], row["second"]] if "second" in row else [row["text"]]

    def prepare(self, parts: Parts, notes: Notes) -> ClassifyTask:
        """The task with the labels of the training rows."""
        if self.problem == "regression":
            return ClassifyTask(config=self, labels=(self.label,), shares=(1.0,))
        counts: Counter[str] = Counter()
        for row in parts.train:
            counts.update([row["label"]] if self.problem == "single_label" else row["label"])
        labels = tuple(sorted(counts, key=_natural))
        if len(labels) < 2 and self.problem == "single_label":
            raise CorpusError(
                f"all {len(parts.train):,} rows to learn from have the label {next(iter(labels))!r}; there "
                f"is nothing to tell apart. Is {self.label!r} the column of labels?"
            )
        if len(labels) > len(parts.train) / 2 and len(labels) > 20:
            raise CorpusError(
                f"column {self.label!r} has {len(labels):,} different labels in {len(parts.train):,} rows, "
                f"such as {', '.join(map(repr, labels[:3]))}; name the column of labels with --label, or "
                "pass --regression where they are values"
            )
        _note_unseen(parts, set(labels), self.problem, notes)
        return ClassifyTask(
            config=self, labels=labels, shares=tuple(counts[label] / counts.total() for label in labels)
        )

    def _label(self, value: Any, source: str, line: int) -> Any:
        if self.problem == "single_label":
            return str(value)
        if self.problem == "regression":
            try:
                found = float(value)
            except (TypeError, ValueError):
                found = float("nan")
            if not np.isfinite(found):
                raise CorpusError(f"{source}, line {line}: {self.label} is {value!r}, and not a number")
            return found
        if isinstance(value, str):
            stripped = value.strip()
            value = json.loads(stripped) if stripped.startswith("[") else stripped.split(self.separator)
        return sorted({str(each).strip() for each in value if str(each).strip()})


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifyTask:
    """Classification with known labels, in their order; `shares` says how common each is in training."""

    config: Classify
    labels: tuple[str, ...]
    shares: tuple[float, ...]
    unit: str = "text"
    takes_whole_batches: bool = False

    @property
    def metric(self) -> str:
        """The figure by which the best weights are chosen."""
        return {"single_label": "macro_f1", "multi_label": "micro_f1", "regression": "spearman"}[
            self.config.problem
        ]

    def head(self, transform: TransformConfig | None, pooling: str) -> HeadPart:
        """A score for each label."""
        return ClassifyHeadConfig(
            labels=self.labels, problem=self.config.problem, pooling=pooling, transform=transform, dropout=0.1
        )

    def examples(self, rows: Iterable[Row], model: Model, limit: int, notes: Notes) -> Iterator[Example]:
        """A sequence a row; rows with a label that training does not know are left out, which was noted."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        known = (row for row in rows if self._is_known(row, numbers))
        for number, (row, sequence) in enumerate(sequences_of(known, text_of, model, limit, notes)):
            yield Example(sequences=[sequence], targets=self._targets(row, numbers), row=number)

    def inputs(self, examples: Sequence[Example]) -> tuple[Any, ...]:
        """The pack, and a row of targets for each sequence."""
        return pack_examples(examples), targets_of(examples).view(len(examples), -1)  # [S, 1 or C]

    def loss(
        self, module: nn.Module, batch: PackedBatch, targets: Float[Tensor, "S N"], *, backend: str
    ) -> Float[Tensor, ""]:
        """The sum over the sequences; with weights, a class counts by the inverse of its share."""
        logits = module(batch, backend).float()  # [S, C]
        if self.config.problem == "regression":
            return nn.functional.mse_loss(logits, targets, reduction="sum")
        if self.config.problem == "multi_label":
            smooth = targets * (1 - self.config.label_smoothing) + self.config.label_smoothing / 2
            each = nn.functional.binary_cross_entropy_with_logits(logits, smooth, reduction="sum")
            return each / len(self.labels)
        weight = None
        if self.config.class_weights == "balanced":  # the mean over the training rows is 1
            weight = logits.new_tensor([1 / (share * len(self.labels)) for share in self.shares])
        return nn.functional.cross_entropy(
            logits,
            targets[:, 0].long(),
            weight,
            reduction="sum",
            label_smoothing=self.config.label_smoothing,
        )

    def evaluate(self, model: Model, rows: Rows) -> Evaluation:
        """All figures of the problem, and predictions with the scores of all labels."""
        return classify_scores.evaluate(model, rows, self.labels, self.config.problem)

    def settle(self, model: Model, dev: Rows) -> Mapping[str, Any]:
        """A temperature for classes, a threshold for each label of several; both go into the weights."""
        return classify_scores.settle(model, dev, self.labels, self.config.problem)

    def report(self, context: ReportContext) -> Sequence[Section]:
        """Results beside baselines, class by class, with pictures."""
        return classify_scores.report(context, self.labels, self.config.problem, seed=BASELINE_SEED)

    def _is_known(self, row: Row, numbers: Mapping[str, int]) -> bool:
        return self.config.problem != "single_label" or row["label"] in numbers

    def _targets(self, row: Row, numbers: Mapping[str, int]) -> list[float]:
        if self.config.problem == "regression":
            return [row["label"]]
        if self.config.problem == "single_label":
            return [numbers[row["label"]]]
        return [float(label in row["label"]) for label in self.labels]


def _key(row: Row) -> str:
    return "\0".join(" ".join(each.split()).lower() for each in (row["text"], row.get("second", "")))


def _natural(label: str) -> tuple[int, float, str]:
    """Numbers in their order, before words."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def _note_unseen(parts: Parts, known: set[str], problem: Problem, notes: Notes) -> None:
    for name, rows in parts.items():
        found: Counter[str] = Counter()
        for row in rows if name != "train" else ():
            of_row = [row["label"]] if problem == "single_label" else row["label"]
            found.update(label for label in of_row if label not in known)
        if found:
            notes.warn(
                f"{found.total():,} rows of the {name} part have labels that training never saw "
                f"({', '.join(sorted(found)[:5])}); they count as wrong"
            )
