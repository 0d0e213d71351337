"""Pictures, as PNG files that are written whole or not at all. matplotlib is imported when one is drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modernbert.errors import InputError, ModernBertError
from modernbert.files import file_being_written

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

MOST_VALUES = 900  # cells; a value in each of more than these is too small to read
INK, GRID = "#1f2933", "#ffffff"
_DOTS_PER_INCH = 150


def similarity_heatmap(
    matrix: Float[np.ndarray, "A B"], labels_a: Sequence[str], labels_b: Sequence[str], path: Path
) -> None:
    """Draw cosines as a grid, `labels_a` down the side and `labels_b` along the top, into a PNG file.

    Each cell holds its value, in grids of up to MOST_VALUES cells. Raises ModernBertError without matplotlib.
    """
    num_rows, num_columns = len(labels_a), len(labels_b)
    if matrix.shape != (num_rows, num_columns) or matrix.size == 0:
        raise InputError(
            f"each row and column needs a label: the matrix is {matrix.shape}, the labels are {num_rows} and "
            f"{num_columns}"
        )
    figure = _new_figure(width=4.2 + 1.05 * num_columns, height=2.4 + 0.62 * num_rows)
    axes = figure.add_subplot()
    lowest = min(0.0, float(matrix.min()))
    image = axes.imshow(
        matrix, cmap=_light_colours(), vmin=lowest, vmax=max(1.0, float(matrix.max())), aspect="auto"
    )
    # a dollar sign in a text begins no formula
    axes.set_yticks(range(num_rows), [_wrapped(text, 36) for text in labels_a], parse_math=False)
    axes.set_xticks(range(num_columns), [_wrapped(text, 24) for text in labels_b], parse_math=False)
    axes.tick_params(axis="x", labeltop=True, labelbottom=False, rotation=40)
    for label in axes.get_xticklabels():
        label.set(ha="left", va="bottom", rotation_mode="anchor")
    _rule(axes, num_rows, num_columns)
    if matrix.size <= MOST_VALUES:
        for row in range(num_rows):
            for column in range(num_columns):
                value = f"{matrix[row, column]:.2f}"
                axes.text(column, row, value, ha="center", va="center", color=INK, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.8, label="cosine").outline.set_visible(False)
    _save(figure, path)


def _new_figure(width: float, height: float) -> Figure:
    """A figure of its own, without pyplot: no window, and nothing kept between pictures."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModernBertError('pictures need matplotlib: pip install "modernbert[plots]"') from error
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _light_colours() -> Colormap:
    """White to a light blue, on which dark numbers are read at both ends."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("light", ["#fbfcfd", "#d6e6f2", "#8fbfe0"])


def _rule(axes: Axes, num_rows: int, num_columns: int) -> None:
    """White lines between the cells, and no frame."""
    axes.set_xticks([column - 0.5 for column in range(1, num_columns)], minor=True)
    axes.set_yticks([row - 0.5 for row in range(1, num_rows)], minor=True)
    axes.grid(which="minor", color=GRID, linewidth=2)
    axes.tick_params(which="both", length=0, colors=INK, labelsize=10)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, max_lines=3, placeholder=" ...")


def _save(figure: Figure, path: Path) -> None:
    with file_being_written(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH)
