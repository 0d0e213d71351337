"""Parts one by one: dropout in its places, rotary tables, learned positions, token types, JSON, messages."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from modernbert.encoder import attention as attention_module
from modernbert.encoder.activation import build_activation
from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import PreNormConfig
from modernbert.encoder.config import Part, from_json, to_json
from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.norm import LayerNormConfig, RmsNormConfig
from modernbert.encoder.presets import PARTS
from modernbert.encoder.rotary import RotaryConfig
from modernbert.errors import ConfigError, InputError
from modernbert.text.batch import PackedBatch
from tests.encoder.small import built, random_sequences, small_config

BATCH = PackedBatch.from_sequences(random_sequences([9, 40, 1]))


def with_dropout(place: str) -> EncoderConfig:
    """The small encoder with dropout in one place only."""
    config = small_config()
    rates = {
        "embedding": {"embedding": EmbeddingConfig(dropout=0.5)},
        "attention weights": {"attention": {"dropout": 0.5}},
        "attention output": {"attention": {"out_dropout": 0.5}},
        "mlp inner": {"mlp": {"dropout": 0.5}},
        "mlp output": {"mlp": {"out_dropout": 0.5}},
    }[place]
    if place == "embedding":
        return replace(config, **rates)
    blocks = tuple(
        replace(block, **{part: replace(getattr(block, part), **fields) for part, fields in rates.items()})
        for block in config.blocks
    )
    return replace(config, blocks=blocks)


PLACES = ["embedding", "attention weights", "attention output", "mlp inner", "mlp output"]


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
@pytest.mark.parametrize("place", PLACES)
def test_dropout_acts_in_training_and_never_in_evaluation(place, backend):
    encoder, plain = built(with_dropout(place)), built(small_config())
    with torch.no_grad():
        expected = plain(BATCH, backend)
        assert torch.equal(encoder(BATCH, backend), expected)
        assert torch.equal(encoder(BATCH, backend), expected)
        encoder.train()
        first, second = encoder(BATCH, backend), encoder(BATCH, backend)
    assert not torch.allclose(first, expected, atol=1e-3)
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("is_training", [False, True], ids=["evaluation", "training"])
def test_the_kernel_gets_the_attention_dropout_in_training_only(monkeypatch, is_training):
    seen = []

    def noted(*args, **kwargs):
        seen.append(kwargs["dropout"])
        return attend(*args, **kwargs)

    attend = attention_module.attend
    monkeypatch.setattr(attention_module, "attend", noted)
    built(with_dropout("attention weights")).train(is_training)(BATCH)
    assert seen == [0.5 if is_training else 0.0] * 3


def test_the_window_of_each_layer_and_the_backend_reach_the_kernel(monkeypatch):
    seen = []

    def noted(*args, **kwargs):
        seen.append((kwargs["window_each_side"], kwargs["backend"]))
        return attend(*args, **kwargs)

    attend = attention_module.attend
    monkeypatch.setattr(attention_module, "attend", noted)
    built(small_config(window=5))(BATCH, "reference")
    assert seen == [(None, "reference"), (5, "reference"), (5, "reference")]


def test_a_window_changes_the_result():
    wide, narrow = built(small_config(window=8)), built(small_config(window=2))
    with torch.no_grad():
        assert not torch.allclose(wide(BATCH), narrow(BATCH), atol=1e-2)


def rotated(config: RotaryConfig, num_tokens: int = 12, head_dim: int = 8) -> torch.Tensor:
    qkv = torch.randn(num_tokens, 3, 2, head_dim, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return config.build(head_dim)(qkv, PackedBatch.from_sequences([[1] * num_tokens]))


def test_a_changed_theta_has_an_effect():
    first = rotated(RotaryConfig(theta=10_000.0))
    assert not torch.allclose(first, rotated(RotaryConfig(theta=160_000.0)), atol=1e-3)
    assert torch.equal(first, rotated(RotaryConfig(theta=10_000.0)))


def test_a_theta_changed_on_a_built_module_has_an_effect():
    module = RotaryConfig(theta=10_000.0).build(8)
    qkv = torch.randn(6, 3, 1, 8, generator=torch.Generator().manual_seed(0))
    batch = PackedBatch.from_sequences([[1] * 6])
    with torch.inference_mode():
        before = module(qkv.clone(), batch)
        module.theta = 100.0
        assert not torch.allclose(before, module(qkv.clone(), batch), atol=1e-3)


def test_rotary_tables_first_made_in_inference_mode_serve_training_afterwards():
    config = RotaryConfig(theta=12_345.0)  # no other test's, so that no table is there yet
    rotated(config)
    qkv = torch.randn(6, 3, 1, 8, requires_grad=True)
    config.build(8)(qkv, PackedBatch.from_sequences([[1] * 6])).sum().backward()
    assert qkv.grad is not None


def test_positions_start_anew_in_every_sequence_of_a_pack():
    module = RotaryConfig().build(8)
    qkv = torch.randn(1, 3, 2, 8).expand(10, 3, 2, 8)
    turned = module(qkv.clone(), PackedBatch.from_sequences([[1] * 4, [1] * 6]))
    assert torch.equal(turned[:4], turned[4:8])
    assert not torch.equal(turned[0], turned[1])


def test_a_fraction_of_a_head_turns_exactly_that_many_numbers():
    for head_dim in range(2, 258, 2):
        for rotary_size in range(2, head_dim + 1, 2):
            assert RotaryConfig(fraction=rotary_size / head_dim).build(head_dim).rotary_size == rotary_size


def test_a_fraction_that_is_no_even_number_is_an_error_that_shows_the_sum():
    with pytest.raises(ConfigError, match=r"0.3 of a head of 10 is 3, which must be even"):
        RotaryConfig(fraction=0.3).build(10)
    with pytest.raises(ConfigError, match=r"0.1 of a head of 8 is 0.8, which must be even and at least 2"):
        RotaryConfig(fraction=0.1).build(8)
    with pytest.raises(ConfigError, match=r"0.3 of a head of 12 is 3.6, which must be even"):
        RotaryConfig(fraction=0.3).build(12)


def test_learned_positions_skip_the_rows_before_their_offset():
    module = LearnedPositionsConfig(num_positions=5, offset=2).build(4)
    out = module(PackedBatch.from_sequences([[9, 9, 9], [9]]))
    assert torch.equal(out, module.weight[[2, 3, 4, 2]])
    assert module.weight.shape == (7, 4)


def test_a_text_longer_than_the_learned_positions_is_an_error_that_says_what_to_do():
    module = LearnedPositionsConfig(num_positions=5, offset=2).build(4)
    assert module(PackedBatch.from_sequences([[1] * 5])).shape == (5, 4)
    with pytest.raises(InputError, match="6 tokens is longer than the 5 positions of this model; cut it"):
        module(PackedBatch.from_sequences([[1] * 6]))


def test_a_batch_without_types_is_one_of_type_0():
    encoder = built(replace(small_config(), embedding=EmbeddingConfig(num_token_types=2)))
    sequences = random_sequences([5, 3])
    with torch.no_grad():
        silent = encoder(PackedBatch.from_sequences(sequences))
        zeros = encoder(PackedBatch.from_sequences(sequences, [[0] * 5, [0] * 3]))
        ones = encoder(PackedBatch.from_sequences(sequences, [[0, 0, 1, 1, 1], [0] * 3]))
    assert torch.equal(silent, zeros)
    assert not torch.allclose(silent[:5], ones[:5], atol=1e-2)
    assert torch.equal(silent[5:], ones[5:])


def test_norms_are_their_formulas():
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)) * 3 + 1
    layer, rms = LayerNormConfig(eps=0.1, has_bias=True).build(16), RmsNormConfig(eps=0.1).build(16)
    for parameter in (*layer.parameters(), *rms.parameters()):
        nn.init.normal_(parameter)
    centred = x - x.mean(-1, keepdim=True)
    by_hand = centred / (x.var(-1, correction=0, keepdim=True) + 0.1).sqrt() * layer.weight + layer.bias
    torch.testing.assert_close(layer(x), by_hand)
    torch.testing.assert_close(rms(x), x / (x.square().mean(-1, keepdim=True) + 0.1).sqrt() * rms.weight)
    assert [name for name, _ in LayerNormConfig().build(4).named_parameters()] == ["weight"]


def test_an_encoder_built_on_the_meta_device_draws_no_weights():
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in small_config().build().parameters())


GLU = GluConfig(intermediate_size=4)
ATTENTION = AttentionConfig(num_heads=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: AttentionConfig(num_heads=0),
            "AttentionConfig.num_heads must be a whole number above 0, found 0",
        ),
        (
            lambda: AttentionConfig(num_heads=2, window_each_side=-1),
            "window_each_side must be 0 or more, found -1",
        ),
        (
            lambda: AttentionConfig(num_heads=2, dropout=1.0),
            r"AttentionConfig.dropout must be a probability in",
        ),
        (lambda: AttentionConfig(num_heads=3).build(8), "hidden_size 8 cannot be shared out to 3 heads"),
        (lambda: MlpConfig(intermediate_size=2.0), "MlpConfig.intermediate_size must be a whole number"),
        (lambda: GluConfig(intermediate_size=True), "GluConfig.intermediate_size must be a whole number"),
        (lambda: GluConfig(intermediate_size=4, out_dropout=-0.1), "GluConfig.out_dropout must be a prob"),
        (
            lambda: MlpConfig(intermediate_size=4, activation="gleu").build(8),
            "unknown activation 'gleu'; there",
        ),
        (lambda: build_activation(""), "unknown activation ''; there are: celu, elu, gelu"),
        (lambda: RotaryConfig(theta=0.0), "RotaryConfig.theta must be above 0, found 0"),
        (lambda: RotaryConfig(fraction=1.5), r"RotaryConfig.fraction must lie in \(0, 1\], found 1.5"),
        (lambda: LearnedPositionsConfig(num_positions=0), "num_positions must be a whole number above 0"),
        (lambda: LearnedPositionsConfig(num_positions=4, offset=-1), "offset must be 0 or more, found -1"),
        (lambda: EmbeddingConfig(num_token_types=-1), "num_token_types must be 0 or more, found -1"),
        (lambda: EmbeddingConfig(dropout=2.0), "EmbeddingConfig.dropout must be a probability"),
        (lambda: replace(small_config(), blocks=()), r"at least one block, found \(\)"),
        (lambda: replace(small_config(), vocab_size=0), "EncoderConfig.vocab_size must be a whole number"),
        (
            lambda: replace(small_config(), pad_token_id=101),
            "pad_token_id 101 lies outside the vocabulary of 101",
        ),
    ],
)
def test_a_setting_that_makes_no_sense_is_an_error_that_says_so(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleNormConfig(Part):
    """A user's own norm."""

    kind: ClassVar[str] = "scale_norm"
    power: float = 1.0

    def build(self, hidden_size: int) -> nn.Module:
        return nn.Identity()


def test_a_users_own_part_is_read_back_when_it_is_named():
    block = PreNormConfig(attention=ATTENTION, mlp=GLU, mlp_norm=ScaleNormConfig(power=0.5))
    assert from_json(to_json(block), (*PARTS, ScaleNormConfig)) == block


def test_an_unknown_part_is_an_error_that_shows_how_to_name_it():
    data = to_json(PreNormConfig(attention=ATTENTION, mlp=GLU, mlp_norm=ScaleNormConfig()))
    with pytest.raises(
        ConfigError, match=r"unknown part 'scale_norm'.*load\(folder, parts=\[YourPartConfig\]\)"
    ):
        from_json(data, PARTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_head": 2}, "AttentionConfig has no field num_head; its fields are .*num_heads"),
        ({"num_heads": "two"}, "AttentionConfig.num_heads must be a whole number above 0, found 'two'"),
        ({"kind": None}, "unknown part None"),
        ({"kind": ["attention"]}, r"unknown part \['attention'\]"),
        ({"rotary": {"kind": "rotary", "base": 1}}, "RotaryConfig has no field base"),
    ],
)
def test_json_that_no_part_can_be_built_from_is_an_error_that_names_the_key(changes, message):
    with pytest.raises(ConfigError, match=message):
        from_json(to_json(ATTENTION) | changes, PARTS)


def test_a_missing_field_is_an_error_and_one_with_a_default_is_not():
    with pytest.raises(
        ConfigError, match="AttentionConfig needs num_heads, which the configuration does not give"
    ):
        from_json({"kind": "attention"}, PARTS)
    assert from_json({"kind": "attention", "num_heads": 2}, PARTS) == ATTENTION


def test_a_value_of_the_wrong_kind_is_an_error_that_names_the_part():
    data = {"kind": "encoder", "vocab_size": 10, "hidden_size": 8, "blocks": 3}
    with pytest.raises(ConfigError, match=r"EncoderConfig.blocks must be a tuple .* found 3"):
        from_json(data, PARTS)
    with pytest.raises(ConfigError, match=r"RotaryConfig cannot be made of .*'theta': 'high'"):
        from_json({"kind": "rotary", "theta": "high"}, PARTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableConfig(Part):
    kind: ClassVar[str] = "table"
    table: object

    def build(self, hidden_size: int) -> nn.Module:
        return nn.Identity()


@pytest.mark.parametrize(
    "table",
    [(1, (2.5, None), True), {"a": (1, 2), "b": {"c": ("x",)}}, {"part": ATTENTION}, (ATTENTION, "x")],
)
def test_what_a_field_holds_comes_back_as_it_was(table):
    part = TableConfig(table=table)
    assert from_json(json.loads(json.dumps(to_json(part))), (*PARTS, TableConfig)) == part


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([1, 2], r"TableConfig.table holds \[1, 2\], which a saved model cannot bring back.*as a tuple"),
        ({"a": ([1],)}, r"TableConfig.table holds \[1\]"),
        ({1: 2}, "TableConfig.table has the key 1, which"),
        ({"kind": "x"}, "TableConfig.table has the key 'kind'"),
        ({1, 2}, "TableConfig.table holds {1, 2}"),
    ],
)
def test_what_json_would_bring_back_as_another_value_is_refused(table, message):
    with pytest.raises(ConfigError, match=message):
        to_json(TableConfig(table=table))


def test_two_parts_of_one_kind_are_refused():
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Shadow(Part):
        kind: ClassVar[str] = "layer_norm"

    with pytest.raises(
        ConfigError, match=r"two parts are of kind 'layer_norm': .*LayerNormConfig and .*Shadow"
    ):
        from_json(to_json(ATTENTION), (*PARTS, Shadow))
    assert from_json(to_json(ATTENTION), (*PARTS, AttentionConfig)) == ATTENTION


@pytest.mark.parametrize("part", [nn.Linear, None, ATTENTION, "attention", Part])
def test_what_is_no_class_of_a_part_is_refused(part):
    with pytest.raises(ConfigError, match="parts are dataclasses that derive from Part and have a kind"):
        from_json(to_json(ATTENTION), (*PARTS, part))


def test_the_size_of_a_norms_epsilon_is_checked():
    for config in (LayerNormConfig, RmsNormConfig):
        with pytest.raises(ConfigError, match=r"\.eps must be a number of at least 0, found 'small'"):
            config(eps="small")
