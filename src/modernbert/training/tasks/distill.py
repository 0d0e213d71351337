"""A small model that learns from a large one: its vectors, or its scores of classes.

    vectors   1 - cosine with the teacher's, and the differences of all cosines within a batch
    classes   cross entropy with the teacher's probabilities at a temperature (Hinton et al. 2015,
              arXiv 1503.02531)

The teacher is asked once; what it said lies on disk beside the token ids. A student whose vectors have
another size gets a dense layer to the teacher's, so that both can search the same index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from modernbert.corpus.labelled import Column, Row, Rows, read_table
from modernbert.errors import TaskError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.embed import DenseConfig, EmbedHeadConfig
from modernbert.heads.model import HeadPart
from modernbert.heads.transform import TransformConfig
from modernbert.inference.loading import load
from modernbert.inference.pipeline import Model
from modernbert.metrics.similarity import spearman
from modernbert.training.examples import Example
from modernbert.training.limits import require
from modernbert.training.tables import table
from modernbert.training.tasks.packs import Chunks, chunks_of, in_chunks, targets_of
from modernbert.training.tasks.sequences import batches, encode
from modernbert.training.tasks.task import Evaluation, Notes, Parts, ReportContext, Section

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_MOST_COMPARED = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Distill:
    """Teach by the `teacher`, an embedding model or a classifier, on the texts of a column.

    `structure` is how much the cosines within a batch count beside those with the teacher; `temperature`
    softens the probabilities of classes. `pack_tokens` is how much of a batch goes through at once.
    """

    teacher: str
    text: str = "text"
    structure: float = 1.0
    temperature: float = 2.0
    encoding: str = "utf-8"
    pack_tokens: int = 8192
    name: str = "distill"

    def __post_init__(self) -> None:
        require("0 or more", structure=self.structure)
        require("above 0", temperature=self.temperature)

    def read(self, source: str, notes: Notes) -> Iterator[Row]:
        """Rows of "text"."""
        return read_table(source, [Column(name=self.text, role="text")], encoding=self.encoding)

    def strata(self, rows: Rows) -> Sequence[str] | None:
        """None: texts are alike."""
        return None

    def groups(self, rows: Rows) -> Iterable[str] | None:
        """The texts, so that none is on both sides."""
        return (row["text"] for row in rows)

    def texts(self, row: Row) -> Sequence[str]:
        """The text."""
        return [row["text"]]

    def prepare(self, parts: Parts, notes: Notes) -> DistillTask:
        """The task with the teacher loaded; TaskError where it is neither of the two kinds."""
        teacher = load(self.teacher, dtype="float32")
        if not {"embed", "classify"} & set(teacher.tasks):
            raise TaskError(
                f"{self.teacher} gives neither vectors nor classes, so there is nothing to learn from it"
            )
        head = teacher.config.head
        if isinstance(head, ClassifyHeadConfig) and head.problem != "single_label":
            raise TaskError(
                f"{self.teacher} gives {head.problem} scores; only teachers of classes are learned from"
            )
        return DistillTask(config=self, teacher=teacher)


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillTask:
    """Distillation from a loaded teacher."""

    config: Distill
    teacher: Model
    known: dict[Path, np.ndarray] = field(default_factory=dict[Path, np.ndarray])
    unit: str = "text"

    @property
    def takes_whole_batches(self) -> bool:
        """Cosines are compared within whole batches; classes need no neighbours."""
        return not self.is_classifier

    @property
    def is_classifier(self) -> bool:
        """Whether classes are learned, and not vectors."""
        return "classify" in self.teacher.tasks

    @property
    def labels(self) -> tuple[str, ...]:
        """The teacher's; none where it gives vectors."""
        head = self.teacher.config.head
        return head.labels if isinstance(head, ClassifyHeadConfig) else ()

    @property
    def metric(self) -> str:
        """What chooses the best weights."""
        return "agreement" if self.is_classifier else "cosine"

    def head(self, transform: TransformConfig | None, pooling: str) -> HeadPart:
        """The teacher's labels, or a vector of the teacher's size."""
        theirs = self.teacher.config.head
        if isinstance(theirs, ClassifyHeadConfig):
            return ClassifyHeadConfig(
                labels=theirs.labels,
                problem=theirs.problem,
                pooling=pooling,
                transform=transform,
                dropout=0.1,
            )
        size = self.teacher.embed(["a"]).shape[1]
        return EmbedHeadConfig(dense=(DenseConfig(out_features=size, has_bias=False),), is_normalized=True)

    def examples(self, rows: Iterable[Row], model: Model, limit: int, notes: Notes) -> Iterator[Example]:
        """A sequence a row, with what the teacher says of it."""
        number = num_cut = 0
        for batch in batches(rows):
            texts = [row["text"] for row in batch]
            sequences, cuts = encode(texts, model, limit)
            num_cut += sum(cut.num_cut for cut in cuts)
            for sequence, said in zip(sequences, self._ask(texts), strict=True):
                yield Example(sequences=[sequence], targets=said, row=number)
                number += 1
        if num_cut:
            notes.add(
                f"the student sees {num_cut:,} texts cut to {limit} tokens, and the teacher the whole of them"
            )

    def inputs(self, examples: Sequence[Example]) -> tuple[Any, ...]:
        """Packs, and a row of the teacher's numbers for each sequence."""
        sequences = [example.sequences[0] for example in examples]
        return chunks_of(sequences, self.config.pack_tokens), targets_of(examples).view(len(examples), -1)

    def loss(
        self, module: nn.Module, chunks: Chunks, targets: Float[Tensor, "S N"], *, backend: str
    ) -> Float[Tensor, ""]:
        """The sum over the sequences."""
        found = in_chunks(module, chunks, backend).float()  # [S, N]
        with torch.autocast(found.device.type, enabled=False):  # differences of cosines are small
            if not self.is_classifier:
                return self._vector_loss(found, functional.normalize(targets, dim=-1))
            heat = self.config.temperature
            softened = (targets / heat).softmax(dim=-1)
            return -(softened * (found / heat).log_softmax(dim=-1)).sum() * heat**2

    def evaluate(self, model: Model, rows: Rows) -> Evaluation:
        """How near the student is to the teacher on texts that it did not learn from."""
        texts: list[str] = rows.column("text")
        if rows.path not in self.known:
            self.known[rows.path] = np.asarray(self._ask(texts))
        theirs = self.known[rows.path]
        if self.is_classifier:
            found = model.classify(texts)
            said = [self.labels[number] for number in theirs.argmax(axis=1)]
            is_same = [each.label == label for each, label in zip(found, said, strict=True)]
            agreement = float(np.mean(is_same))
            predictions = [
                {**row, "label": label, "predicted": each.label}
                for row, label, each in zip(rows, said, found, strict=True)
            ]
            return Evaluation(figures={"agreement": agreement}, predictions=predictions)
        ours = model.embed(texts)
        cosines = (_unit(ours) * _unit(theirs)).sum(axis=1)
        figures = {"cosine": float(cosines.mean()), "structure": _structure(ours, theirs)}
        predictions = [{**row, "cosine": float(cosine)} for row, cosine in zip(rows, cosines, strict=True)]
        return Evaluation(figures=figures, predictions=predictions)

    def settle(self, model: Model, dev: Rows) -> Mapping[str, Any]:
        """Nothing is fitted afterwards."""
        return {}

    def report(self, context: ReportContext) -> Sequence[Section]:
        """How near the student came, and how large both are."""
        columns = list((context.test or context.dev or Evaluation(figures={}, predictions=())).figures)
        rows = [
            (part, *(evaluation.figures[name] for name in columns))
            for part, evaluation in (("test", context.test), ("dev", context.dev))
            if evaluation is not None
        ]
        size = sum(each.numel() for each in self.teacher.module.parameters())
        text = (
            f"{table(('part', *columns), rows)}\n\nThe teacher, {self.teacher.name}, has {size:,} parameters."
        )
        return [Section(title="Results", text=text)]

    def _ask(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Vectors, or log-probabilities of classes, which stand for logits in any softmax."""
        if not self.is_classifier:
            return list(self.teacher.embed(texts))
        found = self.teacher.classify(texts)
        scores = np.array([[each.scores[label] for label in self.labels] for each in found], np.float32)
        return list(np.log(np.maximum(scores, 1e-12)))

    def _vector_loss(self, ours: Float[Tensor, "S E"], theirs: Float[Tensor, "S E"]) -> Float[Tensor, ""]:
        ours = functional.normalize(ours, dim=-1)
        near = (1.0 - (ours * theirs).sum(dim=-1)).sum()
        differences = (ours @ ours.T - theirs @ theirs.T).square()  # [S, S]
        return near + self.config.structure * differences.sum() / max(len(ours) - 1, 1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _structure(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Spearman's correlation of the cosines of all pairs, of the first texts."""
    one, other = (_unit(each[:_MOST_COMPARED]) for each in (ours, theirs))
    above = np.triu_indices(len(one), 1)
    return spearman((one @ one.T)[above], (other @ other.T)[above])
