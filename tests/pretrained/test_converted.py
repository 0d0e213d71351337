"""Weights in another number format than their file's: made once, mapped, never a reason to fail."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import modernbert
from modernbert.encoder import packed_file
from modernbert.heads.embed import EmbedHeadConfig
from modernbert.pretrained import converted
from modernbert.pretrained import folder as folder_module
from modernbert.pretrained.folder import read_folder, write_folder
from tests.inference.tiny import age, write_tiny


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for converted weights, taken for models of any size."""
    monkeypatch.setenv(packed_file.FOLDER_VARIABLE, str(tmp_path / "packed"))
    monkeypatch.setattr(converted, "FEWEST_BYTES", 0)
    return tmp_path / "packed"


@pytest.fixture
def folder(tmp_path):
    write_tiny(tmp_path / "model", EmbedHeadConfig())
    age(tmp_path / "model")
    return tmp_path / "model"


def load(folder, dtype):
    return modernbert.load(folder, dtype=dtype, device="cpu", backend="sdpa")


def state(model):
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def only_file(place):
    [path] = place.glob("*-weights_*")
    return path


def is_mapped(path):
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return any(line.rstrip().endswith(str(path)) for line in maps)


def test_the_first_load_writes_and_all_map(folder, place, monkeypatch):
    first = load(folder, "bfloat16")
    path = only_file(place)
    assert is_mapped(path)
    written = path.stat()
    second = load(folder, "bfloat16")
    assert path.stat() == written
    monkeypatch.setenv(packed_file.FOLDER_VARIABLE, "")
    alone = load(folder, "bfloat16")
    assert next(alone.module.parameters()).dtype == torch.bfloat16
    for model in (first, second):
        assert_same(state(model), state(alone))


def test_what_the_file_stores_is_not_written_again(folder, place):
    load(folder, "float32")
    assert not place.exists() or not list(place.glob("*-weights_*"))


def test_stored_in_half_and_read_whole(folder, place, tmp_path):
    half = read_folder(folder, dtype=torch.bfloat16)
    write_folder(tmp_path / "half", half)
    age(tmp_path / "half")
    load(tmp_path / "half", "float32")
    whole = load(tmp_path / "half", "float32")
    assert is_mapped(only_file(place))
    assert_same(state(whole), {name: tensor.float() for name, tensor in half.module.state_dict().items()})


def test_matrices_of_8_bits_are_mapped_in_floats(folder, place, tmp_path, monkeypatch):
    write_folder(tmp_path / "int8", read_folder(folder), layout="int8")
    age(tmp_path / "int8")
    first, second = load(tmp_path / "int8", "float32"), load(tmp_path / "int8", "float32")
    path = only_file(place)
    assert "from_int8" in path.name
    assert is_mapped(path)
    monkeypatch.setenv(packed_file.FOLDER_VARIABLE, "")
    alone = state(load(tmp_path / "int8", "float32"))
    assert_same(state(first), alone)
    assert_same(state(second), alone)


def test_a_model_that_is_changed_keeps_it_to_itself(folder, place):
    changed = load(folder, "bfloat16")
    before = state(changed)
    written = only_file(place).read_bytes()
    with torch.no_grad():
        for parameter in changed.module.parameters():
            parameter.fill_(7)
    assert only_file(place).read_bytes() == written
    assert_same(state(load(folder, "bfloat16")), before)


@pytest.mark.parametrize("damage", ["cut", "empty", "another tensor", "another shape", "another format"])
def test_a_file_that_does_not_fit_is_made_anew(folder, place, damage):
    wanted = state(load(folder, "bfloat16"))
    path = only_file(place)
    tensors = load_file(path)
    name = next(iter(tensors))
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "another tensor":
        save_file(tensors | {"more": torch.zeros(3)}, path)
    elif damage == "another shape":
        save_file(tensors | {name: tensors[name].flatten()[:-1].clone()}, path)
    else:
        save_file(tensors | {name: tensors[name].float()}, path)
    assert_same(state(load(folder, "bfloat16")), wanted)
    assert only_file(place).read_bytes() == content


def test_a_folder_that_was_saved_over_is_converted_anew_and_the_old_file_goes(folder, place):
    load(folder, "bfloat16")
    old = only_file(place)
    changed = read_folder(folder)
    with torch.no_grad():
        for parameter in changed.module.parameters():
            parameter.mul_(2)
    write_folder(folder, changed)
    age(folder)
    wanted = {name: tensor.bfloat16() for name, tensor in changed.module.state_dict().items()}
    assert_same(state(load(folder, "bfloat16")), wanted)
    assert only_file(place) != old


def doubled(folder, target, layout="auto"):
    """The model with all numbers times two, as a folder of its own."""
    changed = read_folder(folder)
    with torch.no_grad():
        for parameter in changed.module.parameters():
            parameter.mul_(2)
    write_folder(target, changed, layout=layout)
    age(target)
    return target


@pytest.mark.parametrize("layout", ["auto", "int8"])
def test_what_is_read_while_others_save_is_of_one_save_and_so_is_the_file(
    folder, place, tmp_path, monkeypatch, layout
):
    dtype = "bfloat16" if layout == "auto" else "float32"
    write_folder(tmp_path / "first", read_folder(folder), layout=layout)
    age(tmp_path / "first")
    second = doubled(folder, tmp_path / "second", layout)
    wanted = [state(load(each, dtype)) for each in (tmp_path / "first", second)]
    for path in place.iterdir():
        path.unlink()
    link = tmp_path / "current"
    true_read = folder_module.read_weights
    for is_first_kept in (False, True):
        link.symlink_to(tmp_path / "first")
        if is_first_kept:
            load(link, dtype)

        def read_and_switch(path):
            if os.readlink(link) != str(second):
                link.unlink()
                link.symlink_to(second)
            return true_read(path)

        with monkeypatch.context() as patch:
            patch.setattr(folder_module, "read_weights", read_and_switch)
            assert_same(state(load(link, dtype)), wanted[1])
        assert_same(state(load(tmp_path / "first", dtype)), wanted[0])
        link.unlink()


def test_shards_of_any_name_are_seen_to_change(folder, place, tmp_path):
    second = doubled(folder, tmp_path / "second")
    shard = "pytorch_model-00001-of-00001.safetensors"
    for each in (folder, second):
        (each / "model.safetensors").rename(each / shard)
        index = {"weight_map": dict.fromkeys(load_file(each / shard), shard)}
        (each / "model.safetensors.index.json").write_text(json.dumps(index))
        os.utime(each / "model.safetensors.index.json", ns=(0, 0))
    load(folder, "bfloat16")
    assert only_file(place)
    shutil.copy(second / shard, folder)
    age(folder)
    assert_same(state(load(folder, "bfloat16")), state(load(second, "bfloat16")))


def test_others_may_read_the_file(folder, place):
    load(folder, "bfloat16")
    mask = os.umask(0)
    os.umask(mask)
    assert only_file(place).stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_place_that_cannot_be_written_to_is_no_reason_to_fail(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(packed_file.FOLDER_VARIABLE, str(tmp_path / "file" / "packed"))
    monkeypatch.setattr(converted, "FEWEST_BYTES", 0)
    whole = read_folder(folder).module.state_dict()
    assert_same(state(load(folder, "bfloat16")), {name: tensor.bfloat16() for name, tensor in whole.items()})


def test_the_vectors_are_those_of_converted_weights(folder, place, monkeypatch):
    texts = ["Paris is the capital of France.", "bread"]
    load(folder, "bfloat16")
    mapped = load(folder, "bfloat16").embed(texts)
    monkeypatch.setenv(packed_file.FOLDER_VARIABLE, "")
    assert np.array_equal(mapped, load(folder, "bfloat16").embed(texts))
