"""Rerankers: a score for a query and a document read together, to order what a search has found.

    pointwise   each pair is right or wrong (or between): binary cross entropy
    listwise    of the candidates of a query, the right ones win: cross entropy over them (ListNet: Cao et al.
                2007, with the grades as shares)

What comes out is a classifier with one label, whose sigmoid is the score, and which CrossEncoder loads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.corpus.labelled import Row, Rows
from modernbert.corpus.splitting import normalised
from modernbert.errors import CorpusError, TrainingError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.model import HeadPart
from modernbert.heads.transform import TransformConfig
from modernbert.inference.pipeline import Model
from modernbert.metrics.ranking import evaluate_ranking, reciprocal_rank
from modernbert.pretrained.folder import Pretrained
from modernbert.pretrained.heads import with_head
from modernbert.text.batch import PackedBatch
from modernbert.training.examples import Example
from modernbert.training.limits import require
from modernbert.training.retrieval_scores import METRIC
from modernbert.training.tables import table
from modernbert.training.tasks.mining import Mining, mined
from modernbert.training.tasks.packs import pack_examples, targets_of
from modernbert.training.tasks.query_sets import USUAL_FIELDS, QueryFields, read_rows
from modernbert.training.tasks.rerank_rows import with_candidates
from modernbert.training.tasks.sequences import batches, encode
from modernbert.training.tasks.set_examples import CutCount
from modernbert.training.tasks.task import Evaluation, Notes, Parts, ReportContext, Section

if TYPE_CHECKING:
    from jaxtyping import Float, Int

RerankLoss = Literal["pointwise", "listwise"]
_ROWS_AT_ONCE, _SHOWN, _MOST_CHARACTERS = 250, 3, 200
_FIGURES = (METRIC, "mrr@10", "map")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rerank:
    """Learn to order the candidates of queries.

    At most `num_negatives` wrong candidates of a query are learned from, beside all right ones; a query
    without any gets as many that are drawn from others. `mine` looks for hard ones first.
    """

    loss: RerankLoss = "pointwise"
    num_negatives: int = 4
    mine: Mining | None = None
    fields: QueryFields = USUAL_FIELDS
    encoding: str = "utf-8"
    name: str = "rerank"

    def __post_init__(self) -> None:
        if self.loss not in ("pointwise", "listwise"):
            raise TrainingError(f"the loss of a reranker is pointwise or listwise; found {self.loss!r}")
        require("1 or more", num_negatives=self.num_negatives)

    def read(self, source: str, notes: Notes) -> Iterator[Row]:
        """Rows of "query", "documents" and "grades"."""
        rows = read_rows(source, self.fields, self.encoding)
        if self.mine is not None:
            rows = mined(rows, source, self.mine, notes)
        return with_candidates(rows, source, num_drawn=self.num_negatives, notes=notes)

    def strata(self, rows: Rows) -> Sequence[str] | None:
        """None: rows are alike."""
        return None

    def groups(self, rows: Rows) -> Iterable[str] | None:
        """The queries, so that none is on both sides."""
        return (normalised(row["query"]) for row in rows)

    def texts(self, row: Row) -> Sequence[str]:
        """The query and its right documents."""
        right = (text for text, grade in zip(row["documents"], row["grades"], strict=True) if grade > 0)
        return [row["query"], *right]

    def prepare(self, parts: Parts, notes: Notes) -> RerankTask:
        """The task with the best grade there is; CorpusError where nothing is right, or nothing wrong."""
        best, has_wrong = 0.0, False
        for row in parts.train:
            best = max(best, *row["grades"])
            has_wrong = has_wrong or min(row["grades"]) < max(row["grades"])
        if best == 0 or not has_wrong:
            what = "right" if best == 0 else "worse than another"
            raise CorpusError(
                f"no candidate of any query to learn from is {what}, so there is no order to learn"
            )
        return RerankTask(config=self, best_grade=best)


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankTask:
    """Reranking with grades up to `best_grade`."""

    config: Rerank
    best_grade: float
    takes_whole_batches: bool = False

    @property
    def unit(self) -> str:
        """Losses are means over queries, or over pairs."""
        return "query" if self.config.loss == "listwise" else "pair"

    @property
    def metric(self) -> str:
        """nDCG@10 of the candidates in their new order."""
        return METRIC

    def head(self, transform: TransformConfig | None, pooling: str) -> HeadPart:
        """One score a pair."""
        return ClassifyHeadConfig(
            labels=("relevance",), problem="regression", pooling=pooling, transform=transform, dropout=0.1
        )

    def begin(self, pretrained: Pretrained, *, seed: int) -> Pretrained:
        """With the head of a reranker kept, and a sigmoid as its activation."""
        theirs = pretrained.config.head
        build = self.head
        if isinstance(theirs, ClassifyHeadConfig) and len(theirs.labels) == 1:
            kept = replace(theirs, problem="regression")
            ours = with_head(pretrained, lambda transform, pooling: kept, seed=seed)
        else:
            ours = with_head(pretrained, build, seed=seed)
        return replace(ours, settings=replace(pretrained.settings, activation="sigmoid", similarity=None))

    def examples(self, rows: Iterable[Row], model: Model, limit: int, notes: Notes) -> Iterator[Example]:
        """A query with each of its candidates, as pairs; pairs that are too long are cut, and noted."""
        cut = CutCount()
        num_left_out = number = 0
        for batch in batches(rows, _ROWS_AT_ONCE):
            chosen = [self._chosen(row) for row in batch]
            pairs = [
                [(row["query"], row["documents"][place]) for place in places]
                for row, places in zip(batch, chosen, strict=True)
            ]
            sequences, cuts = encode([pair for each in pairs for pair in each], model, limit)
            cut.add(cuts)
            bounds = [0, *accumulate(map(len, pairs))]
            for row, places, start, end in zip(batch, chosen, bounds, bounds[1:], strict=False):
                grades = [row["grades"][place] / self.best_grade for place in places]
                is_listwise = self.config.loss == "listwise"
                if is_listwise and max(grades) == min(grades):
                    num_left_out += 1
                else:
                    yield Example(
                        sequences=sequences[start:end],
                        targets=grades,
                        row=number,
                        weight=1 if is_listwise else len(places),
                    )
                number += 1
        cut.note("pairs", notes)
        if num_left_out:
            notes.add(
                f"{num_left_out:,} queries whose candidates are all alike teach no order, and are left out"
            )

    def inputs(self, examples: Sequence[Example]) -> tuple[Any, ...]:
        """The pack of all pairs, their grades, and the query of each."""
        counts = torch.tensor([len(each.sequences) for each in examples])
        owner = torch.arange(len(examples)).repeat_interleave(counts)
        return pack_examples(examples), targets_of(examples), owner

    def loss(
        self,
        module: nn.Module,
        batch: PackedBatch,
        grades: Float[Tensor, "S"],
        owner: Int[Tensor, "S"],
        *,
        backend: str,
    ) -> Float[Tensor, ""]:
        """The sum over pairs, or over queries."""
        logits = module(batch, backend).float()[:, 0]  # [S, 1] -> [S]
        if self.config.loss == "pointwise":
            return functional.binary_cross_entropy_with_logits(logits, grades, reduction="sum")
        num = int(owner[-1]) + 1
        totals = grades.new_zeros(num).scatter_add(0, owner, grades)
        return -(grades / totals[owner] * _log_softmax(logits, owner, num)).sum()

    def evaluate(self, model: Model, rows: Rows) -> Evaluation:
        """The candidates of each query in the order of `Model.rerank`."""
        run: dict[str, list[str]] = {}
        judgements: dict[str, dict[str, float]] = {}
        predictions: list[Mapping[str, Any]] = []
        for number, row in enumerate(rows):
            ranked = model.rerank(row["query"], row["documents"])
            names = [str(each.index) for each in ranked]
            gains = {str(place): grade for place, grade in enumerate(row["grades"])}
            run[str(number)], judgements[str(number)] = names, gains
            found = reciprocal_rank(names, gains)
            top = [
                {
                    "document": each.document[:_MOST_CHARACTERS],
                    "score": each.score,
                    "grade": row["grades"][each.index],
                }
                for each in ranked[:_SHOWN]
            ]
            place = round(1 / found) if found else None
            predictions.append({"query": row["query"], "line": row["line"], "place": place, "found": top})
        figures = evaluate_ranking(run, judgements)
        return Evaluation(figures={name: figures[name] for name in _FIGURES}, predictions=predictions)

    def settle(self, model: Model, dev: Rows) -> Mapping[str, Any]:
        """Nothing is fitted afterwards."""
        return {}

    def report(self, context: ReportContext) -> Sequence[Section]:
        """The figures of the parts, beside those of candidates in random order."""
        _, rows, measured = context.measured
        if rows is None or measured is None:
            return [Section(title="Results", text="There was no held-out part, so nothing was measured.")]
        lines = [
            (f"this model, {part}", *(each.figures[name] for name in _FIGURES))
            for part, each in (("test", context.test), ("dev", context.dev))
            if each is not None
        ]
        random = _as_they_came(rows)
        lines.append(("random order", *(random[name] for name in _FIGURES)))
        num = np.mean([len(row["documents"]) for row in rows])
        text = f"{table(('', *_FIGURES), lines)}\n\nOf {len(rows):,} queries with {num:.1f} candidates each."
        return [Section(title="Results", text=text, figures={"random order": random})]

    def _chosen(self, row: Row) -> list[int]:
        """The places of all candidates above grade 0, and of as many others as are learned from."""
        places = range(len(row["documents"]))
        right = [place for place in places if row["grades"][place] > 0]
        wrong = [place for place in places if row["grades"][place] == 0]
        return [*right, *wrong[: self.config.num_negatives]]


def _as_they_came(rows: Rows) -> dict[str, float]:
    """Figures of the order in the rows, which is random."""
    run = {str(number): [str(i) for i in range(len(row["documents"]))] for number, row in enumerate(rows)}
    judgements = {
        str(number): {str(i): grade for i, grade in enumerate(row["grades"])}
        for number, row in enumerate(rows)
    }
    return evaluate_ranking(run, judgements)


def _log_softmax(logits: Float[Tensor, "S"], owner: Int[Tensor, "S"], num: int) -> Float[Tensor, "S"]:
    """Over the sequences of each owner."""
    highest = logits.new_full((num,), -torch.inf).scatter_reduce(0, owner, logits.detach(), "amax")
    shifted = logits - highest[owner]
    return shifted - logits.new_zeros(num).scatter_add(0, owner, shifted.exp()).log()[owner]
