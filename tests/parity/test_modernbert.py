"""ModernBERT folders: the numbers of transformers, both ways, for every head, generation and odd setting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import ParallelConfig, PreNormConfig
from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.norm import LayerNormConfig, RmsNormConfig
from modernbert.encoder.presets import modernbert_base
from modernbert.encoder.rotary import RotaryConfig
from modernbert.errors import WeightsError
from modernbert.heads.classify import ChoiceHeadConfig, ClassifyHeadConfig
from modernbert.heads.embed import EmbedHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.heads.tokens import SpanHeadConfig, TagHeadConfig
from modernbert.heads.transform import TransformConfig
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from modernbert.text.batch import PackedBatch
from tests.parity.theirs import (
    AUTO_CLASSES,
    ENDINGS,
    GAIN_OF_DEEP_MODELS,
    Texts,
    assert_same,
    assert_same_both_ways,
    assert_same_numbers,
    build_theirs,
    load_theirs,
    our_numbers,
    random_texts,
    randomize,
    their_numbers,
)

VOCAB_SIZE = 61
LENGTHS = [1, 9, 50, 17, 33, 4]  # from one token to many windows
TINY: Mapping[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "num_hidden_layers": 5,
    "local_attention": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
FULL, SLIDING = "full_attention", "sliding_attention"
# bf16 keeps 8 bits: two programs that round in other places differ, but neither may be the worse one.
MOST_BF16_ERROR = 1.05


def thetas(everywhere: float, nearby: float) -> dict[str, Any]:
    return {
        FULL: {"rope_type": "default", "rope_theta": everywhere},
        SLIDING: {"rope_type": "default", "rope_theta": nearby},
    }


def their_model(head: str = "ForMaskedLM", *, seed: int = 0, **settings: Any) -> transformers.PreTrainedModel:
    return build_theirs(f"ModernBert{head}", transformers.ModernBertConfig(**{**TINY, **settings}), seed)


def texts(side: str = "right", lengths: list[int] = LENGTHS, **settings: Any) -> Texts:
    return random_texts(lengths, vocab_size=VOCAB_SIZE, side=side, **settings)


BIASES = {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True}
HEADS = {
    "bare": ("Model", {}),
    "tied_decoder": ("ForMaskedLM", {}),
    "untied_decoder": ("ForMaskedLM", {"tie_word_embeddings": False}),
    "tied_decoder_without_bias": ("ForMaskedLM", {"decoder_bias": False}),
    "untied_decoder_without_bias": ("ForMaskedLM", {"tie_word_embeddings": False, "decoder_bias": False}),
    "classes_by_cls": ("ForSequenceClassification", {"classifier_pooling": "cls", "num_labels": 3}),
    "classes_by_mean": ("ForSequenceClassification", {"classifier_pooling": "mean", "num_labels": 3}),
    "single_label": (
        "ForSequenceClassification",
        {"problem_type": "single_label_classification", "id2label": {0: "bad", 1: "good"}},
    ),
    "multi_label": (
        "ForSequenceClassification",
        {"problem_type": "multi_label_classification", "num_labels": 5},
    ),
    "regression": ("ForSequenceClassification", {"problem_type": "regression", "num_labels": 1}),
    "values": ("ForSequenceClassification", {"problem_type": "regression", "num_labels": 3}),
    "tags": ("ForTokenClassification", {"num_labels": 7}),
    "span": ("ForQuestionAnswering", {}),
    "choice_by_cls": ("ForMultipleChoice", {"classifier_pooling": "cls"}),
    "choice_by_mean": ("ForMultipleChoice", {"classifier_pooling": "mean"}),
}
# transformers takes column 0 of a classifier's rows for the first token, which under left padding is padding.
READS_COLUMN_0 = {name for name, (head, kept) in HEADS.items() if head == "ForSequenceClassification"} - {
    "classes_by_mean"
}


@pytest.mark.parametrize(
    ("side", "biases"),
    [("right", {}), ("left", {}), ("right", BIASES)],
    ids=["padded_right", "padded_left", "with_biases"],
)
@pytest.mark.parametrize("name", HEADS)
def test_every_head_gives_their_numbers_both_ways(
    name: str, side: str, biases: dict[str, bool], tmp_path: Path
):
    if side == "left" and name in READS_COLUMN_0:
        pytest.skip("transformers pools padding here")
    head, settings = HEADS[name]
    assert_same_both_ways(their_model(head, **settings, **biases), texts(side), tmp_path)


SETTINGS = {
    "odd_window": {"local_attention": 7},
    "window_of_4": {"local_attention": 4},
    "window_of_2": {"local_attention": 2},
    "window_longer_than_the_texts": {"local_attention": 256},
    "one_layer": {"num_hidden_layers": 1},
    "two_layers": {"num_hidden_layers": 2},
    "all_local": {"layer_types": [SLIDING] * 3, "num_hidden_layers": 3},
    "all_global": {"layer_types": [FULL] * 3, "num_hidden_layers": 3},
    "local_first": {"layer_types": [SLIDING, FULL, FULL, SLIDING], "num_hidden_layers": 4},
    "every_second_global": {"layer_types": [FULL, SLIDING] * 2, "num_hidden_layers": 4},
    "thetas_of_mmbert": {"rope_parameters": thetas(160_000.0, 160_000.0)},
    "small_thetas": {"rope_parameters": thetas(50.0, 7.5)},
    "theta_of_one_kind": {"rope_parameters": {FULL: {"rope_type": "default", "rope_theta": 500.0}}},
    "one_head": {"num_attention_heads": 1},
    "heads_of_2": {"num_attention_heads": 16},
    "large_eps": {"norm_eps": 0.05},
    "no_padding_token": {"pad_token_id": None},
    "norm_bias": {"norm_bias": True},
    "attention_bias": {"attention_bias": True},
    "mlp_bias": {"mlp_bias": True},
    "classifier_bias": {"classifier_bias": True},
    "dropout_at_rest": {
        "attention_dropout": 0.3,
        "mlp_dropout": 0.2,
        "embedding_dropout": 0.1,
        "classifier_dropout": 0.4,
    },
    "whole_numbers_for_dropout": {"attention_dropout": 0, "classifier_dropout": 0},
    "other_initialisation": {"initializer_range": 0.05, "initializer_cutoff_factor": 3.0},
    "sparse_prediction": {"sparse_prediction": True},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_odd_settings_give_their_numbers_both_ways(name: str, tmp_path: Path):
    assert_same_both_ways(their_model(**SETTINGS[name]), texts(), tmp_path)


# All that they have, but for clipped GELU, Laplace, xIELU and the root of softplus, which are nowhere here.
ACTIVATIONS = sorted(transformers.activations.ACT2FN.keys() - {"gelu_10", "laplace", "sqrtsoftplus", "xielu"})


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation_of_theirs_gives_their_numbers_both_ways(name: str, tmp_path: Path):
    settings = {"hidden_activation": name, "classifier_activation": name, "num_hidden_layers": 2}
    assert_same_both_ways(their_model(**settings), texts(), tmp_path)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_both_of_their_attentions_give_the_same_numbers(implementation: str, seed: int, tmp_path: Path):
    theirs = their_model(seed=seed, **BIASES)
    theirs.set_attn_implementation(implementation)
    theirs.save_pretrained(tmp_path)
    batch = texts(seed=seed)
    assert_same_numbers(read_folder(tmp_path), batch.packed, their_numbers(theirs, batch))


def test_the_random_weights_make_attention_matter():
    theirs = their_model("Model")
    theirs.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = theirs(texts(lengths=[50]).token_ids, output_attentions=True).attentions
    strongest = [weights.amax(dim=-1).mean().item() for weights in attentions]
    assert min(strongest) > 0.25, "a uniform row of 50 keys has 0.02, one of 9 keys 0.11"


@pytest.mark.parametrize(
    "change",
    [{"local_attention": 6}, {"layer_types": [FULL] * 5}, {"rope_parameters": thetas(80_000.0, 10_000.0)}],
    ids=["window", "layer_types", "theta"],
)
def test_a_setting_read_wrongly_could_not_pass_unseen(change: dict[str, Any]):
    batch = texts()
    right, wrong = (
        their_numbers(their_model("Model", **settings), batch).hidden for settings in ({}, change)
    )
    assert (right - wrong).abs().max() > 0.05


# Packs: what our pack computes is one row of theirs under the masks that they do not build themselves.


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("head", ["ForMaskedLM", "ForTokenClassification"])
def test_a_pack_equals_their_row_of_many_documents(head: str, implementation: str, tmp_path: Path):
    theirs = their_model(head, **BIASES)
    theirs.set_attn_implementation(implementation)
    theirs.save_pretrained(tmp_path)
    pack = texts(lengths=[9, 50, 1, 1, 17, 33, 33, 4]).packed
    expected = their_packed_scores(theirs, pack, window=4, is_float=implementation == "eager")
    ours = our_numbers(read_folder(tmp_path), pack, has_scores=True)
    assert ours.scores is not None
    assert_same(ours.scores, expected)


@torch.no_grad()
def their_packed_scores(
    model: transformers.PreTrainedModel, pack: PackedBatch, *, window: int, is_float: bool
) -> Tensor:
    """The only exact way: their own masks come from the padding alone, and let documents see each other."""
    document = torch.arange(pack.num_sequences).repeat_interleave(pack.lengths)  # [T]
    is_seen = document[:, None] == document[None, :]  # [T, T]
    distance = (torch.arange(pack.num_tokens)[:, None] - torch.arange(pack.num_tokens)[None, :]).abs()
    masks = {FULL: is_seen, SLIDING: is_seen & (distance <= window)}
    if is_float:
        masks = {
            name: torch.zeros(mask.shape).masked_fill(~mask, float("-inf")) for name, mask in masks.items()
        }
    output = model(
        pack.token_ids[None],
        attention_mask={name: mask[None, None] for name, mask in masks.items()},
        position_ids=pack.position_ids[None],
    )
    return output.logits[0]


# Generations of config.json.

OLD_FORM: Mapping[str, Any] = {
    "_name_or_path": "some/model",
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_dropout": 0.0,
    "classifier_pooling": "mean",
    "cls_token_id": 1,
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "eos_token_id": 2,
    "global_attn_every_n_layers": 2,
    "global_rope_theta": 900.0,
    "gradient_checkpointing": False,
    "hidden_activation": "gelu",
    "hidden_size": 32,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "intermediate_size": 40,
    "layer_norm_eps": 1e-05,
    "local_attention": 8,
    "local_rope_theta": 30.0,
    "max_position_embeddings": 64,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": 4,
    "num_hidden_layers": 5,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "reference_compile": None,
    "repad_logits_with_grad": False,
    "sep_token_id": 2,
    "sparse_pred_ignore_index": -100,
    "sparse_prediction": False,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "transformers_version": "4.48.0",
    "vocab_size": VOCAB_SIZE,
}
_OLD_ONLY = {"global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"}
_PATTERN = [FULL, SLIDING, FULL, SLIDING, FULL]
_NEW_ONLY = {"layer_types": _PATTERN, "rope_parameters": thetas(900.0, 30.0)}


def without(keys: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in keys.items() if name not in names}


# What transformers 4.48 read of each of them; their version 5 must agree, and does.
GENERATIONS = {
    "older": OLD_FORM,
    "newer": without(OLD_FORM, *_OLD_ONLY) | _NEW_ONLY,
    "both": OLD_FORM | _NEW_ONLY,
    "older_thetas_newer_layers": without(OLD_FORM, "global_attn_every_n_layers") | {"layer_types": _PATTERN},
    "newer_thetas_older_layers": without(OLD_FORM, "global_rope_theta", "local_rope_theta")
    | {"rope_parameters": thetas(900.0, 30.0)},
    "newer_layers_without_thetas": without(OLD_FORM, *_OLD_ONLY) | {"layer_types": _PATTERN},
    "older_thetas_beside_empty_parameters": OLD_FORM
    | {"rope_parameters": {FULL: {"rope_type": "default"}, SLIDING: {"type": "default"}}},
    "mmbert": without(OLD_FORM, "norm_eps")
    | {"position_embedding_type": "sans_pos", "global_rope_theta": 160_000, "local_rope_theta": 160_000}
    | {"mask_token_id": 4, "unk_token_id": 3},
    "nothing_said": without(OLD_FORM, *_OLD_ONLY),
    "whole_numbers": OLD_FORM | {"global_rope_theta": 900, "local_rope_theta": 30},
}


@pytest.mark.parametrize("name", GENERATIONS)
def test_every_generation_of_keys_gives_their_numbers(name: str, tmp_path: Path):
    their_model().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(GENERATIONS[name]))
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    batch = texts()
    read = read_folder(tmp_path, strict=True)
    expected = their_numbers(theirs, batch)
    assert_same_numbers(read, batch.packed, expected)

    write_folder(tmp_path / "ours", read)
    again = load_theirs(tmp_path / "ours", transformers.ModernBertForMaskedLM)
    assert_same(their_numbers(again, batch).hidden, expected.hidden, tolerance=0.0)


@pytest.mark.parametrize("size", ["base", "large"])
def test_the_published_configuration_is_read_as_they_read_it(size: str, data_root: Path, tmp_path: Path):
    published = json.loads((data_root / f"tokenizer/configs/modernbert-{size}.config.json").read_text())
    small = {"vocab_size": VOCAB_SIZE, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 40}
    small |= {name: TINY[name] for name in TINY if name.endswith("token_id")}
    config = published | small
    theirs = build_theirs(
        "ModernBertForMaskedLM", transformers.ModernBertConfig(**config), gain=GAIN_OF_DEEP_MODELS
    )
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    batch = texts(lengths=[200, 70])
    assert_same_numbers(read_folder(tmp_path, strict=True), batch.packed, their_numbers(theirs, batch))


# Our models, built fresh, in theirs.


def small_modernbert(**changes: Any) -> EncoderConfig:
    """The base preset with everything small but its pattern of layers."""
    base = modernbert_base()
    assert all(isinstance(block, PreNormConfig) for block in base.blocks)
    blocks = tuple(
        replace(
            block,
            attention=replace(
                block.attention,
                num_heads=4,
                window_each_side=None if block.attention.window_each_side is None else 4,
            ),
            mlp=GluConfig(intermediate_size=40),
        )
        for block in base.blocks[:7]
        if isinstance(block, PreNormConfig) and isinstance(block.attention, AttentionConfig)
    )
    small = replace(
        base, vocab_size=VOCAB_SIZE, hidden_size=32, blocks=blocks, max_positions=64, pad_token_id=0
    )
    return replace(small, **changes)


OUR_HEADS = {
    "none": EmbedHeadConfig(),
    "mlm": MlmHeadConfig(),
    "classify": ClassifyHeadConfig(labels=("a", "b", "c"), pooling="mean"),
    "tag": TagHeadConfig(labels=("O", "B-X", "I-X")),
    "span": SpanHeadConfig(),
    "choice": ChoiceHeadConfig(pooling="cls"),
}


@pytest.mark.parametrize("kind", AUTO_CLASSES)
def test_a_model_built_here_gives_its_numbers_in_theirs(kind: str, tmp_path: Path):
    config = ModelConfig(encoder=small_modernbert(), head=OUR_HEADS[kind])
    ours = Pretrained(config=config, module=randomize(config.build()))
    write_folder(tmp_path, ours)
    theirs = load_theirs(tmp_path, getattr(transformers, f"ModernBert{ENDINGS[kind]}"))
    batch = texts()
    assert_same_numbers(ours, batch.packed, their_numbers(theirs, batch))
    assert read_folder(tmp_path).config == config


def test_what_is_written_has_the_keys_of_both_generations(tmp_path: Path):
    config = ModelConfig(encoder=small_modernbert(), head=MlmHeadConfig())
    write_folder(tmp_path, Pretrained(config=config, module=config.build()))
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["global_attn_every_n_layers"] == 3
    assert written["layer_types"] == [FULL, SLIDING, SLIDING] * 2 + [FULL]
    assert (written["global_rope_theta"], written["local_rope_theta"]) == (160_000.0, 10_000.0)
    assert written["rope_parameters"] == thetas(160_000.0, 10_000.0)
    assert (written["dtype"], written["torch_dtype"]) == ("float32", "float32")


def one_block(**changes: Any) -> PreNormConfig:
    attention = AttentionConfig(num_heads=4, window_each_side=4, rotary=RotaryConfig())
    block = PreNormConfig(attention=attention, mlp=GluConfig(intermediate_size=40))
    return replace(block, **changes)


INEXPRESSIBLE = {
    "parallel_blocks": small_modernbert(
        blocks=(ParallelConfig(attention=one_block().attention, mlp=one_block().mlp),) * 3
    ),
    "rms_norms": small_modernbert(
        blocks=(one_block(attention_norm=RmsNormConfig(), mlp_norm=RmsNormConfig()),) * 3,
        final_norm=RmsNormConfig(),
    ),
    "two_windows": small_modernbert(
        blocks=(
            one_block(attention_norm=None),
            one_block(attention=replace(one_block().attention, window_each_side=2)),
        )
    ),
    "plain_mlp": small_modernbert(
        blocks=(one_block(attention_norm=None, mlp=MlpConfig(intermediate_size=40)), one_block())
    ),
    "part_of_a_head_turned": small_modernbert(
        blocks=(
            one_block(
                attention_norm=None,
                attention=replace(one_block().attention, rotary=RotaryConfig(fraction=0.5)),
            ),
        )
    ),
    "norm_before_the_first_attention": small_modernbert(blocks=(one_block(),) * 2),
    "learned_positions": small_modernbert(
        embedding=EmbeddingConfig(positions=LearnedPositionsConfig(num_positions=64))
    ),
    "bias_in_one_place": small_modernbert(
        blocks=(
            one_block(attention_norm=None, attention=replace(one_block().attention, has_qkv_bias=True)),
            one_block(attention=replace(one_block().attention, has_qkv_bias=True)),
        )
    ),
    "other_final_norm": small_modernbert(final_norm=LayerNormConfig(has_bias=True)),
}


@pytest.mark.parametrize("name", INEXPRESSIBLE)
def test_what_transformers_cannot_express_comes_back_equal(name: str, tmp_path: Path):
    config = ModelConfig(
        encoder=INEXPRESSIBLE[name], head=MlmHeadConfig(transform=TransformConfig(activation="elu"))
    )
    assert_own_form_comes_back(config, tmp_path)


def test_a_head_that_transformers_cannot_express_comes_back_equal(tmp_path: Path):
    head = ClassifyHeadConfig(labels=("a", "b"), pooling="max", transform=None)
    assert_own_form_comes_back(ModelConfig(encoder=small_modernbert(), head=head), tmp_path)


def assert_own_form_comes_back(config: ModelConfig, folder: Path) -> None:
    ours = Pretrained(config=config, module=randomize(config.build()))
    write_folder(folder, ours)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "modernbert-parts"
    again = read_folder(folder)
    assert again.config == config
    pack = texts().packed
    one, other = (our_numbers(each, pack, has_scores=True) for each in (ours, again))
    assert torch.equal(one.hidden, other.hidden)
    assert one.scores is not None
    assert other.scores is not None
    assert torch.equal(one.scores, other.scores)


# Files.


def test_shards_of_theirs_are_read(tmp_path: Path):
    theirs = their_model()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    batch = texts()
    assert_same_numbers(read_folder(tmp_path), batch.packed, their_numbers(theirs, batch))


def test_a_decoder_kept_beside_the_embeddings_it_is_tied_to_is_read(tmp_path: Path):
    theirs = their_model()
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["decoder.weight"] = tensors["model.embeddings.tok_embeddings.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    batch = texts()
    assert_same_numbers(read_folder(tmp_path), batch.packed, their_numbers(theirs, batch))


def test_a_decoder_that_is_not_the_embeddings_it_claims_to_be_is_refused(tmp_path: Path):
    """transformers 4 took the embeddings, 5 takes the decoder: nobody can tell which of them is meant."""
    their_model(tie_word_embeddings=False).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(WeightsError, match=r"tie_word_embeddings.*decoder\.weight"):
        read_folder(tmp_path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_the_stored_dtype_survives_both_ways(dtype: torch.dtype, tmp_path: Path):
    theirs = their_model().to(dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    read = read_folder(tmp_path / "theirs")
    assert read.dtype_of_file == dtype
    write_folder(tmp_path / "ours", read)
    back = load_theirs(tmp_path / "ours", transformers.ModernBertForMaskedLM)
    assert back.dtype == dtype
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in back.state_dict().items())


# The shape of the published base model.


def base_shape(folder: Path, lengths: list[int]) -> tuple[Pretrained, transformers.PreTrainedModel, Texts]:
    """The published base with few embeddings: what they add is memory, and no other sums."""
    config = transformers.ModernBertConfig(**{**TINY, **BASE_SIZES, "vocab_size": 2_000})
    theirs = build_theirs("ModernBertForMaskedLM", config, gain=GAIN_OF_DEEP_MODELS)
    theirs.save_pretrained(folder)
    return read_folder(folder), theirs, random_texts(lengths, vocab_size=2_000)


BASE_SIZES = {
    name: getattr(transformers.ModernBertConfig(), name)
    for name in (
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "num_hidden_layers",
        "local_attention",
        "max_position_embeddings",
    )
}


def test_the_base_shape_gives_their_numbers(tmp_path: Path):
    read, theirs, batch = base_shape(tmp_path, [320, 40])
    assert_same_numbers(read, batch.packed, their_numbers(theirs, batch))


@pytest.mark.slow
def test_the_base_shape_gives_their_numbers_on_long_texts(tmp_path: Path):
    read, theirs, batch = base_shape(tmp_path, [2_048, 1_025, 131])
    assert_same_numbers(read, batch.packed, their_numbers(theirs, batch))


# bf16.


def test_our_error_in_bf16_is_no_larger_than_theirs(tmp_path: Path):
    """Root mean square of hidden states against fp32, over ten draws of weights and texts."""
    ours, theirs = 0.0, 0.0
    sizes = {"hidden_size": 96, "num_attention_heads": 6, "intermediate_size": 144, "num_hidden_layers": 7}
    for seed in range(10):
        model = their_model("Model", seed=seed, **sizes)
        model.save_pretrained(tmp_path / str(seed))
        batch = texts(seed=seed)
        truth = their_numbers(model, batch).hidden
        read = read_folder(tmp_path / str(seed), dtype=torch.bfloat16)
        ours += squared_error(our_numbers(read, batch.packed, has_scores=False).hidden, truth)
        theirs += squared_error(their_numbers(model.to(torch.bfloat16), batch).hidden, truth)
    assert theirs > 0
    assert (ours / theirs) ** 0.5 <= MOST_BF16_ERROR


def squared_error(rounded: Tensor, truth: Tensor) -> float:
    assert rounded.dtype == torch.bfloat16
    return (rounded.float() - truth).square().sum().item()
