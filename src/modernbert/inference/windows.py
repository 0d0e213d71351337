"""From an iterator of any length to windows of it, read by a thread of their own ahead of the model.

    items --gathered--> windows --read (tokenised)--> one waits while the model has the one before

At any time three windows are in memory: one with the model, one read, one being gathered. The first is about
a pack, so that the model starts early; later ones are larger. Whoever waits while the items come slowly takes
what there is: an endless source that pauses does not keep back what it has given.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from threading import Condition, Thread, current_thread
from typing import Generic, TypeVar

from modernbert.errors import InputError, ModernBertError
from modernbert.inference.inputs import TextOrWords

Item = TypeVar("Item")
Reading = TypeVar("Reading")
# An item as it came, and its text.
Entry = tuple[Item, TextOrWords]

# Texts and characters of the first window, and of those behind it at most: about 16 packs of 4,096 tokens.
FIRST_TEXTS, MOST_TEXTS = 64, 1024
FIRST_CHARACTERS, MOST_CHARACTERS = 2**14, 2**18
# How long the model waits for a window to be full before it takes what has been gathered.
PATIENCE_S = 0.02
# A thread that reads a window ends within this; one that waits for its source is left to end by itself.
_JOIN_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Window(Generic[Item]):
    """Neighbouring items with their texts; `first` items came before them."""

    items: list[Item]
    texts: list[TextOrWords]
    first: int

    def __len__(self) -> int:
        return len(self.items)

    def halves(self) -> tuple[Window[Item], Window[Item]]:
        """The first half and the rest."""
        middle = len(self) // 2
        return (
            Window(items=self.items[:middle], texts=self.texts[:middle], first=self.first),
            Window(items=self.items[middle:], texts=self.texts[middle:], first=self.first + middle),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadWindow(Generic[Item, Reading]):
    """A window with what its texts became, or with the error of one of them."""

    window: Window[Item]
    reading: Reading | ModernBertError


def fits_first_window(texts: Iterable[TextOrWords]) -> bool:
    """Whether so few texts are in memory that no thread need read them ahead."""
    num_characters = 0
    for number, text in enumerate(texts):
        num_characters += _num_characters(text)
        if number >= FIRST_TEXTS or num_characters > FIRST_CHARACTERS:
            return False
    return True


def read_ahead(
    entries: Iterable[Entry[Item]], read: Callable[[Window[Item]], Reading], *, patience_s: float | None
) -> Generator[ReadWindow[Item, Reading]]:
    """Windows of the entries in their order, each read by one thread before it is asked for.

    What `entries` raises is raised here, behind the windows before it; a ModernBertError of `read` comes in
    its window. With `patience_s=None` only the last window is not full. Closing the generator, or letting go
    of it, ends the thread; one that waits for its source ends with the source's next item.
    """
    ahead = _Ahead(iter(entries), read)
    process = os.getpid()
    thread = Thread(target=ahead.run, name="read-ahead", daemon=True)
    thread.start()
    try:
        while (found := ahead.take(patience_s)) is not None:
            yield found
            if os.getpid() != process:
                raise InputError(
                    "this process was forked from the one that began the stream, whose thread stayed there; "
                    "begin a stream of its own here"
                )
    finally:
        # A child has copies of locks that nobody will release, and a forgotten generator ends in any thread.
        if os.getpid() == process:
            ahead.stop()
            if thread is not current_thread():
                thread.join(_JOIN_S)


class _Ahead(Generic[Item, Reading]):
    """What the thread and its caller share, under one lock."""

    def __init__(self, entries: Iterator[Entry[Item]], read: Callable[[Window[Item]], Reading]) -> None:
        self._entries = entries
        self._read = read
        self._changed = Condition()
        self._gathered: list[Entry[Item]] = []
        self._num_characters = 0
        self._num_windows = self._num_given = 0
        self._ready: deque[ReadWindow[Item, Reading]] = deque()
        self._is_stopped = self._is_ended = False
        self._error: BaseException | None = None

    def run(self) -> None:
        """The thread's life."""
        # A process that ends closes stdin, unless somebody holds it, and aborts where a thread waits for it.
        _held = sys.stdin
        error: BaseException | None = None
        try:
            self._gather()
        except BaseException as raised:  # whatever it is, it belongs to who waits for the windows
            error = raised
        try:
            with self._changed:
                rest = self._close_window()
            if rest is not None:
                self._hand_over(rest)
        except BaseException as raised:
            error = raised
        with self._changed:
            self._is_ended, self._error = True, error
            self._changed.notify_all()

    def take(self, patience_s: float | None) -> ReadWindow[Item, Reading] | None:
        """The next window, None behind the last one, or the error that ended the entries."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._has_news or (patience_s is not None and self._gathered))
                if not self._has_news:
                    self._changed.wait_for(lambda: self._has_news, patience_s)
                if self._ready:
                    self._changed.notify_all()
                    return self._ready.popleft()
                if self._is_ended:
                    break
                # None where the thread has just closed it: while it reads one, nothing more is gathered.
                window = self._close_window()
            if window is not None:
                return self._as_read(window)
        if self._error is not None:
            raise self._error
        return None

    def stop(self) -> None:
        """Let the thread end at its next step."""
        with self._changed:
            self._is_stopped = True
            self._ready.clear()
            self._gathered.clear()
            self._changed.notify_all()

    @property
    def _has_news(self) -> bool:
        return bool(self._ready) or self._is_ended

    def _gather(self) -> None:
        for entry in self._entries:
            with self._changed:
                if self._is_stopped:
                    return
                self._gathered.append(entry)
                self._num_characters += _num_characters(entry[1])
                if len(self._gathered) == 1:
                    self._changed.notify_all()
                window = self._close_window() if self._is_full else None
            if window is not None:
                self._hand_over(window)

    def _hand_over(self, window: Window[Item]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._ready or self._is_stopped)
            if self._is_stopped:
                return
        found = self._as_read(window)
        with self._changed:
            self._ready.append(found)
            self._changed.notify_all()

    @property
    def _is_full(self) -> bool:
        growth = 2 ** min(self._num_windows, 16)
        return len(self._gathered) >= min(MOST_TEXTS, FIRST_TEXTS * growth) or self._num_characters >= min(
            MOST_CHARACTERS, FIRST_CHARACTERS * growth
        )

    def _close_window(self) -> Window[Item] | None:
        """The window of what has been gathered; the lock is held."""
        if not self._gathered:
            return None
        items, texts = zip(*self._gathered, strict=True)
        window = Window(items=list(items), texts=list(texts), first=self._num_given)
        self._num_given += len(window)
        self._num_windows += 1
        self._gathered.clear()
        self._num_characters = 0
        return window

    def _as_read(self, window: Window[Item]) -> ReadWindow[Item, Reading]:
        try:
            return ReadWindow(window=window, reading=self._read(window))
        except ModernBertError as error:
            return ReadWindow(window=window, reading=error)


def _num_characters(text: TextOrWords) -> int:
    return len(text) if isinstance(text, str) else sum(map(len, text))
