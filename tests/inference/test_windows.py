"""Windows read ahead: their sizes, their order, and what becomes of the thread that reads them."""

import itertools
import threading
import time

import pytest

from modernbert.errors import InputError
from modernbert.inference.windows import (
    FIRST_CHARACTERS,
    FIRST_TEXTS,
    MOST_CHARACTERS,
    MOST_TEXTS,
    fits_first_window,
    read_ahead,
)

# A thread ends within microseconds of its last step; a busy machine may not run it for a while.
SOON_S = 10.0


def entries_of(texts):
    return ((text, text) for text in texts)


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


def wait_until_read(expected=0):
    end = time.monotonic() + SOON_S
    while len(readers()) > expected and time.monotonic() < end:
        time.sleep(0.01)
    assert len(readers()) == expected


def test_windows_grow_and_hold_every_item_once_and_in_order():
    found = list(read_ahead(entries_of(str(i) for i in range(5000)), lambda window: window, patience_s=None))
    sizes = [len(each.window) for each in found]
    assert sizes[:5] == [FIRST_TEXTS, FIRST_TEXTS * 2, FIRST_TEXTS * 4, FIRST_TEXTS * 8, MOST_TEXTS]
    assert max(sizes) == MOST_TEXTS
    assert [item for each in found for item in each.window.items] == [str(i) for i in range(5000)]
    assert [each.window.first for each in found] == [0, *itertools.accumulate(sizes)][:-1]
    assert all(each.reading is each.window for each in found)


def test_windows_of_long_texts_hold_few_of_them():
    text = "a" * (MOST_CHARACTERS // 4)
    sizes = [
        len(each.window) for each in read_ahead(entries_of([text] * 20), lambda window: 0, patience_s=None)
    ]
    assert sizes[0] == 1
    assert max(sizes) == 4


def test_a_list_that_is_one_window_is_known():
    assert fits_first_window(["a"] * FIRST_TEXTS)
    assert not fits_first_window(["a"] * (FIRST_TEXTS + 1))
    assert not fits_first_window(["a" * FIRST_CHARACTERS, "a"])
    assert fits_first_window([("a", "b"), ["a", "b", "c"]])


def test_no_more_than_three_windows_are_ahead():
    taken = []

    def entries():
        for number in itertools.count():
            taken.append(number)
            yield number, "a" * MOST_CHARACTERS  # a window each

    windows = read_ahead(entries(), lambda window: 0, patience_s=None)
    next(windows)
    time.sleep(0.3)
    assert len(taken) <= 4
    windows.close()
    wait_until_read()


def test_who_waits_takes_what_a_slow_source_has_given():
    goes_on = threading.Event()

    def entries():
        yield from entries_of(["a", "b", "c"])
        assert goes_on.wait(SOON_S)
        yield "d", "d"

    windows = read_ahead(entries(), lambda window: window.texts, patience_s=0.01)
    given = []
    while len(given) < 3:  # a busy machine may give them one by one
        given += next(windows).reading
    assert given == ["a", "b", "c"]
    goes_on.set()
    assert [text for each in windows for text in each.reading] == ["d"]


def test_an_error_of_the_source_comes_behind_what_it_gave():
    def entries():
        yield from entries_of(["a", "b"])
        raise LookupError("the disk is gone")

    windows = read_ahead(entries(), lambda window: window.texts, patience_s=None)
    assert next(windows).reading == ["a", "b"]
    with pytest.raises(LookupError, match="the disk is gone"):
        next(windows)
    wait_until_read()


def test_an_error_of_reading_comes_in_its_window():
    def read(window):
        if window.first == 0:
            raise InputError("no")
        return window.texts

    found = list(read_ahead(entries_of(["a"] * (FIRST_TEXTS + 1)), read, patience_s=None))
    assert isinstance(found[0].reading, InputError)
    assert found[1].reading == ["a"]


def test_any_other_error_of_reading_is_raised():
    def read(window):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(read_ahead(entries_of(["a"]), read, patience_s=None))


@pytest.mark.parametrize("end", ["close", "forget"])
def test_a_reader_that_is_not_needed_any_more_ends(end):
    windows = read_ahead(entries_of(itertools.repeat("a")), lambda window: 0, patience_s=None)
    next(windows)
    assert len(readers()) == 1
    if end == "close":
        windows.close()
    del windows
    wait_until_read()


def test_closing_does_not_wait_for_a_source_that_gives_nothing():
    goes_on = threading.Event()

    def entries():
        yield "a", "a"
        goes_on.wait(60)
        yield "b", "b"

    windows = read_ahead(entries(), lambda window: 0, patience_s=0.0)
    next(windows)
    started = time.monotonic()
    windows.close()
    assert time.monotonic() - started < SOON_S
    assert len(readers()) == 1
    goes_on.set()
    wait_until_read()
