"""The verbs that ask a model about texts: fill-mask, rerank, classify, tag, answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from modernbert.cli.inputs import (
    STDIN,
    LineFormat,
    field_option,
    file_option,
    read_texts,
    read_whole,
    require_piped,
    text_options,
)
from modernbert.cli.models import (
    ModelChoice,
    load_for,
    max_length_option,
    model_options,
    overflow_option,
    prompt_option,
)
from modernbert.cli.output import json_option, number, print_heading, print_json, print_table

if TYPE_CHECKING:
    from modernbert.inference.long_texts import Overflow
    from modernbert.inference.results import Classification, Fill


@click.command("fill-mask")
@text_options
@click.option("--top-k", type=int, default=5, show_default=True, help="Candidates for each mask.")
@json_option
@model_options
def fill_mask(choice: ModelChoice, texts: Iterator[str], top_k: int, as_json: bool) -> None:
    """The words that fit where a text has [MASK].

    The kin of RoBERTa write <mask>.

    \b
    modernbert fill-mask "He walked to the [MASK]." --model answerdotai/ModernBERT-base
    """
    model = load_for("fill_masks", choice)
    for text, fills in model.stream(texts).fill_masks(top_k=top_k):
        if as_json:
            print_json({"text": text, "fills": [asdict(fill) for fill in fills]})
        else:
            _print_fills(text, fills)


@click.command()
@click.argument("query")
@click.argument("documents", nargs=-1)
@file_option
@field_option
@click.option("--top-k", type=int, help="Print only the best so many.")
@prompt_option
@overflow_option
@max_length_option
@json_option
@model_options
def rerank(
    choice: ModelChoice,
    query: str,
    documents: tuple[str, ...],
    file: str | None,
    field: str | None,
    top_k: int | None,
    prompt: str | None,
    overflow: Overflow,
    max_length: int | None,
    as_json: bool,
) -> None:
    """Documents by how well they fit a query, best first.

    \b
    modernbert rerank "who ships it?" "one document" "another" --model cross-encoder/NAME
    modernbert rerank "who ships it?" --file documents.txt --top-k 3
    """
    texts = list(read_texts(documents, file, LineFormat(field=field)))
    model = load_for("rerank", choice)
    ranked = model.rerank(query, texts, top_k=top_k, prompt=prompt, overflow=overflow, max_length=max_length)
    if as_json:
        for rank, each in enumerate(ranked, start=1):
            print_json({"rank": rank, **asdict(each)})
        return
    print_table([f"{each.score:.3f}", f"document {each.index + 1}", each.document] for each in ranked)


@click.command()
@click.argument("texts", nargs=-1)
@click.option(
    "--pair", "pairs", nargs=2, multiple=True, help="Two texts, such as a premise and a hypothesis."
)
@file_option
@field_option
@click.option("--pair-field", help="The field of JSON lines that holds the second text of a pair.")
@click.option("--tabs", is_flag=True, help="Lines hold pairs: two texts with a tab between them.")
@click.option("--top-k", type=int, default=5, show_default=True, help="Labels to show a person.")
@prompt_option
@overflow_option
@max_length_option
@json_option
@model_options
def classify(
    choice: ModelChoice,
    texts: tuple[str, ...],
    pairs: tuple[tuple[str, str], ...],
    file: str | None,
    field: str | None,
    pair_field: str | None,
    tabs: bool,
    top_k: int,
    prompt: str | None,
    overflow: Overflow,
    max_length: int | None,
    as_json: bool,
) -> None:
    """Labels with scores for each text, or pair of texts.

    \b
    modernbert classify "The food was great." --model FOLDER
    modernbert classify --pair "It rains." "It is wet." --model FOLDER
    modernbert classify --file pairs.jsonl --field premise --pair-field hypothesis --model FOLDER
    """
    if tabs and (field is not None or pair_field is not None):
        raise click.UsageError("--tabs and the fields of JSON lines: choose one")
    form = LineFormat(field=field, pair_field=pair_field, has_tabs=tabs)
    found: Iterator[Any] = iter(pairs)
    if pairs and (texts or file is not None) and not form.is_of_pairs:
        raise click.UsageError("texts and pairs go apart: two calls do it")
    if texts or file is not None or not pairs:
        found = itertools.chain(found, read_texts(texts, file, form))
    model = load_for("classify", choice)
    results = model.stream(found).classify(prompt=prompt, overflow=overflow, max_length=max_length)
    for text, result in results:
        _print_labels(text, result, top_k, as_json)


@click.command()
@text_options
@click.option("--words", is_flag=True, help="The texts are split into words already, at blanks.")
@max_length_option
@json_option
@model_options
def tag(
    choice: ModelChoice, texts: Iterator[str], words: bool, max_length: int | None, as_json: bool
) -> None:
    """The entities in each text.

    Where they start and end is counted in characters.

    \b
    modernbert tag "Ada Lovelace lived in London." --model FOLDER
    """
    model = load_for("tag", choice)
    stream = model.stream(texts, text=str.split) if words else model.stream(texts)
    for text, entities in stream.tag(max_length=max_length):
        if as_json:
            shown = " ".join(text.split()) if words else text  # what start and end count in
            print_json({"text": shown, "entities": [asdict(entity) for entity in entities]})
            continue
        print_heading(text)
        print_table([e.label, number(e.score), f"{e.start}-{e.end}", e.text] for e in entities)
        if not entities:
            click.echo("  no entities")


@click.command()
@click.argument("question")
@click.option("--context", help="The text to find the answer in.")
@click.option(
    "--context-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=str),
    help="A file that is the context, of any length; - is stdin.",
)
@click.option("--top-k", type=int, default=1, show_default=True, help="Answers, best first.")
@max_length_option
@json_option
@model_options
def answer(
    choice: ModelChoice,
    question: str,
    context: str | None,
    context_file: str | None,
    top_k: int,
    max_length: int | None,
    as_json: bool,
) -> None:
    """The stretch of a context that answers a question.

    Where it starts and ends is counted in characters, in a file with those that end its lines.

    \b
    modernbert answer "Who lives here?" --context "Ada lives here." --model FOLDER
    modernbert answer "Who lives here?" --context-file report.txt --model FOLDER
    """
    if context is not None and context_file is not None:
        raise click.UsageError("--context and --context-file: choose one")
    if context is None:
        if context_file is None:
            require_piped("no context: pass --context TEXT, --context-file PATH, or pipe one in")
        context = read_whole(context_file or STDIN)
    model = load_for("answers", choice)
    found = model.answers(question, context, top_k=top_k, max_length=max_length)
    if as_json:
        for rank, each in enumerate(found, start=1):
            print_json({"question": question, "rank": rank, **asdict(each)})
        return
    print_table(
        [number(each.score), f"{each.start}-{each.end}", each.text or "(no answer in this context)"]
        for each in found
    )


def _print_fills(text: str, fills: list[Fill]) -> None:
    print_heading(text)
    has_many = any(fill.mask for fill in fills)
    print_table(
        [*([f"mask {fill.mask + 1}"] if has_many else []), number(fill.score), fill.token, fill.text]
        for fill in fills
    )


def _print_labels(text: str | tuple[str, str], result: Classification, top_k: int, as_json: bool) -> None:
    if as_json:
        named = {"text": text} if isinstance(text, str) else {"text_a": text[0], "text_b": text[1]}
        print_json({**named, "label": result.label, "score": result.score, "scores": result.scores})
        return
    print_heading(text if isinstance(text, str) else " | ".join(text))
    print_table([number(score), label] for label, score in list(result.scores.items())[:top_k])
