"""The command line: each verb parses, calls one function of the package, and prints.

Data goes to stdout, everything else to stderr. A verb that fails says why in one message and exits 1; a
wrong call of it exits 2, Ctrl-C 130. `--help` imports no torch: verbs import what they call when they run.
"""

from __future__ import annotations

import os

import click

from modernbert import __version__
from modernbert.cli.ask import answer, classify, fill_mask, rerank, tag
from modernbert.cli.corpus import shard, tokenizer
from modernbert.cli.export import export
from modernbert.cli.finetune import distill, finetune
from modernbert.cli.finetune_tokens import answer as finetune_answer
from modernbert.cli.finetune_tokens import tag as finetune_tag
from modernbert.cli.finetune_vectors import colbert as finetune_colbert
from modernbert.cli.finetune_vectors import embed as finetune_embed
from modernbert.cli.finetune_vectors import rerank as finetune_rerank
from modernbert.cli.folders import convert, info
from modernbert.cli.group import Verbs
from modernbert.cli.quantize import quantize
from modernbert.cli.surgery import average, resize, tile
from modernbert.cli.training import pretrain, runs
from modernbert.cli.vectors import embed, similarity


def main() -> None:
    """The console script."""
    verbs(prog_name="modernbert")


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="modernbert")
@click.option(
    "--debug",
    is_flag=True,
    envvar="MODERNBERT_DEBUG",
    help="Show the traceback of an error (or set MODERNBERT_DEBUG=1).",
)
@click.pass_context
def verbs(ctx: click.Context, debug: bool) -> None:
    """Encoder models: ask one, look into its folder, train your own.

    Texts come as arguments, from files, or from stdin. Results go to stdout: for a person, or with --json
    as one JSON object per line. `modernbert VERB --help` has examples.
    """
    del debug  # read by Verbs.invoke
    if os.environ.get("NO_COLOR"):
        ctx.color = False


VERBS = (
    *(fill_mask, embed, similarity, rerank, classify, tag, answer, info, convert),
    *(tokenizer, shard, pretrain, runs, finetune, distill, average, tile, resize, quantize, export),
)
for verb in VERBS:
    verbs.add_command(verb)
for task in (finetune_tag, finetune_answer, finetune_embed, finetune_rerank, finetune_colbert):
    finetune.add_command(task)
