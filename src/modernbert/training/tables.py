"""Markdown tables, and whether pictures can stand beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec


def table(columns: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    """A Markdown table; numbers have four digits after the point, whole ones none."""
    lines = [" | ".join(columns), " | ".join("---" if i == 0 else "---:" for i in range(len(columns)))]
    lines += [" | ".join(_cell(value) for value in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def has_pictures() -> bool:
    """Whether matplotlib is installed; a report without it has its tables alone."""
    return find_spec("matplotlib") is not None


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value.replace("|", "\\|").replace("\n", " ")
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
