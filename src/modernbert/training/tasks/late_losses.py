"""MaxSim, by which late interaction compares texts token by token, and what is learned from it.

Contrast        of all documents of the batch, a query is to find its own
DistillScores   of a query's own documents, scores as a teacher has them
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from modernbert.training.limits import require
from modernbert.training.tasks.embed_losses import SetBatch, choice_loss

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# Products of token vectors that are in memory at once: 64 MB, and as much for their gradient.
_AT_ONCE = 2**24


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """Vectors of the tokens of several texts, end to end: T tokens, S texts."""

    vectors: Float[Tensor, "T E"]
    lengths: Int[Tensor, "S"]


def maxsim(queries: TokenVectors, documents: TokenVectors) -> Float[Tensor, "N M"]:
    """For each query and document, the sum over the query's tokens of the largest product with a token of the
    document (Khattab and Zaharia 2020, arXiv 2004.12832, equation 3).

    Blocks of queries are computed again in the backward pass, so that memory does not grow with the batch.
    """
    counts: list[int] = queries.lengths.tolist()
    at_once = max(1, _AT_ONCE // max(1, len(documents.vectors) * max(counts)))
    if at_once >= len(counts):
        return _maxsim(queries.vectors, queries.lengths, documents.vectors, documents.lengths)
    found: list[Tensor] = []
    blocks = queries.vectors.split([sum(counts[i : i + at_once]) for i in range(0, len(counts), at_once)])
    for block, lengths in zip(blocks, queries.lengths.split(at_once), strict=True):
        found.append(
            checkpoint(_maxsim, block, lengths, documents.vectors, documents.lengths, use_reentrant=False)
        )
    return torch.cat(found)


def maxsim_of_own(
    queries: TokenVectors, documents: TokenVectors, owner: Int[Tensor, "M"]
) -> Float[Tensor, "M"]:
    """The score of each document for the query that it came with; owners are in order."""
    num_texts = torch.bincount(owner, minlength=len(queries.lengths))
    per_query = queries.vectors.split(queries.lengths.tolist())
    lengths = documents.lengths.split(num_texts.tolist())
    per_document = documents.vectors.split([int(each.sum()) for each in lengths])
    scores = [
        _maxsim(asked, torch.tensor([len(asked)], device=asked.device), held, each)[0]
        for asked, held, each in zip(per_query, per_document, lengths, strict=True)
    ]
    return torch.cat(scores)


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """InfoNCE over MaxSim with in-batch negatives, as ColBERT learns (arXiv 2004.12832; several negatives and
    those of the batch in arXiv 2112.01488). Scores of 32 tokens lie far apart, so the temperature is 1.
    """

    needs: ClassVar[str] = "sets"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        require("above 0", temperature=self.temperature)

    def __call__(self, queries: TokenVectors, documents: TokenVectors, batch: SetBatch) -> Float[Tensor, ""]:
        """The sum over the queries."""
        logits = maxsim(queries, documents) / self.temperature  # [N, M]
        return choice_loss(logits, batch.excluded, batch.positive, 0, len(logits))


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillScores:
    """The Kullback-Leibler divergence between the shares that a teacher's scores and MaxSim give a query's
    documents, as in ColBERTv2 (Santhanam et al. 2021, arXiv 2112.01488), both at a temperature.
    """

    needs: ClassVar[str] = "scores"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        require("above 0", temperature=self.temperature)

    def __call__(self, queries: TokenVectors, documents: TokenVectors, batch: SetBatch) -> Float[Tensor, ""]:
        """The sum over the queries, times the squared temperature (Hinton et al. 2015, arXiv 1503.02531)."""
        ours = maxsim_of_own(queries, documents, batch.owner)
        sizes: list[int] = torch.bincount(batch.owner).tolist()
        total = ours.new_zeros(())
        for said, wanted in zip(ours.split(sizes), batch.scores.split(sizes), strict=True):
            shares, targets = (
                (each / self.temperature).log_softmax(dim=0) for each in (said, wanted.to(said.dtype))
            )
            total = total + functional.kl_div(shares, targets, reduction="sum", log_target=True)
        return total * self.temperature**2


LateLoss = Contrast | DistillScores


def _maxsim(asked: Tensor, num_asked: Tensor, held: Tensor, num_held: Tensor) -> Float[Tensor, "N M"]:
    products = held @ asked.T  # [document tokens, query tokens]
    best = torch.segment_reduce(products, "max", lengths=num_held, axis=0)  # [M, query tokens]
    return torch.segment_reduce(best.T.contiguous(), "sum", lengths=num_asked, axis=0)  # [N, M]
