"""Activations by name, as in the published configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import Tensor, nn

from modernbert.errors import ConfigError


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x), the quick approximation of GELU (Hendrycks and Gimpel 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """Element by element."""
        return x * (1.702 * x).sigmoid()


class SquaredRelu(nn.Module):
    """relu(x) ** 2 (So et al. 2021, arXiv 2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        """Element by element."""
        return x.relu().square()


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "celu": nn.CELU,
        "elu": nn.ELU,
        "gelu": nn.GELU,
        "gelu_tanh": partial(nn.GELU, approximate="tanh"),
        "hardsigmoid": nn.Hardsigmoid,
        "hardshrink": nn.Hardshrink,
        "hardswish": nn.Hardswish,
        "hardtanh": nn.Hardtanh,
        "identity": nn.Identity,
        "leaky_relu": nn.LeakyReLU,
        "logsigmoid": nn.LogSigmoid,
        "mish": nn.Mish,
        "prelu": nn.PReLU,
        "quick_gelu": QuickGelu,
        "relu": nn.ReLU,
        "relu2": SquaredRelu,
        "relu6": nn.ReLU6,
        "rrelu": nn.RReLU,
        "selu": nn.SELU,
        "sigmoid": nn.Sigmoid,
        "silu": nn.SiLU,
        "softmin": partial(nn.Softmin, dim=-1),
        "softplus": nn.Softplus,
        "softshrink": nn.Softshrink,
        "softsign": nn.Softsign,
        "tanh": nn.Tanh,
        "tanhshrink": nn.Tanhshrink,
    }
)


def build_activation(name: str) -> nn.Module:
    """The activation of that name; ConfigError lists the names there are."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"unknown activation {name!r}; there are: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()
