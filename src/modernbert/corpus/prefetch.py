"""Work done ahead in a thread of its own, so that reading and masking happen while the model computes."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Semaphore, Thread, current_thread
from typing import Generic, TypeVar

Item = TypeVar("Item")


def prefetched(items: Iterator[Item], depth: int) -> Generator[Item]:
    """The same items, up to `depth` of them made ahead by one thread.

    What `items` raises is raised here, after the items before it. Closing the generator, or letting go of it,
    ends the thread and closes `items`; an item that is being made is finished first.
    """
    assert depth >= 1
    ready: SimpleQueue[_Made[Item] | _Ended] = SimpleQueue()
    room, stopped = Semaphore(depth), Event()
    thread = Thread(target=_make, args=(items, ready, room, stopped), name="prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(found := ready.get(), _Ended):
            room.release()
            yield found.item
        if found.error is not None:
            raise found.error
    finally:
        stopped.set()
        room.release()
        if thread is not current_thread():  # a forgotten generator is collected in any thread
            thread.join()


@dataclass(frozen=True, slots=True)
class _Made(Generic[Item]):
    item: Item


@dataclass(frozen=True, slots=True)
class _Ended:
    error: BaseException | None


def _make(
    items: Iterator[Item], ready: SimpleQueue[_Made[Item] | _Ended], room: Semaphore, stopped: Event
) -> None:
    try:
        while room.acquire() and not stopped.is_set():
            ready.put(_Made(next(items)))
    except StopIteration:
        ready.put(_Ended(None))
    except BaseException as error:  # whatever it is, it belongs to who waits for the items
        ready.put(_Ended(error))
    finally:
        if isinstance(items, Generator):
            items.close()
