"""The verbs that turn texts into vectors: embed and similarity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from modernbert.cli.inputs import (
    LineFormat,
    field_option,
    file_option,
    read_lines,
    read_texts,
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
from modernbert.cli.output import (
    json_option,
    note,
    number,
    print_heading,
    print_json,
    print_table,
    require_place,
)
from modernbert.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

    from modernbert.inference.long_texts import Overflow

NUMBERS_SHOWN = 6


@click.command()
@text_options
@prompt_option
@click.option("--dimensions", type=int, help="Keep the first so many numbers (Matryoshka).")
@overflow_option
@max_length_option
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write one array, FILE.npy, instead."
)
@json_option
@model_options
def embed(
    choice: ModelChoice,
    texts: Iterator[str],
    prompt: str | None,
    dimensions: int | None,
    overflow: Overflow,
    max_length: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """One vector for each text.

    \b
    modernbert embed "a text" "another"             the first numbers of each
    modernbert embed --file texts.txt --out v.npy   all of them, float32 [texts, size]
    cat rows.jsonl | modernbert embed --field body --json -
    """
    _require_ending(out, ".npy")
    if out is not None and as_json:
        raise click.UsageError("--out and --json: choose one")
    require_place(out)
    model = load_for("embed", choice)
    found = model.stream(texts).embed(
        prompt=prompt, dimensions=dimensions, overflow=overflow, max_length=max_length
    )
    if out is not None:
        _write_array(out, (vector for _, vector in found))
        return
    for text, vector in found:
        _print_vector(text, vector.tolist(), as_json)


@click.command()
@click.argument("texts", nargs=-1)
@file_option
@field_option
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=str),
    help="Compare every text with every text of this file, instead of with each other.",
)
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw a heat map, FILE.png, as well."
)
@json_option
@model_options
def similarity(
    choice: ModelChoice,
    texts: tuple[str, ...],
    file: str | None,
    field: str | None,
    against: str | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """The cosine of texts with each other.

    One number for two texts, a table for more.

    \b
    modernbert similarity "a cat" "a kitten"
    modernbert similarity "who ships it?" --against docs.txt --plot map.png
    """
    _require_ending(plot, ".png")
    require_place(plot)
    form = LineFormat(field=field)
    rows = list(read_texts(texts, file, form))
    columns = rows if against is None else list(read_lines(against, form))
    if against is None and len(rows) < 2:
        raise InputError("there is one text and nothing to compare it with; pass another, or --against FILE")
    if not columns:
        raise InputError(f"{against} holds no texts to compare with")
    matrix = load_for("similarity", choice).similarity(rows, columns)
    if plot is not None:
        from modernbert.plots import similarity_heatmap

        similarity_heatmap(matrix, rows, columns, plot)
    _print_similarities(matrix.tolist(), rows, columns, against is None, as_json)


def _print_similarities(
    matrix: list[list[float]], rows: Sequence[str], columns: Sequence[str], is_square: bool, as_json: bool
) -> None:
    if as_json:
        for i, text_a in enumerate(rows):
            for j in range(i + 1 if is_square else 0, len(columns)):
                print_json({"text_a": text_a, "text_b": columns[j], "score": matrix[i][j]})
    elif is_square and len(rows) == 2:
        click.echo(number(matrix[0][1]))
    else:
        if not is_square:
            click.echo("columns")
            print_table([str(j), text] for j, text in enumerate(columns, start=1))
        print_table(
            [["", *(f"{j:>6}" for j in range(1, len(columns) + 1)), ""]]
            + [[str(i), *(f"{x:>6.3f}" for x in row), rows[i - 1]] for i, row in enumerate(matrix, start=1)],
            indent=0,
        )


def _print_vector(text: str, vector: list[float], as_json: bool) -> None:
    if as_json:
        print_json({"text": text, "embedding": vector})
        return
    print_heading(text)
    shown = " ".join(f"{value:.4f}" for value in vector[:NUMBERS_SHOWN])
    length = sum(value * value for value in vector) ** 0.5
    click.echo(
        f"  {len(vector)} numbers, length {length:.3f}: {shown}" + " ..." * (len(vector) > NUMBERS_SHOWN)
    )


def _require_ending(path: Path | None, ending: str) -> None:
    if path is not None and path.suffix != ending:
        raise click.UsageError(f"a file named *{ending} is written here, found {str(path)!r}")


def _write_array(path: Path, vectors: Iterable[Float[np.ndarray, "E"]]) -> None:
    """One array in a file, vector by vector: however many there are, few are in memory."""
    from modernbert.files import file_being_written

    num, size = 0, 0
    with file_being_written(path) as temporary, temporary.open("wb") as file:
        for vector in vectors:
            if num == 0:
                size = len(vector)
                _write_header(file, (0, size))
            file.write(vector.tobytes())
            num += 1
        _write_header(file, (num, size))
    note(f"{path}: {num} vectors of {size} numbers, float32")


def _write_header(file: IO[bytes], shape: tuple[int, int]) -> None:
    """NumPy leaves room for the first number of a shape to grow, so that headers are equally long."""
    import numpy as np
    from numpy.lib import format as npy

    file.seek(0)
    descr = npy.dtype_to_descr(np.dtype(np.float32))
    npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
