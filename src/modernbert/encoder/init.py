"""How new weights are drawn. Each family gives a standard deviation by the place of a matrix in the model.

    in         Wqkv, Wi: what reads the residual stream     out   Wo: what writes into it (dense, decoder too)
    embedding  token, position and type tables                   final classifiers and other new last layers

Biases start at 0 and norm weights at 1 in every family.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn.init import kaiming_normal_, normal_, trunc_normal_, uniform_, zeros_

from modernbert.encoder.config import Part, require_at_least
from modernbert.errors import ConfigError

Family = Literal["full_megatron", "bert", "normal", "mitchell", "fan_in", "kaiming_normal"]
FAMILIES: tuple[Family, ...] = ("full_megatron", "bert", "normal", "mitchell", "fan_in", "kaiming_normal")
_OUT_NAMES = ("Wo", "dense", "decoder")
_FINAL_NAMES = ("classifier", "projection")
SMALL_EMBEDDING_BOUND = 1e-4  # of the RWKV initialisation


@dataclass(frozen=True, kw_only=True, slots=True)
class InitConfig(Part):
    """A family of initialisations.

        full_megatron    truncated normal: `std` in, std / sqrt(2 L) out, hidden ** -0.5 final (ModernBERT)
        bert, normal     normal(0, std) everywhere; bert also zeroes the row of the padding token
        mitchell         truncated normal, 1 / sqrt(fan in); out matrices also / sqrt(2 (l + 1)) (OLMo)
        fan_in           normal, 1 / sqrt(fan in)
        kaiming_normal   He et al. 2015, for ReLU

    L layers, l counts them from 0. Truncation is at `cutoff` standard deviations (mitchell: 3).
    `has_small_embedding` draws the token table from uniform(-1e-4, 1e-4), which only works with an embedding
    norm.
    """

    kind: ClassVar[str] = "init"
    family: Family = "full_megatron"
    std: float = 0.02
    cutoff: float = 2.0
    has_small_embedding: bool = False

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ConfigError(f"unknown initialisation {self.family!r}; there are: {', '.join(FAMILIES)}")
        if self.has_small_embedding and self.family == "full_megatron":
            raise ConfigError(
                "full_megatron sets the embedding itself: it cannot go with has_small_embedding"
            )
        require_at_least(self, 0, "std", "cutoff")


def initialize(
    module: nn.Module,
    config: InitConfig,
    *,
    num_layers: int,
    hidden_size: int,
    pad_token_id: int | None = None,
) -> None:
    """Draw all linear and embedding weights of `module` anew, from torch's global generator.

    Linear and embedding layers inside a user's own parts are drawn too; their other parameters stay as built.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            _draw_linear(name, part, config, num_layers, hidden_size)
            if part.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]  # it is, with bias=False
                zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            _draw_embedding(name, part, config, hidden_size, pad_token_id)


def _draw_linear(name: str, linear: nn.Linear, config: InitConfig, num_layers: int, hidden_size: int) -> None:
    last = name.rsplit(".", 1)[-1]
    is_out, is_final = last in _OUT_NAMES, last in _FINAL_NAMES
    if config.family == "kaiming_normal":
        kaiming_normal_(linear.weight, nonlinearity="relu")
    elif config.family in ("bert", "normal"):
        normal_(linear.weight, std=config.std)
    elif config.family == "fan_in":
        normal_(linear.weight, std=linear.in_features**-0.5)
    elif config.family == "mitchell":
        depth = 2.0 * (_layer_of(name, num_layers) + 1) if is_out else 1.0
        _draw_truncated(linear.weight, 1.0 / math.sqrt(linear.in_features * depth), 3.0)
    else:
        std = (
            hidden_size**-0.5
            if is_final
            else config.std / math.sqrt(2.0 * num_layers)
            if is_out
            else config.std
        )
        _draw_truncated(linear.weight, std, config.cutoff)


def _draw_embedding(
    name: str, table: nn.Embedding, config: InitConfig, hidden_size: int, pad_token_id: int | None
) -> None:
    is_token_table = name.endswith("tok_embeddings")
    if config.has_small_embedding and is_token_table:
        uniform_(table.weight, -SMALL_EMBEDDING_BOUND, SMALL_EMBEDDING_BOUND)
    elif config.family == "full_megatron":
        _draw_truncated(table.weight, config.std, config.cutoff)
    elif config.family == "mitchell":
        _draw_truncated(table.weight, hidden_size**-0.5, 3.0)
    else:
        normal_(table.weight, std=config.std)
    if config.family == "bert" and is_token_table and pad_token_id is not None:
        table.weight.data[pad_token_id].zero_()


def _draw_truncated(weight: Tensor, std: float, cutoff: float) -> None:
    if std == 0:  # trunc_normal_ would divide by it
        zeros_(weight)
    else:
        trunc_normal_(weight, std=std, a=-cutoff * std, b=cutoff * std)


def _layer_of(name: str, num_layers: int) -> int:
    """The index in `layers.N.`; what stands after the layers counts as the last of them."""
    found = re.search(r"(?:^|\.)layers\.(\d+)\.", name)
    return int(found[1]) if found else num_layers - 1
