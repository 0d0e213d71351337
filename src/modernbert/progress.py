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


class Bar:
    """A bar that is moved by hand, for work that counts in its own unit; the same rules as `progress`."""

    def __init__(self, *, label: str, total: int, unit: str, done: int = 0) -> None:
        self._bar = tqdm(
            desc=label,
            total=total,
            initial=done,
            unit=unit,
            unit_scale=True,
            file=sys.stderr,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            smoothing=0.1,
        )

    def advance(self, count: int, facts: str = "") -> None:
        """Count so much more as done, and show `facts` behind the bar."""
        self._bar.set_postfix_str(facts, refresh=False)
        self._bar.update(count)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()
