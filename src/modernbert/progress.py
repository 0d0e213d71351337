"""Progress bars on stderr: there when a person watches, silent in logs and pipes."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], *, label: str, total: int | None = None, unit: str = "it"
) -> Iterator[Item]:
    """Yield `items` unchanged, drawing a bar on stderr when it is a terminal and the work lasts over a
    second.
    """
    yield from tqdm(
        items,
        desc=label,
        total=total,
        unit=unit,
        file=sys.stderr,
        disable=not sys.stderr.isatty(),
        delay=1.0,
        leave=False,
    )
