"""The layout of Sentence Transformers: modules.json beside the encoder, and what stands on it in folders.

Both generations are read. What an older reader can express is written in the older form, which every reader
knows: `sentence_transformers.models.Pooling`, `pooling_mode_mean_tokens`; token vectors need the newer one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from modernbert.errors import ConfigError, FolderError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.embed import DenseConfig, EmbedHeadConfig, TokenEmbedHeadConfig
from modernbert.heads.model import HeadPart
from modernbert.heads.pooling import POOLINGS
from modernbert.pretrained.keys import Keys
from modernbert.pretrained.settings import (
    CLASS_PATHS,
    SETTINGS_FILE,
    THRESHOLD_KEY,
    TRANSFORMER_FILES,
    TextSettings,
    activation_named,
    settings_keys,
    transformer_keys,
)
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
_POOLING_KEYS = frozenset({"word_embedding_dimension", "embedding_dimension"})
# What a reranker's encoder gives, in its sentence_bert_config.json.
_SCORES = {
    "transformer_task": "sequence-classification",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}
_KINDS = ("Transformer", "Pooling", "Dense", "Normalize", "MultiVectorMask")
_NEW_TYPES = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "MultiVectorMask": "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
}


def has_modules(folder: Path) -> bool:
    """Whether the folder says, in modules.json, what stands on its encoder."""
    return (folder / MODULES_FILE).exists()


def read_modules(folder: Path, *, strict: bool = False) -> tuple[HeadPart | None, dict[str, Tensor]]:
    """The head in modules.json and its tensors, under our names; None where it names the encoder alone."""
    head: EmbedHeadConfig | TokenEmbedHeadConfig | None = None
    tensors: dict[str, Tensor] = {}
    dense: list[DenseConfig] = []
    is_normalized = False
    skiplist: tuple[str, ...] | None = None
    modules = _read_list(folder / MODULES_FILE)
    _check_order(modules, folder / MODULES_FILE)
    for module in modules:
        kind, path = str(module.get("type", "")).rsplit(".", 1)[-1], folder / str(module.get("path", ""))
        if kind == "Pooling":
            head = _read_pooling(_config_of(path, _POOLING_KEYS), strict)
        elif kind == "Dense":
            layer, layer_tensors = _read_dense(path, strict)
            tensors |= {f"dense.{len(dense)}.linear.{name}": value for name, value in layer_tensors.items()}
            dense.append(layer)
        elif kind == "Normalize":
            is_normalized = True
        elif kind == "MultiVectorMask":
            skiplist = _read_skiplist(_config_of(path, frozenset()), strict)
        elif kind not in ("Transformer", "Dropout"):
            raise FolderError(
                f"{folder / MODULES_FILE} names a module of type {module.get('type')!r}, which is not "
                "supported; supported are Transformer, Pooling, Dense, Normalize, Dropout and MultiVectorMask"
            )
    if head is None:
        if not dense and not is_normalized and skiplist is None:
            return None, {}
        head = TokenEmbedHeadConfig(skiplist=skiplist or ())
    return replace(head, dense=tuple(dense), is_normalized=is_normalized), tensors


def config_keys(settings: TextSettings) -> dict[str, Any]:
    """What the settings add to config.json, where Sentence Transformers looks for a reranker's activation."""
    keys: dict[str, Any] = {}
    if settings.activation is not None:
        keys["sentence_transformers"] = {"activation_fn": CLASS_PATHS[settings.activation]}
    if settings.no_answer_threshold is not None:
        keys[THRESHOLD_KEY] = settings.no_answer_threshold
    return keys


def write_modules(
    folder: Path, head: HeadPart, tensors: Mapping[str, Tensor], settings: TextSettings, size: int
) -> None:
    """Write modules.json, its folders and the settings; `size` is the encoder's hidden size."""
    transformer = transformer_keys(settings)
    if isinstance(head, EmbedHeadConfig):
        modules = _write_embed(folder, head, tensors, size)
        model_type = "SentenceTransformer"
    elif isinstance(head, TokenEmbedHeadConfig):
        modules = _write_token_embed(folder, head, tensors, size)
        model_type = "MultiVectorEncoder"
    elif isinstance(head, ClassifyHeadConfig) and (settings != TextSettings()):
        # prompts and limits of a reranker are read where modules.json names its encoder, and only there
        says_more = bool(transformer) or any(settings.prompts.values())
        modules = [(_NEW_TYPES["Transformer"], "")] if says_more else []
        transformer = _SCORES | transformer if says_more else {}
        model_type = "CrossEncoder"
    else:
        _write_limits(folder, settings)
        return
    if modules:
        listed = [
            {"idx": i, "name": str(i), "path": path, "type": kind} for i, (kind, path) in enumerate(modules)
        ]
        _write_json(folder / MODULES_FILE, listed)
    _write_json(folder / SETTINGS_FILE, settings_keys(settings, model_type))
    if transformer:
        _write_json(folder / TRANSFORMER_FILES[0], transformer)


def _write_limits(folder: Path, settings: TextSettings) -> None:
    """How long a text may be, also for a model that Sentence Transformers has no use for, such as a tagger.

    Nobody else keeps it: tokenizer_config.json is written as it came.
    """
    limits = TextSettings(max_seq_length=settings.max_seq_length, lowercases=settings.lowercases)
    keys = transformer_keys(limits)
    if keys:
        _write_json(folder / TRANSFORMER_FILES[0], keys)


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
    mask = {
        "skiplist_words": list(head.skiplist),
        "skiplist_tasks": ["document"],
        "keep_only_token_ids": None,
    }
    _write_json(folder / path / "config.json", mask)
    modules.append((_NEW_TYPES["MultiVectorMask"], path))
    if head.is_normalized:
        path = f"{len(modules)}_Normalize"
        _write_json(folder / path / "config.json", in_and_out)
        modules.append((_NEW_TYPES["Normalize"], path))
    return modules


def _config_of(path: Path, harmless: frozenset[str]) -> Keys:
    """The configuration of a module, of which a key that is not read is judged as one of config.json is."""
    return Keys(read_json(path / "config.json"), str(path / "config.json"), harmless=harmless, neutral={})


def _read_pooling(keys: Keys, strict: bool) -> EmbedHeadConfig:
    mode = keys.take("pooling_mode", None, (str, list, type(None)))
    by_key = {mode: keys.take(key, False, (bool, type(None))) for mode, key in _OLD_POOLING.items()}
    if mode is None:
        poolings = tuple(mode for mode, is_on in by_key.items() if is_on) or ("mean",)
    else:
        poolings = tuple(mode) if isinstance(mode, list) else (mode,)
    if not poolings or any(mode not in tuple(POOLINGS) for mode in poolings):
        raise ConfigError(f"{keys.source}: pooling must be some of {', '.join(POOLINGS)}, found {keys.raw}")
    pools_prompt = keys.take("include_prompt", True)
    keys.finish(strict=strict)
    return EmbedHeadConfig(poolings=poolings, pools_prompt=pools_prompt)


def _read_dense(path: Path, strict: bool) -> tuple[DenseConfig, dict[str, Tensor]]:
    keys = _config_of(path, frozenset({"in_features", "module_input_name", "module_output_name"}))
    if "out_features" not in keys.raw:
        raise FolderError(f"{keys.source} has no 'out_features'; found {sorted(keys.raw)}")
    layer = DenseConfig(
        out_features=keys.count("out_features", 1),
        has_bias=keys.take("bias", True),
        activation=activation_named(keys.take("activation_function", CLASS_PATHS["tanh"]), path),
    )
    if keys.take("use_residual", False, (bool, type(None))):
        raise FolderError(
            f"{keys.source} adds its input to its output (use_residual), which is not supported"
        )
    keys.finish(strict=strict)
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
    if layer.activation not in CLASS_PATHS:
        raise ConfigError(
            f"a dense layer with the activation {layer.activation!r} cannot be written for Sentence "
            f"Transformers; known are {', '.join(CLASS_PATHS)}"
        )
    config = {
        "in_features": in_features,
        "out_features": layer.out_features,
        "bias": layer.has_bias,
        "activation_function": CLASS_PATHS[layer.activation],
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


def _read_skiplist(keys: Keys, strict: bool) -> tuple[str, ...]:
    """The vocabulary entries that documents have no vectors for."""
    listed = (list, type(None))
    words = keys.take("skiplist_words", None, listed) or []
    tasks = keys.take("skiplist_tasks", None, (*listed, str)) or ["document"]
    if keys.take("keep_only_token_ids", None, listed) or (words and tasks not in ("document", ["document"])):
        raise FolderError(
            f"{keys.source} leaves out tokens by keep_only_token_ids, or of other texts than documents, "
            "which is not supported: the vectors would not be the model's"
        )
    keys.finish(strict=strict)
    return tuple(map(str, words))


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
