"""Model folders of a few thousand random weights, for every head: written once, read as any user reads one.

Two families: ModernBERT's parts with a byte-level tokenizer whose mask takes the blank before it, and BERT's
parts with WordPiece and two types of text. Matrices are drawn large, so that every token matters. Sizes are
multiples of what every instruction set takes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import PreNormConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.mlp import GluConfig
from modernbert.encoder.presets import PRESETS
from modernbert.encoder.rotary import RotaryConfig
from modernbert.heads.classify import ChoiceHeadConfig, ClassifyHeadConfig
from modernbert.heads.embed import DenseConfig, EmbedHeadConfig, PoolerHeadConfig, TokenEmbedHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import HeadPart, ModelConfig
from modernbert.heads.tokens import SpanHeadConfig, TagHeadConfig
from modernbert.heads.transform import TransformConfig
from modernbert.pretrained.folder import Pretrained, write_folder
from modernbert.pretrained.sentence import TextSettings
from modernbert.text.tokenizer import Tokenizer

# The longest sequence of a tiny model, in tokens.
MAX_LENGTH = 48
LABELS = ("bad", "fair", "good")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
CORPUS = [
    "He walked to the store and bought some bread for Anna Meier .",
    "The woman from New York worked as a lawyer ; the man worked as a mechanic .",
    "Paris is the capital of France, and Sofia the capital of Bulgaria.",
    "query: what is the capital of France? document: the capital is Paris",
    "0 1 2 3 4 5 6 7 8 9 0123456789",
]
HEADS: Mapping[str, HeadPart] = {
    "mlm": MlmHeadConfig(),
    "classify": ClassifyHeadConfig(labels=LABELS),
    "multi_label": ClassifyHeadConfig(labels=LABELS, problem="multi_label"),
    "regression": ClassifyHeadConfig(labels=("stars", "age"), problem="regression"),
    "rerank": ClassifyHeadConfig(labels=("relevance",), problem="regression"),
    "tag": TagHeadConfig(labels=TAGS),
    "span": SpanHeadConfig(),
    "choice": ChoiceHeadConfig(),
    "embed": EmbedHeadConfig(is_normalized=True),
    "embed_raw": EmbedHeadConfig(poolings=("cls", "mean")),
    "embed_dense": EmbedHeadConfig(dense=(DenseConfig(out_features=12, activation="tanh"),)),
    "embed_after_prompt": EmbedHeadConfig(pools_prompt=False),
    "token_embed": TokenEmbedHeadConfig(dense=(DenseConfig(out_features=8, has_bias=False),)),
}
# BERT's own forms of the heads that are not ModernBERT's.
_POOLER = TransformConfig(activation="tanh", has_bias=True, norm=None)
BERT_HEADS: Mapping[str, HeadPart] = {
    "classify": ClassifyHeadConfig(labels=LABELS, pooling="cls", transform=_POOLER, dropout=0.1),
    "rerank": ClassifyHeadConfig(
        labels=("relevance",), problem="regression", pooling="cls", transform=_POOLER, dropout=0.1
    ),
    "tag": TagHeadConfig(labels=TAGS, transform=None, dropout=0.1),
    "span": SpanHeadConfig(transform=None),
    "choice": ChoiceHeadConfig(transform=_POOLER, dropout=0.1),
    "mlm": MlmHeadConfig(
        transform=TransformConfig(has_bias=True, norm=PRESETS["bert-base"]().embedding.norm)  # pyright: ignore
    ),
    "pooler": PoolerHeadConfig(),
    "embed": EmbedHeadConfig(is_normalized=True),
    "embed_after_prompt": EmbedHeadConfig(pools_prompt=False),
}


def write_tiny(
    folder: Path,
    head: HeadPart,
    *,
    family: str = "modernbert",
    settings: TextSettings | None = None,
    encoder: EncoderConfig | None = None,
) -> Path:
    """Write a model folder with random weights, and give its path back."""
    tokenizer = byte_level() if family == "modernbert" else word_piece()
    encoder = encoder or (tiny_modernbert if family == "modernbert" else tiny_bert)(tokenizer.vocab_size + 3)
    torch.manual_seed(len(str(head)))
    config = ModelConfig(encoder=encoder, head=head)
    module = config.build()
    for name, parameter in module.named_parameters():
        noise = torch.randn_like(parameter)
        if parameter.dim() == 2:
            parameter.data = 1.6 * parameter.shape[1] ** -0.5 * noise
        else:
            parameter.data = float(name.endswith("weight")) + 0.3 * noise
    model = Pretrained(config=config, module=module, tokenizer=tokenizer, settings=settings or TextSettings())
    write_folder(folder, model)
    return folder


def tiny_modernbert(vocab_size: int) -> EncoderConfig:
    """A global and two local layers, as in the first three of the published model."""
    everywhere = AttentionConfig(num_heads=2, rotary=RotaryConfig(theta=160_000.0))
    nearby = AttentionConfig(num_heads=2, window_each_side=4, rotary=RotaryConfig(theta=10_000.0))
    blocks = [
        PreNormConfig(attention=each, mlp=GluConfig(intermediate_size=32))
        for each in (everywhere, nearby, nearby)
    ]
    blocks[0] = replace(blocks[0], attention_norm=None)
    return EncoderConfig(
        vocab_size=vocab_size, hidden_size=64, blocks=tuple(blocks), max_positions=MAX_LENGTH, pad_token_id=3
    )


def near_sighted(vocab_size: int) -> EncoderConfig:
    """Two layers that see one token each side: what lies three tokens away cannot matter."""
    attention = AttentionConfig(num_heads=2, window_each_side=1, rotary=RotaryConfig(theta=10_000.0))
    block = PreNormConfig(attention=attention, mlp=GluConfig(intermediate_size=32))
    return EncoderConfig(
        vocab_size=vocab_size, hidden_size=64, blocks=(block, block), max_positions=MAX_LENGTH
    )


def tiny_bert(vocab_size: int) -> EncoderConfig:
    """Two layers of BERT's parts, with learned positions and two types of text."""
    whole = PRESETS["bert-base"]()
    block = whole.blocks[0]
    block = replace(
        block, attention=replace(block.attention, num_heads=2), mlp=replace(block.mlp, intermediate_size=48)
    )
    positions = replace(whole.embedding.positions, num_positions=MAX_LENGTH)
    return replace(
        whole,
        vocab_size=vocab_size,
        hidden_size=64,
        blocks=(block, block),
        embedding=replace(whole.embedding, positions=positions),
        max_positions=MAX_LENGTH,
        pad_token_id=3,
    )


def byte_level(*, template: bool = True) -> Tokenizer:
    """ModernBERT's kind: blanks belong to the word behind them, and the mask takes the one before it."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL[:-1],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    return finished(tokenizer) if template else Tokenizer({"tokenizer.json": tokenizer.to_str().encode()})


def word_piece() -> Tokenizer:
    """BERT's kind: no blanks in tokens, "##" before what is inside a word."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return finished(tokenizer, second_type=1)


def finished(tokenizer: tokenizers.Tokenizer, second_type: int = 0) -> Tokenizer:
    """With ModernBERT's or BERT's template around texts, as the files of a folder."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] $B:{second_type} [SEP]:{second_type}",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_LENGTH,
        "model_input_names": ["input_ids", "attention_mask", *["token_type_ids"] * second_type],
        **{f"{name[1:-1].lower()}_token": name for name in SPECIAL},
    }
    files = {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }
    return Tokenizer(files)


def age(folder: Path) -> None:
    """As if the weights had been written a day ago: those of the last seconds are not kept packed or cast."""
    for path in folder.glob("*.safetensors"):
        long_ago = path.stat().st_mtime_ns - 86_400 * 10**9
        os.utime(path, ns=(long_ago, long_ago))
