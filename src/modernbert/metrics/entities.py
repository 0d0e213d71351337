"""How many entities are found whole: tags of words, or places in a text, to precision, recall and F1.

An entity is right where its label, start and end are all right: the measure of CoNLL-2000 (Tjong Kim Sang and
Buchholz 2000), by the rules of its script conlleval, which seqeval's default mode follows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from modernbert.metrics.classification import ClassFigures, of_counts

# Label, start, and the place after the end: of words or of characters, but the same on both sides.
Place = tuple[str, int, int]
# What is wanted of a text, and what was given.
Pair = tuple[set[Place], set[Place]]


def entities(tags: Sequence[str], *, is_strict: bool = False) -> set[Place]:
    """The entities of one sentence by its IOB2 tags, in words.

        B-PER I-PER O I-LOC  ->  (PER, 0, 2), (LOC, 3, 4)

    An I- that follows nothing of its label begins an entity. Strictly (seqeval's mode "strict", scheme IOB2)
    it is none.
    """
    found: set[Place] = set()
    start, label = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        position, _, name = tag.partition("-")
        if position == "I" and name == label:
            continue
        if label:
            found.add((label, start, place))
        begins = position == "B" or (position == "I" and not is_strict)
        start, label = place, name if begins else ""
    return found


def count(pairs: Iterable[Pair]) -> tuple[ClassFigures, dict[str, ClassFigures]]:
    """Figures of all entities together (micro), and of each label that is wanted or was given, by name."""
    right, given, real = Counter[str](), Counter[str](), Counter[str]()
    for wanted, found in pairs:
        right.update(label for label, _, _ in wanted & found)
        given.update(label for label, _, _ in found)
        real.update(label for label, _, _ in wanted)
    each = {
        label: of_counts(right[label], given[label], real[label])
        for label in sorted(given.keys() | real.keys())
    }
    return of_counts(right.total(), given.total(), real.total()), each


def figures(whole: ClassFigures, each: Mapping[str, ClassFigures]) -> dict[str, float]:
    """What `count` gives, in four numbers: F1, precision and recall of all, and the mean F1 of the labels."""
    macro = sum(one.f1 for one in each.values()) / max(len(each), 1)
    return {"f1": whole.f1, "precision": whole.precision, "recall": whole.recall, "macro_f1": macro}
