"""Tensors in and out of files: single, sharded, missing, cut, of another kind, and those that do not fit."""

from __future__ import annotations

import json
import struct
from functools import partial

import pytest
import torch
from torch import nn

from modernbert.errors import FolderError, WeightsError
from modernbert.pretrained.converted import cast
from modernbert.pretrained.weights import (
    INDEX_FILE,
    SINGLE_FILE,
    check_numbers,
    fill,
    not_numbers,
    read_file,
    read_json,
    read_weights,
    state_of,
    write_weights,
)

TENSORS = {
    "a": torch.arange(12.0).reshape(3, 4),
    "b": torch.ones(5, dtype=torch.bfloat16),
    "c": torch.arange(6).reshape(2, 3).t(),  # not contiguous
    "d": torch.empty(0, 3),
}
SHARDED = 60  # bytes: a (48) and b (10) in one file, c (48) and d (0) in the next


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == TENSORS.keys() and all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
        for name, tensor in TENSORS.items()
    )


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(2, 3)
        self.model = nn.Embedding(3, 2)
        self.decoder.weight = self.model.weight


@pytest.mark.parametrize(("shard_bytes", "num_files"), [(10**9, 1), (SHARDED, 2), (1, 4)])
def test_tensors_come_back_from_one_file_or_from_shards(tmp_path, shard_bytes, num_files):
    write_weights(tmp_path, TENSORS, shard_bytes)
    assert len(list(tmp_path.glob("*.safetensors"))) == num_files
    assert (tmp_path / INDEX_FILE).exists() == (num_files > 1)
    assert same(read_weights(tmp_path))


def test_the_index_says_what_other_tools_read(tmp_path):
    write_weights(tmp_path, TENSORS, SHARDED)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in TENSORS.values())
    assert index["weight_map"]["c"] == "model-00002-of-00002.safetensors"


def test_no_tensors_are_a_file_too(tmp_path):
    write_weights(tmp_path, {})
    assert read_weights(tmp_path) == {}


def test_a_folder_without_weights_says_what_it_has(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FolderError, match=rf"neither {SINGLE_FILE} nor {INDEX_FILE}; found: config.json"):
        read_weights(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(
        FolderError, match=r"Pickled weights can run code and are not read.*modernbert convert"
    ):
        read_weights(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FolderError, match=r"x.safetensors does not exist; download or copy the folder again"):
        read_file(tmp_path / "x.safetensors")


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_named_with_its_size(tmp_path, fraction):
    write_weights(tmp_path, TENSORS)
    path = tmp_path / SINGLE_FILE
    size = int(path.stat().st_size * fraction)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        FolderError, match=rf"{SINGLE_FILE} cannot be read as safetensors .*has {size:,} bytes"
    ):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 a zip file, as torch.save writes",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        b"<!DOCTYPE html><html>not found</html>",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 60) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}     ',
    ],
    ids=["zip", "lfs", "html", "huge header", "list", "beyond the end"],
)
def test_other_kinds_of_file_are_named(tmp_path, content):
    (tmp_path / SINGLE_FILE).write_bytes(content)
    with pytest.raises(
        FolderError, match=f"{SINGLE_FILE} cannot be read as safetensors.*another kind of file"
    ):
        read_weights(tmp_path)


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    (tmp_path / SINGLE_FILE).mkdir()
    with pytest.raises(FolderError, match="cannot be read as safetensors"):
        read_weights(tmp_path)


def test_a_missing_or_cut_shard_is_named(tmp_path):
    write_weights(tmp_path, TENSORS, SHARDED)
    second = tmp_path / "model-00002-of-00002.safetensors"
    content = second.read_bytes()
    second.write_bytes(content[:-1])
    with pytest.raises(FolderError, match=r"00002-of-00002.safetensors cannot be read as safetensors"):
        read_weights(tmp_path)
    second.unlink()
    with pytest.raises(FolderError, match=r"00002-of-00002.safetensors does not exist"):
        read_weights(tmp_path)


def change_index(folder, **changes: object) -> None:
    write_weights(folder, TENSORS, SHARDED)
    index = json.loads((folder / INDEX_FILE).read_text())
    index["weight_map"] |= changes
    (folder / INDEX_FILE).write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ""])
def test_a_shard_outside_the_folder_is_refused(tmp_path, name):
    change_index(tmp_path, e=name)
    with pytest.raises(FolderError, match=f"names a shard outside its folder: {name!r}"):
        read_weights(tmp_path)


@pytest.mark.parametrize("value", [3, None, ["x"], {"file": "x"}])
def test_a_shard_that_is_no_name_is_refused(tmp_path, value):
    change_index(tmp_path, e=value)
    with pytest.raises(FolderError, match="must name a file for each tensor; for 'e' it has"):
        read_weights(tmp_path)


def test_an_index_that_promises_too_much_or_too_little_names_the_tensors(tmp_path):
    change_index(tmp_path, e="model-00001-of-00002.safetensors")
    with pytest.raises(WeightsError, match="promises tensors that no shard holds: e"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON .*; a cut download, or another kind of file"),
        ("", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "must hold a JSON object, found list"),
        ("{}", "has no 'weight_map'; it is not an index of safetensors shards"),
        ('{"weight_map": []}', "has no 'weight_map'"),
    ],
    ids=["cut", "empty", "utf-16", "deep", "list", "other", "no map"],
)
def test_an_index_that_is_none_is_named(tmp_path, content, message):
    (tmp_path / INDEX_FILE).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(FolderError, match=f"{INDEX_FILE} {message}"):
        read_weights(tmp_path)


def test_missing_json_says_what_is_beside_it(tmp_path):
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(FolderError, match=r"config.json does not exist; found beside it: other.txt"):
        read_json(tmp_path / "config.json")
    with pytest.raises(FolderError, match="found beside it: no such folder"):
        read_json(tmp_path / "nowhere" / "config.json")
    (tmp_path / "config.json").mkdir()
    with pytest.raises(FolderError, match=r"config.json cannot be read"):
        read_json(tmp_path / "config.json")


def test_what_does_not_fit_is_listed_by_name_and_shape():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    tensors = state_of(module)
    del tensors["0.bias"]
    tensors |= {"1.weight": torch.ones(1, 4), "2.weight": torch.ones(1)}
    with pytest.raises(WeightsError) as caught:
        fill(module, tensors, source="here.safetensors")
    message = str(caught.value)
    assert "the tensors in here.safetensors do not fit" in message
    assert "missing (1): 0.bias" in message
    assert "not part of the model (1): 2.weight" in message
    assert "of the wrong shape (1): 1.weight is [1, 4], the configuration says [1, 3]" in message
    assert module[0].bias is not None


def test_long_lists_are_cut_with_their_number():
    tensors = {f"x{i}": torch.ones(1) for i in range(9)}
    with pytest.raises(WeightsError, match=r"not part of the model \(9\): x0, .* and 3 more"):
        fill(nn.Module(), tensors, source="here")


@pytest.mark.parametrize("name", ["model.weight", "decoder.weight"])
def test_tied_parameters_take_either_name_and_stay_one(name):
    module = Tied()
    fill(module, {name: torch.full((3, 2), 7.0), "decoder.bias": torch.zeros(3)}, source="here")
    assert module.decoder.weight is module.model.weight
    assert module.model.weight[0, 0] == 7.0
    assert state_of(module).keys() == {"model.weight", "decoder.bias"}


def to_dtype(dtype):
    return partial(cast, dtype=dtype, cache=None)


def test_parameters_take_the_dtype_asked_for_or_keep_that_of_the_file():
    tensors = {"weight": torch.ones(1, 2, dtype=torch.float16), "bias": torch.ones(1)}
    module = nn.Linear(2, 1)
    fill(module, tensors, source="here")
    assert (module.weight.dtype, module.bias.dtype) == (torch.float16, torch.float32)
    fill(module, tensors, source="here", cast=to_dtype(torch.bfloat16))
    assert (module.weight.dtype, module.bias.dtype) == (torch.bfloat16, torch.bfloat16)
    assert module.weight.requires_grad


def test_nan_and_infinities_are_counted_by_name():
    module = nn.Linear(3, 2)
    assert not_numbers(module) == {}
    module.weight.data[0, :2] = float("nan")
    module.weight.data[1, 1] = float("-inf")
    assert not_numbers(module) == {"weight": 3}
    with pytest.raises(
        WeightsError, match=r"here holds values that are not finite.*in 1 tensors: weight \(3\)"
    ):
        check_numbers("here", module)
    module.weight.data = torch.ones(2, 3, dtype=torch.int8).to(torch.float16)
    assert not_numbers(module) == {}


class Counting(nn.Module):
    """Buffers and parameters of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.arange(3), requires_grad=False)
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer("order", torch.arange(3))
        self.register_buffer("mask", torch.ones(3, dtype=torch.bool))
        self.register_buffer("count", torch.tensor(3, dtype=torch.int32))
        self.register_buffer("turns", torch.ones(3, dtype=torch.complex64))


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_only_numbers_of_floating_point_are_cast(dtype):
    stored = {name: tensor.clone() for name, tensor in state_of(Counting()).items()}
    with torch.device("meta"):
        module = Counting()
    fill(module, stored, source="a file", cast=to_dtype(dtype))
    expected = Counting().state_dict() | {
        name: torch.ones(3, dtype=dtype or torch.float32) for name in ("weight", "scale")
    }
    found = module.state_dict()
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        name: tensor.dtype for name, tensor in expected.items()
    }
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert not module.frozen.requires_grad
    assert module.weight.requires_grad
    assert dict(module.named_buffers()).keys() == {"scale", "order", "mask", "count", "turns"}


@pytest.mark.parametrize(
    ("name", "tensor", "kinds"),
    [
        ("weight", torch.ones(3, dtype=torch.int8), "weight is int8, the model's is float32"),
        ("weight", torch.ones(3).to(torch.float8_e4m3fn), "weight is float8_e4m3fn, the model's is float32"),
        ("weight", torch.ones(3, dtype=torch.complex64), "weight is complex64, the model's is float32"),
        ("order", torch.ones(3), "order is float32, the model's is int64"),
    ],
)
def test_tensors_of_another_kind_are_named(name, tensor, kinds):
    with pytest.raises(WeightsError, match=rf"^a file holds tensors of another kind.*\(1\): {kinds}\. Quant"):
        fill(Counting(), state_of(Counting()) | {name: tensor}, source="a file")
