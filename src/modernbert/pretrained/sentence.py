"""The layout of Sentence Transformers: modules.json beside the encoder, and what stands on it in folders.

Both generations are read. What an older reader can express is written in the older form, which every reader
knows: `sentence_transformers.models.Pooling`, `pooling_mode_mean_tokens`; token vectors need the newer one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from modernbert.errors import ConfigError, FolderError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.embed import DenseConfig, EmbedHeadConfig, TokenEmbedHeadConfig
from modernbert.heads.model import HeadPart
from modernbert.heads.pooling import POOLINGS
from modernbert.pretrained.weights import SINGLE_FILE, read_file, read_json

MODULES_FILE = "modules.json"
# In the order in which several of them stand side by side.
_OLD_POOLING = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "silu": "torch.nn.modules.activation.SiLU",
}
# Settings of late interaction that add tokens to texts, or leave some out.
_EXPANSIONS = ("query_expansion", "do_query_expansion", "query_prefix", "document_prefix", "skiplist_words")
_KINDS = ("Transformer", "Pooling", "Dense", "Normalize", "MultiVectorMask")
_NEW_TYPES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "MultiVectorMask": "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
}


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """What a folder says about texts, beside the model itself.

    `prompts` are put before texts by name; `max_seq_length` limits texts, in tokens, below what the model
    could take; `activation` is what a reranker's scores go through ("sigmoid", "identity", or None where
    nothing is said).
    """

    prompts: Mapping[str, str] = field(default_factory=dict[str, str])
    default_prompt: str | None = None
    max_seq_length: int | None = None
    lowercases: bool = False
    similarity: str | None = None
    activation: str | None = None


def read_settings(folder: Path, config: Mapping[str, Any]) -> TextSettings:
    """The settings in config_sentence_transformers.json and sentence_bert_config.json, if any."""
    own = read_json(folder / "config_sentence_transformers.json") if has_settings(folder) else {}
    transformer_file = folder / "sentence_bert_config.json"
    transformer = read_json(transformer_file) if transformer_file.exists() else {}
    in_config = (config.get("sentence_transformers") or {}).get("activation_fn")
    activation = own.get("activation_fn") or in_config or config.get("sbert_ce_default_activation_function")
    return TextSettings(
        prompts=own.get("prompts") or {},
        default_prompt=own.get("default_prompt_name"),
        max_seq_length=transformer.get("max_seq_length"),
        lowercases=bool(transformer.get("do_lower_case", False)),
        similarity=own.get("similarity_fn_name"),
        activation=None if activation is None else _activation_named(str(activation), folder),
    )


def has_settings(folder: Path) -> bool:
    """Whether the folder has Sentence Transformers' own configuration file."""
    return (folder / "config_sentence_transformers.json").exists()


def has_modules(folder: Path) -> bool:
    """Whether the folder says, in modules.json, what stands on its encoder."""
    return (folder / MODULES_FILE).exists()


def read_modules(folder: Path) -> tuple[HeadPart | None, dict[str, Tensor]]:
    """The head in modules.json and its tensors, under our names; None where it names the encoder alone."""
    head: EmbedHeadConfig | TokenEmbedHeadConfig | None = None
    tensors: dict[str, Tensor] = {}
    dense: list[DenseConfig] = []
    is_normalized, has_mask = False, False
    modules = _read_list(folder / MODULES_FILE)
    _check_order(modules, folder / MODULES_FILE)
    for module in modules:
        kind, path = str(module.get("type", "")).rsplit(".", 1)[-1], folder / str(module.get("path", ""))
        if kind == "Pooling":
            head = _read_pooling(read_json(path / "config.json"), path)
        elif kind == "Dense":
            layer, layer_tensors = _read_dense(path)
            tensors |= {f"dense.{len(dense)}.linear.{name}": value for name, value in layer_tensors.items()}
            dense.append(layer)
        elif kind == "Normalize":
            is_normalized = True
        elif kind == "MultiVectorMask":
            _refuse_masks(read_json(path / "config.json"), path)
            has_mask = True
        elif kind not in ("Transformer", "Dropout"):
            raise FolderError(
                f"{folder / MODULES_FILE} names a module of type {module.get('type')!r}, which is not "
                "supported; supported are Transformer, Pooling, Dense, Normalize, Dropout and MultiVectorMask"
            )
    if head is None:
        if not dense and not is_normalized and not has_mask:
            return None, {}
        _refuse_expansion(folder)
        head = TokenEmbedHeadConfig()
    return replace(head, dense=tuple(dense), is_normalized=is_normalized), tensors


def config_keys(settings: TextSettings) -> dict[str, Any]:
    """What the settings add to config.json, where Sentence Transformers looks for a reranker's activation."""
    if settings.activation is None:
        return {}
    return {"sentence_transformers": {"activation_fn": _ACTIVATIONS[settings.activation]}}


def write_modules(
    folder: Path, head: HeadPart, tensors: Mapping[str, Tensor], settings: TextSettings, size: int
) -> None:
    """Write modules.json, its folders and the settings; `size` is the encoder's hidden size."""
    if isinstance(head, EmbedHeadConfig):
        modules = _write_embed(folder, head, tensors, size)
        model_type = "SentenceTransformer"
    elif isinstance(head, TokenEmbedHeadConfig):
        modules = _write_token_embed(folder, head, tensors, size)
        model_type = "MultiVectorEncoder"
    elif isinstance(head, ClassifyHeadConfig) and len(head.labels) == 1 and settings.activation is not None:
        modules = []
        model_type = "CrossEncoder"
    else:
        return
    if modules:
        listed = [
            {"idx": i, "name": str(i), "path": path, "type": kind} for i, (kind, path) in enumerate(modules)
        ]
        _write_json(folder / MODULES_FILE, listed)
    own: dict[str, Any] = {
        "model_type": model_type,
        "prompts": dict(settings.prompts),
        "default_prompt_name": settings.default_prompt,
        "similarity_fn_name": settings.similarity,
    }
    if settings.activation is not None:
        own["activation_fn"] = _ACTIVATIONS[settings.activation]
    _write_json(folder / "config_sentence_transformers.json", own)
    if settings.max_seq_length is not None or settings.lowercases:
        transformer = {"max_seq_length": settings.max_seq_length, "do_lower_case": settings.lowercases}
        _write_json(folder / "sentence_bert_config.json", transformer)


def _write_embed(
    folder: Path, head: EmbedHeadConfig, tensors: Mapping[str, Tensor], size: int
) -> list[tuple[str, str]]:
    modules = [
        ("sentence_transformers.models.Transformer", ""),
        ("sentence_transformers.models.Pooling", "1_Pooling"),
    ]
    if list(head.poolings) == [mode for mode in _OLD_POOLING if mode in head.poolings]:
        modes = {key: mode in head.poolings for mode, key in _OLD_POOLING.items()}
        pooling = {"word_embedding_dimension": size, **modes}
    else:  # an order that the older form has no words for
        pooling = {"embedding_dimension": size, "pooling_mode": list(head.poolings)}
    _write_json(folder / "1_Pooling" / "config.json", {**pooling, "include_prompt": head.pools_prompt})
    in_features = size * len(head.poolings)
    for i, layer in enumerate(head.dense):
        path = f"{len(modules)}_Dense"
        _write_dense(folder / path, i, layer, in_features, tensors, {})
        modules.append(("sentence_transformers.models.Dense", path))
        in_features = layer.out_features
    if head.is_normalized:
        path = f"{len(modules)}_Normalize"
        (folder / path).mkdir()
        modules.append(("sentence_transformers.models.Normalize", path))
    return modules


def _write_token_embed(
    folder: Path, head: TokenEmbedHeadConfig, tensors: Mapping[str, Tensor], size: int
) -> list[tuple[str, str]]:
    in_and_out = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    modules = [(_NEW_TYPES["Transformer"], "")]
    for i, layer in enumerate(head.dense):
        path = f"{len(modules)}_Dense"
        _write_dense(folder / path, i, layer, size, tensors, in_and_out)
        modules.append((_NEW_TYPES["Dense"], path))
        size = layer.out_features
    path = f"{len(modules)}_MultiVectorMask"
    mask = {"skiplist_words": [], "skiplist_tasks": ["document"], "keep_only_token_ids": None}
    _write_json(folder / path / "config.json", mask)
    modules.append((_NEW_TYPES["MultiVectorMask"], path))
    if head.is_normalized:
        path = f"{len(modules)}_Normalize"
        _write_json(folder / path / "config.json", in_and_out)
        modules.append((_NEW_TYPES["Normalize"], path))
    return modules


def _read_pooling(config: Mapping[str, Any], path: Path) -> EmbedHeadConfig:
    mode = config.get("pooling_mode")
    if mode is None:
        poolings = tuple(mode for mode, key in _OLD_POOLING.items() if config.get(key)) or ("mean",)
    else:
        poolings = tuple(mode) if isinstance(mode, list) else (str(mode),)
    if not poolings or any(mode not in POOLINGS for mode in poolings):
        raise ConfigError(
            f"{path / 'config.json'}: pooling must be some of {', '.join(POOLINGS)}, found {config}"
        )
    return EmbedHeadConfig(poolings=poolings, pools_prompt=bool(config.get("include_prompt", True)))


def _read_dense(path: Path) -> tuple[DenseConfig, dict[str, Tensor]]:
    config = read_json(path / "config.json")
    if "out_features" not in config:
        raise FolderError(f"{path / 'config.json'} has no 'out_features'; found {sorted(config)}")
    activation = _activation_named(str(config.get("activation_function", _ACTIVATIONS["tanh"])), path)
    layer = DenseConfig(
        out_features=config["out_features"], has_bias=bool(config.get("bias", True)), activation=activation
    )
    if config.get("use_residual"):
        raise FolderError(
            f"{path / 'config.json'} adds its input to its output (use_residual), which is not supported"
        )
    tensors = read_file(path / SINGLE_FILE)
    return layer, {name.removeprefix("linear."): tensor for name, tensor in tensors.items()}


def _write_dense(
    path: Path,
    index: int,
    layer: DenseConfig,
    in_features: int,
    tensors: Mapping[str, Tensor],
    names: dict[str, str],
) -> None:
    if layer.activation not in _ACTIVATIONS:
        raise ConfigError(
            f"a dense layer with the activation {layer.activation!r} cannot be written for Sentence "
            f"Transformers; known are {', '.join(_ACTIVATIONS)}"
        )
    config = {
        "in_features": in_features,
        "out_features": layer.out_features,
        "bias": layer.has_bias,
        "activation_function": _ACTIVATIONS[layer.activation],
    }
    _write_json(path / "config.json", config | names)
    prefix = f"dense.{index}."
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in own.items()}, path / SINGLE_FILE)


def _check_order(modules: list[Mapping[str, Any]], path: Path) -> None:
    """Refuse a chain that does not run as ours does; a module of an unknown kind is named by the caller."""
    kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
    chain = "".join(f"{kind} " for kind in kinds if kind in _KINDS)
    if not re.fullmatch(r"Transformer (Pooling )?(Dense )*((MultiVectorMask|Normalize) )*", chain):
        raise FolderError(
            f"{path} has its modules in an order that is not supported: {', '.join(kinds)}; supported is "
            "Transformer, then Pooling, then Dense layers, then Normalize"
        )


def _refuse_expansion(folder: Path) -> None:
    """Refuse late interaction that adds tokens to texts, said as Sentence Transformers or PyLate say it."""
    for name in ("config_sentence_transformers.json", "sentence_bert_config.json"):
        keys = read_json(folder / name) if (folder / name).exists() else {}
        for key in _EXPANSIONS:
            if keys.get(key):
                raise FolderError(
                    f"{folder / name}: {key}={keys[key]!r} is not supported: the vectors would not be the "
                    "model's"
                )


def _refuse_masks(config: Mapping[str, Any], path: Path) -> None:
    if config.get("skiplist_words") or config.get("keep_only_token_ids"):
        raise FolderError(
            f"{path / 'config.json'} leaves out some tokens (skiplist_words or keep_only_token_ids), which "
            "is not supported: the vectors would not be the model's"
        )


def _activation_named(path: str, folder: Path) -> str:
    """Our name for a class path such as torch.nn.modules.activation.Tanh; nothing is imported."""
    class_name = path.rsplit(".", 1)[-1]
    for name, known in _ACTIVATIONS.items():
        if known.rsplit(".", 1)[-1] == class_name:
            return name
    raise FolderError(
        f"{folder}: the activation {path!r} is not supported; known are {', '.join(_ACTIVATIONS.values())}"
    )


def _read_list(path: Path) -> list[Mapping[str, Any]]:
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FolderError(f"{path} is not JSON ({error}); a cut download, or another kind of file") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise FolderError(f"{path} must hold a list of modules")
    return modules


def _write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
