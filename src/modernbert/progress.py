"""Progress bars on stderr: there when a person watches, silent in logs and pipes."""

import sys
import time
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


class Pace:
    """A bar of items, of which the total may not be known, and the tokens in them, with the rates of both.

    It shows while work is done that lasts over a second, and not while the caller has what was done.
    """

    def __init__(self, *, label: str, total: int | None, unit: str) -> None:
        self._started = time.monotonic()
        self._num_tokens = 0
        self._bar = tqdm(
            desc=label,
            total=total,
            unit=f" {unit}s",
            file=sys.stderr,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            delay=1.0,
            leave=False,
            miniters=1,  # keeps tqdm's own thread from drawing while the caller prints
        )

    def advance(self, count: int, *, num_tokens: int) -> None:
        """Count so many more items, and tokens in them, as done."""
        if self._bar.disable:
            return
        self._num_tokens += num_tokens
        rate = self._num_tokens / max(time.monotonic() - self._started, 1e-9)
        self._bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
        self._bar.update(count)

    def hide(self) -> None:
        """Take the bar off the terminal until more is done."""
        self._bar.clear()

    def close(self) -> None:
        """Take the bar off the terminal."""
        self._bar.close()
