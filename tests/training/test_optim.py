"""Each optimiser against its formula in plain numpy, step by step; what decays; what a checkpoint keeps."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from modernbert.errors import ModernBertError, TrainingError
from modernbert.training import checkpoint
from modernbert.training.adopt import Adopt
from modernbert.training.optim import (
    AdamWConfig,
    AdoptConfig,
    MuonConfig,
    OptimizerConfig,
    ParameterGroup,
    StableAdamWConfig,
    parameter_groups,
    set_learning_rate,
)
from modernbert.training.parallel import Group
from tests.pretrained.small_models import packed, small_model

NUM_STEPS = 20
NUM_SHARED_STEPS = 8  # each takes a tenth of a second to exchange
PEAK = 0.05
SHARES = [min(1.0, (step + 1) / 5) * (1.0 if step < 12 else 0.4) for step in range(NUM_STEPS)]
# Parameters are fp64 here, and so is numpy: what differs is the order of a few roundings.
ROUNDING = {"rtol": 1e-10, "atol": 1e-12}
# torch's Muon iterates in bf16: 8 bits err by 2 ** -9, in each of 5 products, and what is near 0 may turn.
BF16_ERROR = 0.03
CONFIGS: dict[str, OptimizerConfig] = {
    "stable adamw": StableAdamWConfig(),
    "adamw": AdamWConfig(),
    "adopt": AdoptConfig(),
    "muon": MuonConfig(),
}
ALONE = Group(rank=0, world_size=1, device=torch.device("cpu"))


class Small(nn.Module):
    """A table, a layer with a bias, a norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 7)
        self.layers = nn.ModuleList([nn.Linear(7, 5)])
        self.norm = nn.LayerNorm(5, bias=False)
        self.head = nn.Linear(5, 3, bias=False)


IN_LAYER = "layers.0.weight"
Weights = dict[str, np.ndarray]
Gradients = list[Weights]


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small().double()


def weights_of(module: nn.Module) -> Weights:
    return {name: each.detach().numpy().copy() for name, each in module.named_parameters()}


def random_gradients(module: nn.Module, num_steps: int = NUM_STEPS, scale: float = 1.0) -> Gradients:
    """Of sizes that change from step to step, so that bounds and clipping come into play."""
    generator = np.random.default_rng(7)
    sizes = scale * 10 ** generator.uniform(-1, 1, num_steps)
    return [
        {name: size * generator.normal(size=each.shape) for name, each in module.named_parameters()}
        for size in sizes
    ]


def run(config: OptimizerConfig, module: nn.Module, gradients: Gradients, first: int = 0) -> None:
    optimizer = config.build(module)
    for step, each in enumerate(gradients, start=first):
        take_step(optimizer, module, each, step)


def take_step(optimizer: torch.optim.Optimizer, module: nn.Module, gradients: Weights, step: int) -> None:
    for name, parameter in module.named_parameters():
        parameter.grad = torch.from_numpy(gradients[name]).to(parameter.dtype)
    set_learning_rate(optimizer, PEAK, SHARES[step % NUM_STEPS])
    optimizer.step()


# The formulas, one parameter at a time


def slow(formula: Callable[..., np.ndarray], config: object, start: Weights, gradients: Gradients) -> Weights:
    """The weights after all steps; `formula` moves one parameter through them."""
    moved = {}
    for name, weight in start.items():
        decay = config.weight_decay if weight.ndim > 1 else 0.0  # type: ignore[attr-defined]
        moved[name] = formula(config, weight, [each[name] for each in gradients], decay)
    return moved


def slow_stable_adamw(config, weight, gradients, decay):
    (beta1, beta2), m, v = config.betas, np.zeros_like(weight), np.zeros_like(weight)
    for step, (g, share) in enumerate(zip(gradients, SHARES, strict=False), start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
        rms = math.sqrt(np.mean(g * g / np.maximum(v_hat, config.eps**2)))
        rate = PEAK * share / max(1.0, rms)
        weight = weight * (1 - (rate / PEAK if config.is_fully_decoupled else rate) * decay)
        weight = weight - rate * m_hat / (np.sqrt(v_hat) + config.eps)
    return weight


def slow_adamw(config, weight, gradients, decay):
    (beta1, beta2), m, v = config.betas, np.zeros_like(weight), np.zeros_like(weight)
    for step, (g, share) in enumerate(zip(gradients, SHARES, strict=False), start=1):
        rate = PEAK * share
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        weight = weight * (1 - rate * decay)
        weight = weight - rate * (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + config.eps)
    return weight


def slow_adopt(config, weight, gradients, decay):
    (beta1, beta2), m = config.betas, np.zeros_like(weight)
    v = gradients[0] * gradients[0]
    for t, (g, share) in enumerate(zip(gradients[1:], SHARES[1:], strict=False), start=1):
        rate = PEAK * share
        weight = weight * (1 - (share if config.is_fully_decoupled else rate) * decay)
        n = g / np.maximum(np.sqrt(v), config.eps)
        if config.clip_exponent is not None:
            n = np.clip(n, -(t**config.clip_exponent), t**config.clip_exponent)
        m = beta1 * m + (1 - beta1) * n
        weight = weight - rate * m
        v = beta2 * v + (1 - beta2) * g * g
    return weight


def slow_muon(config, weight, gradients, decay):
    """Of a matrix; Jordan et al. 2024, with the size of Liu et al. 2025."""
    momentum = np.zeros_like(weight)
    for g, share in zip(gradients, SHARES, strict=False):
        rate = PEAK * share
        momentum = config.momentum * momentum + (1 - config.momentum) * g
        x = config.momentum * momentum + (1 - config.momentum) * g
        x = x / np.linalg.norm(x)
        for _ in range(5):
            square = x @ x.T
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        weight = weight * (1 - rate * decay) - rate * 0.2 * math.sqrt(max(weight.shape)) * x
    return weight


def assert_moves_by(formula, config, scale: float = 1.0, **tolerance: float) -> None:
    module = small()
    start, gradients = weights_of(module), random_gradients(module, scale=scale)
    run(config, module, gradients)
    for name, expected in slow(formula, config, start, gradients).items():
        found = dict(module.named_parameters())[name].detach().numpy()
        np.testing.assert_allclose(found, expected, **(tolerance or ROUNDING), err_msg=name)


@pytest.mark.parametrize(
    "config",
    [
        StableAdamWConfig(),
        StableAdamWConfig(weight_decay=0.0),
        StableAdamWConfig(weight_decay=9e-4, betas=(0.8, 0.95), eps=1e-3),
        StableAdamWConfig(weight_decay=0.1, is_fully_decoupled=False),
    ],
)
def test_stable_adamw_follows_its_formula(config):
    assert_moves_by(slow_stable_adamw, config)


@pytest.mark.parametrize(
    "config", [AdamWConfig(), AdamWConfig(weight_decay=0.3, betas=(0.8, 0.999), eps=1e-3)]
)
def test_adamw_follows_its_formula(config):
    assert_moves_by(slow_adamw, config)


@pytest.mark.parametrize("scale", [1.0, 1e-6], ids=["large gradients", "gradients of eps"])
@pytest.mark.parametrize(
    "config",
    [
        AdoptConfig(),
        AdoptConfig(weight_decay=0.0),
        AdoptConfig(clip_exponent=None, eps=1e-3),
        AdoptConfig(clip_exponent=0.4, betas=(0.8, 0.99), weight_decay=0.2),
        AdoptConfig(weight_decay=0.01, is_fully_decoupled=True),
    ],
)
def test_adopt_follows_its_formula(config, scale):
    assert_moves_by(slow_adopt, config, scale)


def test_muon_follows_its_formula_in_layers_and_adamws_elsewhere():
    config, module = MuonConfig(), small()
    start, gradients = weights_of(module), random_gradients(module)
    run(config, module, gradients)
    expected = slow(slow_adamw, config.others, start, gradients) | slow(
        slow_muon, config, {IN_LAYER: start[IN_LAYER]}, gradients
    )
    for name, found in weights_of(module).items():
        np.testing.assert_allclose(found, expected[name], **ROUNDING, err_msg=name)


@pytest.mark.parametrize("shape", [(48, 16), (16, 48), (32, 32)])
@pytest.mark.parametrize("is_nesterov", [True, False])
def test_muon_moves_a_matrix_as_torchs_does(shape, is_nesterov):
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(shape[1], shape[0], bias=False)])
    module, theirs = nn.ModuleDict({"layers": layers}), nn.Parameter(layers[0].weight.detach().clone())
    ours = MuonConfig(is_nesterov=is_nesterov).build(module)
    other = torch.optim.Muon([theirs], lr=PEAK, nesterov=is_nesterov, adjust_lr_fn="match_rms_adamw")
    set_learning_rate(ours, PEAK, 1.0)
    start = theirs.detach().clone()
    for _ in range(5):
        theirs.grad = layers[0].weight.grad = torch.randn(shape)
        ours.step()
        other.step()
    difference = (layers[0].weight - theirs).norm() / (theirs - start).norm()
    assert difference < BF16_ERROR


def test_adopt_moves_nothing_in_its_first_step_and_no_further_than_the_rate_in_its_second():
    module = small()
    start, gradients = weights_of(module), random_gradients(module, num_steps=2)
    gradients[1] = {name: 1e6 * each for name, each in gradients[1].items()}
    config = AdoptConfig(weight_decay=0.5)
    run(config, module, gradients[:1])
    assert all((weights_of(module)[name] == start[name]).all() for name in start)
    module, config = small(), replace(config, weight_decay=0.0)
    run(config, module, gradients)
    for name, each in weights_of(module).items():
        bound = PEAK * SHARES[1] * (1 - config.betas[0])  # (1 - beta1) * clamp(n, -1, 1)
        np.testing.assert_allclose(abs(each - start[name]), bound, rtol=1e-9)


def test_a_parameter_that_joins_late_gets_its_own_first_step():
    module = small()
    optimizer = AdoptConfig(weight_decay=0.0).build(module)
    assert isinstance(optimizer, Adopt)
    set_learning_rate(optimizer, PEAK, 1.0)
    before = weights_of(module)
    for is_late in (False, False, True):
        for name, parameter in module.named_parameters():
            has_joined = is_late or name != "head.weight"
            parameter.grad = torch.ones_like(parameter) if has_joined else None
        optimizer.step()
    assert (weights_of(module)["head.weight"] == before["head.weight"]).all()
    assert not (weights_of(module)["table.weight"] == before["table.weight"]).any()


# What moves, and what decays


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_norms_and_biases_do_not_decay(config):
    module = small()
    optimizer = config.build(module)
    found = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in module.named_parameters():
        assert (found[id(parameter)] > 0) == (name.endswith("weight") and "norm" not in name), name


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_tied_parameter_is_moved_once_and_a_frozen_one_never(config):
    module = small_model().module
    frozen = module.get_parameter("model.layers.1.attn.Wo.weight").requires_grad_(False)
    optimizer = config.build(module)
    held = [id(each) for group in optimizer.param_groups for each in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(each) for each in module.parameters()} - {id(frozen)}


def test_muon_leaves_embeddings_and_heads_to_adamw():
    module = small_model().module
    state = MuonConfig().build(module).state
    by_momentum = {name for name, each in module.named_parameters() if "momentum_buffer" in state[each]}
    matrices = ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
    assert by_momentum == {f"model.layers.{i}.{name}.weight" for i in range(4) for name in matrices}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_nothing_moves_before_a_learning_rate_is_set(config):
    module = small()
    start, optimizer = weights_of(module), config.build(module)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    for _ in range(3):
        optimizer.step()
    assert all((weights_of(module)[name] == start[name]).all() for name in start)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_group_may_move_at_a_scale_of_its_own(config):
    module, other = small(), small()
    groups = [
        replace(group, learning_rate_scale=0.5 if group.decays else 1.0) for group in parameter_groups(module)
    ]
    optimizer = config.build(module, groups)
    set_learning_rate(optimizer, 0.2, 0.5)
    rates = {
        name: group["lr"]
        for group in optimizer.param_groups
        for name, parameter in module.named_parameters()
        if any(parameter is each for each in group["params"])
    }
    assert rates["table.weight"] == rates[IN_LAYER] == pytest.approx(0.05)
    assert rates["norm.weight"] == rates["layers.0.bias"] == pytest.approx(0.1)
    assert {group["lr"] for group in config.build(other).param_groups} == {0.0}


def test_fully_decoupled_decay_does_not_depend_on_the_peak():
    for config in (
        StableAdamWConfig(weight_decay=9e-4),
        AdoptConfig(weight_decay=9e-4, is_fully_decoupled=True),
    ):
        kept = []
        for peak in (1e-8, 1e-7):  # too small to move anything by gradients
            module = small()
            start, optimizer = weights_of(module), config.build(module)
            for _ in range(2):
                for parameter in module.parameters():
                    parameter.grad = torch.ones_like(parameter)
                set_learning_rate(optimizer, peak, 0.5)
                optimizer.step()
            kept.append(float(np.mean(weights_of(module)["table.weight"] / start["table.weight"])))
        assert kept[0] == pytest.approx(kept[1], abs=1e-5)
        assert kept[0] < 1 - 4e-4


# Checkpoints


def learn(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        torch.manual_seed(step)
        module(packed()).mul(torch.randn(28, 32)).sum().backward()
        set_learning_rate(optimizer, 0.01, SHARES[step])
        optimizer.step()


@pytest.mark.parametrize("num_before", [0, 4], ids=["before the first step", "after four steps"])
@pytest.mark.parametrize("way", ["state dict", "checkpoint"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_resumed_optimiser_goes_on_bit_for_bit(config, way, num_before, tmp_path):
    whole = small_model().module
    optimizer = config.build(whole)
    learn(whole, optimizer, range(num_before))
    optimizer.zero_grad()
    other = small_model(seed=1).module
    other_optimizer = config.build(other)
    if way == "checkpoint":
        path = checkpoint.save(tmp_path, whole, optimizer, {}, step=4, is_end=False, group=ALONE)
        checkpoint.load(path, other, other_optimizer, ALONE)
    else:
        torch.save((whole.state_dict(), optimizer.state_dict()), tmp_path / "state.pt")
        weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
        other.load_state_dict(weights)
        other_optimizer.load_state_dict(state)
    learn(whole, optimizer, range(num_before, 9))
    learn(other, other_optimizer, range(num_before, 9))
    for (name, ours), theirs in zip(whole.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


# Spread over processes


def run_sharded(rank: int, port: int, place: Path) -> None:
    """One of two processes, each with a share of every parameter's rows; 5 rows do not share out evenly."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    found = {}
    for name, config in CONFIGS.items():
        module = small()
        gradients = random_gradients(module, NUM_SHARED_STEPS)
        for path, parameter in list(module.named_parameters()):
            owner, _, attribute = path.rpartition(".")
            shared = nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Shard(0)]))
            setattr(module.get_submodule(owner), attribute, shared)
        optimizer = config.build(module)
        for step, each in enumerate(gradients):
            for path, parameter in module.named_parameters():
                parameter.grad = distribute_tensor(torch.from_numpy(each[path]), mesh, [Shard(0)])
            set_learning_rate(optimizer, PEAK, SHARES[step])
            optimizer.step()
        whole = {path: each for path, each in module.named_parameters() if isinstance(each, DTensor)}
        found[name] = {path: each.full_tensor().detach() for path, each in whole.items()}
    if rank == 0:
        torch.save(found, place)
    torch.distributed.destroy_process_group()


def test_two_processes_with_a_share_of_each_parameter_equal_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(run_sharded, (port, tmp_path / "found.pt"), nprocs=2)
    found = torch.load(tmp_path / "found.pt")
    for name, config in CONFIGS.items():
        module = small()
        run(config, module, random_gradients(module, NUM_SHARED_STEPS))
        for path, parameter in module.named_parameters():
            np.testing.assert_allclose(
                found[name][path].numpy(), parameter.detach().numpy(), **ROUNDING, err_msg=f"{name} {path}"
            )


# What cannot be


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: AdamWConfig(betas=(1.0, 0.9)),
        lambda: StableAdamWConfig(eps=0.0),
        lambda: AdoptConfig(weight_decay=-1.0),
        lambda: MuonConfig(momentum=1.0),
    ],
)
def test_values_that_make_no_sense_are_refused(wrong):
    with pytest.raises(TrainingError, match="cannot be"):
        wrong()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_frozen_model_is_refused(config):
    with pytest.raises(TrainingError, match="all are frozen"):
        config.build(small().requires_grad_(False))
    with pytest.raises(TrainingError, match="all are frozen"):
        config.build(small(), [ParameterGroup(parameters=(), decays=True)])


def test_muon_without_layers_is_refused():
    with pytest.raises(TrainingError, match="none of this model learns; use AdamW"):
        MuonConfig().build(nn.Linear(2, 2))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optimi", None)
    monkeypatch.delitem(__import__("sys").modules, "modernbert.training.stable_adamw", raising=False)
    with pytest.raises(ModernBertError, match=r"pip install 'modernbert\[train\]'"):
        StableAdamWConfig().build(small())
