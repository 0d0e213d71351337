"""The native forward against the modules: every part, length and instruction set, any mates and threads."""

from __future__ import annotations

import copy
import os
import pickle
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn

from modernbert.encoder.presets import PRESETS
from modernbert.errors import BackendError, InputError
from modernbert.kernels import native_library
from tests.encoder.native_models import (
    NATIVE_ACTIVATIONS,
    built,
    hidden,
    needs_native,
    random_batch,
    random_config,
    small_preset,
)

pytestmark = needs_native

# The promise of the package for fp32, on hidden states of size 1 to 10 and matrices drawn large: both sides
# lie up to 3e-5 from what float64 gives.
TOLERANCE = 1e-4
MIXED = [70, 1, 2, 131, 16, 96, 97, 33]


@pytest.fixture(autouse=True, params=native_library.INSTRUCTION_SETS)
def instruction_set(request, monkeypatch):
    """Every one that this processor has, whichever it would choose itself."""
    name = request.param
    if not native_library.supported(name):
        pytest.skip(f"this processor has no {name}")
    monkeypatch.setattr(native_library, "INSTRUCTION_SETS", {name: native_library.INSTRUCTION_SETS[name]})
    native_library._find.cache_clear()
    if native_library.library() is None:
        pytest.skip(f"the native backend {native_library.missing()}")
    yield name
    native_library._find.cache_clear()


def assert_agrees(encoder, batch, tolerance=TOLERANCE):
    expected = hidden(encoder, batch, "sdpa")
    found = hidden(encoder, batch)
    scale = max(1.0, expected.abs().max().item() / 10)  # compositions without norms grow
    assert found.shape == expected.shape
    assert (found - expected).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_agrees_with_its_modules(name):
    config = small_preset(name)
    has_types = bool(config.embedding.num_token_types > 1)
    assert_agrees(built(config), random_batch(MIXED, has_types=has_types))


@pytest.mark.parametrize("seed", range(60))
def test_random_compositions_agree_with_their_modules(seed):
    config = random_config(seed)
    batch = random_batch([40, 1, 100, 7], seed, has_types=config.embedding.num_token_types > 0)
    exact = hidden(built(config, seed).double(), batch, "sdpa")
    found, theirs = (
        (hidden(built(config, seed), batch, by) - exact).abs().max() for by in ("native", "sdpa")
    )
    # some of what is drawn makes much of small differences, whoever computes it
    scale = max(1.0, exact.abs().max().item() / 10)
    assert found.item() <= max(TOLERANCE * scale, 3 * theirs.item())


def error_in_bfloat16(config, batch, seed, backend):
    """How far hidden states lie from float32 modules' of the same weights, as a share of the norm."""
    exact = hidden(built(config, seed, "bfloat16").float(), batch, "sdpa")
    found = hidden(built(config, seed, "bfloat16"), batch, backend)
    assert found.dtype == torch.bfloat16
    return ((found.float() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("name", ["ettin-17m", "mmbert-small", "bert-base", "roberta-base"])
def test_bfloat16_is_nearer_to_float32_than_the_modules_are(name):
    config = small_preset(name)
    batch = random_batch(MIXED, has_types=bool(config.embedding.num_token_types > 1))
    assert error_in_bfloat16(config, batch, 0, "native") < error_in_bfloat16(config, batch, 0, "sdpa")


@pytest.mark.parametrize("seed", range(60))
def test_random_compositions_agree_in_bfloat16(seed):
    config = random_config(seed)
    batch = random_batch([40, 1, 100, 7], seed, has_types=config.embedding.num_token_types > 0)
    # the roundings of the two are others: in a single case either may be the nearer one
    assert error_in_bfloat16(config, batch, seed, "native") < 2 * error_in_bfloat16(
        config, batch, seed, "sdpa"
    )


@pytest.mark.parametrize("window", [None, 0, 7, 64])
def test_every_length_up_to_70_agrees_in_bfloat16(window):
    config = small_preset("ettin-17m")
    attention = replace(config.blocks[0].attention, window_each_side=window)
    one = replace(config, blocks=(replace(config.blocks[0], attention=attention),))
    encoder, exact = built(one, products="bfloat16"), built(one, products="bfloat16").float()
    for lengths in [[length] for length in range(1, 71)] + [list(range(1, 71)), [175, 176, 177, 353]]:
        batch = random_batch(lengths, len(lengths))
        found, expected = hidden(encoder, batch).float(), hidden(exact, batch, "sdpa")
        # of 8 bits a number, in every token and not on average alone
        assert ((found - expected).norm(dim=1) / expected.norm(dim=1)).max().item() < 2**-6


@pytest.mark.parametrize("products", native_library.PRODUCTS)
def test_a_sequence_that_holds_no_numbers_leaves_its_neighbours_alone(products):
    config = small_preset("ettin-17m")
    encoder, lengths = built(config, products=products), [31, 1, 64, 33]
    batch = random_batch(lengths)
    sequences = [piece.tolist() for piece in batch.split(batch.token_ids)]
    with torch.no_grad():
        encoder.embeddings.tok_embeddings.weight[100] = float("nan")
    clean = [[min(token, 99) for token in sequence] for sequence in sequences]
    spoilt = [*clean[:1], [100], *clean[2:3], [*clean[3][:-1], 100]]
    expected = type(batch).from_sequences(clean)
    expected = expected.split(hidden(encoder, expected))
    found = type(batch).from_sequences(spoilt)
    found = found.split(hidden(encoder, found))
    assert found[1].isnan().all()
    assert found[3].isnan().any()
    for place in (0, 2):
        assert torch.equal(found[place], expected[place])


@pytest.mark.parametrize("activation", NATIVE_ACTIVATIONS)
@pytest.mark.parametrize("name", ["ettin-17m", "minilm-l6"], ids=["gated", "plain"])
def test_every_activation_agrees_also_where_numbers_are_large(name, activation):
    config = small_preset(name)
    blocks = tuple(replace(each, mlp=replace(each.mlp, activation=activation)) for each in config.blocks[:1])
    encoder = built(replace(config, blocks=blocks))
    assert_agrees(encoder, random_batch([20]))
    encoder.layers[0].mlp.Wi.weight.data.mul_(30)  # past every bound inside the approximations
    assert_agrees(encoder, random_batch([20]), tolerance=1e-3)


@pytest.mark.parametrize("window", [None, 0, 1, 7, 16, 64])
def test_every_length_up_to_70_agrees(window):
    config = small_preset("ettin-17m")
    blocks = tuple(
        replace(each, attention=replace(each.attention, window_each_side=window))
        for each in config.blocks[:1]
    )
    encoder = built(replace(config, blocks=blocks))
    for length in range(1, 71):
        assert_agrees(encoder, random_batch([length], length))
    assert_agrees(encoder, random_batch(list(range(1, 71))))


@pytest.mark.parametrize("window", [0, 1, 8, 63, 64, 65, 79, 80, 81, 200])
def test_the_edges_of_windows_and_blocks_agree(window):
    config = small_preset("ettin-17m")
    attention = replace(config.blocks[1].attention, window_each_side=window)
    encoder = built(replace(config, blocks=(replace(config.blocks[1], attention=attention),)))
    lengths = [window + extra for extra in (1, 2, 3, 15, 16, 17, 95, 96, 97, 160, 161)]
    assert_agrees(encoder, random_batch(lengths))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_lengths_up_to_8192_agree(seed):
    draw = random.Random(seed)
    encoder = built(small_preset("ettin-17m"))
    assert_agrees(
        encoder, random_batch([draw.randint(1, 8192), draw.randint(1, 300), draw.randint(1, 3000)], seed)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["modernbert-base", "bert-base"])
def test_a_preset_in_full_size_agrees(name):
    torch.manual_seed(0)
    assert_agrees(PRESETS[name]().build().eval(), random_batch([512, 16, 130]))


def test_mates_and_order_and_threads_do_not_change_a_single_bit():
    encoder = built(small_preset("ettin-17m"))
    lengths = [70, 1, 131, 16, 300, 96]
    batch = random_batch(lengths)
    sequences = [piece.tolist() for piece in batch.split(batch.token_ids)]
    together = batch.split(hidden(encoder, batch))
    make = type(batch).from_sequences
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            backwards = make(sequences[::-1])
            turned = backwards.split(hidden(encoder, backwards))[::-1]
            alone = [hidden(encoder, make([sequence])) for sequence in sequences]
            for one, other, third in zip(together, turned, alone, strict=True):
                assert torch.equal(one, other)
                assert torch.equal(one, third)
    finally:
        torch.set_num_threads(1)


def test_threads_may_ask_at_once():
    encoder = built(small_preset("ettin-17m"))
    batches = [random_batch([5 + i, 40], i) for i in range(8)]
    expected = [hidden(encoder, batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for found, wanted in zip(pool.map(lambda b: hidden(encoder, b), batches), expected, strict=True):
                assert torch.equal(found, wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    encoder, batch = built(small_preset("ettin-17m")), random_batch([200, 200])
    torch.set_num_threads(2)
    try:
        expected = hidden(encoder, batch)
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # a child that waits for its parent's threads must not wait for ever
            os._exit(0 if torch.equal(hidden(encoder, batch), expected) else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(1)


def change_in_place(encoder):
    with torch.no_grad():
        encoder.layers[1].mlp.Wo.weight.mul_(2)


def change_by_data(encoder):
    encoder.layers[0].attn.Wqkv.weight.data *= 3


def change_a_norm_by_data(encoder):
    encoder.final_norm.weight.data[3] = 7


def change_by_optimizer(encoder):
    weight = encoder.layers[0].attn.Wo.weight
    weight.grad = torch.ones_like(weight)
    torch.optim.SGD([weight], lr=0.1).step()
    weight.grad = None


def change_by_loading(encoder):
    encoder.load_state_dict(built(encoder.config, seed=9).state_dict())


def replace_a_parameter(encoder):
    encoder.layers[2].attn.Wo.weight = nn.Parameter(torch.randn(64, 64) / 8)


def replace_a_layer(encoder):
    encoder.layers[1] = encoder.layers[2]


def replace_a_part(encoder):
    encoder.layers[0].mlp.activation = nn.ReLU()


@pytest.mark.parametrize(
    "change",
    [
        change_in_place,
        change_by_data,
        change_a_norm_by_data,
        change_by_optimizer,
        change_by_loading,
        replace_a_parameter,
        replace_a_layer,
        replace_a_part,
    ],
    ids=lambda change: change.__name__,
)
def test_changed_weights_are_never_served_stale(change):
    encoder, batch = built(small_preset("ettin-17m")), random_batch([30, 5])
    before = hidden(encoder, batch)
    change(encoder)
    assert not torch.allclose(hidden(encoder, batch), before)
    assert_agrees(encoder, batch)


def test_a_hook_is_called_since_auto_goes_through_the_modules_then():
    encoder, batch, called = built(small_preset("ettin-17m")), random_batch([30]), []
    encoder.native.is_on = True
    hidden(encoder, batch, "auto")
    handle = encoder.layers[1].register_forward_hook(lambda *args: called.append(1))
    hidden(encoder, batch, "auto")
    assert called == [1]
    with pytest.raises(BackendError, match="no place for forward hooks"):
        hidden(encoder, batch)
    handle.remove()
    hidden(encoder, batch)


def test_training_and_gradients_go_through_the_modules():
    encoder, batch = built(small_preset("minilm-l6")), random_batch([30])
    encoder.native.is_on = True
    assert encoder(batch).requires_grad
    with pytest.raises(BackendError, match=r"torch\.no_grad"):
        encoder(batch, "native")
    encoder.layers[0].attn.out_dropout.train()  # as for Monte Carlo dropout
    with torch.no_grad():
        assert not torch.equal(encoder(batch), encoder(batch))
    with pytest.raises(BackendError, match="training mode, with dropout"):
        hidden(encoder, batch)


def test_what_a_plan_cannot_express_is_said_and_auto_takes_the_modules():
    config = small_preset("ettin-17m")
    odd = [
        (replace(config, hidden_size=68), "multiples of"),
        (
            replace(
                config, blocks=tuple(replace(b, mlp=replace(b.mlp, activation="mish")) for b in config.blocks)
            ),
            "activation Mish",
        ),
    ]
    for each, reason in odd:
        encoder, batch = built(each), random_batch([9])
        with pytest.raises(BackendError, match=reason):
            hidden(encoder, batch)
        encoder.native.is_on = True
        assert torch.equal(hidden(encoder, batch, "auto"), hidden(encoder, batch, "sdpa"))

    class Own(nn.Linear):
        pass

    encoder = built(config)
    encoder.layers[0].attn.Wo = Own(64, 64)
    with pytest.raises(BackendError, match="linear layer of type Own"):
        hidden(encoder, random_batch([9]))
    with pytest.raises(BackendError, match="takes weights of float32 or bfloat16"):
        hidden(built(config).double(), random_batch([9]))
    mixed = built(config)
    mixed.final_norm.bfloat16()
    with pytest.raises(BackendError, match=r"of one dtype, found torch\.float32 and torch\.bfloat16"):
        hidden(mixed, random_batch([9]))


def test_copies_and_pickles_of_an_encoder_have_plans_of_their_own():
    encoder, batch = built(small_preset("ettin-17m")), random_batch([30])
    expected = hidden(encoder, batch)
    for copied in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(hidden(copied, batch), expected)
        change_in_place(copied)
        assert not torch.equal(hidden(copied, batch), expected)
        assert torch.equal(hidden(encoder, batch), expected)


def test_only_some_tokens_may_be_asked_for():
    encoder, batch = built(small_preset("ettin-17m")), random_batch([30, 8])
    positions = torch.tensor([0, 37, 5])
    with torch.no_grad():
        some = encoder(batch, "native", positions)
    assert torch.equal(some, hidden(encoder, batch)[positions])


def test_bad_batches_are_errors_that_name_the_place():
    encoder, batch = built(small_preset("bert-base")), random_batch([9, 3])
    ids = batch.token_ids.clone()
    ids[4] = 101
    with pytest.raises(IndexError, match="token 4 of the batch is 101, outside the vocabulary of 101"):
        hidden(encoder, replace(batch, token_ids=ids))
    with pytest.raises(IndexError, match=r"token 11 .* has position 700"):
        hidden(encoder, replace(batch, position_ids=torch.tensor([*range(11), 700])))
    with pytest.raises(IndexError, match="of a type that the model has not learned"):
        hidden(encoder, replace(batch, token_types=torch.full((12,), 2)))
    with pytest.raises(InputError, match="longer than the 512 positions"):
        hidden(encoder, random_batch([600]))
    for bounds, most in (([0, 9, 11], 9), ([1, 9, 12], 9), ([0, 10, 9, 12], 10), ([0, 9, 12], 8)):
        with pytest.raises(InputError, match="cu_seqlens must rise"):
            hidden(
                encoder, replace(batch, cu_seqlens=torch.tensor(bounds, dtype=torch.int32), max_seqlen=most)
            )


def test_numbers_that_are_none_stay_so():
    for matrix in ("layers.0.attn.Wqkv", "layers.1.mlp.Wi", "layers.2.mlp.Wo"):
        for products in native_library.PRODUCTS:
            encoder = built(small_preset("ettin-17m"), products=products)
            with torch.no_grad():
                encoder.get_submodule(matrix).weight[0] = float("nan")
            assert hidden(encoder, random_batch([9])).isnan().any()


@pytest.mark.parametrize("scale", [1e20, 1e30])
def test_weights_that_ran_away_give_no_number(scale):
    encoder = built(small_preset("ettin-17m"))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(scale)
    assert hidden(encoder, random_batch([9])).isnan().any()


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "quick_gelu", "gelu_tanh", "silu"])
def test_an_activation_of_no_number_is_none(activation):
    config = small_preset("minilm-l6")
    blocks = tuple(replace(b, mlp=replace(b.mlp, activation=activation)) for b in config.blocks)
    encoder = built(replace(config, blocks=blocks))
    with torch.no_grad():
        encoder.get_submodule("layers.1.mlp.Wi").weight[0] = float("nan")
    assert hidden(encoder, random_batch([9])).isnan().any()


def test_more_threads_than_processors_are_never_started(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    assert_agrees(built(small_preset("ettin-17m")), random_batch([400]))
    from modernbert.kernels.hardware import num_threads

    assert 1 <= num_threads() <= (os.cpu_count() or 1)


def test_a_number_of_threads_that_makes_no_sense_is_an_error():
    library = native_library.library()
    spec, x = native_library.LinearSpec(), torch.zeros(1)
    for number in (0, -1, 10_000):
        assert (
            library.modernbert_linear(spec, 0, x.data_ptr(), 1, number, x.data_ptr())
            == native_library.BAD_THREADS
        )
