"""What config.json may say: both generations of keys, contradictions, keys that nothing reads, odd values."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modernbert.encoder.activation import ACTIVATIONS
from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import PostNormConfig, PreNormConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.mlp import GluConfig
from modernbert.encoder.presets import PRESETS
from modernbert.encoder.rotary import RotaryConfig
from modernbert.errors import ConfigError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.embed import EmbedHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import HeadPart, ModelConfig
from modernbert.heads.tokens import SpanHeadConfig, TagHeadConfig
from modernbert.heads.transform import TransformConfig
from modernbert.pretrained.bert import BERT, ROBERTA, mlm_head
from modernbert.pretrained.family import Family, head_kind
from modernbert.pretrained.folder import Pretrained, describe_layout, read_folder, write_folder
from modernbert.pretrained.huggingface import MODERNBERT
from modernbert.pretrained.keys import Keys

FULL, SLIDING = "full_attention", "sliding_attention"
OLDER: Mapping[str, Any] = {
    "architectures": ["ModernBertForMaskedLM"],
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160_000.0,
    "hidden_size": 8,
    "intermediate_size": 12,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10_000.0,
    "model_type": "modernbert",
    "norm_eps": 1e-05,
    "num_attention_heads": 2,
    "num_hidden_layers": 4,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "vocab_size": 16,
}
NEWER: Mapping[str, Any] = {
    "layer_types": [FULL, SLIDING, SLIDING, FULL],
    "rope_parameters": {
        FULL: {"rope_type": "default", "rope_theta": 160_000.0},
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
    },
}
BERT_KEYS: Mapping[str, Any] = {
    "architectures": ["BertForMaskedLM"],
    "model_type": "bert",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "max_position_embeddings": 16,
    "vocab_size": 16,
}


def read(keys: Mapping[str, Any], *, strict: bool = True, family: Family = MODERNBERT) -> ModelConfig:
    """The model that a config.json describes, without weights."""
    reader = Keys(keys, "config.json")
    model = family.read(reader, head_kind(keys, "config.json"))
    reader.finish(strict=strict)
    return model


def attentions(model: ModelConfig) -> list[AttentionConfig]:
    blocks = [block for block in model.encoder.blocks if isinstance(block, PreNormConfig | PostNormConfig)]
    return [block.attention for block in blocks if isinstance(block.attention, AttentionConfig)]


def thetas(model: ModelConfig) -> list[float]:
    return [each.rotary.theta for each in attentions(model) if isinstance(each.rotary, RotaryConfig)]


def windows(model: ModelConfig) -> list[int | None]:
    return [each.window_each_side for each in attentions(model)]


# Both generations.


def test_the_older_keys_give_windows_and_thetas():
    model = read(OLDER)
    assert windows(model) == [None, 64, 64, None]
    assert thetas(model) == [160_000.0, 10_000.0, 10_000.0, 160_000.0]


def test_the_newer_keys_say_the_same():
    older = {"global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"}
    newer = {key: value for key, value in OLDER.items() if key not in older} | NEWER
    assert read(newer) == read(OLDER) == read({**OLDER, **NEWER})


def test_the_defaults_are_those_of_the_published_base_model():
    model = read({"architectures": ["ModernBertForMaskedLM"], "model_type": "modernbert"})
    assert model == ModelConfig(encoder=PRESETS["modernbert-base"](), head=MlmHeadConfig())


@pytest.mark.parametrize("local_attention", [1, 4, 7, 128])
def test_a_window_is_half_of_local_attention_rounded_down(local_attention: int):
    assert windows(read({**OLDER, "local_attention": local_attention}))[1] == local_attention // 2


def test_a_local_theta_of_null_means_as_the_global_one():
    assert set(thetas(read({**OLDER, "local_rope_theta": None, "global_rope_theta": 500.0}))) == {500.0}


def test_a_truncation_of_null_is_at_three_deviations():
    assert read({**OLDER, "initializer_cutoff_factor": None}).encoder.init.cutoff == 3.0


@pytest.mark.parametrize(
    "key", ["initializer_cutoff_factor", "global_rope_theta", "local_rope_theta", "norm_eps", "mlp_dropout"]
)
def test_a_whole_number_will_do_where_a_fraction_is_meant(key: str):
    value = 0 if key == "mlp_dropout" else 1
    keys = {k: v for k, v in OLDER.items() if k != "layer_norm_eps"}
    assert read({**keys, key: value}) == read({**keys, key: float(value)})


def test_mmbert_is_read_without_a_word():
    """Its files call rotary positions "sans_pos", have whole numbers for thetas and no norm_eps."""
    keys = {key: value for key, value in OLDER.items() if key != "norm_eps"} | {
        "position_embedding_type": "sans_pos",
        "global_rope_theta": 160_000,
        "local_rope_theta": 160_000,
        "vocab_size": 256_000,
        "hidden_size": 384,
        "num_attention_heads": 6,
        "intermediate_size": 1152,
        "num_hidden_layers": 22,
        "mask_token_id": 4,
        "unk_token_id": 3,
    }
    assert read(keys).encoder == PRESETS["mmbert-small"]()


def test_ettin_is_read_without_a_word():
    keys = {
        "position_embedding_type": "sans_pos",
        "vocab_size": 50_368,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 384,
        "num_hidden_layers": 7,
        "pad_token_id": 50_283,
        "max_position_embeddings": 8192,
    }
    assert read({**OLDER, **keys}).encoder == PRESETS["ettin-17m"]()


# Contradictions.

CONTRADICTIONS = {
    "pattern": (
        {**NEWER, "global_attn_every_n_layers": 2},
        ["global_attn_every_n_layers=2", "layer_types=['full_attention', 'sliding_attention'"],
    ),
    "global_theta": (
        {**NEWER, "global_rope_theta": 80_000.0},
        ["global_rope_theta=80000.0", "rope_parameters['full_attention']"],
    ),
    "local_theta": (
        {**NEWER, "local_rope_theta": 80_000.0},
        ["local_rope_theta=80000.0", "rope_parameters['sliding_attention']"],
    ),
    "eps": ({"layer_norm_eps": 1e-6}, ["layer_norm_eps=1e-06", "norm_eps=1e-05"]),
    "window": ({"sliding_window": 128}, ["local_attention=128", "sliding_window=128"]),
    "head_dim": ({"head_dim": 2}, ["head_dim=2", "hidden_size / num_attention_heads is 4"]),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_generations_that_contradict_each_other_are_both_named(name: str):
    changes, named = CONTRADICTIONS[name]
    with pytest.raises(ConfigError, match="contradicts itself") as error:
        read({**OLDER, **changes})
    assert all(text in str(error.value) for text in ["config.json", *named])


def test_an_eps_that_they_do_not_read_is_refused_where_it_differs_from_the_one_that_they_take():
    keys = {key: value for key, value in OLDER.items() if key != "norm_eps"}
    assert read(keys) == read(OLDER)
    with pytest.raises(ConfigError, match="layer_norm_eps=1e-06, but norm_eps=1e-05"):
        read({**keys, "layer_norm_eps": 1e-6})


@pytest.mark.parametrize("key", ["sliding_window", "head_dim"])
def test_a_derived_key_that_agrees_or_says_nothing_is_silent(key: str):
    agreeing = {"sliding_window": 64, "head_dim": 4}[key]
    assert read({**OLDER, key: agreeing}) == read({**OLDER, key: None}) == read(OLDER)


# Keys that nothing reads.


@pytest.mark.parametrize("keys", [OLDER, BERT_KEYS], ids=["modernbert", "bert"])
def test_an_unknown_key_gives_one_warning_that_names_it(keys: Mapping[str, Any]):
    family = BERT if keys is BERT_KEYS else MODERNBERT
    with pytest.warns(UserWarning, match=r"config\.json has keys .* no effect: flavour, zest") as caught:
        model = read({**keys, "zest": 1, "flavour": "mint"}, strict=False, family=family)
    assert len(caught) == 1
    assert model == read(keys, family=family)


def test_an_unknown_key_is_an_error_where_one_asks_for_strictness():
    with pytest.raises(ConfigError, match="flavour, zest"):
        read({**OLDER, "zest": 1, "flavour": "mint"}, strict=True)


HARMLESS = {
    "_name_or_path": "x",
    "auto_map": {},
    "chunk_size_feed_forward": 4,
    "deterministic_flash_attn": True,
    "directionality": "bidi",
    "dtype": "bfloat16",
    "gradient_checkpointing": True,
    "id2label": {"0": "a", "1": "b"},
    "label2id": {"a": 0, "b": 1},
    "output_past": True,
    "pooler_type": "first_token_transform",
    "problem_type": None,
    "reference_compile": True,
    "repad_logits_with_grad": False,
    "rope_scaling": None,
    "sep_token_id": 3,
    "sparse_prediction": True,
    "tokenizer_class": "PreTrainedTokenizerFast",
    "torch_dtype": "float32",
    "transformers_version": "4.48.0",
    "use_cache": True,
}


@pytest.mark.parametrize("key", HARMLESS)
def test_a_harmless_key_is_silent(key: str):
    assert read({**OLDER, key: HARMLESS[key]}) == read(OLDER)
    assert read({**BERT_KEYS, key: HARMLESS[key]}, family=BERT) == read(BERT_KEYS, family=BERT)


HARMFUL = {
    "add_cross_attention": True,
    "is_decoder": True,
    "is_encoder_decoder": True,
    "per_layer_config": {"0": {"hidden_size": 4}},
    "pruned_heads": {"0": [1]},
    "quantization_config": {"bits": 4},
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
}


@pytest.mark.parametrize("key", HARMFUL)
def test_a_key_that_would_change_the_numbers_is_an_error(key: str):
    for keys, family in ((OLDER, MODERNBERT), (BERT_KEYS, BERT)):
        with pytest.raises(ConfigError, match=f"{key}=.*would change the numbers"):
            read({**keys, key: HARMFUL[key]}, strict=False, family=family)


def test_relative_positions_of_bert_are_an_error():
    with pytest.raises(ConfigError, match="position_embedding_type='relative_key'"):
        read({**BERT_KEYS, "position_embedding_type": "relative_key"}, family=BERT)


# Values that make no sense.

WRONG = {
    "scaled_positions": (
        {"rope_parameters": {FULL: {"rope_type": "yarn", "factor": 4.0}}},
        "asks for scaled rotary positions",
    ),
    "part_of_a_head": (
        {"rope_parameters": {FULL: {"rope_type": "default", "partial_rotary_factor": 0.5}}},
        "asks for scaled rotary positions",
    ),
    "positions_not_by_layer": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10.0}},
        "rope_parameters has rope_theta, rope_type",
    ),
    "theta_in_words": (
        {"rope_parameters": {FULL: {"rope_type": "default", "rope_theta": "high"}}},
        "'rope_theta' must be float",
    ),
    "theta_of_null": (
        {"rope_parameters": {FULL: {"rope_type": "default", "rope_theta": None}}},
        "'rope_theta' must be float",
    ),
    "positions_in_words": (
        {"rope_parameters": {FULL: "default"}},
        "rope_parameters: 'full_attention' must be dict or null, found 'default'",
    ),
    "too_few_layer_types": ({"layer_types": [FULL]}, "layer_types must name"),
    "unknown_layer_type": ({"layer_types": [FULL, "chunked_attention"] * 2}, "layer_types must name"),
    "no_pattern": (
        {"global_attn_every_n_layers": 0},
        "'global_attn_every_n_layers' must be a whole number above 0, found 0",
    ),
    "activation": ({"hidden_activation": "swoosh"}, "unknown activation hidden_activation='swoosh'"),
    "layers_in_words": ({"num_hidden_layers": "four"}, "'num_hidden_layers' must be int, found 'four'"),
    "layers_of_null": ({"num_hidden_layers": None}, "'num_hidden_layers' must be int, found None"),
    "a_fraction_of_a_layer": ({"num_hidden_layers": 4.0}, "'num_hidden_layers' must be int, found 4.0"),
    "true_for_a_number": ({"local_attention": True}, "'local_attention' must be int, found True"),
    "one_for_true": ({"mlp_bias": 1}, "'mlp_bias' must be bool, found 1"),
    "pooling": (
        {"architectures": ["ModernBertForSequenceClassification"], "classifier_pooling": "sum"},
        "unknown pooling 'sum'",
    ),
    "problem": (
        {"architectures": ["ModernBertForSequenceClassification"], "problem_type": "guessing"},
        "unknown problem_type 'guessing'",
    ),
    "labels": (
        {"architectures": ["ModernBertForTokenClassification"], "id2label": {"0": "a", "2": "b"}},
        "'id2label' must number its labels 0 to 1",
    ),
    "architecture": (
        {"architectures": ["ModernBertForCausalLM"]},
        "'ModernBertForCausalLM' is not supported",
    ),
    "no_heads": ({"num_attention_heads": 0}, "'num_attention_heads' must be a whole number above 0, found 0"),
    "padding_outside": ({"pad_token_id": 16}, "pad_token_id 16"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_that_makes_no_sense_is_named(name: str):
    changes, message = WRONG[name]
    with pytest.raises(ConfigError, match=re.escape(message)):
        read({**OLDER, **changes})


# Labels.


@pytest.mark.parametrize(
    ("keys", "labels", "problem"),
    [
        ({}, ("LABEL_0", "LABEL_1"), "single_label"),
        ({"num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2"), "single_label"),
        ({"num_labels": 1}, ("LABEL_0",), "regression"),
        ({"id2label": {"1": "b", "0": "a"}}, ("a", "b"), "single_label"),
        ({"id2label": {"0": "x"}, "problem_type": "single_label_classification"}, ("x",), "regression"),
        ({"id2label": {"0": "x"}, "problem_type": "multi_label_classification"}, ("x",), "multi_label"),
        ({"problem_type": "regression"}, ("LABEL_0", "LABEL_1"), "regression"),
    ],
    ids=["none", "number", "one", "names", "one_of_one", "any_of_one", "values"],
)
def test_labels_and_what_their_scores_mean(keys: dict[str, Any], labels: tuple[str, ...], problem: str):
    head = read({**OLDER, "architectures": ["ModernBertForSequenceClassification"], **keys}).head
    assert isinstance(head, ClassifyHeadConfig)
    assert (head.labels, head.problem) == (labels, problem)


# Writing.


def layers(*types: str) -> EncoderConfig:
    kinds = {FULL: None, SLIDING: 3}
    blocks = [
        PreNormConfig(
            attention=AttentionConfig(
                num_heads=2,
                window_each_side=kinds[layer_type],
                rotary=RotaryConfig(theta=50.0 if layer_type == FULL else 20.0),
            ),
            mlp=GluConfig(intermediate_size=12),
        )
        for layer_type in types
    ]
    blocks[0] = replace(blocks[0], attention_norm=None)
    return EncoderConfig(vocab_size=16, hidden_size=8, blocks=tuple(blocks))


@pytest.mark.parametrize(
    ("types", "every"),
    [
        ((FULL,), 1),
        ((FULL, FULL, FULL), 1),
        ((FULL, SLIDING, FULL, SLIDING), 2),
        ((FULL, SLIDING, SLIDING, FULL, SLIDING), 3),
        ((FULL, SLIDING, SLIDING), 3),
        ((SLIDING, SLIDING), None),
        ((SLIDING, FULL), None),
        ((FULL, FULL, SLIDING), None),
    ],
    ids=lambda value: "".join(t[0] for t in value) if isinstance(value, tuple) else str(value),
)
def test_only_an_every_nth_pattern_is_written_in_the_older_key(types: tuple[str, ...], every: int | None):
    written = MODERNBERT.write(ModelConfig(encoder=layers(*types), head=MlmHeadConfig()))
    assert written.get("global_attn_every_n_layers") == every
    assert written["layer_types"] == list(types)


def test_both_generations_of_keys_are_written():
    written = MODERNBERT.write(ModelConfig(encoder=layers(FULL, SLIDING), head=MlmHeadConfig()))
    assert written["local_attention"] == 6
    assert (written["global_rope_theta"], written["local_rope_theta"]) == (50.0, 20.0)
    assert {kind: values["rope_theta"] for kind, values in written["rope_parameters"].items()} == {
        FULL: 50.0,
        SLIDING: 20.0,
    }
    assert written["norm_eps"] == written["layer_norm_eps"] == 1e-5


HEADS: Mapping[str, HeadPart] = {
    "none": EmbedHeadConfig(),
    "mlm": MlmHeadConfig(is_tied=False, has_decoder_bias=False),
    "classify": ClassifyHeadConfig(
        labels=("x", "y", "z"), problem="multi_label", pooling="cls", dropout=0.25
    ),
    "tag": TagHeadConfig(labels=("O", "B"), transform=TransformConfig(has_bias=True, activation="relu")),
    "span": SpanHeadConfig(dropout=0.5),
}
ENDINGS = {
    "none": "Model",
    "mlm": "ForMaskedLM",
    "classify": "ForSequenceClassification",
    "tag": "ForTokenClassification",
    "span": "ForQuestionAnswering",
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_with_every_head_comes_back_equal(preset: str, kind: str):
    """The keys alone; numbers and tensors are compared in tests/parity."""
    model = ModelConfig(encoder=PRESETS[preset](), head=HEADS[kind])
    family = next(f for f in (MODERNBERT, BERT, ROBERTA) if f.model_type == describe_layout(bare(model)))
    if family is not MODERNBERT:
        model = replace(model, head=_bert_head(family, kind))
    written = family.write(model) | {"architectures": [f"{family.class_prefix}{ENDINGS[kind]}"]}
    assert read({**written, "model_type": family.model_type}, family=family) == model


def bare(model: ModelConfig) -> ModelConfig:
    return replace(model, head=EmbedHeadConfig())


def _bert_head(family: Family, kind: str) -> HeadPart:
    pooler = TransformConfig(activation="tanh", has_bias=True, norm=None)
    heads: dict[str, HeadPart] = {
        "none": EmbedHeadConfig(),
        "mlm": mlm_head(family.model_type, eps=1e-12 if family is BERT else 1e-5),
        "classify": ClassifyHeadConfig(labels=("x", "y"), pooling="cls", transform=pooler, dropout=0.25),
        "tag": TagHeadConfig(labels=("O", "B"), transform=None, dropout=0.25),
        "span": SpanHeadConfig(transform=None),
    }
    return heads[kind]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_is_written_where_transformers_has_it_and_in_full_where_not(
    activation: str, tmp_path: Path
):
    encoder = layers(FULL)
    block = replace(encoder.blocks[0], mlp=GluConfig(intermediate_size=12, activation=activation))
    model = ModelConfig(encoder=replace(encoder, blocks=(block,)), head=MlmHeadConfig())
    write_folder(tmp_path, Pretrained(config=model, module=model.build()))
    assert read_folder(tmp_path).config == model


# A folder that is changed after it was read: old keys must not contradict the new model.


def folder_of(keys: Mapping[str, Any], folder: Path) -> Pretrained:
    model = read(keys)
    write_folder(folder, Pretrained(config=model, module=model.build()))
    (folder / "config.json").write_text(json.dumps(keys))
    return read_folder(folder, strict=True)


def changed(pretrained: Pretrained, **changes: Any) -> Pretrained:
    config = replace(pretrained.config, **changes)
    return replace(pretrained, config=config, module=config.build())


def test_what_came_with_a_folder_goes_back_with_it(tmp_path: Path):
    came = {
        **OLDER,
        "classifier_pooling": "mean",
        "_name_or_path": "x",
        "sep_token_id": 3,
        "local_attention": 8,
    }
    pretrained = folder_of(came, tmp_path / "one")
    write_folder(tmp_path / "two", pretrained)
    written = json.loads((tmp_path / "two/config.json").read_text())
    assert {key: written[key] for key in came} == came


def test_a_pattern_that_was_changed_leaves_no_older_key(tmp_path: Path):
    pretrained = folder_of(OLDER, tmp_path)
    blocks = pretrained.config.encoder.blocks
    encoder = replace(pretrained.config.encoder, blocks=(*blocks, *blocks[1:2], *blocks[3:]))
    write_folder(tmp_path, changed(pretrained, encoder=encoder))
    assert read_folder(tmp_path, strict=True).config.encoder == encoder


def test_a_head_that_was_changed_leaves_no_labels(tmp_path: Path):
    labels = {"id2label": {str(i): f"l{i}" for i in range(5)}, "num_labels": 5, "problem_type": "regression"}
    pretrained = folder_of(
        {**OLDER, **labels, "architectures": ["ModernBertForSequenceClassification"]}, tmp_path
    )
    write_folder(tmp_path, changed(pretrained, head=SpanHeadConfig()))
    written = json.loads((tmp_path / "config.json").read_text())
    assert not written.keys() & {"id2label", "label2id", "num_labels", "problem_type"}
    assert written["architectures"] == ["ModernBertForQuestionAnswering"]


def test_a_model_of_another_family_takes_no_keys_of_the_old_one(tmp_path: Path):
    pretrained = folder_of(OLDER, tmp_path)
    other = read(BERT_KEYS, family=BERT)
    write_folder(tmp_path, replace(pretrained, config=other, module=other.build()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_folder(tmp_path, strict=True).config == other


def test_dropout_behind_attention_comes_back_though_they_have_no_word_for_it(tmp_path: Path):
    """FlexBERT has one after the last product and none on the weights: at rest the numbers are the same."""
    encoder = layers(FULL, SLIDING)
    blocks = tuple(
        replace(block, attention=replace(block.attention, out_dropout=0.1))
        for block in encoder.blocks
        if isinstance(block, PreNormConfig) and isinstance(block.attention, AttentionConfig)
    )
    model = ModelConfig(encoder=replace(encoder, blocks=blocks), head=MlmHeadConfig())
    write_folder(tmp_path, Pretrained(config=model, module=model.build()))
    assert read_folder(tmp_path, strict=True).config == model


def test_token_ids_are_null_where_no_tokenizer_tells_them(tmp_path: Path):
    model = ModelConfig(encoder=layers(FULL), head=MlmHeadConfig())
    write_folder(tmp_path, Pretrained(config=model, module=model.build()))
    written = json.loads((tmp_path / "config.json").read_text())
    assert all(written[f"{name}_token_id"] is None for name in ("bos", "eos", "cls", "sep"))


def test_a_folder_of_a_kind_that_is_not_supported_says_which_are(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "deberta-v2"}))
    with pytest.raises(
        ConfigError, match=r"'deberta-v2' is not supported; supported are modernbert, bert, roberta"
    ):
        read_folder(tmp_path)
