"""The command line: each verb parses, calls one function of the package, and prints.

Data goes to stdout, everything else to stderr. A verb that fails says why in one message and exits 1; a
wrong call of it exits 2, Ctrl-C 130. `--help` imports no torch: verbs import what they call when they run.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

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
from modernbert.cli.output import in_options, note
from modernbert.cli.quantize import quantize
from modernbert.cli.surgery import average, resize, tile
from modernbert.cli.training import pretrain, runs
from modernbert.cli.vectors import embed, similarity
from modernbert.errors import ModernBertError
from modernbert.inference.cuts import CutWarning, told_as_one

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for a program that Ctrl-C ended


def main() -> None:
    """The console script."""
    verbs(prog_name="modernbert")


class Verbs(click.Group):
    """The verbs in the order in which they were added; what a user can cause ends in one message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names for `--help`."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb."""
        try:
            with warnings_as_notes(lambda message: self.in_its_options(ctx, message)):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            raise  # click ends quietly: whoever read our output has enough
        except (ModernBertError, OSError) as error:
            if ctx.params["debug"]:
                raise
            raise Failure(self.in_its_options(ctx, str(error))) from error

    def in_its_options(self, ctx: click.Context, message: str) -> str:
        """The message in the words of the verb that runs."""
        return in_options(message, self.commands.get(ctx.invoked_subcommand or ""))


class Failure(click.ClickException):
    """What a user can cause, said on stderr; exit code 1."""

    def show(self, file: Any = None) -> None:
        """Print the message."""
        note(f"error: {self.message}")


@contextmanager
def warnings_as_notes(in_words: Callable[[str], str]) -> Generator[None]:
    """Warnings as one line each on stderr, without the line of source that raised them.

    Texts go through a model in batches, each of which warns of those that it cuts: the end tells their total.
    """
    cuts: list[CutWarning] = []

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if isinstance(message, CutWarning):
            cuts.append(message)
        else:
            note(in_words(f"warning: {' '.join(str(message).split())}"))

    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        finally:
            if cuts:
                note(f"warning: {told_as_one(cuts)}")


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
