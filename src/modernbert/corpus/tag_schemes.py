"""Tags of any scheme as IOB2, where each entity begins with B- and goes on with I-.

    IOB1     I-PER I-PER B-PER O        B- only where an entity follows one of its kind
    IOB2     B-PER I-PER B-PER O
    BILOU    B-PER L-PER U-PER O        last and single words have letters of their own
    BIOES    B-PER E-PER S-PER O
    plain    PER   PER   PER   O        no letters: neighbours of a kind are one entity

One rule serves all of them, so that a file is read once: a word goes on with an entity where its letter says
so and the word before is of the same entity. Which scheme it was is known from what was seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Scheme = Literal["IOB1", "IOB2", "BILOU", "BIOES", "plain", "none"]
OUTSIDE = "O"
_LETTERS = frozenset("BILUES")
_GOES_ON = frozenset("ILE")
_CLOSES = frozenset("LUES")


@dataclass(kw_only=True, slots=True)
class TagsSeen:
    """What the tags of a file were like.

    `opened_by` counts the letters by which entities that follow none of their kind begin. `unclosed` counts
    entities that end without a closing letter, of which only BILOU and BIOES know.
    """

    letters: Counter[str] = field(default_factory=Counter[str])
    labels: Counter[str] = field(default_factory=Counter[str])
    opened_by: Counter[str] = field(default_factory=Counter[str])
    unclosed: int = 0

    @property
    def scheme(self) -> Scheme:
        """The one that explains most; IOB1 where more entities begin with I- than with B-."""
        if self.letters["U"] or self.letters["L"]:
            return "BILOU"
        if self.letters["E"] or self.letters["S"]:
            return "BIOES"
        if self.letters[""]:
            return "plain"
        if not self.letters:
            return "none"
        return "IOB1" if self.opened_by["I"] > self.opened_by["B"] else "IOB2"

    @property
    def num_repaired(self) -> int:
        """Tags that were against the scheme: entities that began in their middle, or never ended."""
        if self.scheme in ("IOB1", "plain", "none"):
            return 0
        begun = sum(self.opened_by[letter] for letter in _GOES_ON)
        return begun + (self.unclosed if self.scheme in ("BILOU", "BIOES") else 0)


def to_iob2(tags: Sequence[str], seen: TagsSeen) -> list[str]:
    """The tags of a sentence in IOB2, counted in `seen`; `first_fault` found none in them."""
    found: list[str] = []
    letter = label = ""  # of the word before, where an entity may go on
    for tag in tags:
        before, of_before = letter, label
        letter, label = _cut(tag)
        is_same = label != "" and label == of_before and before not in _CLOSES
        goes_on = is_same and (letter in _GOES_ON or letter == "")
        if not goes_on:
            seen.unclosed += of_before != "" and before in ("B", "I")
        if label == "":
            found.append(OUTSIDE)
            continue
        seen.letters[letter] += 1
        if not goes_on:
            seen.labels[label] += 1
            if not (letter == "B" and of_before == label):
                seen.opened_by[letter] += 1
        found.append(f"{'I' if goes_on else 'B'}-{label}")
    seen.unclosed += label != "" and letter in ("B", "I")
    return found


def first_fault(tags: Sequence[str], seen: TagsSeen) -> tuple[int, str] | None:
    """The place of the first tag that cannot be read, from 0, and why; None where all can."""
    has_letters = any(seen.letters[letter] for letter in _LETTERS)
    has_plain = seen.letters[""] > 0
    for place, tag in enumerate(tags):
        letter, label = _cut(tag)
        if tag != OUTSIDE and not label.strip():
            return place, f"{tag!r} names no label"
        if letter != "" and has_plain:
            return place, f"{tag!r} has a letter, where tags before it have none"
        if letter == "" and label != "" and has_letters:
            return place, f"{tag!r} has no letter of a scheme, where tags before it have one, such as B-PER"
        has_letters, has_plain = has_letters or letter != "", has_plain or (letter == "" and label != "")
    return None


def begins_inside(tag: str, as_iob2: str) -> bool:
    """Whether a tag that says that its entity began earlier was read as its beginning."""
    return _cut(tag)[0] in _GOES_ON and as_iob2.startswith("B-")


def _cut(tag: str) -> tuple[str, str]:
    """The letter and the label; both "" outside of entities, the first alone for tags without letters."""
    if tag == OUTSIDE:
        return "", ""
    letter, dash, label = tag.partition("-")
    return (letter, label) if dash and letter in _LETTERS else ("", tag)
