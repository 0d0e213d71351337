"""Weights in another number format than their file's, made once and mapped from then on.

A model that is loaded to be asked maps its weights, so that processes share them. What has to be converted
would be each process's own: it goes to a file beside the packed weights (encoder/packed_file.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import save_file

from modernbert.encoder.packed_file import FEWEST_BYTES, keep
from modernbert.errors import FolderError
from modernbert.pretrained.weights import read_file

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from modernbert.encoder.packed_file import PackedFile


def cast(
    tensors: Mapping[str, Tensor], dtype: torch.dtype | None, cache: PackedFile | None
) -> dict[str, Tensor]:
    """The tensors, those of floating point in `dtype` (None: as they are); mapped if a `cache` is given."""
    others = {
        name: tensor
        for name, tensor in tensors.items()
        if dtype is not None and tensor.is_floating_point() and tensor.dtype != dtype
    }
    if dtype is None or not others:
        return dict(tensors)
    kind, shapes = str(dtype).removeprefix("torch."), {name: tensor.shape for name, tensor in others.items()}
    return dict(tensors) | mapped_or_made(cache, kind, shapes, dtype, partial(_all_to, others, dtype))


def mapped_or_made(
    cache: PackedFile | None,
    kind: str,
    shapes: Mapping[str, torch.Size],
    dtype: torch.dtype,
    make: Callable[[], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """The tensors of these names and shapes from the cache's file of this kind, made where it is not there.

    Without a cache, for tensors that are made faster than a file is mapped, and where the file cannot be
    written, they are made here, and so they are of files that have changed since the cache was asked for.
    """
    if cache is None or sum(shape.numel() for shape in shapes.values()) * dtype.itemsize < FEWEST_BYTES:
        return make()
    path = cache.converted_path(kind)
    if kept := _kept(path, shapes, dtype):
        return kept
    made = make()
    if not cache.is_current():  # the files were mapped, and may be of another save by now
        return made
    return (keep(path, partial(_write, made)) and _kept(path, shapes, dtype)) or made


def _all_to(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def _kept(path: Path, shapes: Mapping[str, torch.Size], dtype: torch.dtype) -> dict[str, Tensor] | None:
    """The file's tensors; None where there is none, or it holds others."""
    try:
        found = read_file(path)
    except (FolderError, OSError):
        return None
    is_right = found.keys() == shapes.keys() and all(
        tensor.shape == shapes[name] and tensor.dtype == dtype for name, tensor in found.items()
    )
    return found if is_right else None


def _write(tensors: Mapping[str, Tensor], path: Path) -> None:
    mode = path.stat().st_mode
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # a full disk
        raise OSError(str(error)) from error
    path.chmod(mode)  # safetensors' own can be read by their owner alone
