"""Packing sequences end to end, from lists and out of padded batches."""

import pytest
import torch

from modernbert.errors import InputError
from modernbert.text.batch import PackedBatch


def test_sequences_lie_end_to_end_with_the_bounds_between_them():
    batch = PackedBatch.from_sequences([[7, 8, 9, 5], [3, 4], [6]])
    assert batch.token_ids.tolist() == [7, 8, 9, 5, 3, 4, 6]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 0]
    assert batch.cu_seqlens.tolist() == [0, 4, 6, 7]
    assert batch.cu_seqlens.dtype == torch.int32
    assert (batch.max_seqlen, batch.num_tokens, batch.num_sequences) == (4, 7, 3)
    assert batch.lengths.tolist() == [4, 2, 1]
    assert batch.token_types is None


def test_token_types_follow_their_tokens():
    batch = PackedBatch.from_sequences([[7, 8], [3]], token_types=[[0, 1], [1]])
    assert batch.token_types is not None
    assert batch.token_types.tolist() == [0, 1, 1]


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padding_on_any_side_is_taken_out(side):
    rows = {
        "left": ([[0, 0, 7, 8], [1, 2, 3, 4]], [[0, 0, 1, 1], [1, 1, 1, 1]]),
        "right": ([[7, 8, 0, 0], [1, 2, 3, 4]], [[1, 1, 0, 0], [1, 1, 1, 1]]),
        "both": ([[0, 7, 8, 0], [1, 2, 3, 4]], [[0, 1, 1, 0], [1, 1, 1, 1]]),
    }
    ids, mask = (torch.tensor(part) for part in rows[side])
    batch = PackedBatch.from_padded(ids, mask, token_type_ids=mask)
    expected = PackedBatch.from_sequences([[7, 8], [1, 2, 3, 4]], token_types=[[1, 1], [1, 1, 1, 1]])
    assert batch.token_types is not None
    assert expected.token_types is not None
    assert torch.equal(batch.token_ids, expected.token_ids)
    assert torch.equal(batch.position_ids, expected.position_ids)
    assert torch.equal(batch.cu_seqlens, expected.cu_seqlens)
    assert torch.equal(batch.token_types, expected.token_types)
    assert batch.max_seqlen == 4


def test_split_gives_each_sequence_its_own_rows():
    batch = PackedBatch.from_sequences([[7, 8, 9], [3], [4, 4]])
    parts = batch.split(torch.arange(12).reshape(6, 2))
    assert [part.tolist() for part in parts] == [[[0, 1], [2, 3], [4, 5]], [[6, 7]], [[8, 9], [10, 11]]]


def test_to_moves_every_tensor():
    batch = PackedBatch.from_sequences([[7, 8]], token_types=[[0, 1]]).to("meta")
    tensors = (batch.token_ids, batch.position_ids, batch.cu_seqlens, batch.token_types)
    assert all(tensor is not None and tensor.is_meta for tensor in tensors)
    assert batch.max_seqlen == 2


def test_a_batch_of_no_sequences_is_an_error():
    with pytest.raises(InputError, match="at least one sequence, found none"):
        PackedBatch.from_sequences([])


def test_a_sequence_without_tokens_is_an_error_that_names_it():
    with pytest.raises(InputError, match="sequence 1 of the batch has no tokens"):
        PackedBatch.from_sequences([[1], [], [2]])
    with pytest.raises(InputError, match="sequence 0 of the batch has no tokens"):
        PackedBatch.from_padded(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[0, 0], [1, 1]]))


def test_types_of_other_lengths_than_the_sequences_are_an_error():
    with pytest.raises(InputError, match="one type for each token"):
        PackedBatch.from_sequences([[1, 2]], token_types=[[0]])


def test_a_mask_of_another_shape_is_an_error_that_shows_both():
    with pytest.raises(InputError, match=r"found \(1, 2\) and \(2, 2\)"):
        PackedBatch.from_padded(torch.tensor([[1, 2]]), torch.ones(2, 2))
