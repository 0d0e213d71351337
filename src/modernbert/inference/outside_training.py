"""A module as it computes outside training, while a thread may go on training it."""

from __future__ import annotations

import copy

from torch import nn

from modernbert.encoder.encoder import Encoder


def outside_training(module: nn.Module) -> nn.Module:
    """The module without dropout: itself, or, where it is in training mode, a copy with the same tensors.

    The module is left as it is, so that a thread may train it while another asks.
    """
    if not any(part.training for part in module.modules()):
        return module
    twin = copy.copy(module)
    twin.training = False
    if isinstance(module, Encoder):
        vars(twin)["native"] = module.native.for_twin(module)
    twin._modules = {  # pyright: ignore[reportPrivateUsage]  # a module's parts have no other door
        name: None if part is None else outside_training(part)
        for name, part in module._modules.items()  # pyright: ignore[reportPrivateUsage]
    }
    return twin
