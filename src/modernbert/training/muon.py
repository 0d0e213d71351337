"""Muon: steps of equal size in every direction of a matrix (Jordan et al. 2024); AdamW for the rest.

With G the gradient of a matrix, M starting at 0, and NS five Newton-Schulz iterations, which bring all
singular values near 1:

    M <- momentum M + (1 - momentum) G
    U <- NS(momentum M + (1 - momentum) G)       Nesterov's; without it NS(M)
    W <- W (1 - lr weight_decay)
    W <- W - lr 0.2 sqrt(max(rows, columns)) U   as large as AdamW's steps (Liu et al. 2025, arXiv 2502.16982)

torch.optim.Muon computes the same, but always iterates in bf16, which is sixty times slower than this on a
processor that has none (docs/concepts/optimisation.md). Embeddings, norms, biases and heads are not maps
between hidden states, and go to AdamW.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from modernbert.training.parallel import share_of, whole

if TYPE_CHECKING:
    from jaxtyping import Float

Loss = TypeVar("Loss")
_IN_A_LAYER = re.compile(r"(.*\.)?layers\.\d+\..*")
# Of Jordan et al.: steepest at 0, so that five iterations are enough; they end between 0.7 and 1.2, not at 1.
NUM_ITERATIONS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)
ADAMW_SIZE = 0.2  # the root mean square of AdamW's steps, before the learning rate


class Muon(Optimizer):
    """The formula above for `matrices` and torch's AdamW for `others`, so that loops and checkpoints see one.

    Works on whole parameters and on shares of them (DTensor). Of those every process gathers each matrix once
    and iterates on all of it: that takes one exchange a matrix, iterating on shares takes thirteen.
    """

    def __init__(
        self, matrices: list[dict[str, Any]], others: AdamW | None, *, momentum: float, is_nesterov: bool
    ) -> None:
        settings: dict[str, Any] = {"lr": 0.0, "momentum": momentum, "is_nesterov": is_nesterov}
        groups = [settings | group for group in matrices]
        super().__init__(groups + ([] if others is None else others.param_groups), {})
        self._adamw, self._num_matrix_groups = others, len(groups)
        for group in groups:
            for parameter in group["params"]:
                self.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
        if others is not None:
            self.state.update(others.state)

    @torch.no_grad()
    def step(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch's own overloads, as its optimisers do
        self, closure: Callable[[], Loss] | None = None
    ) -> Loss | None:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups[: self._num_matrix_groups]:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        if self._adamw is not None:  # loading a state dict makes groups and state anew
            self._adamw.param_groups, self._adamw.state = (
                self.param_groups[self._num_matrix_groups :],
                self.state,
            )
            self._adamw.step()
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        mean, momentum = self.state[parameter]["momentum_buffer"], group["momentum"]
        mean.lerp_(gradient, 1.0 - momentum)
        smoothed = gradient.lerp(mean, momentum) if group["is_nesterov"] else mean
        update = orthogonalized(whole(smoothed))
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
        parameter.add_(
            share_of(update, parameter), alpha=-group["lr"] * ADAMW_SIZE * math.sqrt(max(parameter.shape))
        )


def orthogonalized(matrix: Float[Tensor, "R C"]) -> Float[Tensor, "R C"]:
    """The same singular vectors with all singular values near 1; in bf16 on CUDA, as in the paper.

    Small singular values grow most, and rounding with them: a change of the matrix by a share e of its norm
    changes the result by up to 3.4445 ** 5 = 485 e, in Frobenius norms.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]  # squares of the short side cost least
    x = matrix.T if is_tall else matrix
    x = x.bfloat16() if x.is_cuda else x
    x = x / x.norm().clamp(min=1e-7)  # no singular value above 1
    a, b, c = COEFFICIENTS
    for _ in range(NUM_ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.T if is_tall else x).to(matrix.dtype)


def is_hidden_matrix(name: str, parameter: nn.Parameter | Tensor) -> bool:
    """Whether a parameter, by its name in the whole model, is a matrix inside a layer."""
    return parameter.ndim == 2 and _IN_A_LAYER.fullmatch(name) is not None
