"""From a name to a model that is ready to be asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from modernbert import bundled
from modernbert.encoder.config import Part
from modernbert.errors import InputError
from modernbert.heads.model import ModelConfig
from modernbert.inference.pipeline import Model
from modernbert.kernels.hardware import num_threads, resolve_device, resolve_dtype
from modernbert.kernels.native_library import can_int8, require_int8
from modernbert.pretrained.folder import Pretrained, check_vocabulary, read_folder
from modernbert.pretrained.hub import fetch
from modernbert.pretrained.quantized import is_quantized
from modernbert.text.tokenizer import Tokenizer, tokenizer_threads


def load(
    name: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    backend: str = "auto",
    parts: Sequence[type[Part]] = (),
    strict: bool = False,
    revision: str | None = None,
    token: str | None = None,
    cache: str | Path | None = None,
    offline: bool = False,
) -> Model:
    """Load a model: a folder, a bundled name, or a hub id.

    `dtype="auto"` is bfloat16 where the device computes in it at full speed and float32 elsewhere, whatever
    the file stores; of a folder in 8 bits a processor computes in these, or in float32. `dtype="int8"` has
    the products of the encoder run on 8-bit weights, on a processor, with the native kernels; all else stays
    float32. `backend` names the kernel: "native", a whole forward in C++ (taken by "auto" where it can), or
    one for attention. `parts` names the user's own part classes that the model holds; `strict` makes unknown
    keys of a foreign config.json an error. `revision`, `token`, `cache` and `offline` are for the hub.

    Raises FolderError or ConfigError, which name the file and the key, and BackendError for what this machine
    has not got.
    """
    if not isinstance(cast(object, name), str | Path):
        raise InputError(f"a model is named by a string or a Path, not by {type(name).__name__}")
    chosen_device = resolve_device(device)
    is_int8 = dtype in ("int8", torch.int8)
    if is_int8:
        require_int8(chosen_device, backend)
    if isinstance(name, str) and name in bundled.names():
        folder = bundled.path(name)
    else:
        folder = fetch(
            name,
            revision=revision,
            token=token,
            cache=None if cache is None else Path(cache),
            offline=offline,
        )
    # what was saved in 8 bits runs in them where it can, unless another number format was asked for
    is_int8 = is_int8 or (dtype == "auto" and can_int8(chosen_device, backend) and is_quantized(folder))
    chosen_dtype = torch.float32 if is_int8 else resolve_dtype(dtype, chosen_device)
    with tokenizer_threads(num_threads()):  # not more than torch and the kernels may have
        pretrained = read_folder(folder, dtype=chosen_dtype, parts=parts, strict=strict, is_cached=True)
    model = Model(pretrained, device=chosen_device, backend=backend, is_int8=is_int8, name=str(name))
    model.encoder.native.prepare(model.encoder, pretrained.cache)
    return model


def new(
    config: ModelConfig,
    *,
    tokenizer: Tokenizer | None = None,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "auto",
    backend: str = "auto",
) -> Model:
    """Build a model from its parts, with fresh weights drawn from torch's global generator.

    config = ModelConfig(encoder=PRESETS["ettin-17m"](), head=MlmHeadConfig())
    modernbert.new(config, tokenizer=Tokenizer.from_folder(folder)).save("my-model")
    """
    chosen_device = resolve_device(device)
    module = config.build().to(resolve_dtype(dtype, chosen_device))
    pretrained = Pretrained(config=config, module=module, tokenizer=tokenizer)
    if tokenizer is not None:
        check_vocabulary("the new model", pretrained)
    return Model(pretrained, device=chosen_device, backend=backend, name="new model")
