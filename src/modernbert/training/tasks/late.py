"""Late interaction: a vector for each token, and MaxSim between those of a query and those of a document.

    pairs.jsonl     query,positive                       in-batch negatives
    sets.jsonl      query,positives,negatives            and those that were found to be hard
    scored.jsonl    query,positives,negatives,scores     a teacher's scores, one for each document

As in ColBERT, a query is filled with masks, which find words of their own for it, and documents keep no
vectors of punctuation.
"""

from __future__ import annotations

import string
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modernbert.corpus.labelled import Row, Rows
from modernbert.errors import TaskError
from modernbert.heads.embed import DenseConfig, TokenEmbedHeadConfig
from modernbert.heads.model import HeadPart
from modernbert.heads.transform import TransformConfig
from modernbert.inference.cuts import CutWarning
from modernbert.inference.embedding import expanded, maxsim, skipped_ids
from modernbert.inference.engine import SequenceIds
from modernbert.inference.pipeline import Model
from modernbert.pretrained.folder import Pretrained
from modernbert.pretrained.heads import with_head
from modernbert.pretrained.settings import QueryExpansion
from modernbert.text.tokenizer import Tokenizer
from modernbert.training.examples import Example
from modernbert.training.limits import require
from modernbert.training.retrieval_scores import DEPTH, Best
from modernbert.training.tasks import embed_scores
from modernbert.training.tasks.embed_losses import SetBatch
from modernbert.training.tasks.late_losses import Contrast, DistillScores, LateLoss, TokenVectors
from modernbert.training.tasks.mining import Mining, mined
from modernbert.training.tasks.packs import Chunks, chunks_of, in_chunks
from modernbert.training.tasks.query_sets import (
    USUAL_FIELDS,
    QueryFields,
    group_of,
    read_rows,
    require_rows_for,
    texts_of,
)
from modernbert.training.tasks.set_examples import encoder_of, set_batch, set_examples
from modernbert.training.tasks.task import Evaluation, Notes, Parts, ReportContext, Section

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True, slots=True)
class LateInteraction:
    """Learn vectors of tokens, each of `dimensions` numbers.

    `loss` None is DistillScores where the rows have a teacher's scores, and Contrast elsewhere. A query has
    `query_length` tokens: longer ones are cut, and shorter ones filled with masks if `expands_queries`.
    Documents have at most `document_length`. Other fields as in Embed.
    """

    loss: LateLoss | None = None
    dimensions: int = 128
    query_length: int = 32
    document_length: int | None = None
    expands_queries: bool = True
    skips_punctuation: bool = True
    query_prompt: str = "query: "
    document_prompt: str = "document: "
    num_negatives: int = 4
    evaluate_on: str | None = None
    mine: Mining | None = None
    fields: QueryFields = USUAL_FIELDS
    encoding: str = "utf-8"
    pack_tokens: int = 8192
    name: str = "colbert"

    def __post_init__(self) -> None:
        require("1 or more", dimensions=self.dimensions)
        require("0 or more", num_negatives=self.num_negatives)
        require("1 or more", query_length=self.query_length, document_length=self.document_length)

    def read(self, source: str, notes: Notes) -> Iterator[Row]:
        """Rows of "query", "positives" and "negatives", and "scores" where there are some."""
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

    def prepare(self, parts: Parts, notes: Notes) -> LateTask:
        """The task with its loss; CorpusError where the rows have not what the loss needs."""
        loss = self.loss or (DistillScores() if "scores" in parts.train[0] else Contrast())
        for name, rows in parts.items():
            require_rows_for(loss.needs, type(loss).__name__, rows, f"{name} part")
        judged = embed_scores.judged_split(self.evaluate_on, notes)
        return LateTask(config=self, goal=loss, judged=judged)


@dataclass(frozen=True, kw_only=True, slots=True)
class LateTask:
    """Late interaction with a known loss; `skipped` are known once the model is."""

    config: LateInteraction
    goal: LateLoss
    judged: tuple[str, str] | None = None
    skipped: set[int] = field(default_factory=set[int])
    unit: str = "query"
    takes_whole_batches: bool = True

    @property
    def metric(self) -> str:
        """nDCG@10."""
        return embed_scores.NDCG if self.judged is None else embed_scores.judged_name(*self.judged)

    def head(self, transform: TransformConfig | None, pooling: str) -> HeadPart:
        """A product for each token, without a bias, to length 1."""
        del transform, pooling  # those are for classifiers
        return TokenEmbedHeadConfig(dense=(DenseConfig(out_features=self.config.dimensions, has_bias=False),))

    def begin(self, pretrained: Pretrained, *, seed: int) -> Pretrained:
        """The model as it learns: with the head of such a model kept, and how its texts are filled."""
        tokenizer, config = pretrained.tokenizer, self.config
        if tokenizer is None:
            raise TaskError("the model to begin with has no tokenizer files, so it takes no texts")
        theirs = pretrained.config.head
        head = theirs if isinstance(theirs, TokenEmbedHeadConfig) else self.head(None, "")
        assert isinstance(head, TokenEmbedHeadConfig)
        head = replace(head, skiplist=_punctuation(tokenizer) if config.skips_punctuation else ())
        ours = with_head(pretrained, lambda transform, pooling: head, seed=seed)
        self.skipped.update(skipped_ids(ours.config, tokenizer))
        prompts = {"query": config.query_prompt, "document": config.document_prompt}
        settings = replace(
            pretrained.settings,
            prompts={**pretrained.settings.prompts, **prompts},
            similarity="maxsim",
            query_length=None if config.expands_queries else config.query_length,
            document_length=config.document_length,
            query_expansion=QueryExpansion(length=config.query_length) if config.expands_queries else None,
        )
        return replace(ours, settings=settings)

    def examples(self, rows: Iterable[Row], model: Model, limit: int, notes: Notes) -> Iterator[Example]:
        """A query, filled with masks, and its documents; what is too long is cut at its end, and noted."""
        settings, tokenizer = model.pretrained.settings, model.tokenizer
        encode = encoder_of(model, "query", limit)

        def query(texts: Sequence[str]) -> tuple[list[SequenceIds], list[CutWarning]]:
            sequences, cuts = encode(texts)
            return expanded(sequences, settings.query_expansion, tokenizer), cuts

        document = encoder_of(model, "document", limit)
        return set_examples(
            rows, query=query, document=document, num_negatives=self.config.num_negatives, notes=notes
        )

    def inputs(self, examples: Sequence[Example]) -> tuple[Any, ...]:
        """Packs of all queries and then all documents, their lengths, which tokens count, and a SetBatch."""
        sequences, batch = set_batch(examples)
        counts = [
            [True] * len(each.token_ids) if place < len(examples) else self._counts(each)
            for place, each in enumerate(sequences)
        ]
        lengths = torch.tensor([sum(each) for each in counts])
        is_counted = torch.tensor([token for each in counts for token in each])
        return chunks_of(sequences, self.config.pack_tokens), lengths, is_counted, batch

    def loss(
        self,
        module: nn.Module,
        chunks: Chunks,
        lengths: Int[Tensor, "S"],
        is_counted: Bool[Tensor, "T"],
        batch: SetBatch,
        *,
        backend: str,
    ) -> Float[Tensor, ""]:
        """The sum over the queries."""
        vectors = in_chunks(module, chunks, backend).float()[is_counted]  # [T, E] -> [counted, E]
        num = len(batch.positive)
        end = int(lengths[:num].sum())
        queries = TokenVectors(vectors[:end], lengths[:num])
        documents = TokenVectors(vectors[end:], lengths[num:])
        with torch.autocast(vectors.device.type, enabled=False):  # sums of many products
            return self.goal(queries, documents, batch)

    def evaluate(self, model: Model, rows: Rows) -> Evaluation:
        """Search among the documents of the rows by MaxSim, and in the judged folder."""
        find = partial(find_by_tokens, model)
        found = embed_scores.search_rows(rows, find)
        if self.judged is None:
            return found
        more = embed_scores.judged_figures(self.judged, find, rows.path.parent)
        return Evaluation(figures={**found.figures, **more}, predictions=found.predictions)

    def settle(self, model: Model, dev: Rows) -> Mapping[str, Any]:
        """Nothing is fitted afterwards."""
        return {}

    def report(self, context: ReportContext) -> Sequence[Section]:
        """All figures, of the parts and of the judged folder."""
        return embed_scores.report(context)

    def _counts(self, sequence: SequenceIds) -> list[bool]:
        """Which tokens of a document have a vector; all of one that is nothing but punctuation."""
        found = [token not in self.skipped for token in sequence.token_ids]
        return found if any(found) else [True] * len(found)


def find_by_tokens(
    model: Model, queries: Sequence[str], documents: Iterable[Sequence[str]], *, depth: int = DEPTH
) -> dict[str, Best]:
    """The documents with the largest MaxSim, by exact search; texts that are too long are cut."""
    best = Best(len(queries), depth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutWarning)  # noted once, when examples are made
        asked = model.embed_tokens(queries, prompt="query", overflow="truncate")
        for block in documents:
            held = model.embed_tokens(block, prompt="document", overflow="truncate")
            best.add(maxsim(asked, held))
    return {"": best}


def _punctuation(tokenizer: Tokenizer) -> tuple[str, ...]:
    """The vocabulary entries that are one mark of punctuation, also with the blank before it that some
    vocabularies hold.
    """
    forms = [f"{before}{mark}" for mark in string.punctuation for before in ("", "\u0120", "\u2581")]
    return tuple(form for form in forms if tokenizer.id_of(form) is not None)
