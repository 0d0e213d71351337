"""FlexBERT's options as parts: what each says, and that none is dropped silently."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import ParallelConfig, PostNormConfig, PreNormConfig
from modernbert.encoder.embedding import LearnedPositionsConfig
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.norm import LayerNormConfig, RmsNormConfig
from modernbert.encoder.presets import modernbert_base, modernbert_large
from modernbert.encoder.rotary import RotaryConfig
from modernbert.errors import ConfigError
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.heads.transform import TransformConfig
from modernbert.pretrained.flexbert import config_from_flexbert

# the options of the published runs (reference facts, sections 2.1 and 3.1)
MODERNBERT = {
    "vocab_size": 50_368,
    "init_method": "full_megatron",
    "num_hidden_layers": 22,
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_attention_heads": 12,
    "attention_layer": "rope",
    "attention_probs_dropout_prob": 0.0,
    "attn_out_bias": False,
    "attn_out_dropout_prob": 0.1,
    "attn_qkv_bias": False,
    "bert_layer": "prenorm",
    "embed_dropout_prob": 0.0,
    "embed_norm": True,
    "final_norm": True,
    "skip_first_prenorm": True,
    "embedding_layer": "sans_pos",
    "loss_function": "fa_cross_entropy",
    "loss_kwargs": {"reduction": "mean"},
    "mlp_dropout_prob": 0.0,
    "mlp_in_bias": False,
    "mlp_layer": "glu",
    "mlp_out_bias": False,
    "normalization": "layernorm",
    "norm_kwargs": {"eps": 1e-5, "bias": False},
    "hidden_act": "gelu",
    "head_pred_act": "gelu",
    "activation_function": "gelu",
    "padding": "unpadded",
    "rotary_emb_dim": None,
    "rotary_emb_base": 160_000.0,
    "rotary_emb_scale_base": None,
    "rotary_emb_interleaved": False,
    "local_attn_rotary_emb_base": 10_000.0,
    "local_attn_rotary_emb_dim": None,
    "allow_embedding_resizing": True,
    "sliding_window": 128,
    "global_attn_every_n_layers": 3,
    "unpad_embeddings": True,
    "compile_model": True,
    "masked_prediction": True,
}


def first_block(**options: object) -> PreNormConfig | PostNormConfig | ParallelConfig:
    return config_from_flexbert(options).encoder.blocks[0]


def attention(**options: object) -> AttentionConfig:
    return config_from_flexbert(options).encoder.blocks[-1].attention


def without_dropout(encoder, pad_token_id: int):
    """The encoder as it was released: without training's attention dropout, with the tokenizer's padding."""
    blocks = [replace(b, attention=replace(b.attention, out_dropout=0.0)) for b in encoder.blocks]
    return replace(encoder, blocks=tuple(blocks), pad_token_id=pad_token_id)


@pytest.mark.parametrize(
    ("sizes", "preset"),
    [
        ((22, 768, 1152, 12), modernbert_base()),
        ((28, 1024, 2624, 16), modernbert_large()),
    ],
    ids=["base", "large"],
)
def test_the_published_runs_are_the_published_models(sizes, preset):
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    model = config_from_flexbert(MODERNBERT | dict(zip(names, sizes, strict=True)))
    assert without_dropout(model.encoder, pad_token_id=50_283) == preset
    assert model.head == MlmHeadConfig()
    assert model.encoder.blocks[0].attention.out_dropout == 0.1


def test_a_whole_run_is_read_too():
    run = {"max_seq_len": 1024, "model": {"name": "flex_bert", "model_config": MODERNBERT}, "seed": 17}
    encoder = config_from_flexbert(run).encoder
    assert encoder.max_positions == 1024
    assert replace(encoder, max_positions=8192) == config_from_flexbert(MODERNBERT).encoder


def test_absent_options_have_flexberts_defaults():
    model = config_from_flexbert({})
    norm = RmsNormConfig(eps=1e-5)
    assert model.encoder.vocab_size == 30_528  # BERT's 30,522, rounded up to a multiple of 8
    assert len(model.encoder.blocks) == 12
    assert model.encoder.blocks[0] == PreNormConfig(
        attention=AttentionConfig(num_heads=12),
        mlp=MlpConfig(intermediate_size=3072),
        attention_norm=norm,
        mlp_norm=norm,
    )
    assert model.encoder.embedding.positions == LearnedPositionsConfig(num_positions=512)
    assert model.encoder.final_norm is None
    assert model.encoder.init.family == "bert"
    assert model.head == MlmHeadConfig(transform=TransformConfig(activation="silu", norm=norm))


def test_each_option_reaches_its_part():
    assert isinstance(first_block(bert_layer="unpadded_postnorm"), PostNormConfig)
    assert first_block(
        normalization="triton_layernorm", norm_kwargs={"eps": "1e-6"}
    ).mlp_norm == LayerNormConfig(eps=1e-6, has_bias=True)
    assert first_block(mlp_layer="glu", mlp_in_bias=True, mlp_dropout_prob=0.1).mlp == GluConfig(
        intermediate_size=3072, has_in_bias=True, dropout=0.1
    )
    assert first_block(mlp_out_bias=True, hidden_act="silu").mlp == MlpConfig(
        intermediate_size=3072, has_out_bias=True, activation="silu"
    )
    assert attention(
        attn_qkv_bias=True, attn_out_bias=True, attention_probs_dropout_prob=0.1, attn_out_dropout_prob=0.2
    ) == AttentionConfig(num_heads=12, has_qkv_bias=True, has_out_bias=True, dropout=0.1, out_dropout=0.2)
    rotary = {"attention_layer": "rope", "rotary_emb_dim": 32, "rotary_emb_interleaved": True}
    assert attention(**rotary).rotary == RotaryConfig(fraction=0.5, is_interleaved=True)
    encoder = config_from_flexbert(
        {"init_method": "mitchell", "init_small_embedding": True, "init_std": 0.01, "embed_dropout_prob": 0.1}
    ).encoder
    assert (encoder.init.family, encoder.init.std, encoder.init.has_small_embedding) == (
        "mitchell",
        0.01,
        True,
    )
    assert encoder.embedding.dropout == 0.1
    head = config_from_flexbert({"head_pred_norm": False, "head_pred_bias": True, "decoder_bias": False}).head
    assert head == MlmHeadConfig(
        transform=TransformConfig(activation="silu", has_bias=True, norm=None), has_decoder_bias=False
    )


def test_a_window_without_a_pattern_is_everywhere_and_has_the_local_theta():
    local = {"attention_layer": "rope", "sliding_window": 64, "local_attn_rotary_emb_base": 5_000}
    assert attention(**local).window_each_side == 32
    assert attention(**local).rotary.theta == 5_000.0
    assert attention(attention_layer="rope", rotary_emb_base=7.0, sliding_window=64).rotary.theta == 7.0
    assert attention(attention_layer="rope", local_attn_rotary_emb_base=5_000).rotary.theta == 10_000.0


def test_first_layers_may_differ():
    options = {
        "initial_attention_layer": "base",
        "initial_mlp_layer": "mlp",
        "initial_bert_layer": "postnorm",
        "num_initial_layers": 2,
    }
    blocks = config_from_flexbert(MODERNBERT | options).encoder.blocks
    assert [type(block) for block in blocks[:3]] == [PostNormConfig, PostNormConfig, PreNormConfig]
    assert [type(block.mlp) for block in blocks[:3]] == [MlpConfig, MlpConfig, GluConfig]
    assert [block.attention.rotary is None for block in blocks[:3]] == [True, True, False]


def test_the_first_layer_keeps_its_norm_without_one_before_it():
    assert first_block(skip_first_prenorm=True).attention_norm is None
    assert first_block(skip_first_prenorm=True, embed_norm=False).attention_norm is not None


@pytest.mark.parametrize("size", [2, 30, 60, 88])
def test_a_part_of_a_head_is_exactly_as_large_as_asked(size):
    options = {
        "hidden_size": 176,
        "num_attention_heads": 2,
        "attention_layer": "rope",
        "rotary_emb_dim": size,
    }
    assert attention(**options).rotary.build(88).rotary_size == size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotary_emb_scale_base": 512}, "rotary_emb_scale_base=512 (XPos) has no part here"),
        ({"attention_layer": "alibi"}, "attention_layer='alibi' has no part here; known are base, rope"),
        ({"bert_layer": "sandwich"}, "bert_layer='sandwich' has no part here"),
        ({"mlp_layer": "moe"}, "mlp_layer='moe' has no part here"),
        ({"embedding_layer": "alibi"}, "embedding_layer='alibi' has no part here"),
        ({"normalization": "batchnorm"}, "normalization='batchnorm' has no part here"),
        ({"norm_kwargs": {"elementwise_affine": False}}, "norm_kwargs has elementwise_affine"),
        ({"norm_kwargs": {"eps": "tiny"}}, "norm_kwargs.eps must be a number"),
        ({"init_method": "xavier"}, "init_method='xavier' has no part here"),
        ({"hidden_act": "threshold"}, "unknown activation hidden_act='threshold'"),
        ({"bert_layer": "parallel_prenorm"}, "layer 0 is half parallel"),
        ({"initial_bert_layer": "parallel_prenorm"}, "layer 0 is half parallel"),
        ({"global_attn_every_n_layers": 3}, "needs a sliding_window"),
        ({"hidden_size": 100}, "hidden_size 100 cannot be shared out to 12 heads"),
        ({"hidden_size": "768"}, "'hidden_size' must be int, found '768'"),
        ({"architectures": ["FlexBertForSequenceClassification"]}, "only FlexBertForMaskedLM is read"),
        ({"is_decoder": True}, "is_decoder=True would change the numbers"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_option_that_no_part_expresses_is_named(options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        config_from_flexbert(options)


def test_an_unknown_option_is_named_in_a_warning():
    with pytest.warns(UserWarning, match="nothing here reads.*new_option"):
        config_from_flexbert({"new_option": 3})


def test_the_config_of_a_checkpoint_of_bert_origin_is_read_without_a_word():
    dumped = {
        "_name_or_path": "bert-base-uncased",
        "alibi_starting_size": 512,
        "architectures": ["FlexBertForMaskedLM"],
        "classifier_dropout": None,
        "gradient_checkpointing": False,
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "transformers_version": "4.44.1",
        "type_vocab_size": 2,
        "use_cache": True,
    }
    assert config_from_flexbert(MODERNBERT | dumped) == config_from_flexbert(MODERNBERT)
    assert isinstance(config_from_flexbert(MODERNBERT), ModelConfig)
