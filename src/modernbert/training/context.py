"""How far a model sees: the rotary base of the layers that see everything, changed between phases.

Longer sequences need slower turning positions: ModernBERT goes from theta 10,000 at 1,024 tokens to 160,000
at 8,192 (Warner et al. 2024, arXiv 2412.13663, section 2.2).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modernbert.encoder.attention import Attention, AttentionConfig
from modernbert.encoder.encoder import Encoder, EncoderConfig
from modernbert.encoder.rotary import Rotary, RotaryConfig
from modernbert.errors import TrainingError


def with_global_theta(config: EncoderConfig, theta: float) -> EncoderConfig:
    """The same encoder with this theta in every layer that sees the whole sequence."""
    blocks = tuple(_changed(block, theta) for block in config.blocks)
    if blocks == config.blocks and not any(_is_global(getattr(block, "attention", None)) for block in blocks):
        raise TrainingError(
            "global_theta needs layers that see the whole sequence and have rotary positions; this encoder "
            "has none: leave global_theta out of the phases"
        )
    return replace(config, blocks=blocks)


def set_global_theta(encoder: Encoder, theta: float) -> None:
    """Change a built encoder, and the configuration that it is saved with."""
    encoder.config = with_global_theta(encoder.config, theta)
    for layer in encoder.modules():
        if (
            isinstance(layer, Attention)
            and layer.window_each_side is None
            and isinstance(layer.positions, Rotary)
        ):
            layer.positions.theta = theta


def _is_global(attention: Any) -> bool:
    return (
        isinstance(attention, AttentionConfig)
        and attention.window_each_side is None
        and isinstance(attention.rotary, RotaryConfig)
    )


def _changed(block: Any, theta: float) -> Any:
    attention: Any = getattr(block, "attention", None)
    if not _is_global(attention):
        return block
    return replace(block, attention=replace(attention, rotary=replace(attention.rotary, theta=theta)))
