"""ADOPT: Adam without the dependence that keeps it from converging (Taniguchi et al. 2024, arXiv 2411.02853).

A gradient is divided by what came before it, and only then averaged. With g the gradient, t the number of
steps that are behind, v and m starting at 0:

    t = 0    v <- g g                                       no weight moves
    t > 0    n <- g / max(sqrt(v), eps)
             n <- clamp(n, -c, c),  c = t ** clip_exponent
             m <- beta1 m + (1 - beta1) n
             w <- w (1 - decay),    decay = lr * weight_decay, or (lr / max_lr) * weight_decay
             w <- w - lr m
             v <- beta2 v + (1 - beta2) g g

Kept libraries compute something else: pytorch-optimizer 3.9 clips one step later and decays in the step that
moves nothing, timm clips by another power. The authors' package is no longer kept up.
"""

# torch has no other name for its operations on lists of tensors
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

Loss = TypeVar("Loss")


class Adopt(Optimizer):
    """The formula above, for whole parameters and for shares of them (DTensor)."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        betas: tuple[float, float],
        eps: float,
        is_fully_decoupled: bool,
        clip_exponent: float | None,
    ) -> None:
        defaults: dict[str, Any] = {"lr": 0.0, "betas": betas, "eps": eps, "clip_exponent": clip_exponent}
        if is_fully_decoupled:
            defaults["max_lr"] = 1.0
        super().__init__(groups, defaults)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "step": torch.tensor(0.0, dtype=torch.float32),
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }

    @torch.no_grad()
    def step(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch's own overloads, as its optimisers do
        self, closure: Callable[[], Loss] | None = None
    ) -> Loss | None:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for num_done, parameters in self._by_step(group["params"]).items():
                if num_done == 0:
                    self._begin(parameters)
                else:
                    self._move(parameters, group, num_done)
                for parameter in parameters:
                    self.state[parameter]["step"] += 1
        return loss

    def _by_step(self, parameters: Iterable[Tensor]) -> dict[int, list[Tensor]]:
        """Those with a gradient, by how many steps each has behind it: mostly the same for all."""
        found: dict[int, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is not None:
                found.setdefault(int(self.state[parameter]["step"]), []).append(parameter)
        return found

    def _begin(self, parameters: list[Tensor]) -> None:
        gradients, squares = _gradients(parameters), self._moments(parameters, "exp_avg_sq")
        torch._foreach_addcmul_(squares, gradients, gradients)

    def _move(self, parameters: list[Tensor], group: dict[str, Any], num_done: int) -> None:
        gradients, squares = _gradients(parameters), self._moments(parameters, "exp_avg_sq")
        means, (beta1, beta2) = self._moments(parameters, "exp_avg"), group["betas"]
        scale = torch._foreach_sqrt(squares)
        torch._foreach_clamp_min_(scale, group["eps"])
        normed = torch._foreach_div(gradients, scale)
        if group["clip_exponent"] is not None:
            bound = num_done ** group["clip_exponent"]
            torch._foreach_clamp_max_(normed, bound)
            torch._foreach_clamp_min_(normed, -bound)
        torch._foreach_lerp_(means, normed, 1.0 - beta1)
        if group["weight_decay"]:
            decay = group["lr"] / group.get("max_lr", 1.0) * group["weight_decay"]
            torch._foreach_mul_(parameters, 1.0 - decay)
        torch._foreach_add_(parameters, means, alpha=-group["lr"])
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1.0 - beta2)

    def _moments(self, parameters: Iterable[Tensor], name: str) -> list[Tensor]:
        return [self.state[parameter][name] for parameter in parameters]


def _gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
