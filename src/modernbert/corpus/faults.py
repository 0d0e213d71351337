"""What is wrong with the rows of a user's file: all of it in one message, each fault with its place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from modernbert.errors import CorpusError

_SHOWN = 5
# A file with so many is not the file that was meant, and reading on would tell nothing new.
_MOST = 1000


@dataclass(kw_only=True, slots=True)
class Faults:
    """The first few faults of each kind, and how many there are. `unit` is what their places count."""

    source: str
    unit: str = "line"
    counts: Counter[str] = field(default_factory=Counter[str])
    shown: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, place: int, kind: str, detail: str = "") -> None:
        """Keep a fault; CorpusError where there are a thousand."""
        self.counts[kind] += 1
        shown = self.shown.setdefault(kind, [])
        if len(shown) < _SHOWN:
            shown.append(f"{self.unit} {place}{f' ({detail})' if detail else ''}")
        if self.counts.total() >= _MOST:
            raise self._error(f", and reading stopped at the {_MOST:,}th")

    def require_none(self) -> None:
        """CorpusError that names them, where there are any."""
        if self.counts:
            raise self._error("")

    def _error(self, ending: str) -> CorpusError:
        lines = [
            f"  {count:,} x {kind}: {', '.join(self.shown[kind])}{', ...' if count > _SHOWN else ''}"
            for kind, count in self.counts.most_common()
        ]
        what = f"{self.source} has rows that cannot be used{ending}:\n"
        return CorpusError(what + "\n".join(lines) + "\nhint: mend or remove them")


def shown(value: object, most: int = 40) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
