"""The tasks of finetune that make search: embeddings, rerankers, and late interaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from modernbert.cli.finetune import run_options

if TYPE_CHECKING:
    from modernbert.training.tasks.embed_losses import Loss
    from modernbert.training.tasks.mining import Mining
    from modernbert.training.tasks.query_sets import QueryFields
    from modernbert.training.tasks.task import TaskConfig

Command = Callable[..., Any]
LOSSES = ("infonce", "infonce-both", "margin-mse", "triplet", "cosent")

_FIELDS = (
    click.option("--query", help="The column of queries, or first texts (default: by the usual names)."),
    click.option("--document", help="The column of documents that answer them, or second texts."),
    click.option("--negatives", help="The column of documents that do not."),
    click.option("--score", help="The column of what a pair is worth."),
    click.option("--scores", help="The column of a teacher's scores, one for each document of a row."),
    click.option("--encoding", default="utf-8", show_default=True, help="Of the file, such as cp1251."),
)
_MINING = (
    click.option("--mine", metavar="MODEL", help="First look for hard negatives by this embedding model."),
    click.option("--mine-negatives", default=4, show_default=True, help="So many for each query."),
    click.option("--mine-depth", default=50, show_default=True, help="Among so many of the nearest."),
    click.option(
        "--mine-share", default=0.95, show_default=True, help="None above this share of the answer's cosine."
    ),
    click.option("--mine-margin", type=float, help="None nearer than this below the answer's cosine."),
)
_LEARNED = click.option(
    "--num-negatives", default=4, show_default=True, help="Negatives of a row that are learned from, at most."
)


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, shown in their order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command()
@run_options
@_options(*_FIELDS)
@click.option("--loss", type=click.Choice(LOSSES), help="(default: infonce; cosent for pairs with a score)")
@click.option("--temperature", default=0.05, show_default=True, help="Cosines are divided by it.")
@click.option("--margin", default=0.2, show_default=True, help="Of triplet.")
@click.option("--dimensions", help="Also learn the first numbers of vectors, such as 256,128,64.")
@click.option("--dimension-weights", help="How much each of them counts (default: 1).")
@_LEARNED
@click.option("--query-prompt", help='Before every query, such as "query: "; kept in the folder.')
@click.option("--document-prompt", help="The same for documents.")
@click.option("--pooling", help="(default: the folder's own; the mean for other encoders)")
@click.option(
    "--eval", "evaluate_on", help="A folder with judgements, or a qrels/NAME.tsv; chooses the best."
)
@_options(*_MINING)
def embed(
    *, loss: str | None, temperature: float, margin: float, dimensions: str | None, **words: Any
) -> TaskConfig:
    """Vectors for search and similarity: pairs, triplets, scored pairs, or a folder of judgements.

    \b
    modernbert finetune embed pairs.jsonl --model FOLDER --out embedder/ --batch-size 512
    modernbert finetune embed scifact/ --eval scifact/qrels/dev.tsv --mine embedder/ --model FOLDER --out new/
    modernbert embed --model embedder/ "a text"
    """
    from modernbert.training.tasks.embed import Embed

    weights = words.pop("dimension_weights")
    return Embed(
        loss=None if loss is None else _loss(loss, temperature, margin),
        dimensions=tuple(_numbers(dimensions, int, "--dimensions")),
        dimension_weights=tuple(_numbers(weights, float, "--dimension-weights")),
        mine=_mining(words),
        fields=_fields(words),
        pack_tokens=click.get_current_context().params["pack_tokens"],
        **words,
    )


@click.command()
@run_options
@_options(*_FIELDS)
@click.option(
    "--loss",
    type=click.Choice(("pointwise", "listwise")),
    default="pointwise",
    show_default=True,
    help="Judge each pair, or order the candidates of a query.",
)
@_LEARNED
@_options(*_MINING)
def rerank(**words: Any) -> TaskConfig:
    """Scores for a query and a document read together: sets with negatives, or rows with a label.

    \b
    modernbert finetune rerank sets.jsonl --model FOLDER --out reranker/
    modernbert finetune rerank scifact/ --mine embedder/ --loss listwise --model FOLDER --out reranker/
    modernbert rerank --model reranker/ "a question" "a document" "another"
    """
    from modernbert.training.tasks.rerank import Rerank

    return Rerank(mine=_mining(words), fields=_fields(words), **words)


@click.command()
@run_options
@_options(*_FIELDS)
@click.option(
    "--loss",
    type=click.Choice(("contrast", "distill")),
    help="(default: distill where there are scores of a teacher)",
)
@click.option("--temperature", default=1.0, show_default=True, help="Scores are divided by it.")
@click.option("--dimensions", default=128, show_default=True, help="Numbers of the vector of a token.")
@click.option("--query-length", default=32, show_default=True, help="Tokens of a query.")
@click.option("--document-length", type=int, help="Tokens of a document, at most.")
@click.option("--no-expansion", is_flag=True, help="Do not fill queries with masks up to their length.")
@click.option(
    "--keep-punctuation", is_flag=True, help="Keep vectors of punctuation in documents, as for code."
)
@_LEARNED
@click.option("--query-prompt", default="query: ", show_default=True, help="Before every query.")
@click.option("--document-prompt", default="document: ", show_default=True, help="Before every document.")
@click.option(
    "--eval", "evaluate_on", help="A folder with judgements, or a qrels/NAME.tsv; chooses the best."
)
@_options(*_MINING)
def colbert(
    *, loss: str | None, temperature: float, no_expansion: bool, keep_punctuation: bool, **words: Any
) -> TaskConfig:
    """Late interaction: a vector for each token, compared by MaxSim.

    \b
    modernbert finetune colbert sets.jsonl --model FOLDER --out late/
    modernbert finetune colbert scifact/ --mine embedder/ --model FOLDER --out late/
    """
    from modernbert.training.tasks.late import LateInteraction
    from modernbert.training.tasks.late_losses import Contrast, DistillScores

    goal = None
    if loss is not None:
        goal = (Contrast if loss == "contrast" else DistillScores)(temperature=temperature)
    return LateInteraction(
        loss=goal,
        expands_queries=not no_expansion,
        skips_punctuation=not keep_punctuation,
        mine=_mining(words),
        fields=_fields(words),
        pack_tokens=click.get_current_context().params["pack_tokens"],
        **words,
    )


def _loss(name: str, temperature: float, margin: float) -> Loss:
    from modernbert.training.tasks.embed_losses import CoSent, InfoNce, MarginMse, Triplet

    if name == "triplet":
        return Triplet(margin=margin)
    if name == "margin-mse":
        return MarginMse(temperature=temperature)
    if name == "cosent":
        return CoSent(temperature=temperature)
    return InfoNce(temperature=temperature, both_ways=name == "infonce-both")


def _fields(words: dict[str, Any]) -> QueryFields:
    """The columns among the options, which are taken out of them."""
    from modernbert.training.tasks.query_sets import QueryFields

    names = ("query", "document", "negatives", "score", "scores")
    return QueryFields(**{name: words.pop(name) for name in names})


def _mining(words: dict[str, Any]) -> Mining | None:
    """How negatives are mined, from the options, which are taken out of them; None without a model."""
    from modernbert.training.tasks.mining import Mining

    model = words.pop("mine")
    named = {
        field: words.pop(option)
        for option, field in (
            ("mine_negatives", "num_negatives"),
            ("mine_depth", "depth"),
            ("mine_share", "largest_share"),
            ("mine_margin", "margin"),
        )
    }
    return None if model is None else Mining(model=model, **named)


def _numbers(text: str | None, kind: Callable[[str], Any], option: str) -> list[Any]:
    try:
        return [kind(each) for each in text.split(",")] if text else []
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no list of numbers such as 256,128", param_hint=option
        ) from None
