"""The models of the benchmarks of inference, with random weights: speed does not depend on what was learned.

Each is written once as a folder by transformers, and every side reads that folder as its users would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

SEED = 20_241_218


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A model: how transformers builds it, and what its forward costs at least.

    `products` are inputs and outputs of the matrix products of one layer. `window_keys` is how many keys a
    query of a local layer sees.
    """

    title: str
    build: Callable[[], PreTrainedModel]
    hidden_size: int
    products: tuple[tuple[int, int], ...]
    num_global: int
    num_local: int = 0
    window_keys: int = 129
    max_length: int = 8192
    vocab_size: int

    def useful_flops(self, lengths: Sequence[int]) -> float:
        """FLOPs of the matrix products, and of attention inside the window; none for padding."""
        num_layers = self.num_global + self.num_local
        a_token = num_layers * sum(2 * inputs * outputs for inputs, outputs in self.products)
        attention = sum(
            n * 4 * self.hidden_size * (self.num_global * n + self.num_local * min(n, self.window_keys))
            for n in lengths
        )
        return sum(lengths) * a_token + attention

    def save(self, folder: Path) -> Path:
        """The model folder, written by transformers; kept if it is there."""
        if not folder.exists():
            transformers_logging.set_verbosity_error()
            torch.manual_seed(SEED)
            self.build().save_pretrained(folder)
        return folder


def modern_bert(num_layers: int, hidden_size: int, num_heads: int, inner: int, vocab: int) -> ModernBertModel:
    """transformers' defaults are ModernBERT-base; said aloud is what decides the speed."""
    config = ModernBertConfig(
        vocab_size=vocab,
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=inner,
        max_position_embeddings=8192,
        pad_token_id=0,
    )
    return ModernBertModel(config)


def mini_lm() -> BertModel:
    """The shape of all-MiniLM-L6-v2."""
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    return BertModel(config, add_pooling_layer=False)


SUBJECTS = {
    "base": Subject(
        title="ModernBERT-base",
        build=lambda: modern_bert(22, 768, 12, 1152, 50_368),
        hidden_size=768,
        products=((768, 2304), (768, 768), (768, 2304), (1152, 768)),
        num_global=8,
        num_local=14,
        vocab_size=50_368,
    ),
    "nano": Subject(
        title="nano",
        build=lambda: modern_bert(7, 256, 4, 384, 16_384),
        hidden_size=256,
        products=((256, 768), (256, 256), (256, 768), (384, 256)),
        num_global=3,
        num_local=4,
        vocab_size=16_384,
    ),
    "minilm": Subject(
        title="MiniLM-L6",
        build=mini_lm,
        hidden_size=384,
        products=((384, 1152), (384, 384), (384, 1536), (1536, 384)),
        num_global=6,
        max_length=512,
        vocab_size=30_522,
    ),
}
