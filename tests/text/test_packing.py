from hypothesis import given
from hypothesis import strategies as st

from modernbert.text.packing import pack_by_budget

lengths_of_texts = st.lists(st.integers(1, 60), max_size=50)


@given(lengths=lengths_of_texts, budget=st.integers(1, 80))
def test_every_sequence_is_in_one_pack(lengths, budget):
    packs = pack_by_budget(lengths, budget)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(packs)


@given(lengths=lengths_of_texts, budget=st.integers(1, 80))
def test_a_pack_of_several_keeps_to_the_budget(lengths, budget):
    for pack in pack_by_budget(lengths, budget):
        assert len(pack) == 1 or sum(lengths[index] for index in pack) <= budget


@given(lengths=lengths_of_texts, budget=st.integers(1, 80))
def test_lengths_fall_from_pack_to_pack(lengths, budget):
    in_order = [lengths[index] for pack in pack_by_budget(lengths, budget) for index in pack]
    assert in_order == sorted(lengths, reverse=True)


def test_equal_lengths_keep_their_order():
    assert pack_by_budget([2, 2, 2], budget_tokens=4) == [[0, 1], [2]]


def test_a_sequence_longer_than_the_budget_is_alone():
    assert pack_by_budget([3, 9, 4, 2], budget_tokens=8) == [[1], [2, 0], [3]]


def test_nothing_makes_no_packs():
    assert pack_by_budget([], budget_tokens=8) == []
