"""The presets have the shapes of the published models: their parameters are counted to the unit."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from modernbert.encoder.config import from_json, to_json
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.norm import LayerNormConfig
from modernbert.encoder.presets import PARTS, PRESETS, bert_base, minilm_l6, modernbert_base, roberta_base
from modernbert.encoder.rotary import RotaryConfig
from modernbert.heads.embed import PoolerHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.transform import TransformConfig

ENCODER_AND_MLM = {
    "modernbert-base": (149_014_272, 149_655_232),
    "modernbert-large": (394_781_696, 395_881_664),
    "ettin-17m": (16_797_440, 16_913_600),
    "ettin-32m": (31_883_136, 32_081_344),
    "ettin-68m": (68_144_640, 68_457_664),
    "ettin-150m": (149_014_272, 149_655_232),
    "ettin-400m": (394_781_696, 395_881_664),
    "ettin-1b": (1_028_050_688, 1_031_314_112),
    "mmbert-small": (140_493_696, 140_897_536),
    "mmbert-base": (306_939_648, 307_786_240),
}


def num_parameters(module: nn.Module) -> int:
    """Each tensor once, however many names it has."""
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(config: EncoderConfig, head: object = None) -> nn.Module:
    with torch.device("meta"):
        encoder = config.build()
        return encoder if head is None else head.build(encoder)


@pytest.mark.parametrize("name", ENCODER_AND_MLM)
def test_a_modernbert_has_the_parameters_of_the_published_one(name):
    encoder, with_mlm_head = ENCODER_AND_MLM[name]
    assert num_parameters(on_meta(PRESETS[name]())) == encoder
    assert num_parameters(on_meta(PRESETS[name](), MlmHeadConfig())) == with_mlm_head


@pytest.mark.parametrize(
    ("preset", "without_pooler", "with_pooler"),
    [
        (bert_base, 108_891_648, 109_482_240),
        (roberta_base, 124_055_040, 124_645_632),
        (minilm_l6, 22_565_376, 22_713_216),
    ],
)
def test_a_bert_has_the_parameters_of_the_published_one(preset, without_pooler, with_pooler):
    assert num_parameters(on_meta(preset())) == without_pooler
    assert num_parameters(on_meta(preset(), PoolerHeadConfig())) == with_pooler


@pytest.mark.parametrize(
    ("preset", "eps", "expected"), [(bert_base, 1e-12, 109_514_298), (roberta_base, 1e-5, 124_697_433)]
)
def test_a_bert_for_masked_tokens_has_the_parameters_of_the_published_one(preset, eps, expected):
    transform = TransformConfig(has_bias=True, norm=LayerNormConfig(eps=eps, has_bias=True))
    assert num_parameters(on_meta(preset(), MlmHeadConfig(transform=transform))) == expected


def test_every_preset_has_a_published_count_or_is_xlm_roberta():
    assert set(PRESETS) - set(ENCODER_AND_MLM) == {
        "bert-base",
        "minilm-l6",
        "roberta-base",
        "xlm-roberta-base",
    }
    # 250,002 - 50,265 more rows of 768 than RoBERTa has
    assert num_parameters(on_meta(PRESETS["xlm-roberta-base"]())) == 124_055_040 + 199_737 * 768


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name):
    config = PRESETS[name]()
    assert from_json(json.loads(json.dumps(to_json(config))), PARTS) == config


def test_every_third_layer_of_modernbert_is_global_and_the_thetas_differ():
    config = modernbert_base()
    for index, block in enumerate(config.blocks):
        is_global = index % 3 == 0
        assert block.attention.window_each_side == (None if is_global else 64)
        assert block.attention.rotary == RotaryConfig(theta=160_000.0 if is_global else 10_000.0)
        assert (block.attention_norm is None) is (index == 0)
    assert all(block.attention.rotary.theta == 160_000.0 for block in PRESETS["mmbert-small"]().blocks)


def test_parameters_have_the_published_names():
    names = set(on_meta(replace(modernbert_base(), blocks=modernbert_base().blocks[:2])).state_dict())
    layer = {"attn.Wqkv.weight", "attn.Wo.weight", "mlp_norm.weight", "mlp.Wi.weight", "mlp.Wo.weight"}
    assert names == {
        "embeddings.tok_embeddings.weight",
        "embeddings.norm.weight",
        *(f"layers.0.{name}" for name in layer),
        *(f"layers.1.{name}" for name in {*layer, "attn_norm.weight"}),
        "final_norm.weight",
    }
