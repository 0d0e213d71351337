import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.errors import InputError
from modernbert.text.chunking import (
    PairTemplate,
    Segment,
    SingleTemplate,
    Template,
    pair_windows,
    text_windows,
    windows,
)

CLS, SEP = 101, 102
BERT = Template(
    SingleTemplate(Segment((CLS,), (0,)), 0, Segment((SEP,), (0,))),
    PairTemplate(Segment((CLS,), (0,)), 0, Segment((SEP,), (0,)), 1, Segment((SEP,), (1,))),
)
XLMR = Template(
    SingleTemplate(Segment((0,), (0,)), 0, Segment((2,), (0,))),
    PairTemplate(Segment((0,), (0,)), 0, Segment((2, 2), (0, 0)), 0, Segment((2,), (0,))),
)
limits = st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))


@given(num_tokens=st.integers(1, 500), limit=limits)
def test_windows_cover_every_token_and_overlap_exactly(num_tokens, limit):
    size, overlap = limit
    ranges = windows(num_tokens, size, overlap)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == num_tokens
    assert all(0 < end - start <= size for start, end in ranges)
    assert all(end - start == size for start, end in ranges[:-1])
    assert all(before_end - start == overlap for (_, before_end), (start, _) in pairwise(ranges))


@given(num_tokens=st.integers(0, 500), limit=limits)
def test_no_window_is_without_a_token_of_its_own(num_tokens, limit):
    ranges = windows(num_tokens, *limit)
    assert all(before_end < end for (_, before_end), (_, end) in pairwise(ranges))


@given(size=st.integers(1, 40), data=st.data())
def test_a_text_that_fits_is_one_window(size, data):
    num_tokens = data.draw(st.integers(0, size))
    assert windows(num_tokens, size, data.draw(st.integers(0, size - 1))) == [(0, num_tokens)]


def test_no_tokens_give_one_empty_window():
    assert windows(0, 4, 1) == [(0, 0)]


@pytest.mark.parametrize(
    ("num_tokens", "size", "overlap"), [(-1, 4, 1), (5, 0, 0), (5, 4, 4), (5, 4, 9), (5, 4, -1)]
)
def test_impossible_windows_say_their_numbers(num_tokens, size, overlap):
    with pytest.raises(
        InputError, match=f"{size} tokens that overlap by {overlap} can cover {num_tokens} tokens"
    ):
        windows(num_tokens, size, overlap)


def test_a_long_text_becomes_windows_with_special_tokens():
    first, second = text_windows([1, 2, 3, 4, 5], BERT, max_length=5, overlap=1)
    assert first.token_ids == [CLS, 1, 2, 3, SEP]
    assert second.token_ids == [CLS, 3, 4, 5, SEP]
    assert (first.start, first.end, second.start, second.end) == (0, 3, 2, 5)
    assert first.token_types == second.token_types == [0] * 5


def test_an_empty_text_is_one_window_of_special_tokens():
    (window,) = text_windows([], BERT, max_length=8, overlap=2)
    assert window.token_ids == [CLS, SEP]
    assert (window.start, window.end, window.body_start) == (0, 0, 1)


def test_of_a_pair_only_the_second_text_is_cut():
    found = pair_windows([7, 8], [1, 2, 3], BERT, max_length=7, overlap=1)
    assert [window.token_ids for window in found] == [
        [CLS, 7, 8, SEP, 1, 2, SEP],
        [CLS, 7, 8, SEP, 2, 3, SEP],
    ]
    assert [window.token_types for window in found] == [[0, 0, 0, 0, 1, 1, 1]] * 2
    assert [window.body_start for window in found] == [4, 4]


def test_two_separators_stand_between_the_texts_of_xlmr():
    (window,) = pair_windows([7], [8], XLMR, max_length=20, overlap=0)
    assert window.token_ids == [0, 7, 2, 2, 8, 2]
    assert window.token_types == [0] * 6


@given(
    num_first=st.integers(0, 9),
    num_second=st.integers(0, 200),
    room=limits,
    template=st.sampled_from([BERT, XLMR]),
)
def test_every_window_token_is_where_it_says(num_first, num_second, room, template):
    first, second = [-1] * num_first, list(range(1000, 1000 + num_second))
    max_length = template.pair.num_specials + num_first + room[0]
    for window in pair_windows(first, second, template, max_length, room[1]):
        assert len(window.token_ids) == len(window.token_types) <= max_length
        body = window.token_ids[window.body_start : window.body_start + window.end - window.start]
        assert body == second[window.start : window.end]


def test_a_limit_without_room_for_text_says_the_numbers():
    with pytest.raises(
        InputError, match=r"limit of 2 tokens leaves no room for text: there are 2 special tokens\n"
    ):
        text_windows([1], BERT, max_length=2, overlap=0)


def test_a_question_that_fills_the_limit_says_the_numbers():
    with pytest.raises(
        InputError, match=r"limit of 8 tokens.* 3 special tokens and 5 of the first text\n.* 10 or more"
    ):
        pair_windows([1] * 5, [2], BERT, max_length=8, overlap=1)


def test_an_overlap_as_large_as_the_window_says_the_numbers():
    with pytest.raises(
        InputError, match=r"overlap of 6 .* limit of 8 tokens: with 2 special tokens,\nwindows hold 6"
    ):
        text_windows([1], BERT, max_length=8, overlap=6)


def test_chunking_needs_no_torch():
    script = "import sys, modernbert.text.chunking; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
