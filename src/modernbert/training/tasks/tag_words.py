"""Words and spans of a row of tagged text: one as the other, whichever the file had."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from modernbert.corpus.labelled import Row
from modernbert.inference.entities import OUTSIDE, TaggedWord, merge_entities
from modernbert.inference.words import Span, word_spans


def text_or_words(row: Row) -> str | list[str]:
    """What `Model.tag` takes: the text, or its words where the file had words."""
    return row["words"] if "words" in row else row["text"]


def spans_of(row: Row) -> tuple[str, list[dict[str, Any]]]:
    """The text of a row and its spans, each with start, end and label, by characters of the text."""
    if "spans" in row:
        return row["text"], row["spans"]
    text = " ".join(row["words"])
    tagged = [
        TaggedWord(start=start, end=end, tag=tag, score=1.0)
        for (start, end), tag in zip(word_spans(row["words"]), row["tags"], strict=True)
    ]
    return text, [
        {"start": each.start, "end": each.end, "label": each.label} for each in merge_entities(text, tagged)
    ]


def tags_of_spans(words: Sequence[Span], spans: Sequence[Mapping[str, Any]]) -> tuple[list[str], int]:
    """IOB2 tags of the words that spans in order touch, and how many spans begin or end inside a word.

    Of two spans in one word, the first has it.
    """
    starts, ends = [start for start, _ in words], [end for _, end in words]
    tags = [OUTSIDE] * len(words)
    num_cut = free = 0
    for span in spans:
        first = bisect_right(ends, span["start"])
        last = bisect_left(starts, span["end"]) - 1  # the last that begins before the span ends
        if first > last:
            continue
        num_cut += starts[first] != span["start"] or ends[last] != span["end"]
        inside = range(max(first, free), last + 1)
        for word in inside:
            tags[word] = f"{'B' if word == inside.start else 'I'}-{span['label']}"
        free = last + 1
    return tags, num_cut
