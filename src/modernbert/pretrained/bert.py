"""BERT, RoBERTa and XLM-RoBERTa folders, read into and written from the same parts as ModernBERT.

The three differ from each other in where positions start, in the names of their heads and in little else.
Their files hold queries, keys and values as three matrices, which are laid on top of each other in our
`Wqkv`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import PostNormConfig
from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.init import InitConfig
from modernbert.encoder.mlp import MlpConfig
from modernbert.encoder.norm import LayerNormConfig
from modernbert.errors import ConfigError
from modernbert.heads.classify import ChoiceHeadConfig, ClassifyHeadConfig
from modernbert.heads.embed import EmbedHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import HeadPart, ModelConfig
from modernbert.heads.tokens import SpanHeadConfig, TagHeadConfig
from modernbert.heads.transform import TransformConfig
from modernbert.pretrained.activations import read_activation, write_activation
from modernbert.pretrained.family import (
    Family,
    drop_tied_decoder,
    head_keys,
    kind_of,
    labels_of,
    need,
    read_problem,
)
from modernbert.pretrained.keys import Keys

# Our names, beside theirs behind `embeddings.` and inside a layer.
_EMBEDDINGS = {
    "tok_embeddings": "word_embeddings",
    "positions": "position_embeddings",
    "token_types": "token_type_embeddings",
    "norm": "LayerNorm",
}
_LAYER = {
    "attn.Wo": "attention.output.dense",
    "attn_norm": "attention.output.LayerNorm",
    "mlp.Wi": "intermediate.dense",
    "mlp.activation": "intermediate.intermediate_act_fn",  # has a weight where it is PReLU
    "mlp.Wo": "output.dense",
    "mlp_norm": "output.LayerNorm",
}
_QKV = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))
# Our names of a head's modules, beside theirs.
_HEADS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "bert": {
        "mlm": {
            "head.dense": "cls.predictions.transform.dense",
            "head.activation": "cls.predictions.transform.transform_act_fn",
            "head.norm": "cls.predictions.transform.LayerNorm",
            "decoder": "cls.predictions.decoder",
        },
        "classify": {"head.dense": "bert.pooler.dense", "classifier": "classifier"},
        "choice": {"head.dense": "bert.pooler.dense", "classifier": "classifier"},
        "tag": {"classifier": "classifier"},
        "span": {"classifier": "qa_outputs"},
    },
    "roberta": {
        "mlm": {
            "head.dense": "lm_head.dense",
            "head.norm": "lm_head.layer_norm",
            "decoder": "lm_head.decoder",
        },
        "classify": {"head.dense": "classifier.dense", "classifier": "classifier.out_proj"},
        "choice": {"head.dense": "roberta.pooler.dense", "classifier": "classifier"},
        "tag": {"classifier": "classifier"},
        "span": {"classifier": "qa_outputs"},
    },
}
_POOLER = re.compile(r"^((bert|roberta)\.)?pooler\.")
# Where the decoder's bias stands alone, beside `decoder.weight`, which is tied.
_DECODER_BIAS = {"bert": "cls.predictions.bias", "roberta": "lm_head.bias"}


def read(style: str, keys: Keys, kind: str) -> ModelConfig:
    """The model that the keys describe; `style` is "bert" or "roberta"."""
    hidden_dropout = keys.take("hidden_dropout_prob", 0.1)
    norm = LayerNormConfig(eps=keys.take("layer_norm_eps", 1e-12), has_bias=True)
    pad_token_id = keys.take("pad_token_id", 1 if style == "roberta" else 0, (int, type(None)))
    positions = _read_positions(style, keys, pad_token_id)
    block = PostNormConfig(
        attention=AttentionConfig(
            num_heads=keys.count("num_attention_heads", 12),
            has_qkv_bias=True,
            has_out_bias=True,
            dropout=keys.take("attention_probs_dropout_prob", 0.1),
            out_dropout=hidden_dropout,
        ),
        mlp=MlpConfig(
            intermediate_size=keys.count("intermediate_size", 3072),
            activation=read_activation(keys, "hidden_act"),
            has_in_bias=True,
            has_out_bias=True,
            out_dropout=hidden_dropout,
        ),
        attention_norm=norm,
        mlp_norm=norm,
    )
    encoder = EncoderConfig(
        vocab_size=keys.count("vocab_size", 30_522 if style == "bert" else 50_265),
        hidden_size=keys.count("hidden_size", 768),
        blocks=(block,) * keys.count("num_hidden_layers", 12),
        embedding=EmbeddingConfig(
            norm=norm,
            positions=positions,
            num_token_types=keys.take("type_vocab_size", 2),
            dropout=hidden_dropout,
        ),
        final_norm=None,
        init=InitConfig(family="bert", std=keys.take("initializer_range", 0.02)),
        max_positions=positions.num_positions,
        pad_token_id=pad_token_id,
    )
    return ModelConfig(encoder=encoder, head=_read_head(style, keys, kind, norm, hidden_dropout))


def mlm_head(style: str = "bert", *, activation: str = "gelu", eps: float = 1e-12) -> MlmHeadConfig:
    """The masked-language-model head of BERT or RoBERTa; RoBERTa's activation is always GELU."""
    norm = LayerNormConfig(eps=eps, has_bias=True)
    activation = activation if style == "bert" else "gelu"
    return MlmHeadConfig(transform=TransformConfig(activation=activation, has_bias=True, norm=norm))


def write(style: str, model: ModelConfig) -> dict[str, Any]:
    """The keys that describe the model; NotExpressible where BERT's configuration has no words for it."""
    encoder = model.encoder
    block = encoder.blocks[0]
    need(
        isinstance(block, PostNormConfig) and all(other == block for other in encoder.blocks),
        "blocks that are not all one post-norm block",
    )
    block = cast(PostNormConfig, block)
    need(
        isinstance(block.attention, AttentionConfig) and isinstance(block.mlp, MlpConfig),
        "attention or an MLP of another kind",
    )
    attention, mlp = cast(AttentionConfig, block.attention), cast(MlpConfig, block.mlp)
    norm = block.mlp_norm
    need(
        isinstance(norm, LayerNormConfig) and norm.has_bias and block.attention_norm == norm,
        "norms other than one layer norm with bias",
    )
    need(
        attention.window_each_side is None and attention.rotary is None, "local attention or rotary positions"
    )
    need(
        attention.has_qkv_bias and attention.has_out_bias and mlp.has_in_bias and mlp.has_out_bias,
        "missing biases",
    )
    need(encoder.final_norm is None, "a final norm")
    need(
        isinstance(encoder.embedding, EmbeddingConfig) and encoder.embedding.norm == norm, "another embedding"
    )
    embedding = cast(EmbeddingConfig, encoder.embedding)
    dropouts = {attention.out_dropout, mlp.out_dropout, embedding.dropout}
    need(len(dropouts) == 1 and mlp.dropout == 0.0, "dropout that differs by place")
    need(embedding.num_token_types > 0, "no token types")
    return {
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": len(encoder.blocks),
        "num_attention_heads": attention.num_heads,
        "intermediate_size": mlp.intermediate_size,
        "hidden_act": write_activation(mlp.activation),
        "hidden_dropout_prob": dropouts.pop(),
        "attention_probs_dropout_prob": attention.dropout,
        "max_position_embeddings": _write_positions(style, embedding, encoder.pad_token_id),
        "type_vocab_size": embedding.num_token_types,
        "layer_norm_eps": cast(LayerNormConfig, norm).eps,
        "initializer_range": encoder.init.std,
        "pad_token_id": encoder.pad_token_id,
        "position_embedding_type": "absolute",
    } | _write_head(style, model.head, mlp, cast(LayerNormConfig, norm))


def to_ours(style: str, model: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a file's tensors to our parameters; what has no place in our model keeps its name."""
    left = {
        _modern_name(name): tensor for name, tensor in tensors.items() if not name.endswith("position_ids")
    }
    prefix = f"{style}." if any(name.startswith(f"{style}.") for name in left) else ""
    ours: dict[str, Tensor] = {}
    for our_name, their_names in _names(style, model, prefix):
        if all(name in left for name in their_names):
            ours[our_name] = torch.cat([left.pop(name) for name in their_names])
    if kind_of(model.head) == "mlm":
        _take_decoder(style, model, ours, left)
    return ours | left


def to_theirs(style: str, model: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of `to_ours`, in the names that transformers writes."""
    left = dict(tensors)
    theirs: dict[str, Tensor] = {}
    prefix = "" if kind_of(model.head) == "none" else f"{style}."
    for our_name, their_names in _names(style, model, prefix):
        if our_name in left:
            pieces = left.pop(our_name).chunk(len(their_names))
            theirs |= dict(zip(their_names, pieces, strict=True))
    if "decoder.bias" in left:
        theirs[_DECODER_BIAS[style]] = left.pop("decoder.bias")
    if "decoder.weight" in left:
        decoder = _HEADS[style]["mlm"]["decoder"]
        theirs[f"{decoder}.weight"] = left.pop("decoder.weight")
        # without tying transformers has two biases and adds this one
        theirs[f"{decoder}.bias"] = theirs[_DECODER_BIAS[style]].clone()
    return theirs | _carried(style, model, left)


def _carried(style: str, model: ModelConfig, left: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What came with the model and has no place in ours; not the pooler where a classifier brings its own."""
    kind = kind_of(model.head)
    prefix = "" if kind == "none" else f"{style}."
    renamed = {_POOLER.sub(f"{prefix}pooler.", name): tensor for name, tensor in left.items()}
    has_own = "head.dense" in _HEADS[style].get(kind, {}) and kind in ("classify", "choice")
    return {name: t for name, t in renamed.items() if not (has_own and "pooler." in name)}


def _family(model_type: str, style: str, class_prefix: str) -> Family:
    return Family(
        model_type=model_type,
        read=partial(read, style),
        write=partial(write, style),
        to_ours=partial(to_ours, style),
        to_theirs=partial(to_theirs, style),
        class_prefix=class_prefix,
    )


BERT = _family("bert", "bert", "Bert")
ROBERTA = _family("roberta", "roberta", "Roberta")
XLM_ROBERTA = _family("xlm-roberta", "roberta", "XLMRoberta")


def _read_positions(style: str, keys: Keys, pad_token_id: int | None) -> LearnedPositionsConfig:
    """RoBERTa counts positions from the row behind the padding token's, and its size counts unused rows."""
    rows = keys.count("max_position_embeddings", 512)
    offset = 0 if style == "bert" else (pad_token_id or 0) + 1
    if rows <= offset:
        raise ConfigError(
            f"{keys.source}: max_position_embeddings={rows} leaves no positions behind {offset} unused rows"
        )
    return LearnedPositionsConfig(num_positions=rows - offset, offset=offset)


def _write_positions(style: str, embedding: EmbeddingConfig, pad_token_id: int | None) -> int:
    positions = embedding.positions
    need(isinstance(positions, LearnedPositionsConfig), "positions that are not learned")
    positions = cast(LearnedPositionsConfig, positions)
    expected = 0 if style == "bert" else (pad_token_id or 0) + 1
    need(positions.offset == expected, f"positions that start at row {positions.offset}")
    return positions.num_positions + positions.offset


def _read_head(style: str, keys: Keys, kind: str, norm: LayerNormConfig, hidden_dropout: float) -> HeadPart:
    given = keys.take("classifier_dropout", None, (float, type(None)))
    dropout = hidden_dropout if given is None else given
    pooler = TransformConfig(activation="tanh", has_bias=True, norm=None)
    is_tied = keys.take("tie_word_embeddings", True)
    if kind == "mlm":
        head = mlm_head(style, activation=read_activation(keys, "hidden_act"), eps=norm.eps)
        return MlmHeadConfig(transform=head.transform, is_tied=is_tied)
    if kind == "classify":
        labels = labels_of(keys)
        problem = read_problem(keys, labels)
        return ClassifyHeadConfig(
            labels=labels, problem=problem, pooling="cls", transform=pooler, dropout=dropout
        )
    if kind == "tag":
        return TagHeadConfig(labels=labels_of(keys), transform=None, dropout=dropout)
    if kind == "span":
        return SpanHeadConfig(transform=None)
    if kind == "choice":
        return ChoiceHeadConfig(pooling="cls", transform=pooler, dropout=dropout)
    return EmbedHeadConfig()


def _write_head(style: str, head: HeadPart, mlp: MlpConfig, norm: LayerNormConfig) -> dict[str, Any]:
    keys = head_keys(head)
    if isinstance(head, MlmHeadConfig):
        expected = mlm_head(style, activation=mlp.activation, eps=norm.eps).transform
        need(head.transform == expected and head.has_decoder_bias, "another masked-language-model head")
        return keys | {"tie_word_embeddings": head.is_tied}
    if isinstance(head, ClassifyHeadConfig | ChoiceHeadConfig):
        pooler = TransformConfig(activation="tanh", has_bias=True, norm=None)
        need(head.pooling == "cls" and head.transform == pooler, "a classifier without BERT's pooler")
    if isinstance(head, TagHeadConfig | SpanHeadConfig):
        need(head.transform is None, "a transform before a token classifier")
    if isinstance(head, ClassifyHeadConfig | ChoiceHeadConfig | TagHeadConfig):
        keys |= {"classifier_dropout": head.dropout}
    kind_of(head)
    return keys


def _modern_name(name: str) -> str:
    """The oldest files call a norm's weight gamma and its bias beta."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _names(style: str, model: ModelConfig, prefix: str) -> Iterator[tuple[str, list[str]]]:
    """Our name beside theirs, three of them for Wqkv; `prefix` stands before the encoder's in the file."""
    kind = kind_of(model.head)
    for ours, theirs in _EMBEDDINGS.items():
        for value in ("weight", "bias") if ours == "norm" else ("weight",):
            yield f"model.embeddings.{ours}.{value}", [f"{prefix}embeddings.{theirs}.{value}"]
    for i in range(len(model.encoder.blocks)):
        layer = f"{prefix}encoder.layer.{i}"
        for value in ("weight", "bias"):
            yield f"model.layers.{i}.attn.Wqkv.{value}", [f"{layer}.{name}.{value}" for name in _QKV]
            for ours, theirs in _LAYER.items():
                yield f"model.layers.{i}.{ours}.{value}", [f"{layer}.{theirs}.{value}"]
    for ours, theirs in _HEADS[style].get(kind, {}).items():
        if ours != "decoder":
            for value in ("weight", "bias"):
                yield f"{ours}.{value}", [f"{theirs}.{value}"]


def _take_decoder(style: str, model: ModelConfig, ours: dict[str, Tensor], left: dict[str, Tensor]) -> None:
    """The decoder: its bias under either of two names; its matrix, which a tied model's file may repeat."""
    theirs = _HEADS[style]["mlm"]["decoder"]
    for name in (_DECODER_BIAS[style], f"{theirs}.bias"):
        if name in left:
            ours["decoder.bias"] = left.pop(name)
    if f"{theirs}.weight" in left:
        ours["decoder.weight"] = left.pop(f"{theirs}.weight")
    if cast(MlmHeadConfig, model.head).is_tied:
        drop_tied_decoder(ours, "decoder.weight")
