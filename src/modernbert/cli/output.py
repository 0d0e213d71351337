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

# An argument in a message of the package: with its value, as in dtype='float32', max_length=512 or
# allow=['numpy.dtype'], or alone, as in max_length; what is quoted, or a piece of a path, is somebody's data.
_ARGUMENT = re.compile(
    r"""(?<![\w./'"-])(?:(\w+)=('[^']*'|\[[^\]]*\]|-?(?:\d+(?:\.\d+)?(?:e-?\d+)?|inf)|nan)|([a-z]+(?:_[a-z]+)+))"""
    r"""(?![\w/'"=(]|\.\w)"""
)


def note(message: str) -> None:
    """Say something that is not data."""
    click.echo(f"modernbert: {message}", err=True)


def in_options(message: str, command: click.Command | None) -> str:
    """A message of the package in the words of the verb: for dtype='float32' it has --dtype float32.

    Arguments that the verb has no option for stay as they are.
    """
    options: dict[str | None, str] = {}
    for parameter in command.params if command else ():
        for option in parameter.opts:
            if option.startswith("--"):
                options[parameter.name] = options[option.removeprefix("--").replace("-", "_")] = option

    def as_option(found: re.Match[str]) -> str:
        name, value, alone = found.groups()
        option = options.get(name or alone)
        if option is None or alone:
            return option or found[0]
        values = re.findall(r"'([^']*)'", value) or [value]
        return " ".join(f"{option} {shlex.quote(each)}" for each in values)

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
