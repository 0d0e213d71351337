"""How the weights move: frozen values that build one torch optimiser for a module.

In go the parameters of a module, whole or spread over processes; out comes a `torch.optim.Optimizer` that
has all of its state from the start, so that a checkpoint of any moment holds it. Norms and biases do not
decay. How fast the weights move is no part of these values: the phases of a run say it, step by step, through
`set_learning_rate`, and until then nothing moves.

    optimizer = StableAdamWConfig().build(model)
    set_learning_rate(optimizer, 8e-4, schedule(tokens))
    optimizer.step()
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from modernbert.errors import ModernBertError, TrainingError
from modernbert.training.adopt import Adopt
from modernbert.training.limits import require
from modernbert.training.muon import Muon, is_hidden_matrix

# The key of a torch parameter group that `set_learning_rate` multiplies with.
SCALE = "learning_rate_scale"


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterGroup:
    """Named parameters that move alike: with weight decay or without, at so much of the learning rate."""

    parameters: tuple[tuple[str, nn.Parameter], ...]
    decays: bool
    learning_rate_scale: float = 1.0


class OptimizerConfig(Protocol):
    """One of the four below, or a user's own frozen dataclass of plain values."""

    def build(self, module: nn.Module, groups: Sequence[ParameterGroup] | None = None) -> Optimizer:
        """The optimiser of the module's parameters, in these groups; None: those of `parameter_groups`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StableAdamWConfig:
    """AdamW whose steps shrink where gradients outgrow their history, tensor by tensor; ModernBERT's choice.

    Wortsman et al. 2023 (arXiv 2304.13013), by torch-optimi; it takes the place of gradient clipping. Fully
    decoupled decay takes `weight_decay` of a weight a step at the peak, whatever the peak is: values are far
    smaller than AdamW's.
    """

    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 1e-5
    is_fully_decoupled: bool = True

    def __post_init__(self) -> None:
        _check(betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)

    def build(self, module: nn.Module, groups: Sequence[ParameterGroup] | None = None) -> Optimizer:
        """The optimiser; ModernBertError without torch-optimi."""
        try:
            from modernbert.training.stable_adamw import StableAdamW
        except ModuleNotFoundError as error:
            raise ModernBertError(
                f"StableAdamW needs torch-optimi, which is not installed ({error}): "
                "pip install 'modernbert[train]'"
            ) from error
        return StableAdamW(
            _torch_groups(_groups_of(module, groups), self.weight_decay),
            lr=0.0,
            max_lr=1.0,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            decouple_lr=self.is_fully_decoupled,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamWConfig:
    """Loshchilov and Hutter 2019 (arXiv 1711.05101), by torch: a step takes learning rate times decay."""

    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        _check(betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)

    def build(self, module: nn.Module, groups: Sequence[ParameterGroup] | None = None) -> Optimizer:
        """The optimiser."""
        return _adamw(_torch_groups(_groups_of(module, groups), self.weight_decay), self)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdoptConfig:
    """Adam that converges with any second beta (Taniguchi et al. 2024, arXiv 2411.02853); see `Adopt`.

    `clip_exponent` is that of the bound `step ** exponent` on what goes into the first moment; None sets no
    bound, as in the first version of the paper. Decay is decoupled, or fully decoupled as in
    StableAdamWConfig.
    """

    betas: tuple[float, float] = (0.9, 0.9999)
    eps: float = 1e-6
    weight_decay: float = 0.01
    is_fully_decoupled: bool = False
    clip_exponent: float | None = 0.25

    def __post_init__(self) -> None:
        _check(betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)

    def build(self, module: nn.Module, groups: Sequence[ParameterGroup] | None = None) -> Optimizer:
        """The optimiser."""
        return Adopt(
            _torch_groups(_groups_of(module, groups), self.weight_decay),
            betas=self.betas,
            eps=self.eps,
            is_fully_decoupled=self.is_fully_decoupled,
            clip_exponent=self.clip_exponent,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MuonConfig:
    """Steps of equal size in every direction for the matrices of the layers, AdamW for all else; see `Muon`.

    Both take the same learning rate: the steps of a matrix are as large as AdamW's would be (Liu et al. 2025,
    arXiv 2502.16982, section 2.2).
    """

    momentum: float = 0.95
    is_nesterov: bool = True
    weight_decay: float = 0.1
    others: AdamWConfig = field(default_factory=AdamWConfig)

    def __post_init__(self) -> None:
        _check(betas=(self.momentum,), eps=1.0, weight_decay=self.weight_decay)

    def build(self, module: nn.Module, groups: Sequence[ParameterGroup] | None = None) -> Optimizer:
        """The optimiser."""
        given = _groups_of(module, groups)
        matrices, others = _split(given)
        return Muon(
            _torch_groups(matrices, self.weight_decay),
            _adamw(_torch_groups(others, self.others.weight_decay), self.others) if others else None,
            momentum=self.momentum,
            is_nesterov=self.is_nesterov,
        )


def parameter_groups(module: nn.Module) -> list[ParameterGroup]:
    """Matrices and tables, which decay; norms and biases, which do not. Frozen parameters are in neither.

    A tied parameter is in one group, once.
    """
    named = [(name, each) for name, each in module.named_parameters() if each.requires_grad]
    decaying = tuple((name, each) for name, each in named if _decays(name, each))
    constant = tuple((name, each) for name, each in named if not _decays(name, each))
    pairs = ((decaying, True), (constant, False))
    return [ParameterGroup(parameters=members, decays=decays) for members, decays in pairs if members]


def set_learning_rate(optimizer: Optimizer, peak: float, share: float) -> None:
    """Let the next step move at `share` of the `peak`, times the scale of each group.

    Fully decoupled decay follows the share alone, so those groups are told the peak too.
    """
    for group in optimizer.param_groups:
        scale = group.get(SCALE, 1.0)
        group["lr"] = peak * share * scale
        if "max_lr" in group:
            group["max_lr"] = peak * scale


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and not name.endswith("bias")


def _groups_of(module: nn.Module, groups: Sequence[ParameterGroup] | None) -> Sequence[ParameterGroup]:
    found = parameter_groups(module) if groups is None else [group for group in groups if group.parameters]
    if not found:
        raise TrainingError("the model has no parameter that could learn: all are frozen")
    return found


def _split(groups: Iterable[ParameterGroup]) -> tuple[list[ParameterGroup], list[ParameterGroup]]:
    """Each group's matrices of the layers, and what else it has."""
    halves: tuple[list[ParameterGroup], list[ParameterGroup]] = ([], [])
    for group in groups:
        for half, wanted in zip(halves, (True, False), strict=True):
            members = tuple(pair for pair in group.parameters if is_hidden_matrix(*pair) is wanted)
            if members:
                half.append(
                    ParameterGroup(
                        parameters=members, decays=group.decays, learning_rate_scale=group.learning_rate_scale
                    )
                )
    if not halves[0]:
        raise TrainingError("Muon is for the matrices of layers, and none of this model learns; use AdamW")
    return halves


def _torch_groups(groups: Iterable[ParameterGroup], weight_decay: float) -> list[dict[str, Any]]:
    return [
        {
            "params": [parameter for _, parameter in group.parameters],
            "weight_decay": weight_decay if group.decays else 0.0,
            SCALE: group.learning_rate_scale,
        }
        for group in groups
    ]


def _adamw(groups: list[dict[str, Any]], config: AdamWConfig) -> AdamW:
    # one pass over each tensor instead of ten, on a processor too
    optimizer = AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps, fused=True)
    for group in optimizer.param_groups:
        for parameter in group["params"]:  # what torch makes at the first step
            optimizer.state[parameter] = {
                "step": torch.tensor(0.0, dtype=torch.float32),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
    return optimizer


def _check(*, betas: Sequence[float], eps: float, weight_decay: float) -> None:
    for beta in betas:
        require("0 or more and below 1", beta=beta)
    require("above 0", eps=eps)
    require("0 or more", weight_decay=weight_decay)
