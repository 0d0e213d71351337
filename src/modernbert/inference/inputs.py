"""What a user hands in: lists of texts, of pairs, or of words, checked before any work; of streams, each item
as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import TypeVar, cast

import numpy as np

from modernbert.errors import InputError

Item = TypeVar("Item")
Text = str | tuple[str, str]
TextOrWords = str | tuple[str, str] | list[str]


def as_text(text: str, name: str) -> str:
    """One string; `name` says which argument it is."""
    if not isinstance(cast(object, text), str):
        raise InputError(f"{name} is one string, not of type {type(text).__name__}")
    return text


def as_texts(texts: Sequence[str]) -> list[str]:
    """A list of strings; a lone string counts as a list of one."""
    return [_checked(text, f"text {i}") for i, text in enumerate(_as_list(texts))]


def as_texts_or_pairs(texts: Sequence[Text]) -> list[str] | list[tuple[str, str]]:
    """A list of strings, or a list of pairs of them; the two are not mixed."""
    if isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(text, str) for text in texts):
        raise InputError("two strings in a tuple may be a pair or two texts; write [(a, b)] or [a, b]")
    listed = _as_list(texts)
    num_texts = sum(isinstance(text, str) for text in listed)
    if num_texts == 0:
        return [_as_pair(pair, i) for i, pair in enumerate(listed)]
    if num_texts < len(listed) and all(isinstance(text, str | tuple | list) for text in listed):
        raise InputError(f"{num_texts} of {len(listed)} inputs are single texts; texts and pairs go apart")
    return as_texts(cast(Sequence[str], listed))


def as_texts_or_words(texts: Sequence[str | Sequence[str]]) -> list[str | list[str]]:
    """A list whose members are texts, or the words of one."""
    return [
        text if isinstance(text, str) else _as_words(text, f"text {i}")
        for i, text in enumerate(_as_list(texts))
    ]


def streamed_text(item: object, index: int) -> str:
    """An item of a stream, which is a text."""
    if not isinstance(item, str):
        raise InputError(
            f"text {index} is of type {type(item).__name__}, not str; stream(items, text=...) takes a "
            "function from an item to its text"
        )
    return item


def streamed_text_or_words(item: object, index: int) -> TextOrWords:
    """An item of a stream, which is a text or the words of one."""
    return _as_words(item, f"text {index}") if isinstance(item, list | tuple) else streamed_text(item, index)


def streamed_text_or_pair(item: object, index: int) -> TextOrWords:
    """An item of a stream, which is a text or a pair of them."""
    return _as_pair(item, index) if isinstance(item, list | tuple) else streamed_text(item, index)


def entries(
    items: Iterable[Item], text: Callable[[Item], object] | None, check: Callable[[object, int], TextOrWords]
) -> Iterator[tuple[Item, TextOrWords]]:
    """Each item of a stream with its text: what `text` takes from it, else the item itself."""
    first: type | None = None
    for index, item in enumerate(items):
        found = check(item if text is None else text(item), index)
        first = first or type(found)
        if tuple in (first, type(found)) and type(found) is not first:
            kind = "pair" if isinstance(found, tuple) else "single text"
            raise InputError(f"item {index} is a {kind}, unlike those before it; texts and pairs go apart")
        yield item, found


def require_iterable(items: object) -> None:
    """Raise InputError for what is one text, or no texts at all."""
    if isinstance(items, str | bytes | bytearray | Mapping) or not isinstance(items, Iterable):
        raise InputError(
            f"a stream takes texts one by one, not one {type(items).__name__}; one text comes as [text]"
        )


def lowered(texts: Sequence[Text]) -> list[Text]:
    """The same texts or pairs in lower case."""
    return [text.lower() if isinstance(text, str) else (text[0].lower(), text[1].lower()) for text in texts]


def require_positive(name: str, value: int) -> None:
    """Raise InputError unless the number is whole, and 1 or more."""
    require_whole(name, value)
    if value < 1:
        raise InputError(f"{name} must be 1 or more, found {value}")


def require_whole(name: str, value: int) -> None:
    """Raise InputError unless the value is a whole number."""
    if not isinstance(cast(object, value), Integral) or isinstance(value, bool):
        raise InputError(f"{name} must be a whole number, found {value!r}")


def _as_list(texts: object) -> list[object]:
    if isinstance(texts, np.ndarray):
        texts = texts.tolist()  # a str where the array has no dimension
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Sequence) or isinstance(texts, bytes | bytearray | memoryview):
        raise InputError(f"texts come as a list of strings, not as {type(texts).__name__}")
    return list(cast("Sequence[object]", texts))


def _as_pair(pair: object, index: int) -> tuple[str, str]:
    texts = _as_list(pair)
    if len(texts) != 2:
        raise InputError(f"input {index} has {len(texts)} texts; a pair has two")
    return _checked(texts[0], f"text 0 of pair {index}"), _checked(texts[1], f"text 1 of pair {index}")


def _as_words(words: object, what: str) -> list[str]:
    return [_checked(word, f"{what}: word {i}") for i, word in enumerate(_as_list(words))]


def _checked(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"{what} is of type {type(text).__name__}, not str")
    return text
