"""Packed weights in a file of their own: mapped, shared, never of other weights, never a reason to fail."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import modernbert
from modernbert.encoder import native, packed_file
from modernbert.heads.embed import EmbedHeadConfig
from tests.encoder.native_models import needs_native
from tests.inference.tiny import age, write_tiny

TEXTS = ["Paris is the capital of France.", "bread", "He walked to the store and bought some bread"]
pytestmark = needs_native


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for packed files, taken for models of any size."""
    monkeypatch.setenv(packed_file.FOLDER_VARIABLE, str(tmp_path / "packed"))
    monkeypatch.setattr(native, "FEWEST_BYTES", 0)
    return tmp_path / "packed"


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path / "model")


def written(folder, **head):
    """A tiny model whose files have not changed for a day."""
    write_tiny(folder, EmbedHeadConfig(**head))
    age(folder)
    return folder


def load(folder, dtype="float32"):
    return modernbert.load(folder, dtype=dtype, device="cpu")


def is_mapped(model):
    plan = model.encoder.native._cache.plan
    return plan is not None and plan.num_bytes == 0


def test_the_first_load_writes_and_all_map_with_the_same_bits(folder, place, monkeypatch):
    first, second = load(folder), load(folder)
    assert len(list(place.iterdir())) == 1
    assert is_mapped(first)
    assert is_mapped(second)
    monkeypatch.setenv(packed_file.FOLDER_VARIABLE, "")
    alone = load(folder)
    assert not is_mapped(alone)
    for model in (first, second):
        assert np.array_equal(model.embed(TEXTS), alone.embed(TEXTS))


def test_8_bits_have_a_file_of_their_own(folder, place, monkeypatch):
    whole, bytes_ = load(folder), load(folder, "int8")
    assert len(list(place.iterdir())) == 2
    assert is_mapped(bytes_)
    assert is_mapped(load(folder, "int8"))
    assert not np.array_equal(whole.embed(TEXTS), bytes_.embed(TEXTS))
    monkeypatch.setenv(packed_file.FOLDER_VARIABLE, "")
    assert np.array_equal(bytes_.embed(TEXTS), load(folder, "int8").embed(TEXTS))


def test_a_folder_that_was_saved_over_is_packed_anew_and_the_old_file_goes(folder, place):
    old = load(folder)
    expected = old.embed(TEXTS)
    changed = load(folder)
    with torch.no_grad():
        changed.encoder.layers[0].mlp.Wo.weight *= 2
    changed.save(folder)
    age(folder)
    again = load(folder)
    assert len(list(place.iterdir())) == 1
    assert is_mapped(again)
    assert np.array_equal(again.embed(TEXTS), changed.embed(TEXTS))
    assert not np.array_equal(again.embed(TEXTS), expected)
    assert np.array_equal(old.embed(TEXTS), expected)  # who has the old file mapped keeps it


def test_what_is_changed_in_memory_is_not_kept_for_others(folder, place):
    model = load(folder)
    expected = model.embed(TEXTS)
    with torch.no_grad():
        model.encoder.layers[1].attn.Wqkv.weight.mul_(2)
    assert not np.array_equal(model.embed(TEXTS), expected)
    assert not is_mapped(model)
    assert np.array_equal(load(folder).embed(TEXTS), expected)


@pytest.mark.parametrize("harm", ["cut", "empty", "longer", "other"])
def test_a_file_that_is_not_of_these_weights_is_not_taken_but_replaced(tmp_path, folder, place, harm):
    expected = load(folder).embed(TEXTS)
    (path,) = place.iterdir()
    content = path.read_bytes()
    path.unlink()  # not written in place, where it is mapped
    other = bytearray(content)
    other[: len(other) // 2] = bytes(len(other) // 2)
    path.write_bytes(
        {"cut": content[:-64], "empty": b"", "longer": content + bytes(64), "other": bytes(other)}[harm]
    )
    model = load(folder)
    assert np.array_equal(model.embed(TEXTS), expected)
    assert path.read_bytes() == content
    assert is_mapped(model)


def test_where_no_file_can_be_written_weights_are_packed_in_memory(folder, place):
    place.write_text("a file in the place of the folder")
    model = load(folder)
    assert not is_mapped(model)
    assert model.embed(TEXTS).shape == (3, 64)


def test_nothing_is_kept_of_files_that_have_just_been_written(tmp_path, place):
    model = load(write_tiny(tmp_path / "new", EmbedHeadConfig()))
    model.embed(TEXTS)
    assert not place.exists()


def test_nothing_is_kept_where_it_is_not_worth_a_file_or_not_wanted(folder, place, monkeypatch):
    monkeypatch.setattr(native, "FEWEST_BYTES", packed_file.FEWEST_BYTES)
    load(folder).embed(TEXTS)
    monkeypatch.setattr(native, "FEWEST_BYTES", 0)
    modernbert.load(folder, dtype="float32", backend="sdpa").embed(TEXTS)
    monkeypatch.setenv(packed_file.FOLDER_VARIABLE, "")
    load(folder).embed(TEXTS)
    assert not place.exists()


def test_many_may_load_at_once(folder, place):
    with ThreadPoolExecutor(6) as pool:
        models = list(pool.map(lambda _: load(folder), range(12)))
    assert len(list(place.iterdir())) == 1
    expected = models[0].embed(TEXTS)
    assert all(np.array_equal(model.embed(TEXTS), expected) for model in models)
