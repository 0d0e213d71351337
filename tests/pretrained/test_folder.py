"""Model folders: what comes back, what is kept, and what is said of a folder that is missing something."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from modernbert.encoder.config import Part
from modernbert.errors import ConfigError, FolderError, WeightsError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.embed import DenseConfig, EmbedHeadConfig, TokenEmbedHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.heads.tokens import SpanHeadConfig, TagHeadConfig
from modernbert.pretrained.folder import Pretrained, describe_layout, read_folder, write_folder
from modernbert.pretrained.sentence import TextSettings
from modernbert.pretrained.weights import read_json, read_weights, write_weights
from tests.pretrained.small_models import numbers, packed, small_model, small_tokenizer

DENSE = (DenseConfig(out_features=5, activation="tanh"), DenseConfig(out_features=3, has_bias=False))


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaledNormConfig(Part):
    """A norm of a user's own."""

    kind: ClassVar[str] = "scaled_norm"
    factor: float = 2.0

    def build(self, hidden_size: int) -> nn.Module:
        norm = nn.LayerNorm(hidden_size, bias=False)
        nn.init.constant_(norm.weight, self.factor)
        return norm


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model with its tokenizer, as transformers writes one."""
    write_folder(tmp_path / "model", small_model(tokenizer=small_tokenizer()))
    return tmp_path / "model"


def own_part() -> Pretrained:
    model = small_model()
    encoder = replace(model.config.encoder, final_norm=ScaledNormConfig())
    config = replace(model.config, encoder=encoder)
    return replace(model, config=config, module=config.build().eval())


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def change_config(folder: Path, **changes: object) -> None:
    (folder / "config.json").write_text(json.dumps(config_of(folder) | changes))


@pytest.mark.parametrize("layout", ["auto", "parts"])
@pytest.mark.parametrize(
    "head",
    [
        None,
        EmbedHeadConfig(poolings=("mean", "cls"), dense=DENSE, is_normalized=True),
        TokenEmbedHeadConfig(dense=DENSE),
        ClassifyHeadConfig(labels=("no", "yes")),
        TagHeadConfig(labels=("O", "B-X")),
        SpanHeadConfig(),
    ],
    ids=["mlm", "embed", "token_embed", "classify", "tag", "span"],
)
def test_a_model_comes_back_with_the_same_numbers(tmp_path, layout, head):
    model = small_model(head=head, tokenizer=small_tokenizer())
    model.settings = TextSettings(prompts={"query": "find: "}, max_seq_length=64)
    write_folder(tmp_path / "model", model, layout=layout)
    again = read_folder(tmp_path / "model")
    assert again.config == model.config
    assert torch.equal(numbers(again), numbers(model))
    assert again.dtype_of_file == torch.float32
    if layout == "parts" or isinstance(head, EmbedHeadConfig | TokenEmbedHeadConfig):
        assert again.settings == model.settings
    assert again.settings.max_seq_length == 64
    expected = "modernbert-parts" if layout == "parts" else "modernbert"
    assert config_of(tmp_path / "model")["model_type"] == expected


def test_what_transformers_has_no_words_for_is_written_in_full_and_read_with_the_users_part(tmp_path):
    model = own_part()
    assert describe_layout(model.config).startswith(
        "modernbert-parts (transformers has no words for the final norm"
    )
    write_folder(tmp_path / "model", model)
    assert config_of(tmp_path / "model")["model"]["encoder"]["final_norm"] == {
        "kind": "scaled_norm",
        "factor": 2.0,
    }
    again = read_folder(tmp_path / "model", parts=[ScaledNormConfig])
    assert torch.equal(numbers(again), numbers(model))


def test_an_unknown_part_is_an_error_that_shows_the_call(tmp_path):
    write_folder(tmp_path / "model", own_part())
    with pytest.raises(
        ConfigError, match=r"config.json: unknown part 'scaled_norm'; known are attention, "
    ) as caught:
        read_folder(tmp_path / "model")
    assert "modernbert.load(folder, parts=[YourPartConfig])" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((), None, "has no 'model' that describes the parts; found None"),
        ((), [], "has no 'model' that describes the parts; found []"),
        (("kind",), "encoder", "EncoderConfig has no field encoder, head"),
        (("encoder", "window"), 3, "EncoderConfig has no field window; its fields are blocks, "),
        (("encoder", "hidden_size"), "16", "EncoderConfig.hidden_size must be a whole number"),
        (("encoder", "blocks"), [], "must be a tuple of at least one block"),
        (("encoder", "init", "family"), "mine", "unknown initialisation 'mine'"),
        (("encoder", "embedding"), {"kind": "nothing"}, "unknown part 'nothing'"),
    ],
)
def test_our_own_config_names_what_is_wrong_in_it(tmp_path, path, value, message):
    write_folder(tmp_path / "model", small_model(), layout="parts")
    config = config_of(tmp_path / "model")
    inner, *rest = config, "model", *path
    for key in rest[:-1]:
        inner = inner[key]
    inner[rest[-1]] = value
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        read_folder(tmp_path / "model")
    assert message in str(caught.value)
    assert str(tmp_path / "model" / "config.json") in str(caught.value)


def test_unknown_text_settings_are_an_error(tmp_path):
    write_folder(tmp_path / "model", small_model(), layout="parts")
    change_config(tmp_path / "model", text={"colour": "red"})
    with pytest.raises(ConfigError, match=r"config.json: .*colour"):
        read_folder(tmp_path / "model")


def test_no_folder_no_config_and_no_weights_are_told_apart(tmp_path, folder):
    with pytest.raises(FolderError, match="nothing is not a folder"):
        read_folder(tmp_path / "nothing")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        FolderError, match=r"neither model.safetensors nor model.safetensors.index.json; found: "
    ):
        read_folder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FolderError, match=r"config.json does not exist; found beside it: tokenizer.json, "):
        read_folder(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ('{"model_type": "modern', "is not JSON"),
        ("[1]", "must hold a JSON object, found list"),
    ],
)
def test_a_config_that_is_cut_or_of_another_kind_is_named(folder, content, message):
    (folder / "config.json").write_text(content)
    with pytest.raises(FolderError, match=f"config.json {message}"):
        read_folder(folder)


def test_other_models_are_named_with_what_is_supported(folder):
    change_config(folder, model_type="llama")
    with pytest.raises(
        ConfigError, match=r"config.json: model_type 'llama' is not supported; supported are modernbert, "
    ):
        read_folder(folder)
    change_config(folder, model_type=None)
    with pytest.raises(ConfigError, match="model_type None is not supported"):
        read_folder(folder)
    change_config(folder, model_type="modernbert", architectures=["ModernBertForCausalLM"])
    with pytest.raises(
        ConfigError, match=r"architecture 'ModernBertForCausalLM' is not supported; supported endings"
    ):
        read_folder(folder)


def test_weights_of_another_task_and_of_another_size_are_named(folder):
    change_config(folder, architectures=["ModernBertForSequenceClassification"])
    with pytest.raises(WeightsError, match=r"missing \(2\): classifier.weight, classifier.bias") as caught:
        read_folder(folder)
    assert "not part of the model (1): decoder.bias" in str(caught.value)
    assert "'architectures' first" in str(caught.value)
    change_config(folder, architectures=["ModernBertForMaskedLM"], intermediate_size=25)
    with pytest.raises(WeightsError, match=r"mlp.Wi.weight is \[48, 16\], the configuration says \[50, 16\]"):
        read_folder(folder)


def test_a_tokenizer_larger_than_the_embedding_is_refused(folder):
    small_tokenizer(num_words=30).save(folder)
    with pytest.raises(FolderError, match="tokenizer has 36 entries, the embedding of the model only 32"):
        read_folder(folder)


def test_tokenizer_files_are_kept_byte_for_byte(folder, tmp_path):
    kept = {name: (folder / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
    assert kept["tokenizer.json"].endswith(b"\n\n")
    assert "caf\u00e9".encode() in kept["tokenizer.json"]
    write_folder(tmp_path / "again", read_folder(folder))
    assert {name: (tmp_path / "again" / name).read_bytes() for name in kept} == kept


def test_a_folder_without_tokenizer_is_a_model_too(tmp_path):
    write_folder(tmp_path / "model", small_model())
    assert read_folder(tmp_path / "model").tokenizer is None


def test_saving_over_a_model_keeps_what_is_not_the_models(folder):
    (folder / "README.md").write_text("mine")
    (folder / "reports" / "deep").mkdir(parents=True)
    (folder / "reports" / "deep" / "loss.txt").write_text("1.0")
    (folder / "notes").symlink_to("README.md")
    (folder / "elsewhere").symlink_to(folder.parent)
    before = (folder / "reports" / "deep" / "loss.txt").stat()
    write_folder(folder, small_model(seed=2))
    assert (folder / "README.md").read_text() == (folder / "notes").read_text() == "mine"
    assert (folder / "notes").is_symlink()
    assert (folder / "elsewhere").is_symlink()
    assert (folder / "reports" / "deep" / "loss.txt").read_text() == "1.0"
    assert (folder / "reports" / "deep" / "loss.txt").stat().st_mtime == before.st_mtime
    assert torch.equal(numbers(read_folder(folder)), numbers(small_model(seed=2)))


def test_saving_over_a_model_drops_what_was_that_models(tmp_path):
    target = tmp_path / "model"
    write_folder(target, small_model(head=EmbedHeadConfig(dense=DENSE), tokenizer=small_tokenizer()))
    (target / "model.safetensors").unlink()
    write_weights(target, {"x": torch.ones(3), "y": torch.ones(3)}, shard_bytes=4)
    write_folder(target, small_model())
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "model.safetensors"]


def test_a_folder_that_is_no_models_is_refused_and_an_empty_one_is_taken(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(FolderError, match="exists and is not a model folder; name a new folder"):
        write_folder(tmp_path / "photos", small_model())
    with pytest.raises(FolderError, match="exists and is not a model folder"):
        write_folder(tmp_path / "photos" / "cat.jpg", small_model())
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", small_model())
    read_folder(tmp_path / "empty")


@pytest.mark.parametrize(
    "name", ["with spaces", "\u043c\u043e\u0434\u0435\u043b\u044c \u00e9 \U0001f600", "a[b]*?", "-x", "a.b"]
)
def test_any_name_will_do(tmp_path, name):
    write_folder(tmp_path / name, small_model(seed=1))
    write_folder(tmp_path / name, small_model(seed=2))
    assert torch.equal(numbers(read_folder(tmp_path / name)), numbers(small_model(seed=2)))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_relative_name_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(Path("model"), small_model(seed=1))
    write_folder(Path("model"), small_model(seed=2))
    monkeypatch.chdir(tmp_path / "model")
    assert torch.equal(numbers(read_folder(Path())), numbers(small_model(seed=2)))


def test_a_link_to_a_model_folder_stays_one(tmp_path, folder):
    (tmp_path / "link").symlink_to(folder)
    write_folder(tmp_path / "link", small_model(seed=2))
    assert (tmp_path / "link").is_symlink()
    assert torch.equal(numbers(read_folder(folder)), numbers(small_model(seed=2)))


def test_files_get_the_permissions_of_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_folder(
            tmp_path / "model", small_model(head=EmbedHeadConfig(dense=DENSE), tokenizer=small_tokenizer())
        )
    finally:
        os.umask(old)
    for path in (tmp_path / "model", *(tmp_path / "model").rglob("*")):
        wanted = 0o750 if path.is_dir() else 0o640
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_a_dtype_is_cast_to_and_written(folder, tmp_path):
    half = read_folder(folder, dtype=torch.bfloat16)
    assert half.dtype_of_file == torch.float32
    assert half.module(packed()).dtype == torch.bfloat16
    write_folder(tmp_path / "half", half)
    assert config_of(tmp_path / "half")["dtype"] == "bfloat16"
    assert read_folder(tmp_path / "half").dtype_of_file == torch.bfloat16


def test_a_config_alone_can_be_named(tmp_path):
    assert describe_layout(small_model().config) == "modernbert"
    assert isinstance(small_model().config, ModelConfig)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.complex64, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(folder, dtype):
    tensors = {name: tensor.to(dtype) for name, tensor in read_weights(folder).items()}
    write_weights(folder, tensors)
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(
        WeightsError, match=rf"{folder} holds tensors of another kind.* is {kind}, the model's"
    ):
        read_folder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 0}, "'num_attention_heads' must be a whole number above 0, found 0"),
        ({"num_attention_heads": 3}, "hidden_size"),
        ({"pad_token_id": 99}, "pad_token_id 99 lies outside"),
        ({"initializer_range": -1.0}, "InitConfig.std must be a number of at least 0"),
        ({"attention_dropout": 1.5}, "AttentionConfig.dropout must be a probability"),
        ({"local_attention": -8}, "window_each_side must be 0 or more"),
        ({"layer_types": [["a"], ["b"], ["c"], ["d"]]}, "layer_types must name"),
        ({"architectures": 5}, "'architectures' must be a list of names, found 5"),
        ({"sentence_transformers": "abc"}, "'sentence_transformers' must be dict or null, found 'abc'"),
        (
            {"architectures": ["ModernBertForSequenceClassification"], "num_labels": "abc"},
            "'num_labels' must be",
        ),
        (
            {"architectures": ["ModernBertForSequenceClassification"], "problem_type": []},
            "unknown problem_type",
        ),
        ({"architectures": ["ModernBertForTokenClassification"], "id2label": {}}, "'id2label' must map"),
    ],
)
def test_every_error_of_a_value_names_the_file(folder, changes, message):
    change_config(folder, **changes)
    with pytest.raises(ConfigError) as error:
        read_folder(folder)
    assert str(error.value).startswith(f"{folder / 'config.json'}: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"max_seq_length": "256"}, "'max_seq_length' must be int or null, found '256'"),
        ({"max_seq_length": 0}, "'max_seq_length' must be a whole number above 0, found 0"),
        ({"prompts": {"query": 5}}, "'query' must be str or null, found 5"),
        ({"activation": "swoosh"}, "unknown activation 'swoosh'"),
        (5, "'text' must be dict or null, found 5"),
    ],
)
def test_our_own_text_settings_are_checked(tmp_path, text, message):
    write_folder(tmp_path / "model", small_model(), layout="parts")
    change_config(tmp_path / "model", text=text)
    with pytest.raises(ConfigError, match=rf"{tmp_path}/model/config.json.*{message}"):
        read_folder(tmp_path / "model")


def test_a_range_of_zero_says_nothing_about_a_trained_model(folder):
    expected = numbers(read_folder(folder))
    change_config(folder, initializer_range=0.0)
    read = read_folder(folder)
    assert torch.equal(numbers(read), expected)
    write_folder(folder, read)
    assert config_of(folder)["initializer_range"] == 0.0


class OrderedNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.register_buffer("order", torch.arange(size).flip(0))
        self.register_buffer("mask", torch.arange(size) > 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., self.order] * self.weight * self.mask


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderedNormConfig(Part):
    kind: ClassVar[str] = "ordered_norm"

    def build(self, hidden_size: int) -> nn.Module:
        return OrderedNorm(hidden_size)


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_buffers_of_whole_numbers_come_back_as_they_were(tmp_path, dtype):
    model = small_model()
    config = replace(model.config, encoder=replace(model.config.encoder, final_norm=OrderedNormConfig()))
    saved = replace(model, config=config, module=config.build().eval())
    write_folder(tmp_path, saved)
    read = read_folder(tmp_path, parts=[OrderedNormConfig], dtype=dtype)
    assert {str(buffer.dtype) for buffer in read.module.buffers()} == {"torch.int64", "torch.bool"}
    assert read.dtype_of_file == torch.float32
    if dtype is not torch.bfloat16:
        assert torch.equal(numbers(read), numbers(saved))
    numbers(read)


def test_a_part_that_takes_a_kind_of_ours_is_refused_when_saving_and_when_loading(tmp_path):
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Shadow(ScaledNormConfig):
        kind: ClassVar[str] = "layer_norm"

    model = small_model()
    config = replace(model.config, encoder=replace(model.config.encoder, final_norm=Shadow()))
    with pytest.raises(ConfigError, match="two parts are of kind 'layer_norm'"):
        write_folder(tmp_path / "model", replace(model, config=config, module=config.build()))
    assert not (tmp_path / "model").exists()
    write_folder(tmp_path / "model", own_part())
    with pytest.raises(ConfigError, match="two parts are of kind 'layer_norm'"):
        read_folder(tmp_path / "model", parts=[ScaledNormConfig, Shadow])


@pytest.mark.parametrize("parts", [[nn.Linear], [None], ScaledNormConfig])
def test_parts_that_are_none_are_refused(tmp_path, parts):
    write_folder(tmp_path, own_part())
    with pytest.raises(ConfigError, match=r"parts (are dataclasses|is a list of classes: parts=\[Scaled)"):
        read_folder(tmp_path, parts=parts)


def test_other_forms_of_the_old_weights_go_and_other_files_stay(folder):
    stale = ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "model.onnx"]
    stale += ["added_tokens.json", "model_fp16.safetensors", "model-00001-of-00002.safetensors"]
    for name in stale:
        (folder / name).write_text("old")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model_quantized.onnx").write_text("old")
    (folder / "modeling.md").write_text("mine")
    (folder / "checkpoint-5").mkdir()
    write_folder(folder, small_model(seed=2))
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint-5",
        "config.json",
        "model.safetensors",
        "modeling.md",
    ]


def test_a_place_where_a_disk_is_mounted_is_said_to_be_one(folder, monkeypatch):
    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr("modernbert.files._put_in_place", busy)
    with pytest.raises(
        FolderError, match="A disk is mounted there, and a save swaps whole folders: name a folder"
    ):
        write_folder(folder, small_model())


def test_what_is_read_is_of_one_save(tmp_path, monkeypatch):
    one = small_model(0, ClassifyHeadConfig(labels=("a", "b")))
    two = small_model(1, ClassifyHeadConfig(labels=("c", "d")))
    write_folder(tmp_path / "model", one)
    saves = [two]

    def read_and_save(path: Path) -> dict[str, Any]:
        found = read_json(path)
        if saves:  # another process saves between config.json and the weights
            write_folder(tmp_path / "model", saves.pop())
        return found

    monkeypatch.setattr("modernbert.pretrained.folder.read_json", read_and_save)
    read = read_folder(tmp_path / "model")
    assert read.config.head.labels == ("c", "d")
    assert torch.equal(numbers(read), numbers(two))


def test_an_error_from_half_an_old_folder_is_not_the_last_word(folder, monkeypatch):
    saves = [small_model(seed=3)]

    def read_and_save(path: Path) -> dict[str, torch.Tensor]:
        if saves:
            write_folder(path, saves.pop())
            raise RuntimeError("file smaller than the required mapping")
        return read_weights(path)

    monkeypatch.setattr("modernbert.pretrained.folder.read_weights", read_and_save)
    assert torch.equal(numbers(read_folder(folder)), numbers(small_model(seed=3)))


def test_a_folder_that_is_saved_over_all_the_time_is_given_up_where_there_are_no_locks(folder, monkeypatch):
    def save(path: Path) -> dict[str, Any]:
        write_folder(folder, small_model())
        return read_json(path)

    monkeypatch.setattr("modernbert.pretrained.folder.read_json", save)
    monkeypatch.setattr("modernbert.files.fcntl", None)
    with pytest.raises(FolderError, match="is saved over again and again while it is read"):
        read_folder(folder)


def test_one_who_reads_again_keeps_writers_waiting(folder, monkeypatch):
    saves = [threading.Thread(target=write_folder, args=(folder, small_model(seed))) for seed in (1, 2)]

    def read_and_save(path: Path) -> dict[str, Any]:
        found = read_json(path)
        if saves:
            saver = saves.pop(0)
            saver.start()
            saver.join(10 if len(saves) else 0.3)  # the second waits for the lock
            assert saver.is_alive() is not bool(saves)
            waiting.append(saver)
        return found

    waiting: list[threading.Thread] = []
    monkeypatch.setattr("modernbert.pretrained.folder.read_json", read_and_save)
    assert torch.equal(numbers(read_folder(folder)), numbers(small_model(seed=1)))
    waiting[1].join(10)
    assert torch.equal(numbers(read_folder(folder)), numbers(small_model(seed=2)))
