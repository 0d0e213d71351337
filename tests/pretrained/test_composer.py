"""Research checkpoints, made here with their structure: names, nesting, and objects around the tensors."""

from __future__ import annotations

import ast
import datetime
import functools
import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from modernbert.encoder.block import ParallelConfig
from modernbert.encoder.mlp import GluConfig
from modernbert.encoder.presets import modernbert_base
from modernbert.errors import ConfigError, FolderError, WeightsError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.embed import EmbedHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.heads.tokens import SpanHeadConfig, TagHeadConfig
from modernbert.pretrained.composer import read_checkpoint, write_checkpoint
from modernbert.pretrained.flexbert import config_from_flexbert
from modernbert.pretrained.folder import read_folder, write_folder
from modernbert.pretrained.sentence import TextSettings
from tests.pretrained.small_models import numbers, packed, small_model, small_tokenizer

# ours and theirs compute the same in another order, in fp32
TOLERANCE = 1e-4
OPTIONS = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "init_method": "full_megatron",
    "attention_layer": "rope",
    "bert_layer": "prenorm",
    "embedding_layer": "sans_pos",
    "mlp_layer": "glu",
    "normalization": "layernorm",
    "norm_kwargs": {"eps": 1e-5, "bias": False},
    "hidden_act": "gelu",
    "head_pred_act": "gelu",
    "final_norm": True,
    "skip_first_prenorm": True,
    "padding": "unpadded",
    "rotary_emb_base": 160_000.0,
    "local_attn_rotary_emb_base": 10_000.0,
    "sliding_window": 8,
    "global_attn_every_n_layers": 3,
    "compile_model": True,
    "loss_function": "fa_cross_entropy",
    "loss_kwargs": {"reduction": "mean"},
}


class Callback:
    """A class of the research code, known to this test alone."""

    def __init__(self) -> None:
        self.seen = 3


def touch(path: str) -> None:
    Path(path).touch()


class Runs:
    """What an attacker's pickle holds: reading it calls a function."""

    def __init__(self, call, *arguments) -> None:
        self.what = (call, arguments)

    def __reduce__(self):
        return self.what


@functools.cache
def theirs() -> transformers.ModernBertForMaskedLM:
    """transformers' model of the same options, each weight off what it starts as."""
    config = transformers.ModernBertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=24,
        local_attention=8,
        pad_token_id=0,
        bos_token_id=1,
        cls_token_id=1,
        eos_token_id=2,
        sep_token_id=2,
    )
    torch.manual_seed(0)
    model = transformers.ModernBertForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def flexbert_names() -> dict[str, torch.Tensor]:
    """Its tensors under the names that the research code gives them, behind Composer's prefix."""
    renamed = {}
    for name, tensor in theirs().state_dict().items():
        name = re.sub(r"^model\.layers\.", "bert.encoder.layers.", name)
        renamed["model." + re.sub(r"^model\.", "bert.", name)] = tensor
    assert "model.decoder.weight" in renamed
    assert "model.bert.encoder.layers.1.attn_norm.weight" in renamed
    return renamed


def their_logits(model: torch.nn.Module | None = None) -> torch.Tensor:
    """What transformers makes of the sequences of `packed`, one by one."""
    batch = packed()
    sequences = batch.token_ids.split(batch.cu_seqlens.diff().tolist())
    with torch.inference_mode():
        return torch.cat([(model or theirs())(ids[None]).logits[0] for ids in sequences])


def surrounded(tensors: dict[str, torch.Tensor], **more: object) -> dict[str, object]:
    """A whole checkpoint around the tensors."""
    return {
        "state": {
            "model": tensors,
            "optimizers": {"DecoupledAdamW": {"exp_avg": torch.zeros(3), "step": 7}},
            "timestamp": {"Timestamp": {"batch": 4000, "total_wct": datetime.timedelta(seconds=3)}},
            "callbacks": [("SpeedMonitor", Callback())],
            "train_metrics": {"loss": np.float64(1.5)},
            **more,
        },
        "rng": [{"numpy": np.arange(3), "torch": torch.get_rng_state()}],
    }


def saved(tmp_path: Path, content: object, **how: object) -> Path:
    path = tmp_path / "latest-rank0.pt"
    torch.save(content, path, **how)
    return path


def config() -> ModelConfig:
    return config_from_flexbert(OPTIONS)


def test_a_whole_checkpoint_is_refused_with_every_name_that_it_holds(tmp_path):
    path = saved(tmp_path, surrounded(flexbert_names()))
    with pytest.raises(FolderError, match="holds more than tensors") as caught:
        read_checkpoint(path, config())
    for name in (
        "datetime.timedelta",
        "numpy.ndarray",
        "numpy.dtype",
        "tests.pretrained.test_composer.Callback",
    ):
        assert repr(name) in str(caught.value)
    assert "weights_only" not in str(caught.value)


def names_refused(path: Path) -> list[str]:
    """The list that the error offers."""
    with pytest.raises(FolderError) as caught:
        read_checkpoint(path, config())
    return ast.literal_eval(re.search(r"allow=(\[.*\]) puts", str(caught.value))[1])


def test_the_list_in_that_message_reads_the_checkpoint_with_the_numbers_of_transformers(tmp_path):
    path = saved(tmp_path, surrounded(flexbert_names()))
    model = read_checkpoint(path, config(), allow=names_refused(path))
    torch.testing.assert_close(numbers(model), their_logits(), atol=TOLERANCE, rtol=0)
    with pytest.raises(FolderError):  # allowed for that call alone
        read_checkpoint(path, config())


def test_names_allowed_as_text_run_nothing(tmp_path):
    path = saved(tmp_path, surrounded(flexbert_names(), extra=Runs(touch, str(tmp_path / "ran"))))
    refused = names_refused(path)
    name = "tests.pretrained.test_composer.touch"
    assert name in refused
    with pytest.raises(FolderError, match=re.escape(f"it names {name}, which is not read")):
        read_checkpoint(path, config(), allow=[other for other in refused if other != name])
    read_checkpoint(path, config(), allow=refused)
    assert not (tmp_path / "ran").exists()


def test_allowed_classes_are_called(tmp_path):
    content = {"state": {"model": flexbert_names(), "callbacks": Callback()}}
    model = read_checkpoint(saved(tmp_path, content), config(), allow=[Callback])
    torch.testing.assert_close(numbers(model), their_logits(), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("form", [True, False], ids=["zip", "legacy"])
def test_a_file_that_would_run_a_command_is_named_and_not_run(tmp_path, form):
    content = {"state": {"model": flexbert_names(), "x": Runs(os.mkdir, str(tmp_path / "ran"))}}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=form)
    for allow in ([], ["posix.mkdir"], ["os.mkdir"], [os.mkdir]):
        with pytest.raises(FolderError, match=r"would call posix\.mkdir when read"):
            read_checkpoint(path, config(), allow=allow)
    assert not (tmp_path / "ran").exists()


def test_the_older_form_of_file_is_read_and_refused_too(tmp_path):
    content = {"state": {"model": flexbert_names(), "callbacks": Callback()}}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=False)
    with pytest.raises(FolderError, match=r"allow=\['tests.pretrained.test_composer.Callback'\]"):
        read_checkpoint(path, config())
    model = read_checkpoint(path, config(), allow=["tests.pretrained.test_composer.Callback"])
    torch.testing.assert_close(numbers(model), their_logits(), atol=TOLERANCE, rtol=0)


def test_options_and_tokenizer_come_out_of_a_checkpoint_that_carries_them(tmp_path):
    tokenizer = {
        "tokenizer": {"file_extension": ".json", "content": json.loads(tokenizer_files()["tokenizer.json"])},
        "tokenizer_config": {
            "file_extension": ".json",
            "content": json.loads(tokenizer_files()["tokenizer_config.json"]),
        },
    }
    huggingface = {"model": {"config": {"content": OPTIONS, "class": "FlexBert"}}, "tokenizer": tokenizer}
    content = {"state": {"model": flexbert_names(), "integrations": {"huggingface": huggingface}}}
    model = read_checkpoint(saved(tmp_path, content))
    torch.testing.assert_close(numbers(model), their_logits(), atol=TOLERANCE, rtol=0)
    assert model.tokenizer is not None
    assert model.tokenizer.encode_ids(["w1 caf\u00e9"]) == small_tokenizer().encode_ids(["w1 caf\u00e9"])


def tokenizer_files() -> dict[str, bytes]:
    return small_tokenizer().__reduce__()[1][0]


def test_without_options_the_error_says_how_to_give_them(tmp_path):
    path = saved(tmp_path, {"state": {"model": flexbert_names()}})
    with pytest.raises(
        ConfigError, match=r"does not say what the model is; .*config_named\(.*--preset modern"
    ):
        read_checkpoint(path)


@pytest.mark.parametrize("wrap", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}"])
def test_names_of_compiled_and_distributed_models_are_understood(tmp_path, wrap):
    tensors = {wrap.format(name): tensor for name, tensor in flexbert_names().items()}
    name = wrap.format("model.bert.encoder.layers.0.mlp.Wi.weight")
    tensors[name.replace("mlp.", "mlp._orig_mod.")] = tensors.pop(name)
    tensors[wrap.format("model.bert.encoder.layers.0.attn.rotary_emb.inv_freq")] = torch.ones(4)
    model = read_checkpoint(saved(tmp_path, {"state": {"model": tensors}}), config())
    torch.testing.assert_close(numbers(model), their_logits(), atol=TOLERANCE, rtol=0)


def test_bare_tensors_are_a_checkpoint_too(tmp_path):
    tensors = {name.removeprefix("model."): tensor for name, tensor in flexbert_names().items()}
    for content in (tensors, {"model": tensors}):
        model = read_checkpoint(saved(tmp_path, content), config())
        torch.testing.assert_close(numbers(model), their_logits(), atol=TOLERANCE, rtol=0)


def test_what_was_read_is_written_so_that_transformers_gives_the_same_numbers(tmp_path):
    model = read_checkpoint(saved(tmp_path, {"state": {"model": flexbert_names()}}), config())
    write_folder(tmp_path / "model", model)
    loaded = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(their_logits(loaded), numbers(model), atol=TOLERANCE, rtol=0)
    assert loaded.config.vocab_size == 32


def test_what_was_read_does_not_hang_on_the_file(tmp_path):
    path = saved(tmp_path, {"state": {"model": flexbert_names()}})
    model = read_checkpoint(path, config())
    before = numbers(model)
    path.write_bytes(b"\0" * path.stat().st_size)  # in place, under the reader's feet
    assert torch.equal(numbers(model), before)


def test_a_dtype_is_cast_to(tmp_path):
    path = saved(tmp_path, {"state": {"model": flexbert_names()}})
    model = read_checkpoint(path, config(), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.bfloat16}
    assert model.dtype_of_file == torch.float32


def test_nan_in_a_checkpoint_is_named(tmp_path):
    tensors = {name: tensor.clone() for name, tensor in flexbert_names().items()}
    tensors["model.bert.final_norm.weight"][:2] = float("nan")
    tensors["model.head.dense.weight"][0, 0] = float("inf")
    path = saved(tmp_path, {"state": {"model": tensors}})
    with pytest.raises(WeightsError, match="not finite numbers, in 2 tensors") as caught:
        read_checkpoint(path, config())
    assert "model.final_norm.weight (2)" in str(caught.value)
    assert "head.dense.weight (1)" in str(caught.value)


def test_a_decoder_of_its_own_is_not_dropped_silently(tmp_path):
    tensors = flexbert_names() | {"model.decoder.weight": torch.randn(32, 16)}
    path = saved(tmp_path, {"state": {"model": tensors}})
    with pytest.raises(WeightsError, match=r"decoder of its own.*is_tied=False"):
        read_checkpoint(path, config())
    untied = config_from_flexbert(OPTIONS | {"tie_word_embeddings": False})
    decoder = read_checkpoint(path, untied).module.get_parameter("decoder.weight")
    assert torch.equal(decoder, tensors["model.decoder.weight"])


def test_a_checkpoint_of_another_size_names_tensors_and_shapes(tmp_path):
    path = saved(tmp_path, {"state": {"model": flexbert_names()}})
    base = ModelConfig(encoder=modernbert_base(), head=MlmHeadConfig())
    with pytest.raises(
        WeightsError, match=r"tok_embeddings.weight is \[32, 16\].*says \[50368, 768\]"
    ) as caught:
        read_checkpoint(path, base)
    assert "missing" in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 100, 5000, -1])
def test_a_cut_file_says_so(tmp_path, size):
    path = saved(tmp_path, {"state": {"model": flexbert_names()}})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(FolderError, match=r"cannot be read as a checkpoint .*: a cut copy, or another kind"):
        read_checkpoint(path, config())


def test_other_files_say_what_they_are(tmp_path):
    with pytest.raises(FolderError, match="is not a file; a research checkpoint is one"):
        read_checkpoint(tmp_path / "nothing.pt", config())
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(FolderError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "text.pt", config())
    with pytest.raises(FolderError, match=r"no \['state'\]\['model'\].*found: \['epoch'\]"):
        read_checkpoint(saved(tmp_path, {"epoch": 3}), config())
    with pytest.raises(FolderError, match="found: list"):
        read_checkpoint(saved(tmp_path, [1]), config())
    with pytest.raises(FolderError, match="no tensors: step"):
        read_checkpoint(saved(tmp_path, {"state": {"model": {"step": 3}}}), config())


def parallel_options() -> dict[str, object]:
    kinds = {"attention_layer": "parallel", "bert_layer": "parallel_prenorm", "mlp_layer": "parallel_glu"}
    places = {"embedding_layer": "absolute_pos", "max_position_embeddings": 24, "attn_qkv_bias": True}
    return OPTIONS | kinds | places | {"sliding_window": -1, "global_attn_every_n_layers": -1}


def fused_layer(x: torch.Tensor, tensors: dict[str, torch.Tensor], layer: int) -> torch.Tensor:
    """FlexBERT's parallel layer by its definition: one product, then attention beside the gated MLP."""
    own = {n.split(f"layers.{layer}.")[1]: t for n, t in tensors.items() if f"layers.{layer}." in n}
    weight = own.get("norm.weight")
    normed = x if weight is None else torch.nn.functional.layer_norm(x, x.shape[-1:], weight)
    qkv, ff = (normed @ own["Wqkvff.weight"].T + own["Wqkvff.bias"]).split([48, 48], dim=-1)
    q, k, v = qkv.view(len(x), 3, 2, 8).permute(1, 2, 0, 3)
    mixed = (q @ k.mT / 8**0.5).softmax(-1) @ v
    u, g = ff.chunk(2, dim=-1)
    attended = mixed.transpose(0, 1).flatten(1) @ own["attn.Wo.weight"].T
    return x + attended + (torch.nn.functional.gelu(u) * g) @ own["mlp.Wo.weight"].T


def test_the_fused_matrix_of_parallel_layers_is_taken_apart(tmp_path):
    parts = config_from_flexbert(parallel_options())
    assert all(isinstance(block, ParallelConfig) for block in parts.encoder.blocks)
    model = replace(small_model(), config=parts, module=parts.build().eval())
    for parameter in model.module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, model)
    written = torch.load(path, weights_only=True)["state"]["model"]
    assert written["model.bert.encoder.layers.1.Wqkvff.weight"].shape == (3 * 16 + 2 * 24, 16)
    assert "model.bert.encoder.layers.1.norm.weight" in written
    assert not any("Wqkv." in name or "Wi." in name for name in written)

    ids = torch.tensor([1, 7, 3, 3, 2])
    tensors = {name.removeprefix("model.bert."): tensor for name, tensor in written.items()}
    x = (
        tensors["embeddings.tok_embeddings.weight"][ids]
        + tensors["embeddings.position_embeddings.weight"][:5]
    )
    x = torch.nn.functional.layer_norm(x, (16,), tensors["embeddings.norm.weight"])
    for layer in range(4):
        x = fused_layer(x, tensors, layer)
    expected = torch.nn.functional.layer_norm(x, (16,), tensors["final_norm.weight"])
    with torch.inference_mode():
        found = read_checkpoint(path, parts).module.model(packed([ids.tolist()]))
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tie_word_embeddings": False},
        {"hidden_act": "prelu", "head_pred_act": "prelu"},
        {"bert_layer": "postnorm", "final_norm": False, "mlp_layer": "mlp", "mlp_in_bias": True},
        {"normalization": "rmsnorm", "head_pred_norm": False, "embedding_layer": "absolute_pos"},
    ],
    ids=lambda change: ",".join(change) or "modernbert",
)
def test_a_model_survives_its_way_through_a_checkpoint(tmp_path, change):
    parts = config_from_flexbert(OPTIONS | change)
    model = replace(small_model(), config=parts, module=parts.build().eval())
    write_checkpoint(tmp_path / "checkpoint.pt", model)
    again = read_checkpoint(tmp_path / "checkpoint.pt", parts)
    assert torch.equal(numbers(again), numbers(model))


def test_a_written_checkpoint_has_the_names_of_the_research_code(tmp_path):
    model = read_checkpoint(saved(tmp_path, {"state": {"model": flexbert_names()}}), config())
    write_checkpoint(tmp_path / "again.pt", model)
    written = torch.load(tmp_path / "again.pt", weights_only=True)["state"]["model"]
    assert written.keys() == flexbert_names().keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in flexbert_names().items())


@pytest.mark.parametrize(
    "head",
    [
        MlmHeadConfig(is_tied=False),
        ClassifyHeadConfig(labels=("bad", "good"), problem="multi_label", pooling="cls"),
        TagHeadConfig(labels=("O", "B-PER")),
        SpanHeadConfig(),
        EmbedHeadConfig(poolings=("cls", "mean"), is_normalized=True),
    ],
    ids=lambda head: head.kind,
)
def test_a_written_checkpoint_holds_all_that_a_folder_does(tmp_path, head):
    model = small_model(head=head, tokenizer=small_tokenizer())
    model.settings = TextSettings(prompts={"query": "w1 "}, max_seq_length=12)
    write_checkpoint(tmp_path / "checkpoint.pt", model)
    again = read_checkpoint(tmp_path / "checkpoint.pt")
    assert (again.config, again.settings) == (model.config, model.settings)
    assert again.tokenizer.files == model.tokenizer.files
    assert torch.equal(numbers(again), numbers(model))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"tokenizer.json": "{}"}, "'config.json'"),
        ({"config.json": "{"}, "Expecting property name"),
        ({"config.json": '{"model": {"kind": "nonsense"}, "text": {}}'}, "unknown part 'nonsense'"),
        ({"config.json": '{"model": {"kind": "rms_norm", "eps": 0.1}, "text": {}}'}, "describes no model"),
    ],
)
def test_a_wrong_configuration_inside_a_checkpoint_is_named(tmp_path, own, message):
    content = {"state": {"model": flexbert_names(), "integrations": {"modernbert": own}}}
    path = saved(tmp_path, content)
    with pytest.raises(ConfigError, match=rf"latest-rank0.pt: the config.json inside it .*{message}"):
        read_checkpoint(path)


def test_two_reads_at_once_do_not_take_each_others_allowed_names(tmp_path, monkeypatch):
    path = saved(tmp_path, surrounded(flexbert_names()))
    refused = names_refused(path)
    load, allowed = torch.load, []

    def slow_load(*args, **kwargs):
        before = set(torch.serialization.get_safe_globals())
        time.sleep(0.05)
        allowed.append((before, set(torch.serialization.get_safe_globals())))
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", slow_load)
    with ThreadPoolExecutor(4) as pool:
        for model in pool.map(lambda _: read_checkpoint(path, config(), allow=refused), range(4)):
            torch.testing.assert_close(numbers(model), their_logits(), atol=TOLERANCE, rtol=0)
    assert all(before == after for before, after in allowed)
    assert not [each for each in torch.serialization.get_safe_globals() if isinstance(each, tuple)]


def test_what_flexbert_has_no_place_for_is_not_written(tmp_path):
    parts = config_from_flexbert(parallel_options())
    blocks = tuple(replace(block, mlp=GluConfig(intermediate_size=24)) for block in parts.encoder.blocks)
    parts = replace(parts, encoder=replace(parts.encoder, blocks=blocks))
    model = replace(small_model(), config=parts, module=parts.build())
    with pytest.raises(
        ConfigError, match="layer 0: FlexBERT's parallel layer has a bias for attention and MLP"
    ):
        write_checkpoint(tmp_path / "checkpoint.pt", model)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(FolderError, match=r"could not be written.*Nothing is left of it"):
        write_checkpoint(tmp_path / "nowhere" / "checkpoint.pt", small_model())


def test_a_folder_of_ours_reads_back_what_a_checkpoint_held(tmp_path):
    model = read_checkpoint(saved(tmp_path, {"state": {"model": flexbert_names()}}), config())
    write_folder(tmp_path / "parts", model, layout="parts")
    assert torch.equal(numbers(read_folder(tmp_path / "parts")), numbers(model))
