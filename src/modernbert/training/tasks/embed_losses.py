"""What embeddings learn from: losses over unit vectors, each the sum over the rows of a batch.

    InfoNce, MarginMse, Triplet    queries with documents
    CoSent                         pairs with a score

Cosines are divided by a temperature, so that vectors of any size give scores of a useful range.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from modernbert.training.limits import require

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# Rows of the matrix of similarities that are in memory at once; a batch of 16,384 has 64 MB of them.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class SetBatch:
    """Which document belongs to which query: N queries, M documents.

    `owner` is the query that each document came with, and `positive` the document that answers each query;
    `excluded` are pairs of a query and a document that answers it too, or is the same text: no negative.
    `scores` are a teacher's of each document, or none.
    """

    owner: Int[Tensor, "M"]
    positive: Int[Tensor, "N"]
    excluded: Int[Tensor, "P 2"]
    scores: Float[Tensor, "M"]

    def to(self, device: torch.device | str) -> SetBatch:
        """The same on another device."""
        return SetBatch(
            owner=self.owner.to(device),
            positive=self.positive.to(device),
            excluded=self.excluded.to(device),
            scores=self.scores.to(device),
        )

    @property
    def negatives(self) -> Int[Tensor, "K"]:
        """The documents that came with a query and do not answer it."""
        numbers = torch.arange(len(self.owner), device=self.owner.device)
        return numbers[self.positive[self.owner] != numbers]


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoNce:
    """Each query is to find its document among all documents of the batch, and, with `both_ways`, each
    document its query among all queries.

    van den Oord et al. 2018 (arXiv 1807.03748), with in-batch negatives as in Henderson et al. 2017 (arXiv
    1705.00652); both ways as in CLIP (Radford et al. 2021, arXiv 2103.00020), where the two count alike.
    """

    needs: ClassVar[str] = "sets"
    temperature: float = 0.05
    both_ways: bool = False

    def __post_init__(self) -> None:
        require("above 0", temperature=self.temperature)

    def __call__(
        self, queries: Float[Tensor, "N E"], documents: Float[Tensor, "M E"], batch: SetBatch
    ) -> Float[Tensor, ""]:
        """The sum over the queries."""

        def forth(start: int, end: int, queries: Tensor, documents: Tensor) -> Tensor:
            logits = queries[start:end] @ documents.T / self.temperature  # [n, M]
            return choice_loss(logits, batch.excluded, batch.positive, start, end)

        loss = _in_blocks(forth, queries, documents)
        if not self.both_ways:
            return loss
        answers = torch.arange(len(queries), device=queries.device)
        turned = _turned(batch)

        def back(start: int, end: int, queries: Tensor, documents: Tensor) -> Tensor:
            logits = documents[batch.positive[start:end]] @ queries.T / self.temperature  # [n, N]
            return choice_loss(logits, turned, answers, start, end)

        return (loss + _in_blocks(back, queries, documents)) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginMse:
    """Each negative is to be as much worse than the positive as the teacher says (Hofstatter et al. 2020,
    arXiv 2010.02666). The teacher's scores are taken as they are: logits of a reranker lie some 10 apart,
    which cosines divided by 0.05 do too.
    """

    needs: ClassVar[str] = "scores"
    temperature: float = 0.05

    def __post_init__(self) -> None:
        require("above 0", temperature=self.temperature)

    def __call__(
        self, queries: Float[Tensor, "N E"], documents: Float[Tensor, "M E"], batch: SetBatch
    ) -> Float[Tensor, ""]:
        """The sum over the queries of the mean over their negatives."""
        ours = (queries[batch.owner] * documents).sum(dim=-1) / self.temperature  # [M]
        away = (ours[batch.positive[batch.owner]] - ours) - (
            batch.scores[batch.positive[batch.owner]] - batch.scores
        )
        return _mean_of_each(away.square(), batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class Triplet:
    """The positive is to be nearer than each negative, by a margin of squared distance between vectors of
    length 1 (Schroff et al. 2015, arXiv 1503.03832).
    """

    needs: ClassVar[str] = "negatives"
    margin: float = 0.2

    def __post_init__(self) -> None:
        require("above 0", margin=self.margin)

    def __call__(
        self, queries: Float[Tensor, "N E"], documents: Float[Tensor, "M E"], batch: SetBatch
    ) -> Float[Tensor, ""]:
        """The sum over the queries of the mean over their negatives."""
        distance = (queries[batch.owner] - documents).square().sum(dim=-1)  # [M]
        return _mean_of_each(
            functional.relu(distance[batch.positive[batch.owner]] - distance + self.margin), batch
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CoSent:
    """Of any two pairs in the batch, the one with the larger score is to have the larger cosine (Su 2022,
    https://kexue.fm/archives/8847): log(1 + sum of exp(difference / temperature)), times the pairs.
    """

    needs: ClassVar[str] = "pairs"
    temperature: float = 0.05

    def __post_init__(self) -> None:
        require("above 0", temperature=self.temperature)

    def __call__(
        self, first: Float[Tensor, "N E"], second: Float[Tensor, "N E"], scores: Float[Tensor, "N"]
    ) -> Float[Tensor, ""]:
        """The loss of the batch, times its pairs."""
        cosines = (first * second).sum(dim=-1) / self.temperature  # [N]
        differences = cosines[None, :] - cosines[:, None]  # [i, j]: how much more j has than i
        wrong = differences[scores[:, None] > scores[None, :]]
        one = torch.zeros(1, dtype=cosines.dtype, device=cosines.device)  # exp(0)
        return torch.cat([one, wrong]).logsumexp(dim=0) * len(cosines)


Loss = InfoNce | MarginMse | Triplet | CoSent


def _in_blocks(
    block: Callable[[int, int, Tensor, Tensor], Tensor], queries: Tensor, documents: Tensor
) -> Tensor:
    """The sum over blocks of rows; more than one is computed again in the backward pass, to save memory."""
    num = len(queries)
    if num <= _ROWS_AT_ONCE:
        return block(0, num, queries, documents)
    total = queries.new_zeros(())
    for start in range(0, num, _ROWS_AT_ONCE):
        end = min(start + _ROWS_AT_ONCE, num)
        total = total + checkpoint(block, start, end, queries, documents, use_reentrant=False)
    return total


def choice_loss(logits: Tensor, excluded: Tensor, targets: Tensor, start: int, end: int) -> Tensor:
    """Cross entropy of rows `start` to `end`, where `excluded` pairs of row and column do not compete."""
    here = excluded[(excluded[:, 0] >= start) & (excluded[:, 0] < end)]
    mask = torch.zeros_like(logits, dtype=torch.bool)
    mask[here[:, 0] - start, here[:, 1]] = True
    return functional.cross_entropy(logits.masked_fill(mask, -torch.inf), targets[start:end], reduction="sum")


def _turned(batch: SetBatch) -> Int[Tensor, "P 2"]:
    """The excluded pairs of a query and another query's answer, as pairs of that answer's query and it."""
    query, document = batch.excluded.unbind(dim=1)
    owner = batch.owner[document]
    is_answer = batch.positive[owner] == document
    return torch.stack([owner[is_answer], query[is_answer]], dim=1)


def _mean_of_each(values: Float[Tensor, "M"], batch: SetBatch) -> Float[Tensor, ""]:
    """The sum over the queries of the mean of the values of their negatives; 0 for one without any."""
    negatives = batch.negatives
    owner = batch.owner[negatives]
    counts = torch.bincount(owner, minlength=len(batch.positive)).clamp(min=1)
    return (values[negatives] / counts[owner]).sum()
