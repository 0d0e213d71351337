"""The tasks of finetune that give places in a text: names and other spans, and answers to questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from modernbert.cli.finetune import run_options

if TYPE_CHECKING:
    from modernbert.training.tasks.task import TaskConfig


@click.command()
@run_options
@click.option("--words", help="The key of the words in JSON (default: tokens or words).")
@click.option("--tags", help="The key of their tags (default: tags, ner_tags or labels).")
@click.option("--text", help="The key of texts with spans (default: text).")
@click.option("--spans", help="The key of the spans (default: spans, entities, label or labels).")
@click.option("--word-column", default=0, show_default=True, help="Of files with a word a line, from 0.")
@click.option("--tag-column", default=-1, show_default=True, help="The same for tags; -1: the last.")
@click.option("--label-smoothing", default=0.0, show_default=True)
@click.option("--encoding", default="utf-8", show_default=True, help="Of the file, such as cp1251.")
def tag(**words: Any) -> TaskConfig:
    """Names and other spans: tags for words (BIO, BILOU, ...), or marked stretches of texts.

    \b
    modernbert finetune tag train.jsonl --dev dev.jsonl --model FOLDER --out ner/
    modernbert tag --model ner/ "Ada Lovelace lived in London."
    """
    from modernbert.training.tasks.tag import Tag

    return Tag(**words)


@click.command()
@run_options
@click.option(
    "--negatives",
    default=2,
    show_default=True,
    help="Windows without the answer that are learned from a question, at most.",
)
@click.option("--encoding", default="utf-8", show_default=True, help="Of the file, such as cp1251.")
def answer(**words: Any) -> TaskConfig:
    """Answers as stretches of a text: SQuAD 1 and 2, or questions as JSON lines.

    \b
    modernbert finetune answer squad.json --model FOLDER --out qa/
    modernbert answer --model qa/ "Who lives here?" --context "Ada lives here."
    """
    from modernbert.training.tasks.answer import FindAnswers

    return FindAnswers(**words)
