"""Checkpoints of the research code (Composer's `latest-rank0.pt`), read without running anything from them.

    state.model                                the tensors, under FlexBERT's names behind "model."
    state.integrations.huggingface.model       the model's options          (not in every checkpoint)
    state.integrations.huggingface.tokenizer   the tokenizer's files        (not in every checkpoint)
    state.integrations.modernbert              in those that we write: our config.json and the tokenizer's
                                               files, as text, so that the way back loses nothing
    everything else                            optimizer, callbacks, clocks, random states: not looked at

Such a file is a pickle, which can name any function to be called while it is read. torch's weights-only
reader refuses those that it does not know; the error here lists them all, and `allow` lets them pass.
"""

from __future__ import annotations

import json
import re
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from modernbert.encoder.config import Part, from_json, to_json
from modernbert.errors import ConfigError, FolderError, WeightsError
from modernbert.files import file_being_written
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ALL_PARTS, ModelConfig
from modernbert.pretrained import converted
from modernbert.pretrained.config_file import CONFIG_FILE
from modernbert.pretrained.flexbert import config_from_flexbert, to_ours, to_theirs
from modernbert.pretrained.folder import Pretrained
from modernbert.pretrained.sentence import TextSettings
from modernbert.pretrained.weights import check_numbers, fill, state_of
from modernbert.text.tokenizer import Tokenizer

Allowed = str | type | Callable[..., Any]
# The end of one read takes away the names of another that began meanwhile.
_ALLOWING = threading.Lock()
# What torch says of a file that it does not read, without its advice to read it unsafely.
_BLOCKED = re.compile(r"GLOBAL (\S+) whose module \S+ is blocked")
_REFUSED = re.compile(r"GLOBAL (\S+) was not an allowed global")
_REASON = re.compile(r"(PytorchStreamReader|Can only|Trying to call|unexpected|Unsupported|Invalid).*")


def read_checkpoint(
    path: Path,
    config: ModelConfig | None = None,
    *,
    allow: Sequence[Allowed] = (),
    parts: Sequence[type[Part]] = (),
    dtype: torch.dtype | None = None,
) -> Pretrained:
    """Read a research checkpoint, its tensors cast to `dtype` (None: as they are stored), on the CPU.

    `config` is needed where the checkpoint does not say what the model is. `allow` names what else than
    tensors the pickle may hold: "numpy.dtype", as text, puts an empty object in its place, so that nothing is
    imported or run; the class or function itself is called. torch keeps such names for the whole process:
    while this reads, another thread's `torch.load` is allowed them too. `parts` are the user's own, as in
    `read_folder`. Raises FolderError, WeightsError or ConfigError.

        config = ModelConfig(encoder=modernbert_base(), head=MlmHeadConfig())
        model = read_checkpoint(Path("latest-rank0.pt"), config, allow=["numpy.dtype"])
    """
    state = _state_of_run(path, _load(path, allow))
    huggingface = _dig(state, "integrations", "huggingface")
    own = _dig(state, "integrations", "modernbert")
    own_config, settings = _read_own(path, own, parts) if own else (None, TextSettings())
    config = config or own_config or _read_config(path, huggingface)
    tensors = to_ours(config, _tensors_of(path, state))
    _check_tied(path, config, tensors)
    with torch.device("meta"):
        module = config.build()
    fill(module, tensors, source=str(path), cast=partial(converted.cast, dtype=dtype, cache=None))
    check_numbers(path, module)
    return Pretrained(
        config=config,
        module=module.eval(),
        tokenizer=_tokenizer_of(path, _own_files(own) or _huggingface_files(huggingface)),
        settings=settings,
        dtype_of_file=next(iter(tensors.values())).dtype,
    )


def write_checkpoint(target: Path, model: Pretrained) -> None:
    """Write the model's tensors where the research code looks for them: `target` is whole then, or as it was.

    The research code takes the model's options from the run's YAML, as always there. For `read_checkpoint`
    the file holds them as well, with the head, the labels, the settings for texts and the tokenizer. Raises
    ConfigError where FlexBERT has no place for a tensor, FolderError where the disk is full or may not be
    written.
    """
    settings = {name: value for name, value in asdict(model.settings).items() if value}
    own = {CONFIG_FILE: json.dumps({"model": to_json(model.config), "text": settings})}
    own |= {} if model.tokenizer is None else {n: file.decode() for n, file in model.tokenizer.files.items()}
    tensors = to_theirs(model.config, state_of(model.module))
    content = {"state": {"model": tensors, "integrations": {"modernbert": own}}}
    try:
        with file_being_written(target) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError where the disk is full
        left = "It is as it was before" if target.exists() else "Nothing is left of it"
        raise FolderError(f"{target} could not be written: {error}. {left}") from error


class _StandIn:
    """What an allowed name becomes: takes any arguments and any state, and keeps nothing."""

    def __new__(cls, *args: object) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _load(path: Path, allow: Sequence[Allowed]) -> object:
    if not path.is_file():
        raise FolderError(f"{path} is not a file; a research checkpoint is one, such as latest-rank0.pt")
    names = [(_StandIn, name) if isinstance(name, str) else name for name in allow]
    with _ALLOWING, safe_globals(cast("list[Any]", names)):
        try:
            # mapped, so that an optimizer twice the model's size costs no memory
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:  # a damaged pickle can raise anything
            raise FolderError(_why_not(path, error)) from error


def _why_not(path: Path, error: Exception) -> str:
    if blocked := _BLOCKED.findall(str(error)):
        return f"{path} would call {', '.join(blocked)} when read: it was made to do harm, and is not read"
    if refused := _refused(path, str(error)):
        return (
            f"{path} holds more than tensors: it names {', '.join(refused)}, which is not read unless you "
            f"allow it. allow={refused!r} puts empty objects in these places and runs nothing"
        )
    reason = _REASON.search(str(error))
    return (
        f"{path} cannot be read as a checkpoint ({reason[0] if reason else type(error).__name__}); it has "
        f"{path.stat().st_size:,} bytes: a cut copy, or another kind of file"
    )


def _refused(path: Path, reason: str) -> list[str]:
    """What the pickle names and may not; all at once, but for the older form of file."""
    try:
        return sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:  # the older form, or a damaged file
        return _REFUSED.findall(reason)


def _state_of_run(path: Path, content: object) -> Mapping[str, Any]:
    """The part that holds the model: of a whole checkpoint its state, of bare tensors those."""
    state = content.get("state", content) if isinstance(content, Mapping) else content
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        return state
    if isinstance(state, Mapping) and state and all(isinstance(value, Tensor) for value in state.values()):
        return {"model": state}
    found = sorted(map(str, state)) if isinstance(state, Mapping) else type(content).__name__
    raise FolderError(
        f"{path} has no ['state']['model'], where a research checkpoint keeps its tensors; found: {found}"
    )


def _tensors_of(path: Path, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copies of the model's tensors: those of a mapped file would change or vanish with it."""
    others = [name for name, value in state["model"].items() if not isinstance(value, Tensor)]
    if others:
        raise FolderError(f"{path}: these entries of ['state']['model'] are no tensors: {', '.join(others)}")
    return {str(name): tensor.clone() for name, tensor in state["model"].items()}


def _read_config(path: Path, huggingface: Mapping[str, Any]) -> ModelConfig:
    options = _dig(huggingface, "model", "config", "content")
    if not options:
        raise ConfigError(
            f"{path} does not say what the model is; name a preset, or a JSON file of the options in the "
            "run's YAML: config=config_named('modernbert-base') in Python, --preset modernbert-base on the "
            "command line"
        )
    return config_from_flexbert(options, f"the options in {path}")


def _read_own(
    path: Path, own: Mapping[str, Any], parts: Sequence[type[Part]]
) -> tuple[ModelConfig, TextSettings]:
    """The model and its settings from the config.json that `write_checkpoint` put in."""
    try:
        raw = json.loads(own[CONFIG_FILE])
        config, settings = from_json(raw["model"], (*ALL_PARTS, *parts)), TextSettings(**raw["text"])
    except (KeyError, TypeError, ValueError) as error:  # ConfigError is a ValueError
        raise ConfigError(f"{path}: the {CONFIG_FILE} inside it cannot be read: {error}") from error
    if not isinstance(config, ModelConfig):
        raise ConfigError(f"{path}: the {CONFIG_FILE} inside it describes no model but {config}")
    return config, settings


def _own_files(own: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: str(text).encode() for name, text in own.items() if name != CONFIG_FILE}


def _huggingface_files(huggingface: Mapping[str, Any]) -> dict[str, bytes]:
    """The tokenizer's files as Composer keeps them: JSON as what it says, text as its lines."""
    files: dict[str, bytes] = {}
    for stem, file in _dig(huggingface, "tokenizer").items():
        ending, content = file.get("file_extension"), file.get("content")
        if ending == ".json":
            files[f"{stem}.json"] = json.dumps(content, ensure_ascii=False, indent=2).encode()
        elif ending == ".txt":
            files[f"{stem}.txt"] = "\n".join(content).encode()
    return files


def _tokenizer_of(path: Path, files: Mapping[str, bytes]) -> Tokenizer | None:
    has_vocabulary = any(name in files for name in ("tokenizer.json", "vocab.txt", "vocab.json"))
    return Tokenizer(files, source=str(path)) if has_vocabulary else None


def _dig(mapping: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The mapping inside mappings; empty where there is none."""
    for key in keys:
        inner = mapping.get(key)
        mapping = inner if isinstance(inner, Mapping) else {}
    return mapping


def _check_tied(path: Path, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    decoder, table = tensors.get("decoder.weight"), tensors.get("model.embeddings.tok_embeddings.weight")
    is_tied = isinstance(config.head, MlmHeadConfig) and config.head.is_tied
    if is_tied and decoder is not None and table is not None and not _same(decoder, table):
        raise WeightsError(
            f"{path} has a decoder of its own, and the configuration ties it to the token embeddings; "
            "pass a config whose head has is_tied=False (tie_word_embeddings: false in FlexBERT's options)"
        )


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
