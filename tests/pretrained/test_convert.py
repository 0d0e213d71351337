"""Between our folders, those of transformers and research checkpoints, in every direction."""

from __future__ import annotations

import json

import pytest
import torch

from modernbert.errors import ConfigError, FolderError, InputError, WeightsError
from modernbert.heads.embed import EmbedHeadConfig
from modernbert.pretrained.composer import read_checkpoint, write_checkpoint
from modernbert.pretrained.convert import config_named, convert
from modernbert.pretrained.folder import read_folder, write_folder
from tests.pretrained.small_models import numbers, small_model, small_tokenizer


@pytest.fixture
def model():
    return small_model(tokenizer=small_tokenizer())


def model_type(folder) -> str:
    return json.loads((folder / "config.json").read_text())["model_type"]


def test_every_form_converts_into_every_other(tmp_path, model):
    write_folder(tmp_path / "transformers", model)
    convert(tmp_path / "transformers", tmp_path / "parts", to="parts")
    convert(tmp_path / "parts", tmp_path / "research.pt", to="research")
    options = {"config": model.config, "tokenizer": tmp_path / "parts"}
    convert(tmp_path / "research.pt", tmp_path / "again", **options)
    convert(tmp_path / "research.pt", tmp_path / "again parts", to="parts", **options)
    convert(tmp_path / "again parts", tmp_path / "last")
    assert model_type(tmp_path / "parts") == model_type(tmp_path / "again parts") == "modernbert-parts"
    assert model_type(tmp_path / "again") == model_type(tmp_path / "last") == "modernbert"
    for name in ("transformers", "parts", "again", "again parts", "last"):
        again = read_folder(tmp_path / name)
        assert torch.equal(numbers(again), numbers(model)), name
        assert again.tokenizer.encode_ids(["w3 w1"]) == model.tokenizer.encode_ids(["w3 w1"]), name
    again = read_checkpoint(tmp_path / "research.pt", model.config)
    assert torch.equal(numbers(again), numbers(model))


def test_the_way_to_the_research_code_and_back_loses_nothing(tmp_path, model):
    write_folder(tmp_path / "model", model)
    convert(tmp_path / "model", tmp_path / "research.pt", to="research")
    convert(tmp_path / "research.pt", tmp_path / "again")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == files


def test_a_dtype_is_written(tmp_path, model):
    write_folder(tmp_path / "model", model)
    convert(tmp_path / "model", tmp_path / "half", dtype=torch.bfloat16)
    assert read_folder(tmp_path / "half").dtype_of_file == torch.bfloat16
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_padding_follows_the_tokenizer_not_the_research_code(tmp_path):
    model = small_model()
    write_checkpoint(tmp_path / "c.pt", model)
    files = small_tokenizer().__reduce__()[1][0]
    files["tokenizer_config.json"] = files["tokenizer_config.json"].replace(b'"[PAD]"', b'"w2"')
    type(small_tokenizer())(files).save(tmp_path / "tokenizer")
    convert(tmp_path / "c.pt", tmp_path / "model", config=model.config, tokenizer=tmp_path / "tokenizer")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["pad_token_id"] == 7


def test_a_tokenizer_larger_than_the_embedding_is_refused_before_anything_is_written(tmp_path):
    model = small_model()
    write_checkpoint(tmp_path / "c.pt", model)
    small_tokenizer(num_words=40).save(tmp_path / "tokenizer")
    with pytest.raises(FolderError, match="tokenizer has 46 entries, the embedding of the model only 32"):
        convert(tmp_path / "c.pt", tmp_path / "model", config=model.config, tokenizer=tmp_path / "tokenizer")
    assert not (tmp_path / "model").exists()


def test_what_transformers_has_no_words_for_is_said(tmp_path):
    config = config_named("modernbert-base")
    path = tmp_path / "options.json"
    path.write_text(json.dumps({"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}))
    assert config_named(path).encoder.hidden_size == 16
    assert config.encoder.hidden_size == 768
    other = small_model()
    other.config = config_named(path)
    other.module = other.config.build()
    write_folder(tmp_path / "parts", other)
    with pytest.raises(ConfigError, match=r"only be written with to='parts'.*transformers has no words for"):
        convert(tmp_path / "parts", tmp_path / "model")


def test_wrong_calls_say_what_to_do(tmp_path, model):
    write_folder(tmp_path / "model", model)
    with pytest.raises(InputError, match="unknown form 'onnx'; there are: transformers, parts, research"):
        convert(tmp_path / "model", tmp_path / "x", to="onnx")
    with pytest.raises(FolderError, match="does not exist; name a model folder, or the file of a research"):
        convert(tmp_path / "nothing", tmp_path / "x")
    with pytest.raises(InputError, match="a preset and names to allow are for checkpoints"):
        convert(tmp_path / "model", tmp_path / "x", config=model.config)
    with pytest.raises(ConfigError, match=r"'big' is no preset, and no JSON file.*modernbert-base"):
        config_named("big")
    embedder = small_model(head=EmbedHeadConfig())
    embedder.module.model.final_norm.weight.data[0] = float("nan")
    write_folder(tmp_path / "nan", embedder)
    with pytest.raises(
        WeightsError, match=r"not finite numbers, in 1 tensors: model.final_norm.weight \(1\)"
    ):
        convert(tmp_path / "nan", tmp_path / "x")
