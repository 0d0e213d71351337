"""A group of verbs: what a user can cause ends in one message, in the words of the verb that was called."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import click

from modernbert.cli.output import in_options, note
from modernbert.errors import ModernBertError
from modernbert.inference.cuts import CutWarning, told_as_one

INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for a program that Ctrl-C ended


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
            if ctx.find_root().params["debug"]:
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
