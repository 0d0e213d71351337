"""Larger models from smaller ones: what they compute, which layers and heads they have, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import ParallelConfig, PostNormConfig
from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.norm import LayerNormConfig, RmsNormConfig
from modernbert.encoder.presets import PRESETS
from modernbert.encoder.rotary import RotaryConfig
from modernbert.errors import ConfigError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.embed import DenseConfig, EmbedHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import HeadPart, ModelConfig
from modernbert.heads.transform import TransformConfig
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from modernbert.pretrained.tiling import Tiling, encoder_named, layer_map, tile_model, tiled_axis
from modernbert.pretrained.weights import state_of
from tests.pretrained.small_models import numbers, packed, small_encoder, small_model, small_tokenizer

EXACT = Tiling(noise=0.0)
# The sums of a wider layer add the same numbers in another order, in fp32.
SAME_NUMBERS = {"rtol": 1e-4, "atol": 1e-4}
TABLE = "model.embeddings.tok_embeddings.weight"


# Which place comes from where


@pytest.mark.parametrize(
    ("mode", "sources", "copies"),
    [
        ("edge", [0, 1, 2, 0, 1], [0, 0, 0, 1, 1]),
        ("middle", [2, 0, 1, 2, 0], [1, 0, 0, 0, 1]),
    ],
)
def test_an_axis_is_repeated_from_the_edge_or_the_middle(mode, sources, copies):
    axis = tiled_axis(3, 5, mode)
    assert axis.sources.tolist() == sources
    assert axis.is_copy.tolist() == [bool(each) for each in copies]
    assert axis.num_copies.tolist() == [sources.count(each) for each in sources]


def test_parts_and_heads_are_repeated_whole():
    axis = tiled_axis(2, 3, "edge", size=2, num_parts=3)  # q, k and v of heads of 2
    assert axis.sources.tolist() == [0, 1, 2, 3, 0, 1, 4, 5, 6, 7, 4, 5, 8, 9, 10, 11, 8, 9]
    assert axis.is_copy.tolist() == [False] * 4 + [True] * 2 + ([False] * 4 + [True] * 2) * 2


@given(st.integers(1, 20), st.integers(0, 70), st.sampled_from(["edge", "middle"]))
def test_every_old_place_is_there_once_as_itself(num_old, growth, mode):
    axis = tiled_axis(num_old, num_old + growth, mode)
    assert axis.sources[~axis.is_copy].tolist() == list(range(num_old))
    assert set(axis.sources.tolist()) == set(range(num_old))


def stack(pattern: str) -> EncoderConfig:
    """An encoder with a layer a letter: g sees everything, l a window."""
    encoder = small_encoder()
    everywhere, nearby = encoder.blocks[0], encoder.blocks[1]
    return replace(encoder, blocks=tuple(everywhere if letter == "g" else nearby for letter in pattern))


def test_the_published_map_is_that_of_large_from_base():
    base, large = PRESETS["modernbert-base"](), PRESETS["modernbert-large"]()
    expected = "0 1 2 2 3 4 5 6 6 7 8 9 9 10 11 12 13 13 14 15 16 16 17 18 19 20 20 21"
    assert " ".join(map(str, layer_map(base, large, "published"))) == expected


def test_the_published_map_ends_at_the_last_layer_however_deep():
    assert layer_map(stack("gl"), stack("gllgll"), "published") == (0, 0, 1, 1, 1, 1)


def test_the_aligned_map_of_large_from_base_stays_near_the_published_one():
    base, large = PRESETS["modernbert-base"](), PRESETS["modernbert-large"]()
    aligned, published = layer_map(base, large), layer_map(base, large, "published")
    assert max(abs(a - b) for a, b in zip(aligned, published, strict=True)) <= 2
    assert aligned[0] == 0
    assert aligned[-1] == 21
    assert set(aligned) == set(range(22))


@given(st.text("gl", min_size=1, max_size=12), st.text("gl", min_size=1, max_size=30))
def test_global_layers_come_from_global_and_local_from_local_ones(old, new):
    found = layer_map(stack(old), stack(new))
    assert len(found) == len(new)
    for kind in "gl":
        sources = [source for source, letter in zip(found, new, strict=True) if letter == kind]
        assert sources == sorted(sources)
        assert {old[source] for source in sources} <= ({kind} if kind in old else set("gl"))


def test_the_map_to_the_same_layers_is_each_to_itself():
    encoder = PRESETS["modernbert-base"]()
    assert layer_map(encoder, encoder) == layer_map(encoder, encoder, "published") == tuple(range(22))


# What the larger model is


def grown(
    encoder: EncoderConfig, times: int = 2, num_layers: int | None = None, extra: int = 0
) -> EncoderConfig:
    """The same kind, `times` as wide (and `extra` more inner numbers), with as many layers or more."""
    blocks = [
        replace(
            block,
            attention=replace(block.attention, num_heads=block.attention.num_heads * times),
            mlp=replace(block.mlp, intermediate_size=block.mlp.intermediate_size * times + extra),
        )
        for block in encoder.blocks
    ]
    while len(blocks) < (num_layers or 0):
        blocks.append(blocks[len(blocks) % 3 or 3])
    return replace(encoder, hidden_size=encoder.hidden_size * times, blocks=tuple(blocks))


def random_model(encoder: EncoderConfig, head: HeadPart) -> Pretrained:
    """Weights off what they start as, biases and norms too."""
    torch.manual_seed(0)
    config = ModelConfig(encoder=encoder, head=head)
    module = config.build().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return Pretrained(config=config, module=module)


BIASED = LayerNormConfig(has_bias=True, eps=1e-12)
BERT_ATTENTION = AttentionConfig(num_heads=2, has_qkv_bias=True, has_out_bias=True)
BERT_MLP = MlpConfig(intermediate_size=24, has_in_bias=True, has_out_bias=True)
ROTARY = AttentionConfig(num_heads=2, rotary=RotaryConfig())
ENCODERS = {
    "modernbert": small_encoder(),
    "bert": EncoderConfig(
        vocab_size=32,
        hidden_size=16,
        blocks=(
            PostNormConfig(attention=BERT_ATTENTION, mlp=BERT_MLP, attention_norm=BIASED, mlp_norm=BIASED),
        )
        * 2,
        embedding=EmbeddingConfig(
            norm=BIASED, positions=LearnedPositionsConfig(num_positions=32), num_token_types=2
        ),
        final_norm=None,
    ),
    "parallel": EncoderConfig(
        vocab_size=32,
        hidden_size=16,
        blocks=(ParallelConfig(attention=ROTARY, mlp=GluConfig(intermediate_size=8, has_in_bias=True)),) * 2,
        final_norm=RmsNormConfig(),
    ),
}
HEADS: dict[str, HeadPart] = {
    "mlm": MlmHeadConfig(),
    "mlm with biases": MlmHeadConfig(transform=TransformConfig(has_bias=True, norm=BIASED)),
    "mlm untied": MlmHeadConfig(is_tied=False, transform=None),
    "classify": ClassifyHeadConfig(labels=("a", "b", "c")),
    "embed": EmbedHeadConfig(
        poolings=("cls", "mean"), dense=(DenseConfig(out_features=5), DenseConfig(out_features=3))
    ),
}


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("mode", ["middle", "edge"])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_a_model_made_wider_by_whole_multiples_computes_the_same(encoder, head, mode, times):
    small = random_model(encoder, head)
    large = tile_model(small, grown(encoder, times), replace(EXACT, mode=mode))
    assert large.config.encoder.hidden_size == times * 16
    torch.testing.assert_close(numbers(large), numbers(small), **SAME_NUMBERS)


def test_a_tied_decoder_without_a_head_before_it_computes_the_same():
    encoder = ENCODERS["modernbert"]
    small = random_model(encoder, MlmHeadConfig(transform=None))
    torch.testing.assert_close(
        numbers(tile_model(small, grown(encoder), EXACT)), numbers(small), **SAME_NUMBERS
    )


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_a_model_tiled_to_its_own_shape_is_identical(encoder, head):
    small = random_model(encoder, head)
    same = tile_model(small, encoder)
    for (name, ours), theirs in zip(
        state_of(same.module).items(), state_of(small.module).values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    assert torch.equal(numbers(same), numbers(small))


def test_the_new_model_shares_no_memory_with_the_old():
    small = small_model()
    before = numbers(small)
    same = tile_model(small, small.config.encoder)
    with torch.no_grad():
        for parameter in same.module.parameters():
            parameter.zero_()
    assert torch.equal(numbers(small), before)


def test_deeper_layers_are_those_of_the_map_and_all_norms_are_filled():
    encoder = small_encoder()
    small = random_model(encoder, MlmHeadConfig())
    to = replace(encoder, blocks=(*encoder.blocks, *encoder.blocks[1:], *encoder.blocks[1:]))
    large, layers = tile_model(small, to, EXACT), layer_map(encoder, to)
    old, new = state_of(small.module), state_of(large.module)
    assert 0 in layers[1:]
    for i, source in enumerate(layers):
        for part in ("attn.Wqkv", "attn.Wo", "mlp_norm", "mlp.Wi", "mlp.Wo"):
            name = f"{part}.weight"
            assert torch.equal(new[f"model.layers.{i}.{name}"], old[f"model.layers.{source}.{name}"])
        if i > 0:
            norm = (
                "model.embeddings.norm.weight" if source == 0 else f"model.layers.{source}.attn_norm.weight"
            )
            assert torch.equal(new[f"model.layers.{i}.attn_norm.weight"], old[norm])
    assert torch.equal(new["model.final_norm.weight"], old["model.final_norm.weight"])


def test_the_last_norm_is_tiled_too():
    small = small_model()
    large = tile_model(small, grown(small.config.encoder), EXACT)
    old, new = (state_of(each.module)["model.final_norm.weight"] for each in (small, large))
    assert torch.equal(new, torch.cat([old[-8:], old, old[:8]]))  # from the middle, wrapped around


def test_whole_heads_are_repeated_and_old_ones_stay_in_the_middle():
    small = small_model()
    encoder = grown(small.config.encoder)
    large = tile_model(small, encoder, replace(EXACT, divides_copies=False))
    old, new = (state_of(each.module)["model.layers.1.attn.Wqkv.weight"] for each in (small, large))
    old_heads, new_heads = old.reshape(3, 2, 8, 16), new.reshape(3, 4, 8, 32)
    assert torch.equal(new_heads[:, :, :, 8:24], old_heads[:, [1, 0, 1, 0]])
    assert torch.equal(new_heads[:, :, :, :8], old_heads[:, [1, 0, 1, 0], :, 8:])


def test_in_the_published_way_sums_grow_with_the_copies():
    small = small_model()
    to = grown(small.config.encoder)
    as_published = tile_model(small, to, replace(EXACT, divides_copies=False, layers="published"))
    name = "model.layers.1.mlp.Wi.weight"
    ours = state_of(tile_model(small, to, EXACT).module)[name]
    assert torch.equal(state_of(as_published.module)[name], 2 * ours)


def test_copies_get_noise_and_what_was_there_does_not():
    small = small_model()
    to = grown(small.config.encoder)
    name = "model.layers.1.attn.Wo.weight"
    exact, noisy = (state_of(tile_model(small, to, how).module)[name] for how in (EXACT, Tiling()))
    moved = exact != noisy
    assert not moved[8:24, 8:24].any()
    assert moved.float().mean() > 0.74  # all but the old block, a quarter
    assert (exact - noisy).std() < 0.01 * exact.std() * 2
    again = state_of(tile_model(small, to, Tiling()).module)[name]
    assert torch.equal(again, noisy)
    small_numbers, large_numbers = numbers(small), numbers(tile_model(small, to))
    assert (large_numbers - small_numbers).norm() < 0.1 * small_numbers.norm()


def learn(model: Pretrained, num_steps: int = 30) -> torch.Tensor:
    """Its tokens' embeddings after some steps of Adam."""
    optimizer = torch.optim.Adam(model.module.parameters(), lr=0.01)
    labels = torch.randint(0, 32, (28,), generator=torch.Generator().manual_seed(0))
    for _ in range(num_steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.module(packed()), labels).backward()
        optimizer.step()
    return state_of(model.module)[TABLE]


def test_copies_without_noise_would_learn_the_same():
    # the reason for noise: equal copies get equal gradients, and the wider model stays a narrow one
    small = small_model()
    to = grown(small.config.encoder)
    table = learn(tile_model(small, to, replace(EXACT, mode="edge")))
    assert torch.equal(table[:, :16], table[:, 16:])
    model = tile_model(small, to, Tiling(mode="edge"))
    before = state_of(model.module)[TABLE].clone()
    after = learn(model)
    apart = [(table[:, :16] - table[:, 16:]).norm() for table in (before, after)]
    assert apart[1] > 1.5 * apart[0]


def test_a_width_that_is_no_multiple_begins_near_the_old_model():
    small = random_model(ENCODERS["modernbert"], MlmHeadConfig())
    encoder = grown(small.config.encoder, extra=7)
    blocks = [replace(block, attention=replace(block.attention, num_heads=3)) for block in encoder.blocks]
    to = replace(encoder, hidden_size=24, blocks=tuple(blocks))
    divided, published = (
        numbers(tile_model(small, to, replace(EXACT, divides_copies=divides))) for divides in (True, False)
    )
    expected = numbers(small)
    assert (divided - expected).norm() < 0.5 * (published - expected).norm()


def test_the_vocabulary_and_the_tokenizer_stay(tmp_path):
    small = small_model(tokenizer=small_tokenizer())
    to = replace(grown(small.config.encoder, num_layers=7), vocab_size=50_368, pad_token_id=50_283)
    large = tile_model(small, to)
    assert large.config.encoder.vocab_size == 32
    assert large.config.encoder.pad_token_id == 0
    write_folder(tmp_path / "large", large)
    again = read_folder(tmp_path / "large")
    assert torch.equal(numbers(again), numbers(large))
    assert again.tokenizer.encode_ids(["w3"]) == small.tokenizer.encode_ids(["w3"])


def test_what_a_folder_carries_is_tiled_along():
    small = small_model()
    small.carried = {"pooler.dense.weight": torch.eye(16), "pooler.dense.bias": torch.arange(16.0)}
    large = tile_model(small, grown(small.config.encoder), EXACT)
    assert large.carried["pooler.dense.weight"].shape == (32, 32)
    assert large.carried["pooler.dense.bias"].tolist() == [*range(8, 16), *range(16), *range(8)]


def test_nothing_may_be_smaller():
    small = small_model()
    encoder = small.config.encoder
    with pytest.raises(ConfigError, match="layers: 4 -> 3"):
        tile_model(small, replace(encoder, blocks=encoder.blocks[:3]))
    with pytest.raises(ConfigError, match="hidden_size: 32 -> 16"):
        tile_model(tile_model(small, grown(encoder)), encoder)
    with pytest.raises(ConfigError, match=r"intermediate_size of layer 0, .*: 24 -> 23"):
        tile_model(small, grown(encoder, times=1, extra=-1))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda block: replace(block, attention=replace(block.attention, num_heads=4)), "head size: 8, 4"),
        (
            lambda block: replace(block, attention=replace(block.attention, has_qkv_bias=True)),
            "attention.has_qkv_bias: False, True",
        ),
        (lambda block: replace(block, attention=replace(block.attention, rotary=None)), "attention.rotary"),
        (lambda block: replace(block, mlp=MlpConfig(intermediate_size=24)), "mlp.kind: 'glu', 'mlp'"),
        (lambda block: replace(block, mlp=replace(block.mlp, activation="relu")), "mlp.activation"),
        (
            lambda block: PostNormConfig(attention=block.attention, mlp=block.mlp),
            "kind: 'pre_norm', 'post_norm'",
        ),
    ],
)
def test_another_kind_of_block_is_refused_by_what_differs(change, what):
    small = small_model()
    encoder = small.config.encoder
    blocks = (encoder.blocks[0], change(encoder.blocks[1]), *encoder.blocks[2:])
    with pytest.raises(ConfigError, match=f"layer 1, made from layer 1: .*{what}"):
        tile_model(small, replace(encoder, blocks=blocks))


def test_other_embeddings_are_refused():
    small = random_model(ENCODERS["bert"], MlmHeadConfig())
    longer = replace(
        small.config.encoder,
        embedding=replace(small.config.encoder.embedding, positions=LearnedPositionsConfig(num_positions=64)),
    )
    with pytest.raises(ConfigError, match=r"embedding\.positions\.num_positions: 32, 64"):
        tile_model(small, longer)


def test_a_decoder_that_cannot_be_divided_says_so():
    small = random_model(ENCODERS["modernbert"], MlmHeadConfig(transform=TransformConfig(norm=None)))
    with pytest.raises(ConfigError, match="tile with divides_copies=False"):
        tile_model(small, grown(small.config.encoder))
    tile_model(small, grown(small.config.encoder), Tiling(divides_copies=False))


def test_a_tiling_that_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="mode is one of middle, edge"):
        Tiling(mode="left")  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["auto", "parts"])
def test_a_shape_is_named_by_a_preset_a_file_or_a_folder(tmp_path, layout):
    assert encoder_named("ettin-17m") == PRESETS["ettin-17m"]()
    model = small_model()
    write_folder(tmp_path / "model", model, layout=layout)
    for path in (tmp_path / "model", tmp_path / "model" / "config.json"):
        assert encoder_named(path).blocks == model.config.encoder.blocks
    with pytest.raises(ConfigError, match=r"no preset and no config\.json; presets are modernbert-base"):
        encoder_named("ettin")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ConfigError, match="model_type is 'llama'"):
        encoder_named(tmp_path / "config.json")
