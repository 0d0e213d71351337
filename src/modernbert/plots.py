"""Pictures, as PNG files that are written whole or not at all. matplotlib is imported when one is drawn."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

MOST_LABELS = 40  # rows or columns; of more than these, neither labels nor values could be read
MOST_LEVEL_LABELS = 6  # columns; the labels of more than these stand aslant
INK, GRID = "#1f2933", "#ffffff"
_DOTS_PER_INCH = 150
Points = Sequence[tuple[float, float]]


def similarity_heatmap(
    matrix: Float[np.ndarray, "A B"], labels_a: Sequence[str], labels_b: Sequence[str], path: Path
) -> None:
    """Draw cosines as a grid, `labels_a` down the side and `labels_b` along the top, into a PNG file.

    Each cell holds its value; a grid of more than MOST_LABELS rows or columns has colours alone.
    Raises ModernBertError without matplotlib.
    """
    num_rows, num_columns = len(labels_a), len(labels_b)
    if matrix.shape != (num_rows, num_columns) or matrix.size == 0:
        raise InputError(
            f"each row and column needs a label: the matrix is {matrix.shape}, the labels are {num_rows} and "
            f"{num_columns}"
        )
    is_legible, is_level = max(num_rows, num_columns) <= MOST_LABELS, num_columns <= MOST_LEVEL_LABELS
    width = 4.4 + (1.7 if is_level else 0.85) * num_columns
    height = (1.6 if is_level else 2.8) + 0.62 * num_rows
    figure = new_figure(width, height) if is_legible else new_figure(10.0, 9.0)
    axes = figure.add_subplot()
    lowest, highest = min(0.0, float(matrix.min())), max(1.0, float(matrix.max()))
    image = axes.imshow(matrix, cmap=_light_colours(), vmin=lowest, vmax=highest, aspect="auto")
    figure.colorbar(image, ax=axes, pad=0.02, aspect=30, label="cosine").outline.set_visible(False)
    if is_legible:
        _write_labels(axes, labels_a, labels_b, is_level)
        _write_values(axes, matrix)
    save(figure, path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One small chart: lines by their names, each as its points (x, y); faint lines lie behind, unnamed.

    `marks` are places on the x axis with a word each, such as where a phase begins.
    """

    title: str
    lines: Mapping[str, Points]
    faint: Points = ()
    marks: Mapping[str, float] | None = None
    is_logarithmic: bool = False
    unit: str = ""


def curves(panels: Sequence[Panel], path: Path, *, title: str, x_label: str) -> None:
    """Draw panels, mostly three to a row, with one x axis, into a PNG file.

    Raises InputError where there is nothing to draw, ModernBertError without matplotlib.
    """
    drawn = [panel for panel in panels if any(panel.lines.values())]
    if not drawn:
        raise InputError("there is nothing to draw yet: no line has a point")
    num_columns = 2 if len(drawn) == 4 else min(3, len(drawn))
    num_rows = -(-len(drawn) // num_columns)
    figure = new_figure(5.2 * num_columns, 0.5 + 3.4 * num_rows)
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=12)
    first: Axes | None = None
    for index, panel in enumerate(drawn):
        axes = figure.add_subplot(num_rows, num_columns, index + 1, sharex=first)
        _draw_panel(axes, panel, x_label)
        first = first or axes
    save(figure, path)


def _draw_panel(axes: Axes, panel: Panel, x_label: str) -> None:
    if panel.faint:
        axes.plot(*zip(*panel.faint, strict=True), color="#c5cdd6", linewidth=0.6)
    lines = _told_apart(panel.lines)
    for (name, points), colour in zip(lines.items(), itertools.cycle(colours()), strict=False):
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.6, label=name)
        if len(points) == 1:
            axes.plot(*points[0], "o", color=colour, markersize=4)
    if panel.is_logarithmic:
        _scale_by_factors(axes)
    else:
        axes.yaxis.set_major_formatter(lambda value, _: _short(value))
    for name, x in (panel.marks or {}).items():
        axes.axvline(x, color="#9aa5b1", linewidth=0.8, linestyle=":")
        axes.annotate(
            name,
            (x, 1.0),
            (3, -3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color="#6b7785",
            fontsize=8,
            va="top",
            rotation=90,
        )
    axes.set_title(panel.title, loc="left", fontsize=10.5, color=INK)
    axes.set_xlabel(x_label, fontsize=9, color=INK)
    axes.set_ylabel(panel.unit, fontsize=9, color=INK)
    axes.xaxis.set_major_formatter(lambda value, _: _counted(value))
    axes.tick_params(which="both", colors=INK, labelsize=8.5)
    axes.grid(color="#e4e9ee", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) == 2:
        axes.legend(frameon=False, fontsize=8.5)
    elif len(lines) > 2:  # inside, it would hide some
        axes.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _told_apart(lines: Mapping[str, Points]) -> dict[str, Points]:
    """Those that have points; lines that lie on each other are one, with the names of both."""
    names: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name, points in lines.items():
        names.setdefault(tuple(points), []).append(name)
    return {", ".join(same): points for points, same in names.items() if points}


def _scale_by_factors(axes: Axes) -> None:
    """A logarithmic axis with few labels in plain digits: matplotlib's own are wide, and in another font."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    lowest, highest = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if highest > 100 * lowest else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(lambda value, _: _short(value))
    axes.yaxis.set_minor_formatter(lambda value, _: "")


def _short(value: float) -> str:
    """A number on an axis: 0.25, 15k, 2e-5."""
    if 0 < abs(value) < 1e-3:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(exponent)}"
    return _counted(value) if abs(value) >= 10_000 else f"{value:.6g}"


def _counted(value: float) -> str:
    """A count on an axis: 20M, 1.5k."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}" if math.isfinite(value) else ""


def colours() -> Sequence[str]:
    """Told apart by colour-blind readers too (Okabe and Ito 2008)."""
    return ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1f2933", "#999999")


def _write_labels(axes: Axes, labels_a: Sequence[str], labels_b: Sequence[str], is_level: bool) -> None:
    # a dollar sign in a text begins no formula
    axes.set_yticks(range(len(labels_a)), [wrapped(text, 36, 3) for text in labels_a], parse_math=False)
    columns = [wrapped(text, 19, 6) if is_level else wrapped(text, 26, 2) for text in labels_b]
    axes.set_xticks(range(len(labels_b)), columns, parse_math=False)
    axes.tick_params(axis="x", labeltop=True, labelbottom=False, rotation=0 if is_level else 45)
    if not is_level:
        for label in axes.get_xticklabels():
            label.set(ha="left", va="bottom", rotation_mode="anchor")
    _rule(axes, len(labels_a), len(labels_b))


def _write_values(axes: Axes, matrix: Float[np.ndarray, "A B"]) -> None:
    for row, values in enumerate(matrix.tolist()):
        for column, value in enumerate(values):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=INK, fontsize=10)


def new_figure(width: float, height: float) -> Figure:
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

    return LinearSegmentedColormap.from_list("light", ["#f9fbfd", "#c9e0f0", "#6db0dc"])


def _rule(axes: Axes, num_rows: int, num_columns: int) -> None:
    """White lines between the cells, and no frame."""
    axes.set_xticks([column - 0.5 for column in range(1, num_columns)], minor=True)
    axes.set_yticks([row - 0.5 for row in range(1, num_rows)], minor=True)
    axes.grid(which="minor", color=GRID, linewidth=2)
    axes.tick_params(which="both", length=0, colors=INK, labelsize=10)
    for spine in axes.spines.values():
        spine.set_visible(False)


def wrapped(text: str, width: int, num_lines: int) -> str:
    """A text in lines of `width` characters, cut after `num_lines`."""
    return textwrap.fill(text, width, max_lines=num_lines, placeholder=" ...")


def save(figure: Figure, path: Path) -> None:
    """Write the picture, whole or not at all."""
    with file_being_written(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH)
