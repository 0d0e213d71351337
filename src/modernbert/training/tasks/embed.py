"""Embeddings: one vector a text, so that what belongs together is near.

    pairs.jsonl      query,positive              in-batch negatives
    triplets.jsonl   query,positive,negative     and those that were found to be hard
    sets.jsonl       query,positives,negatives
    scored.csv       text_a,text_b,score         how alike two texts are
    scifact/         corpus.jsonl, queries.jsonl, qrels/train.tsv

A batch is learned from as a whole, however large: its packs go through the model one after another, and again
in the backward pass, so that memory holds the activations of one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from modernbert.corpus.labelled import Row, Rows
from modernbert.errors import TrainingError
from modernbert.heads.embed import EmbedHeadConfig
from modernbert.heads.model import HeadPart
from modernbert.heads.transform import TransformConfig
from modernbert.inference.embedding import embedding_size
from modernbert.inference.pipeline import Model
from modernbert.pretrained.folder import Pretrained
from modernbert.pretrained.heads import with_head
from modernbert.training.examples import Example
from modernbert.training.limits import require
from modernbert.training.tasks import embed_scores
from modernbert.training.tasks.embed_losses import CoSent, InfoNce, Loss, SetBatch
from modernbert.training.tasks.mining import Mining, mined
from modernbert.training.tasks.packs import Chunks, chunks_of, in_chunks, targets_of
from modernbert.training.tasks.query_sets import (
    USUAL_FIELDS,
    QueryFields,
    are_scored,
    group_of,
    read_rows,
    require_rows_for,
    texts_of,
)
from modernbert.training.tasks.sequences import batches
from modernbert.training.tasks.set_examples import CutCount, Encoder, encoder_of, set_batch, set_examples
from modernbert.training.tasks.task import Evaluation, Notes, Parts, ReportContext, Section

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, kw_only=True, slots=True)
class Embed:
    """Learn vectors from queries with documents, or from pairs with a score.

    `loss` None is InfoNce for the first and CoSent for the second. The loss is also taken of the first
    `dimensions` numbers of each vector (Matryoshka: Kusupati et al. 2022, arXiv 2205.13147), which count by
    `dimension_weights` beside the whole vector's 1. At most `num_negatives` of a row are learned from.
    `query_prompt` and `document_prompt` stand before texts, in learning and afterwards; None keeps the
    folder's.
    `pooling` None keeps the pooling of an embedding model, and is the mean for other encoders.
    `evaluate_on` names a folder with judgements, or one of its files `qrels/NAME.tsv` (default: dev), whose
    nDCG@10 then chooses the best weights. `mine` looks for hard negatives first. `pack_tokens` is how much of
    a batch goes through the model at once.
    """

    loss: Loss | None = None
    dimensions: tuple[int, ...] = ()
    dimension_weights: tuple[float, ...] = ()
    num_negatives: int = 4
    query_prompt: str | None = None
    document_prompt: str | None = None
    pooling: str | None = None
    evaluate_on: str | None = None
    mine: Mining | None = None
    fields: QueryFields = USUAL_FIELDS
    encoding: str = "utf-8"
    pack_tokens: int = 8192
    name: str = "embed"

    def __post_init__(self) -> None:
        require("0 or more", num_negatives=self.num_negatives)
        weights = self.dimension_weights
        if (weights and len(weights) != len(self.dimensions)) or any(weight <= 0 for weight in weights):
            raise TrainingError(
                f"dimension_weights are one above 0 for each of the dimensions, {self.dimensions}; found "
                f"{weights}"
            )

    def read(self, source: str, notes: Notes) -> Iterator[Row]:
        """Rows of "query", "positives" and "negatives", or of "first", "second" and "score"."""
        rows = read_rows(source, self.fields, self.encoding)
        return rows if self.mine is None else mined(rows, source, self.mine, notes)

    def strata(self, rows: Rows) -> Sequence[str] | None:
        """None: rows are alike."""
        return None

    def groups(self, rows: Rows) -> Iterable[str] | None:
        """The queries, so that none is on both sides."""
        return map(group_of, rows)

    def texts(self, row: Row) -> Sequence[str]:
        """All texts of the row."""
        return texts_of(row)

    def prepare(self, parts: Parts, notes: Notes) -> EmbedTask:
        """The task with its loss; CorpusError where the rows have not what the loss needs."""
        is_scored = are_scored(parts.train)
        loss = self.loss or (CoSent() if is_scored else InfoNce())
        for name, rows in parts.items():
            require_rows_for(loss.needs, type(loss).__name__, rows, f"{name} part")
        judged = embed_scores.judged_split(self.evaluate_on, notes)
        return EmbedTask(config=self, goal=loss, judged=judged)


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedTask:
    """Embedding with a known loss; `judged` is the folder and the split that are measured too."""

    config: Embed
    goal: Loss
    judged: tuple[str, str] | None = None
    takes_whole_batches: bool = True

    @property
    def unit(self) -> str:
        """Losses are means over scored pairs, or over queries."""
        return "pair" if isinstance(self.goal, CoSent) else "query"

    @property
    def metric(self) -> str:
        """The rank correlation with the scores, or nDCG@10."""
        if self.judged is not None:
            return embed_scores.judged_name(*self.judged)
        return embed_scores.SPEARMAN if isinstance(self.goal, CoSent) else embed_scores.NDCG

    def head(self, transform: TransformConfig | None, pooling: str) -> HeadPart:
        """One vector of length 1 for each text."""
        del transform, pooling  # those are for classifiers
        return EmbedHeadConfig(poolings=(self.config.pooling or "mean",), is_normalized=True)

    def begin(self, pretrained: Pretrained, *, seed: int) -> Pretrained:
        """The model as it learns: with the head of an embedding model kept, and prompts in its settings."""
        theirs = pretrained.config.head
        if isinstance(theirs, EmbedHeadConfig) and self.config.pooling is None:
            # What is learned is pooled with the prompt, so that is how it must be used.
            kept = replace(theirs, is_normalized=True, pools_prompt=True)
            ours = with_head(pretrained, lambda transform, pooling: kept, seed=seed)
        else:
            ours = with_head(pretrained, self.head, seed=seed)
        size = embedding_size(ours.config)
        if any(not 0 < each < size for each in self.config.dimensions):
            raise TrainingError(
                f"dimensions lie between 1 and {size - 1} for this model of {size}, found "
                f"{self.config.dimensions}"
            )
        given = {"query": self.config.query_prompt, "document": self.config.document_prompt}
        prompts = {**pretrained.settings.prompts, **{k: v for k, v in given.items() if v is not None}}
        settings = replace(pretrained.settings, prompts=prompts, similarity="cosine", dimensions=None)
        return replace(ours, settings=settings)

    def examples(self, rows: Iterable[Row], model: Model, limit: int, notes: Notes) -> Iterator[Example]:
        """A query with its documents, or a pair; what is too long is cut at its end, and noted."""
        query, document = (encoder_of(model, name, limit) for name in ("query", "document"))
        if isinstance(self.goal, CoSent):
            return _pair_examples(rows, query, document, notes)
        return set_examples(
            rows, query=query, document=document, num_negatives=self.config.num_negatives, notes=notes
        )

    def inputs(self, examples: Sequence[Example]) -> tuple[Any, ...]:
        """Packs of all queries and then all documents, and how they belong together."""
        if isinstance(self.goal, CoSent):
            sequences = [example.sequences[side] for side in (0, 1) for example in examples]
            return chunks_of(sequences, self.config.pack_tokens), targets_of(examples)
        sequences, batch = set_batch(examples)
        return chunks_of(sequences, self.config.pack_tokens), batch

    def loss(
        self, module: nn.Module, chunks: Chunks, batch: SetBatch | Tensor, *, backend: str
    ) -> Float[Tensor, ""]:
        """The sum over the rows, as a mean over the dimensions by their weights."""
        vectors = in_chunks(module, chunks, backend).float()  # [S, E]
        num_queries = len(batch) if isinstance(batch, Tensor) else len(batch.positive)
        weights = self.config.dimension_weights or (1.0,) * len(self.config.dimensions)
        sizes = {vectors.shape[1]: 1.0, **dict(zip(self.config.dimensions, weights, strict=True))}
        total = vectors.new_zeros(())
        with torch.autocast(vectors.device.type, enabled=False):  # cosines are divided by small numbers
            for size, weight in sizes.items():
                unit = functional.normalize(vectors[:, :size], dim=-1)
                total = total + weight * self._loss_of(unit[:num_queries], unit[num_queries:], batch)
        return total / sum(sizes.values())

    def evaluate(self, model: Model, rows: Rows) -> Evaluation:
        """Search among the documents of the rows, or the order of scored pairs; and the judged folder."""
        return embed_scores.evaluate(model, rows, self.config.dimensions, self.judged)

    def settle(self, model: Model, dev: Rows) -> Mapping[str, Any]:
        """Nothing is fitted afterwards."""
        return {}

    def report(self, context: ReportContext) -> Sequence[Section]:
        """All figures, of the parts and of the judged folder."""
        return embed_scores.report(context)

    def _loss_of(self, first: Tensor, second: Tensor, batch: SetBatch | Tensor) -> Tensor:
        if isinstance(self.goal, CoSent):
            assert isinstance(batch, Tensor)
            return self.goal(first, second, batch)
        assert isinstance(batch, SetBatch)
        return self.goal(first, second, batch)


def _pair_examples(rows: Iterable[Row], query: Encoder, document: Encoder, notes: Notes) -> Iterator[Example]:
    """Two sequences and the score of each pair."""
    cut = CutCount()
    number = 0
    for batch in batches(rows):
        firsts, cuts = query([row["first"] for row in batch])
        cut.add(cuts)
        seconds, cuts = document([row["second"] for row in batch])
        cut.add(cuts)
        for row, first, second in zip(batch, firsts, seconds, strict=True):
            yield Example(sequences=[first, second], targets=[row["score"]], row=number)
            number += 1
    cut.note("texts", notes)
