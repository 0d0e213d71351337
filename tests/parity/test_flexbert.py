"""Random compositions of parts: each builds, agrees with the slow model of `padded.py`, survives saving."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from modernbert.encoder.activation import ACTIVATIONS, build_activation
from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import ParallelConfig, PostNormConfig, PreNormConfig
from modernbert.encoder.config import from_json, to_json
from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.init import FAMILIES, InitConfig
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.norm import LayerNormConfig, RmsNormConfig
from modernbert.encoder.rotary import RotaryConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ALL_PARTS, ModelConfig
from modernbert.heads.transform import TransformConfig
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from modernbert.text.batch import PackedBatch
from tests.parity import padded

# fp32 on both sides in another order, through up to 3 layers whose numbers are of any size: the error is
# measured against the largest number of the tensor. Some gradients are sums that cancel (a bias of the
# keys has none): for them, also against the largest of all gradients.
OUTPUT_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 1e-4
CANCELLED_GRADIENT_TOLERANCE = 2e-6

VOCAB_SIZE = 23
MANY = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],  # explaining a failure traces every line: minutes
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Texts:
    """Token ids, and types where the model has any."""

    sequences: list[list[int]]
    token_types: list[list[int]] | None

    def packed(self) -> PackedBatch:
        return PackedBatch.from_sequences(self.sequences, self.token_types)

    def padded(self) -> padded.Padded:
        return padded.pad(self.sequences, self.token_types)


def norms() -> st.SearchStrategy:
    layer_norm = st.builds(LayerNormConfig, eps=st.sampled_from([1e-12, 1e-5, 1e-2]), has_bias=st.booleans())
    return layer_norm | st.builds(RmsNormConfig, eps=st.sampled_from([1e-6, 1e-2]))


def maybe_norm() -> st.SearchStrategy:
    return st.none() | norms()


def rotaries(head_dim: int) -> st.SearchStrategy:
    return st.builds(
        RotaryConfig,
        theta=st.sampled_from([2.0, 10_000.0, 160_000.0]),
        fraction=st.sampled_from([size / head_dim for size in range(2, head_dim + 1, 2)]),
        is_interleaved=st.booleans(),
    )


def attentions(num_heads: int, head_dim: int) -> st.SearchStrategy:
    return st.builds(
        AttentionConfig,
        num_heads=st.just(num_heads),
        window_each_side=st.none() | st.sampled_from([0, 1, 2, 5, 64]),
        rotary=st.none() | rotaries(head_dim),
        has_qkv_bias=st.booleans(),
        has_out_bias=st.booleans(),
        dropout=st.sampled_from([0.0, 0.1]),
        out_dropout=st.sampled_from([0.0, 0.1]),
    )


def mlps() -> st.SearchStrategy:
    fields = {
        "intermediate_size": st.sampled_from([1, 6, 20]),
        "activation": st.sampled_from(sorted(ACTIVATIONS)),
        "has_in_bias": st.booleans(),
        "has_out_bias": st.booleans(),
        "dropout": st.sampled_from([0.0, 0.1]),
        "out_dropout": st.sampled_from([0.0, 0.1]),
    }
    return st.builds(MlpConfig, **fields) | st.builds(GluConfig, **fields)


def blocks(num_heads: int, head_dim: int) -> st.SearchStrategy:
    inside = {"attention": attentions(num_heads, head_dim), "mlp": mlps()}
    around = {"attention_norm": maybe_norm(), "mlp_norm": maybe_norm()}
    return (
        st.builds(PreNormConfig, **inside, **around)
        | st.builds(PostNormConfig, **inside, **around)
        | st.builds(ParallelConfig, **inside, norm=maybe_norm())
    )


@st.composite
def encoders(draw: st.DrawFn) -> EncoderConfig:
    num_heads, head_dim = draw(st.sampled_from([(1, 8), (2, 4), (2, 6), (3, 4), (2, 10)]))
    positions = st.builds(LearnedPositionsConfig, num_positions=st.just(64), offset=st.sampled_from([0, 2]))
    family = draw(st.sampled_from(FAMILIES))
    return EncoderConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=num_heads * head_dim,
        blocks=tuple(draw(st.lists(blocks(num_heads, head_dim), min_size=1, max_size=3))),
        embedding=draw(
            st.builds(
                EmbeddingConfig,
                norm=maybe_norm(),
                positions=st.none() | positions,
                num_token_types=st.sampled_from([0, 1, 2]),
                dropout=st.sampled_from([0.0, 0.1]),
            )
        ),
        final_norm=draw(maybe_norm()),
        init=InitConfig(
            family=family,
            std=draw(st.sampled_from([0.02, 0.2])),
            has_small_embedding=family != "full_megatron" and draw(st.booleans()),
        ),
        pad_token_id=draw(st.sampled_from([None, 0, 5])),
    )


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    transform = st.builds(
        TransformConfig,
        activation=st.sampled_from(sorted(ACTIVATIONS)),
        has_bias=st.booleans(),
        norm=maybe_norm(),
    )
    head = st.builds(
        MlmHeadConfig,
        transform=st.none() | transform,
        has_decoder_bias=st.booleans(),
        is_tied=st.booleans(),
    )
    return ModelConfig(encoder=draw(encoders()), head=draw(head))


@st.composite
def models_and_texts(draw: st.DrawFn) -> tuple[ModelConfig, Texts]:
    config = draw(models())
    lengths = draw(st.lists(st.sampled_from([1, 2, 3, 5, 12, 40]), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def rows(high: int) -> list[list[int]]:
        return [torch.randint(high, (length,), generator=generator).tolist() for length in lengths]

    num_types = config.encoder.embedding.num_token_types
    return config, Texts(rows(VOCAB_SIZE), rows(num_types) if num_types and draw(st.booleans()) else None)


def build(config: ModelConfig) -> torch.nn.Module:
    """The model in evaluation mode, every weight moved off what it starts as, so that each one counts.

    No matrix makes vectors longer: without norms some compositions would have attention scores in the
    thousands, where fp32 has no more than four digits for the softmax of them.
    """
    torch.manual_seed(0)
    model = config.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
            if parameter.dim() == 2:
                parameter.div_(torch.linalg.matrix_norm(parameter, 2).clamp(min=1.0))
    return model


def padded_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone().requires_grad_() for name, weight in named_weights(model).items()}


def named_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Each parameter once; one that is shared has the name that comes last, in the encoder."""
    name_of = {parameter: name for name, parameter in model.named_parameters(remove_duplicate=False)}
    return {name: parameter for parameter, name in name_of.items()}


def largest(*tensors: torch.Tensor) -> float:
    return max(tensor.abs().max().item() for tensor in tensors)


@MANY
@given(models_and_texts())
def test_any_composition_agrees_with_the_padded_model_forward_and_backward(drawn):
    config, texts = drawn
    model = build(config)
    weights = padded_weights(model)
    batch, rectangle = texts.packed(), texts.padded()

    expected = padded.logits(config.head, config.encoder, weights, rectangle)[rectangle.is_real]
    found = model(batch)
    assert found.shape == (batch.num_tokens, VOCAB_SIZE)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, expected, atol=OUTPUT_TOLERANCE * max(1.0, largest(expected)), rtol=0)

    with torch.inference_mode():  # another path: rotary and gates work in place
        torch.testing.assert_close(
            model(batch), found, atol=OUTPUT_TOLERANCE * max(1.0, largest(found)), rtol=0
        )

    weighing = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    ours = dict(
        zip(weights, gradients((found * weighing).sum(), list(named_weights(model).values())), strict=True)
    )
    theirs = dict(zip(weights, gradients((expected * weighing).sum(), list(weights.values())), strict=True))
    floor = CANCELLED_GRADIENT_TOLERANCE * largest(*theirs.values())
    for name, gradient in theirs.items():
        tolerance = GRADIENT_TOLERANCE * largest(gradient) + floor
        torch.testing.assert_close(
            ours[name],
            gradient,
            atol=tolerance,
            rtol=0,
            msg=lambda text, name=name: f"gradient of {name}: {text}",
        )


def gradients(loss: torch.Tensor, parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    """The gradient of each parameter; zeros for one that the loss does not depend on."""
    return list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


@MANY
@given(models())
def test_any_composition_survives_json(config):
    text = json.dumps(to_json(config))
    assert from_json(json.loads(text), ALL_PARTS) == config


@settings(MANY, max_examples=40)
@given(models_and_texts(), st.sampled_from(["auto", "parts"]))
def test_any_composition_survives_save_and_load(drawn, layout):
    config, texts = drawn
    model = build(config)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "model")
        write_folder(folder, Pretrained(config=config, module=model), layout=layout)
        read = read_folder(folder)
    if layout == "parts":  # foreign layouts do not hold all of a new model, such as its init
        assert read.config == config
    ours, theirs = model.state_dict(), read.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with torch.inference_mode():  # not to the last bit: tensors read from a file lie elsewhere in memory
        expected = model(texts.packed())
        tolerance = OUTPUT_TOLERANCE * max(1.0, largest(expected))
        torch.testing.assert_close(read.module(texts.packed()), expected, atol=tolerance, rtol=0)


@MANY
@given(models_and_texts())
def test_any_composition_trains_with_its_dropout_on(drawn):
    config, texts = drawn
    torch.manual_seed(0)
    model = config.build().train()
    loss = torch.nn.functional.cross_entropy(model(texts.packed()), texts.packed().token_ids)
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_is_its_formula(name):
    x = torch.linspace(-9, 9, 301)[None]
    module = build_activation(name).eval()
    weights = {key: weight.detach() for key, weight in module.named_parameters()}
    # the formulas cancel where torch's take care not to: that costs a few times 2**-24 of 9
    torch.testing.assert_close(module(x).detach(), padded.activate(name, x, weights), atol=3e-6, rtol=3e-6)
