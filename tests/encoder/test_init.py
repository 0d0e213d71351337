"""Each family of initialisations: the spread by place, the cut, the row of the padding token."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import PreNormConfig
from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.init import FAMILIES, InitConfig
from modernbert.encoder.mlp import MlpConfig
from modernbert.encoder.norm import LayerNormConfig
from modernbert.errors import ConfigError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.mlm import MlmHeadConfig

HIDDEN_SIZE, INNER_SIZE, NUM_LAYERS, PAD = 256, 512, 2, 3
# The smallest matrix has 256 * 256 entries: one standard error of its spread is 1 / sqrt(2 * 65536), 0.3 %.
SPREAD_TOLERANCE = 0.01


def model(init: InitConfig, head: object) -> nn.Module:
    torch.manual_seed(0)
    norm = LayerNormConfig(has_bias=True)
    block = PreNormConfig(
        attention=AttentionConfig(num_heads=4, has_qkv_bias=True, has_out_bias=True),
        mlp=MlpConfig(intermediate_size=INNER_SIZE, has_in_bias=True, has_out_bias=True),
        attention_norm=norm,
        mlp_norm=norm,
    )
    encoder = EncoderConfig(
        vocab_size=600,
        hidden_size=HIDDEN_SIZE,
        blocks=(block,) * NUM_LAYERS,
        embedding=EmbeddingConfig(
            norm=norm, positions=LearnedPositionsConfig(num_positions=600), num_token_types=2
        ),
        init=init,
        pad_token_id=PAD,
    )
    return head.build(encoder.build())


def masked_language_model(init: InitConfig) -> nn.Module:
    return model(init, MlmHeadConfig(is_tied=False))


def shrunk(std: float, cutoff: float) -> float:
    """The standard deviation of a normal distribution that is cut at `cutoff` of its own."""
    density = math.exp(-cutoff * cutoff / 2) / math.sqrt(2 * math.pi)
    inside = math.erf(cutoff / math.sqrt(2))
    return std * math.sqrt(1 - 2 * cutoff * density / inside)


def expected_spread(init: InitConfig, name: str, layer: int, fan_in: int) -> float:
    """The table of init.py's docstring, for a matrix called `name`; `layer` counts from 0."""
    is_out = name in ("Wo", "dense", "decoder")
    is_table = name in ("tok_embeddings", "positions")
    if init.family == "full_megatron":
        return shrunk(init.std / math.sqrt(2 * NUM_LAYERS) if is_out else init.std, init.cutoff)
    if init.family in ("bert", "normal") or (is_table and init.family != "mitchell"):
        return init.std
    if init.family == "mitchell":
        std = 1 / math.sqrt(HIDDEN_SIZE if is_table else fan_in)
        return shrunk(std / math.sqrt(2 * (layer + 1)) if is_out else std, 3.0)
    return math.sqrt(2 / fan_in) if init.family == "kaiming_normal" else 1 / math.sqrt(fan_in)


@pytest.mark.parametrize("std", [0.02, 0.1])
@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_are_spread_by_their_place(family, std):
    init = InitConfig(family=family, std=std, cutoff=2.0)
    built = masked_language_model(init)
    matrices = {
        name.removesuffix(".weight"): weight
        for name, weight in built.named_parameters()
        if weight.dim() == 2 and "token_types" not in name
    }
    assert len(matrices) == 4 * NUM_LAYERS + 4
    for name, weight in matrices.items():
        layer = int(name.split("layers.")[1][0]) if "layers." in name else NUM_LAYERS - 1
        expected = expected_spread(init, name.rsplit(".", 1)[-1], layer, weight.shape[1])
        assert weight.std().item() == pytest.approx(expected, rel=SPREAD_TOLERANCE), name
        assert abs(weight.mean().item()) < 5 * expected / math.sqrt(weight.numel()), name


@pytest.mark.parametrize("family", FAMILIES)
def test_biases_start_at_0_and_norms_at_1(family):
    for name, parameter in masked_language_model(InitConfig(family=family)).named_parameters():
        if name.endswith("bias"):
            assert torch.equal(parameter, torch.zeros_like(parameter)), name
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name


@pytest.mark.parametrize("cutoff", [1.0, 2.0, 3.0])
def test_full_megatron_keeps_to_its_cutoff_and_reaches_it(cutoff):
    built = masked_language_model(InitConfig(std=0.02, cutoff=cutoff))
    for name, scale in (("Wqkv", 0.02), ("Wo", 0.02 / math.sqrt(2 * NUM_LAYERS)), ("tok_embeddings", 0.02)):
        for full_name, weight in built.named_parameters():
            if full_name.endswith(f"{name}.weight"):
                bound = cutoff * scale
                assert 0.9 * bound < weight.abs().max().item() <= bound * (1 + 1e-6), full_name


def test_a_classifier_of_full_megatron_is_spread_by_the_hidden_size():
    head = ClassifyHeadConfig(labels=tuple(f"label {index}" for index in range(500)))
    weight = model(InitConfig(), head).classifier.weight
    expected = shrunk(HIDDEN_SIZE**-0.5, 2.0)
    assert weight.std().item() == pytest.approx(expected, rel=SPREAD_TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_bert_zeroes_the_row_of_the_padding_token(family):
    embeddings = masked_language_model(InitConfig(family=family)).model.embeddings
    is_zero = [not row.any() for row in embeddings.tok_embeddings.weight]
    assert is_zero == [family == "bert" and index == PAD for index in range(600)]
    assert all(row.any() for row in embeddings.positions.weight)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "full_megatron"])
def test_a_small_embedding_is_uniform_in_a_ten_thousandth(family):
    embeddings = masked_language_model(InitConfig(family=family, has_small_embedding=True)).model.embeddings
    weight = embeddings.tok_embeddings.weight
    assert 0.99e-4 < weight.abs().max().item() <= 1e-4
    assert weight.std().item() == pytest.approx(1e-4 / math.sqrt(3), rel=SPREAD_TOLERANCE)
    assert embeddings.positions.weight.std().item() > 1e-3


def test_the_same_seed_draws_the_same_weights():
    first, second = (masked_language_model(InitConfig()).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_head_leaves_the_weights_of_its_encoder_alone():
    encoder = masked_language_model(InitConfig()).model
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    MlmHeadConfig().build(encoder)
    assert all(torch.equal(weight, before[name]) for name, weight in encoder.state_dict().items())


def test_a_family_that_is_not_there_is_an_error_that_lists_those_that_are():
    with pytest.raises(ConfigError, match="unknown initialisation 'xavier'; there are: full_megatron, bert"):
        InitConfig(family="xavier")


def test_contradicting_settings_are_errors():
    with pytest.raises(ConfigError, match="cannot go with has_small_embedding"):
        InitConfig(has_small_embedding=True)
    for changes in ({"std": -1.0}, {"cutoff": -1.0}):
        with pytest.raises(ConfigError, match="must be a number of at least 0"):
            replace(InitConfig(), **changes)


def test_a_deviation_of_zero_draws_zeros():
    built = masked_language_model(InitConfig(std=0.0))
    assert not built.model.layers[0].mlp.Wi.weight.any()
