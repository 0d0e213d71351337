"""What packed weights were made from, to see whether it has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from modernbert.encoder.encoder import Encoder

_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


class Watched:
    """What a plan was made from: every part, tensor and hook, to see whether one has changed."""

    def __init__(self, encoder: nn.Module) -> None:
        self._encoder = encoder
        self._dicts: list[tuple[dict[str, Any], tuple[Any, ...]]] = []
        self._hooks: list[Mapping[int, Any]] = []
        self._dropouts = [
            part for part in encoder.modules() if getattr(part, "p", 0) or getattr(part, "dropout", 0)
        ]
        for module in encoder.modules():
            slots = vars(module)
            for name in ("_modules", "_parameters", "_buffers"):
                if slots[name]:
                    self._dicts.append((slots[name], tuple(slots[name].values())))
            self._hooks += [slots["_forward_hooks"], slots["_forward_pre_hooks"]]
        self._had_hooks = self.has_hooks
        self._tensors = list(encoder.parameters())
        self._states = [_state(tensor) for tensor in self._tensors]

    def is_unchanged(self, encoder: nn.Module) -> bool:
        """Whether all is as it was: the same objects, untouched by any operation that torch counts."""
        return (
            encoder is self._encoder
            and self.has_hooks == self._had_hooks
            and all(
                len(now) == len(then) and all(a is b for a, b in zip(now.values(), then, strict=True))
                for now, then in self._dicts
            )
            and all(
                _state(tensor) == state for tensor, state in zip(self._tensors, self._states, strict=True)
            )
        )

    def num_packed_bytes(self, products: str) -> int:
        """About how many bytes the layers' matrices are when packed."""
        layers = cast("Encoder", self._encoder).layers.parameters()
        return sum(each.numel() for each in layers if each.dim() == 2) * _BYTES[products]

    @property
    def drops_out(self) -> bool:
        """Whether a part would drop some of its numbers."""
        return any(part.training for part in self._dropouts)

    @property
    def has_hooks(self) -> bool:
        """Whether somebody wants to be called in between."""
        return any(self._hooks)


def _state(tensor: Tensor) -> tuple[int, int]:
    # a tensor made in inference mode has no counter, and torch lets nobody but inference mode change it
    return tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version
