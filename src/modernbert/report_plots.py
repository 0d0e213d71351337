"""Pictures of reports: who was taken for whom, how sure and how right, one bar a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modernbert.plots import INK, MOST_LABELS, colours, new_figure, save, wrapped

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from matplotlib.axes import Axes


def confusion_picture(counts: Int[np.ndarray, "C C"], labels: Sequence[str], path: Path) -> None:
    """Rows of each class (down) by the class they were given (across); colours are shares of the row."""
    num = len(labels)
    is_legible = num <= MOST_LABELS
    size = 2.6 + (0.62 * num if is_legible else 8.0)
    figure = new_figure(size + 1.2, size)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, pad=0.02, label="share of the row").outline.set_visible(False)
    if is_legible:
        names = [wrapped(label, 22, 2) for label in labels]
        axes.set_xticks(
            range(num), names, rotation=0 if num <= 4 else 60, ha="center" if num <= 4 else "right"
        )
        axes.set_yticks(range(num), names)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                ink = "white" if shares[row, column] > 0.55 else INK
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=ink, fontsize=9)
    _finish(axes, x="given", y="labelled")
    axes.grid(visible=False)
    save(figure, path)


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
    _finish(axes, x=what, y="")
    save(figure, path)


def reliability_picture(
    before: Sequence[tuple[float, float, int]], after: Sequence[tuple[float, float, int]], path: Path
) -> None:
    """Accuracy by confidence; points on the diagonal are as right as they are sure. Sizes are rows."""
    figure = new_figure(5.4, 5.0)
    axes = figure.add_subplot()
    axes.plot((0, 1), (0, 1), color="#9aa5b1", linewidth=1.0, linestyle=":")
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
    """Precision against recall, a line for each class or label; the first eight of them."""
    figure = new_figure(5.8, 5.0)
    axes = figure.add_subplot()
    for (name, (precision, recall)), colour in zip(lines.items(), colours(), strict=False):
        axes.plot(
            recall, precision, color=colour, linewidth=1.5, label=wrapped(name, 26, 1), drawstyle="steps-post"
        )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.04)
    axes.legend(frameon=False, fontsize=8.5, loc="lower left")
    _finish(axes, x="recall", y="precision")
    save(figure, path)


def scatter_picture(wanted: Float[np.ndarray, "N"], given: Float[np.ndarray, "N"], path: Path) -> None:
    """Values that were given against those that were wanted."""
    figure = new_figure(5.4, 5.0)
    axes = figure.add_subplot()
    low, high = float(min(wanted.min(), given.min())), float(max(wanted.max(), given.max()))
    axes.plot((low, high), (low, high), color="#9aa5b1", linewidth=1.0, linestyle=":")
    axes.scatter(wanted, given, 10, color=colours()[0], alpha=0.4, linewidths=0)
    _finish(axes, x="wanted", y="given")
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
