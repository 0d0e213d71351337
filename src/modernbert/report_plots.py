"""Pictures of reports: who was taken for whom, how sure and how right, one bar a class."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modernbert.errors import InputError
from modernbert.plots import GRID, INK, MOST_LABELS, colours, new_figure, save, wrapped

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

_MOST_SHARES = 12  # classes; with more, two lines in a cell could not be read
_FAINT = "#9aa5b1"


def confusion_picture(counts: Int[np.ndarray, "C C"], labels: Sequence[str], path: Path) -> None:
    """Rows of each class (down) by the class they were given (across); colours are shares of the line.

    Counts stand in the cells, and shares with them where classes are few; of more than MOST_LABELS, the
    colours speak alone and classes go by their number. The colour grows with the root of the share, so that a
    mistake of a few in a hundred is seen.
    """
    num = len(labels)
    is_legible, has_shares = num <= MOST_LABELS, num <= _MOST_SHARES
    cell = 1.05 if num <= 4 else 0.72 if has_shares else 0.4
    size = 2.0 + (cell * num if is_legible else 7.0)
    figure = new_figure(size + 1.0, size)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", norm=_roots(), aspect="auto")
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=30, ticks=(0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1))
    bar.set_label("share of the line", color=INK, fontsize=9.5)
    bar.ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    bar.ax.tick_params(colors=INK, labelsize=8.5, length=3)
    bar.outline.set_visible(False)
    if is_legible:
        _write_classes(axes, labels)
        _write_counts(axes, counts, shares, has_shares=has_shares)
    which = "" if is_legible else ", by the number of the class"
    _finish(axes, x=f"given{which}", y=f"labelled{which}")
    if is_legible:
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
    save(figure, path)


def _roots() -> Normalize:
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=0.0, vmax=1.0)


def _write_classes(axes: Axes, labels: Sequence[str]) -> None:
    """Names along both sides, level where they are few, and white lines between the cells."""
    num, is_level = len(labels), len(labels) <= 4
    names = [wrapped(label, 14 if is_level else 24, 2) for label in labels]
    # a dollar sign in a name begins no formula
    axes.set_xticks(range(num), names, parse_math=False, rotation=0 if is_level else 50)
    axes.set_yticks(range(num), names, parse_math=False)
    if not is_level:
        for label in axes.get_xticklabels():
            label.set(ha="right", va="top", rotation_mode="anchor")
    between = [place - 0.5 for place in range(1, num)]
    axes.set_xticks(between, minor=True)
    axes.set_yticks(between, minor=True)
    axes.grid(which="minor", color=GRID, linewidth=1.2)


def _write_counts(
    axes: Axes, counts: Int[np.ndarray, "C C"], shares: Float[np.ndarray, "C C"], *, has_shares: bool
) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            # beyond a third of the line, the root makes the blue too dark for dark ink
            ink = "white" if shares[row, column] > 0.33 else INK
            text = f"{count:,}\n{shares[row, column]:.1%}" if has_shares else f"{count:,}"
            axes.text(
                column, row, text, ha="center", va="center", color=ink, fontsize=9 if has_shares else 7.5
            )


def class_bars(values: Mapping[str, float], path: Path, *, what: str) -> None:
    """A bar for each class, the best on top; of more than MOST_LABELS the best and the worst half."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    if len(ordered) > MOST_LABELS:
        half = MOST_LABELS // 2
        ordered = [*ordered[:half], (f"... {len(ordered) - 2 * half} more ...", np.nan), *ordered[-half:]]
    figure = new_figure(7.0, 1.0 + 0.28 * len(ordered))
    axes = figure.add_subplot()
    bars = axes.barh(range(len(ordered)), [value for _, value in ordered], color=colours()[0], height=0.68)
    axes.bar_label(
        bars, [f"{value:.2f}" if value == value else "" for _, value in ordered], padding=3, fontsize=8
    )
    axes.set_yticks(range(len(ordered)), [wrapped(name, 32, 1) for name, _ in ordered], parse_math=False)
    axes.set_xlim(0, 1.08)
    axes.set_ylim(-0.7, len(ordered) - 0.3)
    _finish(axes, x=what, y="")
    save(figure, path)


def reliability_picture(
    before: Sequence[tuple[float, float, int]], after: Sequence[tuple[float, float, int]], path: Path
) -> None:
    """Accuracy by confidence; points on the diagonal are as right as they are sure. Sizes are rows."""
    figure = new_figure(5.2, 5.0)
    axes = figure.add_subplot()
    axes.plot((0, 1), (0, 1), color=_FAINT, linewidth=1.0, linestyle=":")
    for points, name, colour in zip(
        (before, after), ("as trained", "with the temperature"), colours()[1::-1], strict=True
    ):
        most = max((num for _, _, num in points), default=1)
        axes.plot(
            [c for c, _, _ in points], [a for _, a, _ in points], color=colour, linewidth=1.2, label=name
        )
        sizes = [12 + 110 * num / most for _, _, num in points]
        axes.scatter([c for c, _, _ in points], [a for _, a, _ in points], sizes, color=colour, alpha=0.7)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.04)
    axes.legend(frameon=False, fontsize=9)
    _finish(axes, x="confidence", y="accuracy")
    save(figure, path)


def precision_recall_picture(
    lines: Mapping[str, tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K"]]], path: Path
) -> None:
    """Precision against recall, a line for each class or label; the first eight of them.

    The points are those of `precision_recall`. The area under the steps is the average precision.
    """
    figure = new_figure(5.8, 5.0)
    axes = figure.add_subplot()
    for (name, (precision, recall)), colour in zip(lines.items(), colours(), strict=False):
        axes.plot(
            np.concatenate([[0.0], recall]),
            np.concatenate([precision[:1], precision]),
            color=colour,
            linewidth=1.5,
            label=wrapped(name, 26, 1),
            drawstyle="steps-pre",
        )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.04)
    axes.legend(frameon=False, fontsize=8.5, loc="lower left")
    _finish(axes, x="recall", y="precision")
    save(figure, path)


def scatter_picture(wanted: Float[np.ndarray, "N"], given: Float[np.ndarray, "N"], path: Path) -> None:
    """Values that were given against those that were wanted; on the dotted line they are equal."""
    figure = new_figure(5.2, 5.0)
    axes = figure.add_subplot()
    low, high = float(min(wanted.min(), given.min())), float(max(wanted.max(), given.max()))
    margin = 0.03 * (high - low) or 1.0
    axes.plot((low, high), (low, high), color=_FAINT, linewidth=1.0, linestyle=":")
    # many points are fainter, so that where most of them lie still shows
    alpha = min(0.7, max(0.08, 40 / np.sqrt(len(wanted)) / 2))
    axes.scatter(wanted, given, 12, color=colours()[0], alpha=alpha, linewidths=0)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(low - margin, high + margin)
    axes.set_aspect("equal")
    _finish(axes, x="wanted", y="given")
    save(figure, path)


def sweep_picture(
    lines: Mapping[str, Sequence[tuple[float, float]]], path: Path, *, setting: str, metric: str
) -> None:
    """The metric by the value of one setting, on a scale of ratios; the best of all points is named.

    Other settings that were tried give a line each, by their names; one line needs none. Values must be
    above 0. Raises InputError where there is nothing to draw or a value is not.
    """
    points = [point for each in lines.values() for point in each]
    if not points or min(value for value, _ in points) <= 0:
        raise InputError(f"a sweep of {setting} needs values above 0 to be drawn; found {dict(lines)}")
    figure = new_figure(5.8, 4.2)
    axes = figure.add_subplot()
    for (name, each), colour in zip(lines.items(), itertools.cycle(colours()), strict=False):
        axes.plot(
            *zip(*sorted(each), strict=True), "o-", color=colour, linewidth=1.5, markersize=5, label=name
        )
    x, best = max(points, key=lambda point: point[1])
    axes.plot(x, best, "o", markersize=11, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.2)
    axes.annotate(
        f"{best:.4f} at {x:g}", (x, best), (0, 9), textcoords="offset points", ha="center", color=INK
    )
    values = sorted({value for value, _ in points})
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values], rotation=0 if len(values) <= 6 else 40)
    axes.minorticks_off()
    axes.margins(x=0.12, y=0.16)
    axes.grid(axis="y", color="#e4e9ee", linewidth=0.7)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8.5)
    _finish(axes, x=setting, y=f"{metric} on the dev part")
    save(figure, path)


def trials_picture(scores: Mapping[str, float], path: Path, *, metric: str) -> None:
    """A bar for each trial of a sweep, in the order in which they were tried; the best is dark."""
    figure = new_figure(max(5.0, 1.6 + 0.9 * len(scores)), 4.2)
    axes = figure.add_subplot()
    best = max(scores.values())
    shades = [colours()[0] if value == best else "#b8c4d0" for value in scores.values()]
    bars = axes.bar(range(len(scores)), list(scores.values()), 0.62, color=shades)
    axes.bar_label(bars, [f"{value:.4f}" for value in scores.values()], padding=2, fontsize=8.5)
    aslant = len(scores) > 5
    axes.set_xticks(
        range(len(scores)), list(scores), rotation=35 if aslant else 0, ha="right" if aslant else "center"
    )
    low = min(scores.values())
    axes.set_ylim(max(0.0, low - 0.6 * (best - low) - 0.01), best + 0.15 * (best - low) + 0.01)
    _finish(axes, x="", y=f"{metric} on the dev part")
    save(figure, path)


def _finish(axes: Axes, *, x: str, y: str) -> None:
    axes.set_xlabel(x, color=INK, fontsize=9.5)
    axes.set_ylabel(y, color=INK, fontsize=9.5)
    axes.tick_params(colors=INK, labelsize=8.5, length=3)
    axes.spines[["top", "right"]].set_visible(False)
