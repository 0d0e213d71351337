"""Activations under the names that published configurations give them."""

from __future__ import annotations

from collections.abc import Mapping

from modernbert.encoder.activation import ACTIVATIONS
from modernbert.errors import ConfigError
from modernbert.pretrained.family import NotExpressible
from modernbert.pretrained.keys import Keys

# Theirs beside ours, where the two differ. Several of theirs are one formula computed in another order.
_OURS: Mapping[str, str] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python": "gelu",
    "linear": "identity",
    "swish": "silu",
}
# What transformers knows by our name, or by the one given here.
_THEIRS: Mapping[str, str] = {"gelu_tanh": "gelu_pytorch_tanh", "identity": "linear"} | {
    name: name
    for name in "gelu hardswish leaky_relu mish prelu quick_gelu relu relu2 relu6 sigmoid silu tanh".split()  # noqa: SIM905
}


def read_activation(keys: Keys, key: str, default: str = "gelu") -> str:
    """Our name for the activation that a config names; ConfigError where there is no such thing here."""
    theirs = keys.take(key, default)
    ours = _OURS.get(theirs, theirs)
    if ours not in ACTIVATIONS:
        known = ", ".join(sorted({*ACTIVATIONS, *_OURS}))
        raise ConfigError(f"{keys.source}: unknown activation {key}={theirs!r}; known are {known}")
    return ours


def write_activation(ours: str) -> str:
    """transformers' name for an activation of ours; NotExpressible where it has none."""
    if ours not in _THEIRS:
        raise NotExpressible(f"the activation {ours!r}")
    return _THEIRS[ours]
