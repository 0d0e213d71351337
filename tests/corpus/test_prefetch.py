import threading
import time
from collections.abc import Iterator
from itertools import count, islice

import pytest

from modernbert.corpus.prefetch import prefetched

PATIENCE_S = 5.0


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def wait_for(condition) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


def test_items_come_in_their_order_and_the_thread_ends():
    assert list(prefetched(iter(range(100)), 3)) == list(range(100))
    assert list(prefetched(iter([]), 1)) == []
    assert "prefetch" not in names()


def test_items_are_made_in_another_thread_and_so_many_ahead():
    made: list[str] = []

    def items() -> Iterator[int]:
        for item in count():
            made.append(threading.current_thread().name)
            yield item

    ahead = prefetched(items(), 4)
    assert next(ahead) == 0
    wait_for(lambda: len(made) == 5)  # the one that was taken, and four that wait
    time.sleep(0.02)
    assert made == ["prefetch"] * 5
    assert list(islice(ahead, 3)) == [1, 2, 3]
    wait_for(lambda: len(made) == 8)
    ahead.close()


def test_a_failure_comes_after_the_items_before_it():
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise RuntimeError("the disk is gone")

    ahead = prefetched(items(), 5)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(RuntimeError, match="the disk is gone"):
        next(ahead)
    assert "prefetch" not in names()


@pytest.mark.parametrize("num_taken", [1, 3])
def test_closing_ends_the_thread_and_closes_the_items(num_taken):
    closed: list[bool] = []

    def items() -> Iterator[int]:
        try:
            yield from count()
        finally:
            closed.append(True)

    ahead = prefetched(items(), 2)
    assert list(islice(ahead, num_taken)) == list(range(num_taken))
    ahead.close()
    assert closed == [True]
    assert "prefetch" not in names()


def test_letting_go_ends_the_thread():
    ahead = prefetched(count(), 2)
    next(ahead)
    assert "prefetch" in names()
    del ahead
    wait_for(lambda: "prefetch" not in names())


def test_nothing_is_begun_before_the_first_item_is_asked_for():
    prefetched(count(), 2)
    assert "prefetch" not in names()
