"""Texts for the verbs, one at a time: from arguments, from the lines of a file, from stdin.

    plain lines    one text a line; blank lines are skipped, and a note says how many
    JSON lines     files named .jsonl, and any input with --field: one object a line, its "text" or that field
    pairs          classify only: JSON lines with --pair-field, or lines with --tabs

Everything is UTF-8. What cannot be read is an error that names the line.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click

from modernbert.cli.output import note
from modernbert.errors import InputError

Command = Callable[..., None]

STDIN = "-"
_BYTE_ORDER_MARK = "\ufeff"
_OTHER_KINDS = (".csv", ".tsv", ".json", ".parquet", ".pdf", ".docx", ".gz", ".zip")


@dataclass(frozen=True, kw_only=True, slots=True)
class LineFormat:
    """How a line becomes a text or a pair: JSON where a field is named, two columns if `has_tabs`."""

    field: str | None = None
    pair_field: str | None = None
    has_tabs: bool = False

    @property
    def is_of_pairs(self) -> bool:
        """Whether a line holds two texts."""
        return self.has_tabs or self.pair_field is not None


file_option = click.option(
    "--file",
    "-f",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=str),
    help="Read texts from a file, one a line (.jsonl: one JSON object a line); - is stdin.",
)
field_option = click.option(
    "--field",
    help='The field of JSON lines that holds the text (default "text"); makes any input JSON lines.',
)


def text_options(command: Command) -> Command:
    """Give a verb its texts as the argument `texts`, an iterator that holds at least one."""

    @click.argument("texts", nargs=-1)
    @file_option
    @field_option
    @functools.wraps(command)
    def with_texts(
        *args: Any, texts: tuple[str, ...], file: str | None, field: str | None, **rest: Any
    ) -> None:
        command(*args, texts=read_texts(texts, file, LineFormat(field=field)), **rest)

    return with_texts


def read_texts(arguments: Iterable[str], file: str | None, form: LineFormat) -> Iterator[Any]:
    """The texts (or pairs, where `form` says so) of arguments, `-` among them being stdin, and of a file.

    With neither, stdin is read, unless a person sits before it: that call is wrong, and says what it needs.
    """
    arguments = list(arguments)
    _check_arguments(arguments, form)
    if not arguments and file is None:
        require_piped("no texts: pass them as arguments, with --file, or pipe them in")
        file = STDIN
    found = itertools.chain(_argument_texts(arguments, form), () if file is None else read_lines(file, form))
    return _at_least_one(found, file or STDIN)


def read_lines(file: str, form: LineFormat) -> Iterator[Any]:
    """The texts in the lines of a file or of stdin (`-`)."""
    ending = Path(file).suffix.lower()
    if form == LineFormat() and ending in (".jsonl", ".ndjson"):
        form = LineFormat(field="text")
    elif ending in _OTHER_KINDS and not (form.has_tabs and ending == ".tsv"):
        raise InputError(
            f"{file} is not read here: texts come as lines, or as JSON lines (.jsonl) with --field NAME; "
            "`modernbert classify --tabs` takes pairs with a tab between them (.tsv)"
        )
    blank: list[int] = []
    for line_number, line in _decoded_lines(file):
        line = (line.removeprefix(_BYTE_ORDER_MARK) if line_number == 1 else line).rstrip("\r\n")
        if line.strip():
            yield _parse(line, form, f"{_name(file)}, line {line_number}")
        else:
            blank.append(line_number)
    if blank:
        shown = ", ".join(map(str, blank[:5])) + (", ..." if len(blank) > 5 else "")
        note(f"{_name(file)}: blank lines skipped: {len(blank)} (line {shown})")


def read_whole(file: str) -> str:
    """A whole file, or stdin (`-`), as one text in which every character keeps its place.

    Line ends stay as they are, and a byte order mark, which is a character but no text, becomes a blank.
    """
    text = "".join(line for _, line in _decoded_lines(file))
    return " " + text.removeprefix(_BYTE_ORDER_MARK) if text.startswith(_BYTE_ORDER_MARK) else text


def require_piped(otherwise: str) -> None:
    """A wrong call where nothing was named and stdin is a terminal, at which we would wait without a word."""
    if not sys.stdin or sys.stdin.isatty():
        raise click.UsageError(otherwise)


def _argument_texts(arguments: Iterable[str], form: LineFormat) -> Iterator[Any]:
    for text in arguments:
        if text == STDIN:
            yield from read_lines(STDIN, form)
        else:
            yield text


def _check_arguments(arguments: Iterable[str], form: LineFormat) -> None:
    for place, text in enumerate(arguments, start=1):
        if text != STDIN and form.is_of_pairs:
            raise InputError(f"texts and pairs go apart; found the single text {text!r} beside pairs")
        if not text.strip():
            raise InputError(
                f"text {place} is empty: {text!r}; is it a variable of the shell that is not set?"
            )


def _at_least_one(items: Iterator[Any], source: str) -> Iterator[Any]:
    """The same items; looked at before a model is loaded, so that a wrong input is known at once."""
    first = next(items, None)
    if first is None:
        raise InputError(f"no texts: {_name(source)} held none")
    return itertools.chain([first], items)


def _decoded_lines(file: str) -> Iterator[tuple[int, str]]:
    """Each line with its number from 1 and with the characters that end it."""
    stream: IO[bytes]
    with click.open_file(file, "rb") as stream:
        if file == STDIN and sys.stdin.isatty():
            note("reading from the terminal; Ctrl-D on a line of its own ends it")
        for line_number, line in enumerate(stream, start=1):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{_name(file)}, line {line_number}: byte {error.start + 1} of the line, "
                    f"0x{line[error.start]:02x}, is not UTF-8; convert it (iconv -f latin1 -t utf-8)"
                ) from None
            yield line_number, text


def _parse(line: str, form: LineFormat, where: str) -> Any:
    if form.has_tabs:
        return _split_pair(line, where)
    if form.field is None and form.pair_field is None:
        return line
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error}); each line holds one object") from None
    text = _text_of(row, form.field or "text", where)
    return text if form.pair_field is None else (text, _text_of(row, form.pair_field, where))


def _split_pair(line: str, where: str) -> tuple[str, str]:
    columns = line.split("\t")
    if len(columns) != 2 or not all(column.strip() for column in columns):
        raise InputError(f"{where}: two texts with one tab between them belong here, found {line[:80]!r}")
    return columns[0], columns[1]


def _text_of(row: Any, field: str, where: str) -> str:
    if not isinstance(row, dict) or field not in row:
        found = f"the fields {', '.join(map(str, row))}" if isinstance(row, dict) else type(row).__name__
        raise InputError(f"{where}: no field {field!r}, found {found}; --field NAME names another")
    text = row[field]
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: {field!r} must be a text that is not empty, found {text!r}")
    return text


def _name(file: str) -> str:
    return "stdin" if file == STDIN else file
