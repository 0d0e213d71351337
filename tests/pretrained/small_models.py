"""Small models and tokenizers that the tests here write to disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import torch

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import PreNormConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.mlp import GluConfig
from modernbert.encoder.rotary import RotaryConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import HeadPart, ModelConfig
from modernbert.pretrained.folder import Pretrained
from modernbert.text.batch import PackedBatch
from modernbert.text.tokenizer import Tokenizer

SEQUENCES = [[1, 5, 9, 3, 2], [1, 7, 2], [4] * 20]
NAMES = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]


def small_encoder(num_layers: int = 4) -> EncoderConfig:
    """ModernBERT's parts, 4 layers: global, local, local, global."""
    everywhere = AttentionConfig(num_heads=2, rotary=RotaryConfig(theta=160_000.0))
    nearby = AttentionConfig(num_heads=2, window_each_side=4, rotary=RotaryConfig(theta=10_000.0))
    mlp = GluConfig(intermediate_size=24)
    blocks = [PreNormConfig(attention=nearby if i % 3 else everywhere, mlp=mlp) for i in range(num_layers)]
    blocks[0] = replace(blocks[0], attention_norm=None)
    return EncoderConfig(vocab_size=32, hidden_size=16, blocks=tuple(blocks), pad_token_id=0)


def small_model(
    seed: int = 0, head: HeadPart | None = None, tokenizer: Tokenizer | None = None
) -> Pretrained:
    torch.manual_seed(seed)
    config = ModelConfig(encoder=small_encoder(), head=head or MlmHeadConfig())
    module = config.build().eval()
    with torch.no_grad():
        for parameter in module.parameters():  # off what they start as, so that each one counts
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return Pretrained(config=config, module=module, tokenizer=tokenizer)


def small_tokenizer(num_words: int = 20) -> Tokenizer:
    """One word a token, padded with blanks and non-ASCII that a rewriting of the file would change."""
    vocabulary = {name: i for i, name in enumerate([*NAMES, *(f"w{i}" for i in range(num_words))])}
    special = [
        {"id": i, "content": name, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for i, name in enumerate(NAMES)
    ]
    definition = {
        "version": "1.0",
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "BertProcessing",
            "sep": ["[SEP]", 2],
            "cls": ["[CLS]", 1],
        },
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": vocabulary | {"caf\u00e9": 5 + num_words},
            "unk_token": "[UNK]",
        },
    }
    config = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    return Tokenizer(
        {
            "tokenizer.json": json.dumps(definition, indent=3, ensure_ascii=False).encode() + b"\n\n",
            "tokenizer_config.json": json.dumps(config).encode(),
        }
    )


def packed(sequences: Sequence[Sequence[int]] = SEQUENCES) -> PackedBatch:
    return PackedBatch.from_sequences([list(sequence) for sequence in sequences])


def numbers(model: Pretrained) -> torch.Tensor:
    """What the model makes of the sequences above."""
    with torch.inference_mode():
        return model.module(packed())
