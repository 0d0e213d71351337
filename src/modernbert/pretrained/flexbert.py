"""FlexBERT, the research code that ModernBERT was trained with: its options as our parts, its names as ours.

The options are those of its YAML files under `model.model_config`, which its checkpoints carry too:

    bert_layer prenorm, postnorm, parallel_prenorm      attention_layer base, rope, parallel, rope_parallel
    mlp_layer mlp, glu, parallel_glu                    embedding_layer sans_pos, absolute_pos

An option that would change the numbers and that no part of ours expresses is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import ParallelConfig, PostNormConfig, PreNormConfig
from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig, NormPart
from modernbert.encoder.encoder import BlockPart, EncoderConfig
from modernbert.encoder.init import Family, InitConfig
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.norm import LayerNormConfig, RmsNormConfig
from modernbert.encoder.rotary import RotaryConfig
from modernbert.errors import ConfigError
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.heads.transform import TransformConfig
from modernbert.pretrained.activations import read_activation
from modernbert.pretrained.keys import Keys

# Options that say nothing about the numbers, or are about losses, kernels, padding and heads of other tasks.
_HARMLESS = frozenset(
    """
    activation_function alibi_starting_size allow_embedding_resizing classifier_dropout compile_model
    deterministic_fa2 head_class_act head_class_bias head_class_dropout head_class_norm head_pred_dropout
    hidden_dropout_prob layer_norm_eps loss_function loss_kwargs masked_prediction pad_logits padding
    pooling_type type_vocab_size unpad_embeddings use_fa2 use_sdpa_attn_mask
    """.split()  # noqa: SIM905
)
_INITS: Mapping[str, Family] = {
    "default": "bert",
    "normal": "normal",
    "mitchell": "mitchell",
    "kaiming_normal": "kaiming_normal",
    "fan_in": "fan_in",
    "full_megatron": "full_megatron",
}
# The three parts of a layer: what each is where nothing is said, and what it may be.
_KINDS = {
    "attention_layer": ("base", ("base", "rope", "parallel", "rope_parallel")),
    "bert_layer": ("prenorm", ("prenorm", "postnorm", "parallel_prenorm")),
    "mlp_layer": ("mlp", ("mlp", "glu", "parallel_glu")),
}
# Their names, beside ours, inside a parameter's name.
_RENAMED = (
    ("bert.encoder.layers.", "model.layers."),
    ("bert.embeddings.position_embeddings.", "model.embeddings.positions."),
    ("bert.", "model."),
    ("mlp.act.", "mlp.activation."),
    ("head.act.", "head.activation."),
)
_DERIVED = re.compile(r".*\b(inv_freq|position_ids)")
_FUSED = re.compile(r"(model\.layers\.\d+\.)Wqkvff\.(weight|bias)")


def config_from_flexbert(options: Mapping[str, Any], source: str = "the FlexBERT options") -> ModelConfig:
    """The model, with its masked-language-model head, that the options describe.

    `options` is a `model_config`, or a whole run's YAML that holds one; absent options have FlexBERT's
    defaults. Raises ConfigError, which names the option, where no part of ours expresses one.
    """
    max_positions = 8192  # rotary positions know no limit: what ModernBERT was extended to
    if "model" in options:
        max_positions = int(options.get("max_seq_len", max_positions))
        options = options["model"].get("model_config", {})
    keys = Keys(options, source)
    norm = _read_norm(keys)
    hidden_size, vocab_size = keys.take("hidden_size", 768), keys.take("vocab_size", 30_522)
    has_embed_norm, embedding = keys.take("embed_norm", True), keys.take("embedding_layer", "absolute_pos")
    num_positions, positions = keys.take("max_position_embeddings", 512), None
    if _one_of(keys, "embedding_layer", embedding, ("absolute_pos", "sans_pos")) == "absolute_pos":
        positions, max_positions = LearnedPositionsConfig(num_positions=num_positions), num_positions
    encoder = EncoderConfig(
        vocab_size=8 * math.ceil(vocab_size / 8),
        hidden_size=hidden_size,
        blocks=_read_blocks(keys, norm, hidden_size, has_embed_norm),
        embedding=EmbeddingConfig(
            norm=norm if has_embed_norm else None,
            positions=positions,
            dropout=float(keys.take("embed_dropout_prob", 0.0)),
        ),
        final_norm=norm if keys.take("final_norm", False) else None,
        init=_read_init(keys),
        max_positions=max_positions,
        pad_token_id=keys.take("pad_token_id", 0, (int, type(None))),
    )
    head = _read_head(keys, norm)
    _refuse(keys, "rotary_emb_scale_base", "XPos")
    for name in _HARMLESS:
        keys.take(name, None, object)
    keys.finish(strict=False)
    return ModelConfig(encoder=encoder, head=head)


def to_ours(config: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names.

    What torch.compile, DDP and Composer put before names goes, and fused matrices are taken apart.
    """
    ours: dict[str, Tensor] = {}
    num_qkv = 3 * config.encoder.hidden_size
    for theirs, tensor in tensors.items():
        name = theirs.replace("_orig_mod.", "").removeprefix("module.").removeprefix("model.")
        name = _rename(name, _RENAMED)
        if fused := _FUSED.fullmatch(name):
            ours[f"{fused[1]}attn.Wqkv.{fused[2]}"] = tensor[:num_qkv].clone()
            ours[f"{fused[1]}mlp.Wi.{fused[2]}"] = tensor[num_qkv:].clone()
        elif not _DERIVED.fullmatch(name):
            ours[name] = tensor
    return ours


def to_theirs(config: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under FlexBERT's names, with Composer's prefix; ConfigError where it has no place for one."""
    refused = [name for name in tensors if ".token_types." in name or name.startswith("dense.")]
    if refused:
        raise ConfigError(f"FlexBERT has no place for {', '.join(refused)}; write a model folder instead")
    theirs: dict[str, Tensor] = {}
    for name, tensor in _fuse(config, tensors).items():
        renamed = _rename(name, tuple((ours, their) for their, ours in _RENAMED))
        theirs[f"model.{renamed}"] = tensor
    if isinstance(config.head, MlmHeadConfig) and config.head.is_tied:
        theirs["model.decoder.weight"] = tensors["model.embeddings.tok_embeddings.weight"]
    return theirs


def _fuse(config: ModelConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Lay Wi below Wqkv where attention and MLP stand side by side, as FlexBERT does."""
    fused = dict(tensors)
    for i, block in enumerate(config.encoder.blocks):
        if not isinstance(block, ParallelConfig):
            continue
        for kind in ("weight", "bias"):
            names = [f"model.layers.{i}.{place}.{kind}" for place in ("attn.Wqkv", "mlp.Wi")]
            halves = [fused.pop(name) for name in names if name in fused]
            if len(halves) == 1:
                raise ConfigError(
                    f"layer {i}: FlexBERT's parallel layer has a bias for attention and MLP, or for neither"
                )
            if halves:
                fused[f"model.layers.{i}.Wqkvff.{kind}"] = torch.cat(halves)
    return fused


def _rename(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    for old, new in pairs:
        if old.startswith("mlp."):
            name = name.replace(f".{old}", f".{new}")
    return name


def _read_norm(keys: Keys) -> NormPart:
    kind = keys.take("normalization", "rmsnorm").removeprefix("triton_")
    settings = dict(keys.take("norm_kwargs", {}, (dict, type(None))) or {})
    has_bias = settings.pop("bias", True)
    try:
        eps = float(settings.pop("eps", 1e-5))  # YAML readers take 1e-5 for a string
    except (TypeError, ValueError):
        raise ConfigError(
            f"{keys.source}: norm_kwargs.eps must be a number, found {keys.raw['norm_kwargs']}"
        ) from None
    if settings:
        raise ConfigError(f"{keys.source}: norm_kwargs has {', '.join(settings)}; known are eps and bias")
    if _one_of(keys, "normalization", kind, ("layernorm", "rmsnorm")) == "rmsnorm":
        return RmsNormConfig(eps=eps)
    return LayerNormConfig(eps=eps, has_bias=bool(has_bias))


def _read_blocks(keys: Keys, norm: NormPart, hidden_size: int, has_embed_norm: bool) -> tuple[BlockPart, ...]:
    num_initial = keys.take("num_initial_layers", 1)
    skips_first = keys.take("skip_first_prenorm", False) and has_embed_norm
    blocks: list[BlockPart] = []
    for i in range(keys.take("num_hidden_layers", 12)):
        kinds = {
            name: _one_of(keys, name, _kind_of_layer(keys, name, default, i < num_initial), known)
            for name, (default, known) in _KINDS.items()
        }
        if len({"parallel" in kind for kind in kinds.values()}) > 1:
            raise ConfigError(
                f"{keys.source}: layer {i} is half parallel: {kinds}; all three must be parallel, or none"
            )
        attention = _read_attention(keys, i, hidden_size, is_rotary="rope" in kinds["attention_layer"])
        mlp = _read_mlp(keys, kinds["mlp_layer"])
        first_norm = None if skips_first and i == 0 else norm
        if kinds["bert_layer"] == "parallel_prenorm":
            blocks.append(ParallelConfig(attention=attention, mlp=mlp, norm=first_norm))
        elif kinds["bert_layer"] == "prenorm":
            blocks.append(
                PreNormConfig(attention=attention, mlp=mlp, attention_norm=first_norm, mlp_norm=norm)
            )
        else:
            blocks.append(PostNormConfig(attention=attention, mlp=mlp, attention_norm=norm, mlp_norm=norm))
    return tuple(blocks)


def _read_attention(keys: Keys, layer: int, hidden_size: int, *, is_rotary: bool) -> AttentionConfig:
    num_heads = keys.take("num_attention_heads", 12)
    if num_heads < 1 or hidden_size % num_heads:
        raise ConfigError(
            f"{keys.source}: hidden_size {hidden_size} cannot be shared out to {num_heads} heads"
        )
    window, every = keys.take("sliding_window", -1), keys.take("global_attn_every_n_layers", -1)
    if every > 0 and window == -1:
        raise ConfigError(f"{keys.source}: global_attn_every_n_layers={every} needs a sliding_window")
    is_local = window != -1 and (every <= 0 or layer % every != 0)
    head_dim = hidden_size // num_heads
    theta = keys.take("rotary_emb_base", 10_000.0)
    size = keys.take("rotary_emb_dim", None, (int, type(None)))
    local_theta = keys.take("local_attn_rotary_emb_base", -1.0, (float, int, type(None)))
    local_size = keys.take("local_attn_rotary_emb_dim", None, (int, type(None)))
    if is_local:
        theta = theta if local_theta in (-1, None) else local_theta
        size = local_size or size
    rotary = RotaryConfig(
        theta=float(theta),
        fraction=(size or head_dim) / head_dim,
        is_interleaved=keys.take("rotary_emb_interleaved", False),
    )
    return AttentionConfig(
        num_heads=num_heads,
        window_each_side=window // 2 if is_local else None,
        rotary=rotary if is_rotary else None,
        has_qkv_bias=keys.take("attn_qkv_bias", False),
        has_out_bias=keys.take("attn_out_bias", False),
        dropout=float(keys.take("attention_probs_dropout_prob", 0.0)),
        out_dropout=float(keys.take("attn_out_dropout_prob", 0.0)),
    )


def _read_mlp(keys: Keys, kind: str) -> MlpConfig | GluConfig:
    # the fused matrix of a parallel layer has the bias of its attention
    has_in_bias = keys.take("attn_qkv_bias" if kind == "parallel_glu" else "mlp_in_bias", False)
    keys.take("mlp_in_bias", False)
    part = MlpConfig if kind == "mlp" else GluConfig
    return part(
        intermediate_size=keys.take("intermediate_size", 3072),
        activation=read_activation(keys, "hidden_act"),
        has_in_bias=has_in_bias,
        has_out_bias=keys.take("mlp_out_bias", False),
        dropout=float(keys.take("mlp_dropout_prob", 0.0)),
    )


def _read_head(keys: Keys, norm: NormPart) -> MlmHeadConfig:
    architecture = (keys.raw.get("architectures") or ["FlexBertForMaskedLM"])[0]
    if not str(architecture).endswith("ForMaskedLM"):
        raise ConfigError(
            f"{keys.source} describes {architecture}; only FlexBertForMaskedLM is read from its options. For "
            "another head, pass config=ModelConfig(...) with that head"
        )
    transform = TransformConfig(
        activation=read_activation(keys, "head_pred_act", "silu"),
        has_bias=keys.take("head_pred_bias", False),
        norm=norm if keys.take("head_pred_norm", True) else None,
    )
    return MlmHeadConfig(
        transform=transform,
        has_decoder_bias=keys.take("decoder_bias", True),
        is_tied=keys.take("tie_word_embeddings", True),
    )


def _read_init(keys: Keys) -> InitConfig:
    method = _one_of(keys, "init_method", keys.take("init_method", "default"), tuple(_INITS))
    std = keys.take("initializer_range" if method == "default" else "init_std", 0.02)
    keys.take("init_std", 0.02)
    return InitConfig(
        family=_INITS[method],
        std=std,
        cutoff=float(keys.take("init_cutoff_factor", 2.0)),
        has_small_embedding=keys.take("init_small_embedding", False),
    )


def _kind_of_layer(keys: Keys, name: str, default: str, is_initial: bool) -> str:
    """The kind of a layer's part: in the first layers that of `initial_...`, where there is one.

    What the research code puts before it by itself is left out: how it pads, whether it compiles.
    """
    kind = keys.take(name, default)
    initial = keys.take(f"initial_{name}", None, (str, type(None)))
    if is_initial and initial is not None:
        kind = initial
    return kind.removeprefix("unpadded_").removeprefix("padded_").removeprefix("compile_")


def _one_of(keys: Keys, name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ConfigError(f"{keys.source}: {name}={value!r} has no part here; known are {', '.join(known)}")
    return value


def _refuse(keys: Keys, name: str, what: str) -> None:
    value = keys.take(name, None, object)
    if value is not None:
        raise ConfigError(f"{keys.source}: {name}={value!r} ({what}) has no part here; only null has")
