"""From one form of a model to another: our folders, those of transformers, and research checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from modernbert.encoder.config import Part
from modernbert.encoder.presets import PRESETS
from modernbert.errors import ConfigError, FolderError, InputError
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.pretrained.composer import Allowed, read_checkpoint, write_checkpoint
from modernbert.pretrained.config_file import OWN_MODEL_TYPE
from modernbert.pretrained.flexbert import config_from_flexbert
from modernbert.pretrained.folder import (
    Pretrained,
    check_vocabulary,
    describe_layout,
    read_folder,
    write_folder,
)
from modernbert.pretrained.weights import check_numbers, read_json
from modernbert.text.tokenizer import Tokenizer

Form = Literal["transformers", "parts", "research"]
FORMS: tuple[Form, ...] = ("transformers", "parts", "research")


def convert(
    source: Path,
    target: Path,
    *,
    to: Form = "transformers",
    config: ModelConfig | None = None,
    tokenizer: Path | None = None,
    allow: Sequence[Allowed] = (),
    parts: Sequence[type[Part]] = (),
    dtype: torch.dtype | None = None,
) -> None:
    """Read a model folder or a research checkpoint (a file) and write it as `to`.

        transformers   a folder that transformers and Sentence Transformers load; an error where they cannot
        parts          a folder of our own kind, with every part spelled out
        research       a checkpoint file that the research code loads, and that converts back with its head,
                       labels and tokenizer

    `config` says what a research checkpoint holds, where it does not itself; `tokenizer` is a folder to
    take the tokenizer from; `allow` is `read_checkpoint`'s and `parts` is `read_folder`'s. NaN is an error.
    """
    if to not in FORMS:
        raise InputError(f"unknown form {to!r}; there are: {', '.join(FORMS)}")
    source, target = Path(source), Path(target)
    model = _read(source, config, allow, parts, dtype)
    if tokenizer is not None:
        model.tokenizer = Tokenizer.from_folder(tokenizer)
    if to == "research":
        write_checkpoint(target, model)
        return
    check_vocabulary(source, model)
    if source.is_file():
        _pad_like_tokenizer(model)
    layout = describe_layout(model.config)
    if to == "transformers" and layout.startswith(OWN_MODEL_TYPE):
        raise ConfigError(f"{source} can only be written with to='parts': it would be {layout}")
    write_folder(target, model, layout="parts" if to == "parts" else "auto")


def config_named(name: str | Path) -> ModelConfig:
    """What a research checkpoint holds: a preset with its MLM head, or a JSON file of FlexBERT's options."""
    if str(name) in PRESETS:
        return ModelConfig(encoder=PRESETS[str(name)](), head=MlmHeadConfig())
    path = Path(name)
    if path.suffix != ".json":
        raise ConfigError(
            f"{str(name)!r} is no preset, and no JSON file of FlexBERT's options; presets are "
            + ", ".join(PRESETS)
        )
    return config_from_flexbert(read_json(path), str(path))


def _read(
    source: Path,
    config: ModelConfig | None,
    allow: Sequence[Allowed],
    parts: Sequence[type[Part]],
    dtype: torch.dtype | None,
) -> Pretrained:
    if source.is_file():
        return read_checkpoint(source, config, allow=allow, parts=parts, dtype=dtype)
    if not source.exists():
        raise FolderError(
            f"{source} does not exist; name a model folder, or the file of a research checkpoint"
        )
    if config is not None or allow:
        raise InputError(
            f"{source} is a folder, which says what it holds: a preset and names to allow are for checkpoints"
        )
    model = read_folder(source, dtype=dtype, parts=parts)
    check_numbers(source, model.module)
    return model


def _pad_like_tokenizer(model: Pretrained) -> None:
    """The research code pads with bert-base-uncased's id 0, whatever the tokenizer; others read the id."""
    pad_id = None if model.tokenizer is None else model.tokenizer.pad_id
    if pad_id is not None and pad_id < model.config.encoder.vocab_size:
        encoder = replace(model.config.encoder, pad_token_id=pad_id)
        model.config = replace(model.config, encoder=encoder)
