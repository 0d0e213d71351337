"""Each head: what it gives, that it is its formula over the encoder's hidden states, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modernbert.encoder.config import from_json, to_json
from modernbert.encoder.encoder import EncoderConfig
from modernbert.errors import ConfigError
from modernbert.heads.classify import ChoiceHeadConfig, ClassifyHeadConfig
from modernbert.heads.embed import DenseConfig, EmbedHeadConfig, PoolerHeadConfig, TokenEmbedHeadConfig
from modernbert.heads.mlm import MlmHeadConfig, log_probabilities
from modernbert.heads.model import ALL_PARTS, ModelConfig
from modernbert.heads.tokens import SpanHeadConfig, TagHeadConfig
from modernbert.heads.transform import TransformConfig
from modernbert.text.batch import PackedBatch
from tests.encoder.small import VOCAB_SIZE, random_sequences, small_config

LENGTHS = [4, 1, 9]
BATCH = PackedBatch.from_sequences(random_sequences(LENGTHS))
S, T, D = 3, 14, 32
FIRST = [0, 4, 5]
LABELS = ("a", "b", "c")
DENSE = (DenseConfig(out_features=20, activation="tanh"), DenseConfig(out_features=7, has_bias=False))

HEADS_AND_SHAPES = [
    (MlmHeadConfig(), (T, VOCAB_SIZE)),
    (MlmHeadConfig(transform=None, is_tied=False, has_decoder_bias=False), (T, VOCAB_SIZE)),
    (ClassifyHeadConfig(labels=LABELS), (S, 3)),
    (ClassifyHeadConfig(labels=("only",), problem="regression", pooling="cls", transform=None), (S, 1)),
    (ChoiceHeadConfig(), (S, 1)),
    (TagHeadConfig(labels=LABELS), (T, 3)),
    (TagHeadConfig(labels=LABELS, transform=None), (T, 3)),
    (SpanHeadConfig(), (T, 2)),
    (EmbedHeadConfig(), (S, D)),
    (EmbedHeadConfig(poolings=("cls", "mean", "max")), (S, 3 * D)),
    (EmbedHeadConfig(poolings=("cls", "mean"), dense=DENSE, is_normalized=True), (S, 7)),
    (TokenEmbedHeadConfig(), (T, D)),
    (TokenEmbedHeadConfig(dense=DENSE, is_normalized=False), (T, 7)),
    (PoolerHeadConfig(), (S, D)),
]
CASES = pytest.mark.parametrize(
    ("head", "shape"), HEADS_AND_SHAPES, ids=[str(i) for i in range(len(HEADS_AND_SHAPES))]
)


def built(head: object, encoder: EncoderConfig | None = None) -> nn.Module:
    """In evaluation mode, with every parameter drawn so large that it counts."""
    torch.manual_seed(0)
    model = ModelConfig(encoder=encoder or small_config(), head=head).build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def transformed(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """ModernBERT's prediction head: norm(gelu(dense(x))), without biases."""
    weights = model.state_dict()
    return F.layer_norm(F.gelu(x @ weights["head.dense.weight"].T), (D,), weights["head.norm.weight"])


@CASES
def test_a_head_gives_its_shape_and_gradients_to_all_parameters(head, shape):
    model = built(head)
    out = model(BATCH)
    assert out.shape == shape
    out.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@CASES
def test_a_head_survives_json(head, shape):
    config = ModelConfig(encoder=small_config(), head=head)
    assert from_json(json.loads(json.dumps(to_json(config))), ALL_PARTS) == config


@CASES
def test_a_heads_result_does_not_depend_on_batch_mates(head, shape):
    model = built(head)
    sequences = random_sequences(LENGTHS)
    with torch.inference_mode():
        together = model(BATCH)
        alone = torch.cat([model(PackedBatch.from_sequences([sequence])) for sequence in sequences])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_masked_tokens_are_scored_by_the_token_table_through_the_transform():
    model = built(MlmHeadConfig())
    table = model.model.embeddings.tok_embeddings.weight
    assert model.decoder.weight is table
    expected = transformed(model, model.model(BATCH)) @ table.T + model.decoder.bias
    torch.testing.assert_close(model(BATCH), expected)


@torch.inference_mode()
def test_masked_tokens_alone_get_the_rows_that_all_tokens_would():
    model = built(MlmHeadConfig())
    positions = torch.tensor([0, 5, 13])
    torch.testing.assert_close(model(BATCH, positions=positions), model(BATCH)[positions], atol=1e-5, rtol=0)
    assert model(BATCH, positions=torch.tensor([], dtype=torch.long)).shape == (0, VOCAB_SIZE)


def test_an_untied_decoder_has_a_matrix_of_its_own():
    model = built(MlmHeadConfig(is_tied=False))
    assert model.decoder.weight is not model.model.embeddings.tok_embeddings.weight
    assert len(list(model.parameters())) == len(list(built(MlmHeadConfig()).parameters())) + 1


def test_log_probabilities_are_computed_in_fp32():
    logits = torch.randn(3, 5).bfloat16()
    found = log_probabilities(logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.exp().sum(dim=-1), torch.ones(3))


@torch.inference_mode()
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_classifier_pools_then_transforms_then_scores(pooling):
    model = built(ClassifyHeadConfig(labels=LABELS, pooling=pooling))
    parts = BATCH.split(model.model(BATCH))
    pooled = torch.stack([part.mean(dim=0) if pooling == "mean" else part[0] for part in parts])
    expected = transformed(model, pooled) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(BATCH), expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("head", [TagHeadConfig(labels=LABELS), SpanHeadConfig()], ids=["tags", "spans"])
def test_a_token_classifier_transforms_then_scores_every_token(head):
    model = built(head)
    expected = transformed(model, model.model(BATCH)) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(BATCH), expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_an_embedding_is_pooled_then_dense_then_of_length_1():
    model = built(EmbedHeadConfig(poolings=("cls", "mean"), dense=DENSE, is_normalized=True))
    parts = BATCH.split(model.model(BATCH))
    x = torch.stack([torch.cat([part[0], part.mean(dim=0)]) for part in parts])
    x = torch.tanh(x @ model.dense[0].linear.weight.T + model.dense[0].linear.bias)
    x = x @ model.dense[1].linear.weight.T
    torch.testing.assert_close(model(BATCH), x / x.norm(dim=-1, keepdim=True))


@torch.inference_mode()
def test_without_a_word_on_the_head_texts_are_embedded_by_their_mean():
    torch.manual_seed(0)
    model = ModelConfig(encoder=small_config()).build().eval()
    expected = torch.stack([part.mean(dim=0) for part in BATCH.split(model.model(BATCH))])
    torch.testing.assert_close(model(BATCH), expected)


@torch.inference_mode()
def test_token_vectors_have_length_1_each():
    out = built(TokenEmbedHeadConfig(dense=DENSE))(BATCH)
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(T))


@torch.inference_mode()
def test_the_pooler_is_tanh_of_a_product_of_the_first_token():
    model = built(PoolerHeadConfig())
    first = model.model(BATCH)[FIRST]
    expected = torch.tanh(first @ model.head.dense.weight.T + model.head.dense.bias)
    torch.testing.assert_close(model(BATCH), expected)


@pytest.mark.parametrize("head", [EmbedHeadConfig(), TokenEmbedHeadConfig()], ids=["texts", "tokens"])
def test_vectors_of_a_bf16_encoder_are_fp32(head):
    assert built(head).to(torch.bfloat16)(BATCH).dtype == torch.float32


@pytest.mark.parametrize(
    "head",
    [
        ClassifyHeadConfig(labels=LABELS, dropout=0.5),
        ChoiceHeadConfig(dropout=0.5),
        TagHeadConfig(labels=LABELS, dropout=0.5),
        SpanHeadConfig(dropout=0.5),
    ],
    ids=lambda head: head.kind,
)
def test_dropout_of_a_head_acts_in_training_only(head):
    model = built(head)
    with torch.no_grad():
        assert torch.equal(model(BATCH), model(BATCH))
        model.train()
        assert not torch.allclose(model(BATCH), model(BATCH), atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassifyHeadConfig(labels=()), "labels must be there and differ from each other"),
        (lambda: ClassifyHeadConfig(labels=("a", "a")), "labels must be there and differ from each other"),
        (
            lambda: ClassifyHeadConfig(labels=LABELS, problem="ranking"),
            "unknown problem 'ranking'; there are: single",
        ),
        (
            lambda: ClassifyHeadConfig(labels=LABELS, pooling="min"),
            "unknown pooling 'min'; there are: cls, mean",
        ),
        (lambda: ClassifyHeadConfig(labels=LABELS, dropout=1.0), "ClassifyHeadConfig.dropout must be a prob"),
        (lambda: ChoiceHeadConfig(pooling="min"), "unknown pooling 'min'"),
        (lambda: TagHeadConfig(labels=("a", "a")), "labels must be there and differ from each other"),
        (lambda: SpanHeadConfig(dropout=-1.0), "SpanHeadConfig.dropout must be a probability"),
        (lambda: EmbedHeadConfig(poolings=()), r"poolings must be some of cls, mean, .* found \(\)"),
        (lambda: EmbedHeadConfig(poolings=("min",)), r"poolings must be some of .* found \('min',\)"),
        (lambda: DenseConfig(out_features=0), "DenseConfig.out_features must be a whole number above 0"),
        (lambda: TransformConfig(activation="gleu").build(4), "unknown activation 'gleu'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_an_error_that_says_so(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_dense_layers_work_in_whatever_format_the_model_is_moved_to():
    config = EmbedHeadConfig(dense=(DenseConfig(out_features=3),), is_normalized=True)
    module = ModelConfig(encoder=small_config(), head=config).build().to(torch.bfloat16)
    vectors = module(BATCH)
    assert vectors.dtype == torch.float32
    assert vectors.isfinite().all()
