"""What verbs print: data to stdout, JSON lines or aligned text; notes to stderr."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from modernbert.errors import InputError

# An argument in a message of the package: dtype='float32', max_length=512, allow=['numpy.dtype'].
_ARGUMENT = re.compile(r"\b(\w+)=('[^']*'|\[[^\]]*\]|\d+)")


def note(message: str) -> None:
    """Say something that is not data."""
    click.echo(f"modernbert: {message}", err=True)


def in_options(message: str, command: click.Command | None) -> str:
    """A message of the package in the words of the verb: for dtype='float32' it has --dtype float32.

    Arguments that the verb has no option for stay as they are.
    """
    names = [name for option in command.params for name in option.opts] if command else []
    options = {name.removeprefix("--").replace("-", "_"): name for name in names if name.startswith("--")}

    def as_option(found: re.Match[str]) -> str:
        option = options.get(found[1])
        values = re.findall(r"'([^']*)'", found[2]) or [found[2]]
        return found[0] if option is None else " ".join(f"{option} {shlex.quote(each)}" for each in values)

    return _ARGUMENT.sub(as_option, message)


def require_place(path: Path | None) -> None:
    """InputError unless a file can be made there: said before the work, not after it."""
    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path} cannot be written: {folder} may not be written to; name another folder")


def print_json(row: Mapping[str, Any]) -> None:
    """One JSON object on one line; characters that stdout cannot write are escaped."""
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    click.echo(json.dumps(row, ensure_ascii=not is_utf8))


def print_heading(text: str) -> None:
    """A text of the input, above what was found for it."""
    click.secho(one_line(text), bold=True)


def print_table(rows: Iterable[Sequence[str]], *, indent: int = 2) -> None:
    """Rows of cells, aligned; the last cell of a row may be long and is cut on a terminal."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows), strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        before = " " * indent + "".join(f"{cell}  " for cell in cells)
        click.echo((before + one_line(row[-1], num_before=len(before))).rstrip())


def one_line(text: str, num_before: int = 0) -> str:
    """The text with blanks for its line breaks; on a terminal no longer than what is left of a line there."""
    line = " ".join(text.splitlines())
    room = max(20, shutil.get_terminal_size().columns - num_before)
    return line if len(line) <= room or not sys.stdout.isatty() else line[: room - 3] + "..."


def number(value: float) -> str:
    """A score for a person."""
    return f"{value:.3f}"


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
