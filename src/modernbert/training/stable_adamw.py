"""torch-optimi's StableAdamW, with all of its state from the start and no `None` in it.

torch.distributed.checkpoint cannot write `None`, and makes a step of its own where an optimiser has no state
yet, which would count as one of the run's.
"""

from __future__ import annotations

from typing import Any

import optimi
import torch
from torch import Tensor


class StableAdamW(optimi.StableAdamW):
    """The same numbers as `optimi.StableAdamW`."""

    def __init__(self, groups: list[dict[str, Any]], **settings: Any) -> None:
        super().__init__(groups, **settings)
        for group in self.param_groups:
            self._init_group(
                group, [], [], [], [], [], [], []
            )  # no gradients yet: the group's own state alone
            for parameter in group["params"]:
                self._init_state(group, self.state[parameter], parameter)

    def _init_state(self, group: dict[str, Any], state: dict[str, Any], param: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # theirs is annotated with another kind of key
        super()._init_state(group, state, param)  # pyright: ignore[reportArgumentType]
        if state["kahan_comp"] is None:  # no compensation: what optimi itself puts there for its kernels
            state["kahan_comp"] = torch.zeros(1, dtype=torch.uint8, device=param.device)
