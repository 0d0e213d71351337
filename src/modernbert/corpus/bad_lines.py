"""Counting the lines that held no document, and stopping where they are too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modernbert.corpus.documents import BadLine
from modernbert.errors import CorpusError

MAX_BAD_SHARE = 0.01
# A share of fewer lines than these says little: ten bad lines among the first hundred stop nothing.
_AT_LEAST = 1000
_SHOWN = 10


@dataclass(slots=True)
class BadLines:
    """How many lines were read, how many were bad, of what fault, and the first of them.

    `files` are the names behind the numbers of files.
    """

    files: Sequence[str]
    num_lines: int = 0
    faults: Counter[str] = field(default_factory=Counter[str])
    first: list[BadLine] = field(default_factory=list[BadLine])

    def add(self, bad: BadLine) -> None:
        """Count a bad line, which must also be counted in `num_lines`."""
        self.faults[bad.fault] += 1
        if len(self.first) < _SHOWN:
            self.first.append(bad)

    def merge(self, data: Mapping[str, Any]) -> None:
        """Count what another has counted, from its `as_data`."""
        self.num_lines += data["lines"]
        self.faults.update(data["faults"])
        room = _SHOWN - len(self.first)
        self.first += [BadLine(**each) for each in data["first"][:room]]

    def as_data(self) -> dict[str, Any]:
        """JSON-ready."""
        names = ("file", "line", "fault", "detail")
        first = [{name: getattr(bad, name) for name in names} for bad in self.first]
        return {"lines": self.num_lines, "faults": dict(sorted(self.faults.items())), "first": first}

    def require_few(self, max_bad_share: float) -> None:
        """CorpusError where more than that share of the lines is bad; 1,000 lines are taken for the least."""
        num_bad = self.faults.total()
        if num_bad > max_bad_share * max(self.num_lines, _AT_LEAST):
            raise CorpusError(
                f"{num_bad:,} of {self.num_lines:,} lines hold no document, more than a share of "
                f"{max_bad_share:g}:\n{self.report()}\n"
                "hint: --field names the field of the text; --max-bad-share allows more"
            )

    def require_documents(self) -> None:
        """CorpusError where every line was bad, or there was none."""
        if self.faults.total() == self.num_lines:
            found = (
                f"each of {self.num_lines:,} lines is bad:\n{self.report()}" if self.faults else "no lines"
            )
            raise CorpusError(f"no documents in {', '.join(self.files[:3])}: {found}")

    def report(self) -> str:
        """What was bad, for a person: how many of each fault, and the first of them."""
        counts = ", ".join(f"{fault} {count:,}" for fault, count in self.faults.most_common())
        lines = [f"  {where(self.files, bad.file, bad.line)}: {bad.detail}" for bad in self.first]
        return "\n".join([f"  {counts}", *lines])


def where(files: Sequence[str], file: int, line: int) -> str:
    """A place for a person, such as "books.jsonl.zst, line 123"."""
    return f"{files[file]}, line {line}" if line else files[file]
