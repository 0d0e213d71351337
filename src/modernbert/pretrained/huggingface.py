"""ModernBERT folders as transformers reads and writes them, in both generations of key names.

    older (4.48 on)  global_attn_every_n_layers, global_rope_theta, local_rope_theta
    newer (5.0 on)   layer_types, rope_parameters

Both are read, and both are written where they can say the same, since text-embeddings-inference reads the
older only. Parameters need no table: ours carry the published names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import PreNormConfig
from modernbert.encoder.embedding import EmbeddingConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.init import InitConfig
from modernbert.encoder.mlp import GluConfig
from modernbert.encoder.norm import LayerNormConfig
from modernbert.encoder.rotary import RotaryConfig
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

FULL, SLIDING = "full_attention", "sliding_attention"
_THETAS = {FULL: 160_000.0, SLIDING: 10_000.0}
# The one module with a name of ours; it has a weight where it is PReLU.
_ACT, _ACTIVATION = re.compile(r"\b(mlp|head)\.act\."), re.compile(r"\b(mlp|head)\.activation\.")
_OLD_THETAS = {FULL: "global_rope_theta", SLIDING: "local_rope_theta"}


def read(keys: Keys, kind: str) -> ModelConfig:
    """The model that the keys describe."""
    num_layers = keys.count("num_hidden_layers", 22)
    hidden_size = keys.count("hidden_size", 768)
    norm = LayerNormConfig(eps=_read_eps(keys), has_bias=keys.take("norm_bias", False))
    thetas = _read_thetas(keys)
    window = keys.take("local_attention", 128) // 2
    if keys.take("sliding_window", window, (int, type(None))) not in (window, None):
        keys.contradiction(
            f"local_attention={keys.raw.get('local_attention', 128)}",
            f"sliding_window={keys.raw['sliding_window']}",
        )
    attention = {
        layer_type: _read_attention(keys, thetas[layer_type], None if layer_type == FULL else window)
        for layer_type in (FULL, SLIDING)
    }
    _check_unread(keys, hidden_size)
    mlp_bias = keys.take("mlp_bias", False)
    mlp = GluConfig(
        intermediate_size=keys.count("intermediate_size", 1152),
        activation=read_activation(keys, "hidden_activation"),
        has_in_bias=mlp_bias,
        has_out_bias=mlp_bias,
        dropout=keys.take("mlp_dropout", 0.0),
    )
    blocks = tuple(
        PreNormConfig(
            attention=attention[layer_type], mlp=mlp, attention_norm=norm if i else None, mlp_norm=norm
        )
        for i, layer_type in enumerate(_read_layer_types(keys, num_layers))
    )
    cutoff = keys.take("initializer_cutoff_factor", 2.0, (float, type(None)))
    encoder = EncoderConfig(
        vocab_size=keys.count("vocab_size", 50_368),
        hidden_size=hidden_size,
        blocks=blocks,
        embedding=EmbeddingConfig(norm=norm, dropout=keys.take("embedding_dropout", 0.0)),
        final_norm=norm,
        init=InitConfig(std=keys.take("initializer_range", 0.02), cutoff=3.0 if cutoff is None else cutoff),
        max_positions=keys.count("max_position_embeddings", 8192),
        pad_token_id=keys.take("pad_token_id", 50_283, (int, type(None))),
    )
    return ModelConfig(encoder=encoder, head=_read_head(keys, kind, norm))


def write(model: ModelConfig) -> dict[str, Any]:
    """The keys that describe the model; NotExpressible where ModernBERT's has no words for it."""
    encoder, head = model.encoder, model.head
    embedding, norm = encoder.embedding, encoder.final_norm
    need(isinstance(norm, LayerNormConfig), f"the final norm {norm}")
    need(
        isinstance(embedding, EmbeddingConfig)
        and embedding == EmbeddingConfig(norm=norm, dropout=embedding.dropout),
        "embeddings with positions, token types or another norm",
    )
    keys = _write_blocks(encoder, cast(LayerNormConfig, norm)) | _write_head(
        head, cast(LayerNormConfig, norm)
    )
    keys |= {
        "vocab_size": encoder.vocab_size,
        "hidden_size": encoder.hidden_size,
        "num_hidden_layers": len(encoder.blocks),
        "max_position_embeddings": encoder.max_positions,
        "pad_token_id": encoder.pad_token_id,
        "norm_eps": cast(LayerNormConfig, norm).eps,
        "layer_norm_eps": cast(LayerNormConfig, norm).eps,  # read by programs other than transformers
        "norm_bias": cast(LayerNormConfig, norm).has_bias,
        "embedding_dropout": cast(EmbeddingConfig, embedding).dropout,
        "initializer_range": encoder.init.std,
        "initializer_cutoff_factor": encoder.init.cutoff,
    }
    return keys


def to_ours(model: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters carry the published names; a bare encoder's stand without the prefix `model.`."""
    ours = {_ACT.sub(r"\1.activation.", name): tensor for name, tensor in tensors.items()}
    if kind_of(model.head) == "none" and not any(name.startswith("model.") for name in ours):
        ours = {f"model.{name}": tensor for name, tensor in ours.items()}
    if isinstance(model.head, MlmHeadConfig) and model.head.is_tied:
        drop_tied_decoder(ours, "decoder.weight")
    return ours


def to_theirs(model: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of `to_ours`."""
    theirs = {_ACTIVATION.sub(r"\1.act.", name): tensor for name, tensor in tensors.items()}
    if kind_of(model.head) != "none":
        return theirs
    return {name.removeprefix("model."): tensor for name, tensor in theirs.items()}


MODERNBERT = Family(
    model_type="modernbert",
    read=read,
    write=write,
    to_ours=to_ours,
    to_theirs=to_theirs,
    class_prefix="ModernBert",
)


def _read_eps(keys: Keys) -> float:
    """`norm_eps`; published files also have `layer_norm_eps`, which transformers never reads."""
    eps = keys.take("norm_eps", 1e-5)
    if keys.take("layer_norm_eps", eps) != eps:
        keys.contradiction(
            f"layer_norm_eps={keys.raw['layer_norm_eps']}",
            f"norm_eps={eps}, which is what transformers takes",
        )
    return eps


def _check_unread(keys: Keys, hidden_size: int) -> None:
    """Keys that ModernBERT's files have and that say nothing new."""
    # never read by any release; converters wrote "absolute" or "sans_pos" for the same rotary positions
    keys.take("position_embedding_type", None, object)
    head_dim = hidden_size // keys.count("num_attention_heads", 12)
    if keys.take("head_dim", head_dim, (int, type(None))) not in (head_dim, None):
        keys.contradiction(
            f"head_dim={keys.raw['head_dim']}", f"hidden_size / num_attention_heads is {head_dim}"
        )


def _read_thetas(keys: Keys) -> dict[str, float]:
    parameters = Keys(
        keys.take("rope_parameters", None, (dict, type(None))) or {}, f"{keys.source}: rope_parameters"
    )
    if unknown := sorted(parameters.raw.keys() - _THETAS.keys()):
        raise ConfigError(
            f"{keys.source}: rope_parameters has {', '.join(unknown)}; known are {FULL!r} and {SLIDING!r}"
        )
    thetas = {
        layer_type: _read_theta(keys, layer_type, parameters.take(layer_type, None, (dict, type(None))) or {})
        for layer_type in _THETAS
    }
    # the research code writes a local theta of null for "as the global one"
    everywhere, nearby = thetas[FULL], thetas[SLIDING]
    everywhere = _THETAS[FULL] if everywhere is None else everywhere
    return {FULL: float(everywhere), SLIDING: float(everywhere if nearby is None else nearby)}


def _read_theta(keys: Keys, layer_type: str, parameters: Mapping[str, Any]) -> float | None:
    """The theta of one kind of layer, from the newer key or the older one."""
    old_name = _OLD_THETAS[layer_type]
    old = keys.take(old_name, _THETAS[layer_type], (float, type(None)))
    changing = {
        name: value for name, value in parameters.items() if name not in ("rope_theta", "rope_type", "type")
    }
    if parameters.get("rope_type", parameters.get("type", "default")) != "default" or changing:
        raise ConfigError(
            f"{keys.source}: rope_parameters[{layer_type!r}]={parameters} asks for scaled rotary positions, "
            "which are not supported; only rope_type 'default' is"
        )
    if "rope_theta" not in parameters:
        return old
    new = Keys(parameters, f"{keys.source}: rope_parameters[{layer_type!r}]").take("rope_theta", 0.0)
    if old_name in keys.raw and old is not None and new != old:
        keys.contradiction(f"{old_name}={old}", f"rope_parameters[{layer_type!r}]={parameters}")
    return new


def _read_layer_types(keys: Keys, num_layers: int) -> list[str]:
    every = keys.count("global_attn_every_n_layers", 3)
    by_rule = [SLIDING if i % every else FULL for i in range(num_layers)]
    types = keys.take("layer_types", None, (list, type(None)))
    if types is None:
        return by_rule
    if len(types) != num_layers or any(layer_type not in (FULL, SLIDING) for layer_type in types):
        raise ConfigError(
            f"{keys.source}: layer_types must name {FULL!r} or {SLIDING!r} for each of {num_layers} layers, "
            f"found {types}"
        )
    if "global_attn_every_n_layers" in keys.raw and types != by_rule:
        keys.contradiction(f"global_attn_every_n_layers={every}", f"layer_types={types}")
    return types


def _read_attention(keys: Keys, theta: float, window: int | None) -> AttentionConfig:
    has_bias, dropout = keys.take("attention_bias", False), keys.take("attention_dropout", 0.0)
    return AttentionConfig(
        num_heads=keys.count("num_attention_heads", 12),
        window_each_side=window,
        rotary=RotaryConfig(theta=theta),
        has_qkv_bias=has_bias,
        has_out_bias=has_bias,
        dropout=dropout,
        # transformers uses one number for both places; the key of our own tells them apart
        out_dropout=keys.take("attention_out_dropout", dropout),
    )


def _read_head(keys: Keys, kind: str, norm: LayerNormConfig) -> HeadPart:
    transform = TransformConfig(
        activation=read_activation(keys, "classifier_activation"),
        has_bias=keys.take("classifier_bias", False),
        norm=norm,
    )
    pooling = keys.take("classifier_pooling", "cls")
    dropout = keys.take("classifier_dropout", 0.0)
    has_decoder_bias = keys.take("decoder_bias", True)
    is_tied = keys.take("tie_word_embeddings", True)
    if kind == "mlm":
        return MlmHeadConfig(transform=transform, has_decoder_bias=has_decoder_bias, is_tied=is_tied)
    if kind == "classify":
        labels = labels_of(keys)
        problem = read_problem(keys, labels)
        return ClassifyHeadConfig(
            labels=labels, problem=problem, pooling=pooling, transform=transform, dropout=dropout
        )
    if kind == "tag":
        return TagHeadConfig(labels=labels_of(keys), transform=transform, dropout=dropout)
    if kind == "span":
        return SpanHeadConfig(transform=transform, dropout=dropout)
    if kind == "choice":
        return ChoiceHeadConfig(pooling=pooling, transform=transform, dropout=dropout)
    return EmbedHeadConfig()


def _write_blocks(encoder: EncoderConfig, norm: LayerNormConfig) -> dict[str, Any]:
    blocks = encoder.blocks
    need(all(isinstance(block, PreNormConfig) for block in blocks), "blocks other than pre-norm")
    pre_norm = cast("tuple[PreNormConfig, ...]", blocks)
    norms_fit = all(
        b.mlp_norm == norm and b.attention_norm == (norm if i else None) for i, b in enumerate(pre_norm)
    )
    need(norms_fit, "norms that differ between blocks, or a norm before the first attention")
    mlp = pre_norm[0].mlp
    need(
        isinstance(mlp, GluConfig) and all(block.mlp == mlp for block in pre_norm),
        "MLPs that differ or are not gated",
    )
    mlp = cast(GluConfig, mlp)
    need(
        mlp.has_in_bias == mlp.has_out_bias and mlp.out_dropout == 0.0,
        "an MLP with one bias or a dropout at its end",
    )
    need(all(isinstance(block.attention, AttentionConfig) for block in pre_norm), "attention of another kind")
    attentions = [cast(AttentionConfig, block.attention) for block in pre_norm]
    return _write_attention(attentions) | {
        "intermediate_size": mlp.intermediate_size,
        "hidden_activation": write_activation(mlp.activation),
        "mlp_bias": mlp.has_in_bias,
        "mlp_dropout": mlp.dropout,
    }


def _write_attention(layers: list[AttentionConfig]) -> dict[str, Any]:
    first = layers[0]
    windows = {layer.window_each_side for layer in layers} - {None}
    need(len(windows) <= 1, "local layers with different windows")
    thetas: dict[str, set[float]] = {FULL: set(), SLIDING: set()}
    types: list[str] = []
    for layer in layers:
        plain = isinstance(layer.rotary, RotaryConfig) and layer.rotary == RotaryConfig(
            theta=layer.rotary.theta
        )
        need(plain, "positions other than plain rotary ones")
        types.append(FULL if layer.window_each_side is None else SLIDING)
        thetas[types[-1]].add(cast(RotaryConfig, layer.rotary).theta)
        settings = (layer.num_heads, layer.has_qkv_bias, layer.dropout, layer.out_dropout)
        need(
            settings == (first.num_heads, first.has_qkv_bias, first.dropout, first.out_dropout),
            "attention that differs by layer",
        )
        need(layer.has_qkv_bias == layer.has_out_bias, "an attention bias in one place only")
    need(all(len(values) <= 1 for values in thetas.values()), "thetas that differ between layers of one kind")
    theta = {layer_type: next(iter(values), _THETAS[layer_type]) for layer_type, values in thetas.items()}
    every = _every_n(types)
    return {
        "num_attention_heads": first.num_heads,
        "attention_bias": first.has_qkv_bias,
        "attention_dropout": first.dropout,
        **({} if first.out_dropout == first.dropout else {"attention_out_dropout": first.out_dropout}),
        "local_attention": 2 * cast(int, windows.pop()) if windows else 128,
        "layer_types": types,
        "rope_parameters": {t: {"rope_type": "default", "rope_theta": theta[t]} for t in (FULL, SLIDING)},
        **({} if every is None else {"global_attn_every_n_layers": every}),
        "global_rope_theta": theta[FULL],
        "local_rope_theta": theta[SLIDING],
    }


def _every_n(types: list[str]) -> int | None:
    """The n of "every n-th layer is global", where the pattern is of that form."""
    for every in range(1, len(types) + 1):
        if types == [SLIDING if i % every else FULL for i in range(len(types))]:
            return every
    return None


def _write_head(head: HeadPart, norm: LayerNormConfig) -> dict[str, Any]:
    kind = kind_of(head)
    keys = head_keys(head)
    if isinstance(head, MlmHeadConfig):
        keys |= {"decoder_bias": head.has_decoder_bias, "tie_word_embeddings": head.is_tied}
    if isinstance(head, ClassifyHeadConfig | ChoiceHeadConfig):
        need(head.pooling in ("cls", "mean"), f"pooling {head.pooling!r} before a classifier")
        keys |= {"classifier_pooling": head.pooling}
    if isinstance(head, ClassifyHeadConfig | ChoiceHeadConfig | TagHeadConfig | SpanHeadConfig):
        keys |= {"classifier_dropout": head.dropout}
    if kind != "none":
        transform = cast("MlmHeadConfig | ClassifyHeadConfig", head).transform
        need(
            transform is not None and transform.norm == norm,
            "a head without the transform that ModernBERT's heads have",
        )
        transform = cast(TransformConfig, transform)
        keys |= {
            "classifier_bias": transform.has_bias,
            "classifier_activation": write_activation(transform.activation),
        }
    return keys
