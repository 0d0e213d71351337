"""Model folders: everything a model is, read from one and written to one.

    config.json                        what the model is; ours, or ModernBERT's, BERT's or a RoBERTa's
    model.safetensors                  its tensors, or shards with an index
    tokenizer.json and its companions  byte for byte as they came
    modules.json, 1_Pooling, ...       the layout of Sentence Transformers, for embedding models

What transformers can express is written so that it and Sentence Transformers load the folder with the same
numbers. What it cannot is written with our own `model_type` and the parts in full. Reading never runs code
from a folder.
"""

from __future__ import annotations

import errno
import json
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from modernbert.encoder.config import Part, from_json
from modernbert.encoder.packed_file import PackedFile, packed_file_of
from modernbert.errors import ConfigError, FolderError
from modernbert.files import folder_being_written, kept_still, restore_interrupted
from modernbert.heads.model import ALL_PARTS, ModelConfig
from modernbert.pretrained import quantized, sentence
from modernbert.pretrained.config_file import (
    CONFIG_FILE,
    OWN_MODEL_TYPE,
    family_named,
    foreign_config,
    own_config,
    special_ids,
)
from modernbert.pretrained.converted import cast as cast_to
from modernbert.pretrained.family import head_kind
from modernbert.pretrained.keys import Keys, naming
from modernbert.pretrained.other_files import keep_other_files
from modernbert.pretrained.settings import TextSettings, own_settings, read_settings
from modernbert.pretrained.weights import fill, read_json, read_weights, state_of, weight_files, write_weights
from modernbert.text.tokenizer import Tokenizer

# Parts of published checkpoints that no task of ours uses: kept beside the model and written back.
_CARRIED = re.compile(
    r"(bert\.|roberta\.|model\.)?pooler\.dense\.(weight|bias)|cls\.seq_relationship\.(weight|bias)"
)
# How often a folder is read that others save over meanwhile; from the second time on they have to wait.
_MOST_TRIES = 5
# Buffers that older releases wrote; they follow from the configuration.
_DERIVED = re.compile(r".*(position_ids|inv_freq)")
# The heads of other tasks, which an embedding model's folder may still hold.
_OTHER_HEADS = re.compile(r"(head|decoder|classifier|lm_head|cls|qa_outputs)\..*")


@dataclass(kw_only=True)
class Pretrained:
    """A model with all that its folder holds. `module.model` is the encoder.

    `foreign` keeps the keys of a foreign config.json, and `carried` the tensors that no task here uses, so
    that both can be written back. `dtype_of_file` is what the folder stored. `is_int8`:
    it stored the matrices of its encoder in 8 bits. `cache`: where is kept what is made of these weights.
    """

    config: ModelConfig
    module: nn.Module
    tokenizer: Tokenizer | None = None
    settings: TextSettings = field(default_factory=TextSettings)
    foreign: Mapping[str, Any] = field(default_factory=dict[str, Any])
    carried: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    dtype_of_file: torch.dtype | None = None
    is_int8: bool = False
    cache: PackedFile | None = None


def read_folder(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    parts: Sequence[type[Part]] = (),
    strict: bool = False,
    is_cached: bool = False,
) -> Pretrained:
    """Read a model folder, its tensors cast to `dtype` (None: as they are stored), on the CPU.

    `parts` names the user's own part classes that the model holds. `strict` makes unknown keys of foreign
    files an error. `is_cached`: weights in another format than the file's are kept and mapped. What is read
    is of one save, also while others save over the folder. Raises FolderError, WeightsError or ConfigError,
    which name the file and the key.
    """
    for num_tries in range(_MOST_TRIES):
        restore_interrupted(folder)
        with kept_still(folder) if num_tries else nullcontext():
            before = _identity(folder)
            if before is None:
                raise FolderError(f"{folder} is not a folder")
            cache = packed_file_of(folder, weight_files(folder)) if is_cached else None
            try:
                read = _read(folder, dtype, parts, strict, cache)
            except Exception:  # whatever it is: half of it may be of another save
                if _identity(folder) == before:
                    raise
                continue
            if _identity(folder) == before and (cache is None or cache.is_current()):
                read.cache = cache
                return read
    raise FolderError(f"{folder} is saved over again and again while it is read; load it when that is done")


def _identity(folder: Path) -> tuple[int, int, int] | None:
    """What tells one save of a folder from the next, which has the same name; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns) if folder.is_dir() else None


def _read(
    folder: Path,
    dtype: torch.dtype | None,
    parts: Sequence[type[Part]],
    strict: bool,
    cache: PackedFile | None,
) -> Pretrained:
    raw = read_json(folder / CONFIG_FILE)
    if raw.get("model_type") == OWN_MODEL_TYPE:
        read = _read_own(folder, raw, parts, cache)
    else:
        read = _read_foreign(folder, raw, strict)
    read.tokenizer = _read_tokenizer(folder)
    check_vocabulary(folder, read)
    tensors = cast(dict[str, Tensor], read.carried)
    read.dtype_of_file = _main_dtype(tensors)
    read.carried = _fill(folder, read.module, tensors, partial(cast_to, dtype=dtype, cache=cache))
    read.module.eval()
    return read


def write_folder(
    target: Path, model: Pretrained, *, layout: Literal["auto", "parts", "int8"] = "auto"
) -> None:
    """Write a model folder at once: afterwards `target` holds all of it, or what it held before.

    Files of an old model in `target` are replaced; other files there (a README, reports) are kept. A folder
    that holds other files but no config.json is refused, since it is not a model's. `layout="parts"` writes
    our own config.json even where transformers has words for the model; so does `layout="int8"`, with the
    matrices of the encoder in 8 bits. Raises FolderError where the disk is
    full or may not be written.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or _is_someone_elses(target)):
        raise FolderError(
            f"{target} exists and is not a model folder; name a new folder, or empty this one first"
        )
    config, tensors = _to_write(model, layout)
    try:
        with folder_being_written(target) as folder:
            _write_files(folder, model, config, tensors)
            if target.exists():
                keep_other_files(target, folder)
    except (OSError, SafetensorError) as error:
        raise FolderError(
            f"{target} could not be written: {error}. "
            f"{'It is as it was before' if target.exists() else 'Nothing is left of it'}. "
            + _hint(target, error)
        ) from error


def _hint(target: Path, error: Exception) -> str:
    is_mounted = isinstance(error, OSError) and error.errno in (errno.EBUSY, errno.EXDEV)
    if is_mounted or (target.exists() and os.path.ismount(target)):
        return "A disk is mounted there, and a save swaps whole folders: name a folder inside it"
    return f"A save needs room for a second copy in {target.absolute().parent}, and the right to write there"


def write_companions(folder: Path, model: Pretrained) -> None:
    """Write what describes a model into a folder that holds its weights in a form of another tool: its
    config.json, its tokenizer, and the settings and dense layers of Sentence Transformers.
    """
    try:
        _write_companions(folder, model, *_to_write(model, "auto"))
    except SafetensorError as error:
        raise FolderError(f"{folder} could not be written: {error}") from error


def _write_files(
    folder: Path, model: Pretrained, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    is_own = config["model_type"] == OWN_MODEL_TYPE
    # Sentence Transformers keeps each dense layer in a folder of its own
    in_modules = {name for name in tensors if name.startswith("dense.") and not is_own}
    write_weights(folder, {name: tensor for name, tensor in tensors.items() if name not in in_modules})
    _write_companions(folder, model, config, tensors)


def _write_companions(
    folder: Path, model: Pretrained, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if config["model_type"] != OWN_MODEL_TYPE:
        size = model.config.encoder.hidden_size
        sentence.write_modules(folder, model.config.head, tensors, model.settings, size)
    if model.tokenizer is not None:
        model.tokenizer.save(folder)
    for path in folder.rglob("*.safetensors"):  # which only their owner could read, as safetensors makes them
        path.chmod(folder.stat().st_mode & 0o666)


def describe_layout(config: ModelConfig) -> str:
    """The `model_type` that a folder of this model gets; for our own, why none of the foreign ones fits."""
    written, reason = foreign_config(config, {})
    return written["model_type"] if written else f"{OWN_MODEL_TYPE} (transformers has no words for {reason})"


def check_vocabulary(source: Path | str, model: Pretrained) -> None:
    """Raise FolderError where the tokenizer has entries that the model's embedding has no row for."""
    if model.tokenizer is not None and model.tokenizer.vocab_size > model.config.encoder.vocab_size:
        raise FolderError(
            f"{source}: the tokenizer has {model.tokenizer.vocab_size} entries, the embedding of the model "
            f"only {model.config.encoder.vocab_size}: tokenizer.json and config.json do not belong together"
        )


def _read_own(
    folder: Path, raw: Mapping[str, Any], parts: Sequence[type[Part]], cache: PackedFile | None
) -> Pretrained:
    source = folder / CONFIG_FILE
    if not isinstance(raw.get("model"), dict):
        raise ConfigError(f"{source} has no 'model' that describes the parts; found {raw.get('model')!r}")
    if isinstance(parts, type):
        raise ConfigError(f"parts is a list of classes: parts=[{parts.__name__}]")
    with naming(str(source)):
        config = from_json(raw["model"], (*ALL_PARTS, *parts))
        if not isinstance(config, ModelConfig):
            raise ConfigError(f"'model' must be of kind 'model', found {raw['model'].get('kind')!r}")
        settings = own_settings(raw.get("text"), str(source))
        module = _build_empty(config)
    tensors, method = read_weights(folder), raw.get("quantization")
    if method not in (None, quantized.METHOD):
        raise ConfigError(f"{source}: quantization {method!r} is not known, only {quantized.METHOD!r}")
    is_int8 = method is not None
    if is_int8:
        tensors = quantized.dequantized(folder, tensors, cache)
    return Pretrained(config=config, module=module, settings=settings, carried=tensors, is_int8=is_int8)


def _read_foreign(folder: Path, raw: Mapping[str, Any], strict: bool) -> Pretrained:
    source = str(folder / CONFIG_FILE)
    family = family_named(raw.get("model_type"), source)
    keys = Keys(raw, source)
    with naming(source):
        config = family.read(keys, head_kind(raw, source))
    foreign = keys.finish(strict=strict)
    settings = read_settings(folder, raw, strict=strict)
    dense: dict[str, Tensor] = {}
    if sentence.has_modules(folder):
        head, dense = sentence.read_modules(folder, strict=strict)
        config = config if head is None else replace(config, head=head)
    with naming(source):
        module = _build_empty(config)
    tensors = family.to_ours(config, read_weights(folder)) | dense
    return Pretrained(config=config, module=module, settings=settings, foreign=foreign, carried=tensors)


def _build_empty(config: ModelConfig) -> nn.Module:
    """The module without storage, to be filled from a file; with it where a user's part computes a buffer."""
    with torch.device("meta"), _NothingDrawn():
        module = config.build()
    is_computed = {name for name, _ in module.named_buffers()} - module.state_dict().keys()
    return config.build() if is_computed else module


class _NothingDrawn(TorchFunctionMode):
    """No random numbers for tensors without storage: torch would import its compiler for that, which takes
    two seconds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func.__name__ in ("normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _read_tokenizer(folder: Path) -> Tokenizer | None:
    names = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")
    return Tokenizer.from_folder(folder) if any((folder / name).exists() for name in names) else None


def _fill(
    folder: Path,
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    convert: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    """Put the tensors where they belong; gives those that no task uses and that are to be kept."""
    places = module.state_dict().keys()
    carried, used, dropped = dict[str, Tensor](), dict[str, Tensor](), list[str]()
    can_hold_other_heads = not any(name.startswith(("head.", "decoder.", "classifier.")) for name in places)
    for name, tensor in tensors.items():
        if name in places:
            used[name] = tensor
        elif _CARRIED.fullmatch(name):
            carried[name] = tensor
        elif can_hold_other_heads and _OTHER_HEADS.fullmatch(name):
            dropped.append(name)
        elif not _DERIVED.fullmatch(name):
            used[name] = tensor  # `fill` names it in its error
    if dropped:
        warnings.warn(
            f"{folder} holds a head of another task, which an encoder for embeddings leaves out: "
            + ", ".join(dropped),
            stacklevel=5,
        )
    embedding_layers = {name: tensor.float() for name, tensor in used.items() if name.startswith("dense.")}
    fill(module, used, source=str(folder), cast=convert)
    if embedding_layers:  # what follows the pooling is small and always runs in fp32
        for name, tensor in embedding_layers.items():
            module.get_parameter(name).data = tensor
    return carried


def _to_write(model: Pretrained, layout: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config.json and the tensors, under the names that its readers expect."""
    tensors = state_of(model.module)
    if layout == "int8":
        return own_config(model.config, model.settings) | {
            "quantization": quantized.METHOD
        }, quantized.quantized(tensors)
    config, _ = foreign_config(model.config, model.foreign)
    if config is None or layout == "parts":
        return own_config(model.config, model.settings), tensors
    family = family_named(config["model_type"], "the model")
    config["dtype"] = config["torch_dtype"] = str(_main_dtype(tensors)).removeprefix("torch.")
    config = special_ids(model.tokenizer) | config | sentence.config_keys(model.settings)
    return config, family.to_theirs(model.config, tensors | dict(model.carried))


def _main_dtype(tensors: Mapping[str, Tensor]) -> torch.dtype | None:
    """The encoder's number format; buffers of whole numbers do not count."""
    floats = [(name, tensor.dtype) for name, tensor in tensors.items() if tensor.is_floating_point()]
    of_encoder = [dtype for name, dtype in floats if name.startswith("model.")]
    return next(iter(of_encoder or [dtype for _, dtype in floats]), None)


def _is_someone_elses(target: Path) -> bool:
    return not (target / CONFIG_FILE).exists() and any(target.iterdir())
