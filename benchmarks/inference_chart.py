"""The picture of inference.py: a panel a case, a bar a side, made to be read at 800 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

BLUE, LIGHT_BLUE, GREY, LIGHT_GREY, INK = "#1f6feb", "#79b0ff", "#9aa3ae", "#d0d6dd", "#57606a"


def draw(
    results: Sequence[dict[str, Any]], contests: Sequence[dict[str, Any]], title: str, path: Path
) -> None:
    """Ours in blue, others in grey, 8 bits in the lighter shade; above ours, the ratio to the best peer."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    cases = list(dict.fromkeys(row["case"] for row in results))
    num_columns = min(3, len(cases))
    num_rows = -(-len(cases) // num_columns)
    figure, grid = plt.subplots(
        num_rows, num_columns, figsize=(8, 2.9 * num_rows), dpi=200, layout="constrained", squeeze=False
    )
    ratios = {(contest["case"], contest["ours"]): contest["ratio"] for contest in contests}
    for axes, case in zip(grid.flat, cases, strict=False):
        rows = [row for row in results if row["case"] == case]
        rows.sort(key=lambda row: (row["precision"] == "int8", not row["side"].startswith("modernbert")))
        rows.reverse()  # the first at the top
        bars = axes.barh(
            [row["side"] for row in rows],
            [row["tokens_per_second"] for row in rows],
            color=list(map(color_of, rows)),
        )
        words = [
            f"{row['tokens_per_second']:,.0f}"
            + (f"   {ratios[case, row['side']]:.2f}x" if (case, row["side"]) in ratios else "")
            for row in rows
        ]
        axes.bar_label(bars, words, padding=3, fontsize=8, color=INK)
        axes.set_xlim(0, 1.7 * max(row["tokens_per_second"] for row in rows))
        axes.set_title(f"{case}: {rows[0]['num_tokens']:,} tokens", fontsize=8.5, loc="left", color=INK)
        axes.tick_params(length=0, labelsize=7.5)
        axes.set_xticks([])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    for axes in list(grid.flat)[len(cases) :]:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left", color="#24292f")
    figure.savefig(path, facecolor="white")
    plt.close(figure)


def color_of(row: dict[str, Any]) -> str:
    is_ours, is_int8 = row["side"].startswith("modernbert"), row["precision"] == "int8"
    return (LIGHT_BLUE if is_int8 else BLUE) if is_ours else (LIGHT_GREY if is_int8 else GREY)
