"""The matrices of an encoder in 8 bits: a quarter of the file, and what the native kernels multiply by.

Symmetric, a scale for each row of a matrix: its largest number becomes 127 or -127. In a folder a matrix
stands as `NAME` (int8) beside `NAME_scale` (float32, a number a row), and config.json, in our own form, says
`"quantization": "int8"`. Read back, matrices are float32 again; packed in 8 bits they are the same whole
numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from modernbert.errors import FolderError, WeightsError
from modernbert.files import restore_interrupted
from modernbert.pretrained.converted import mapped_or_made
from modernbert.pretrained.weights import read_json

if TYPE_CHECKING:
    from jaxtyping import Float, Int8
    from torch import Tensor

    from modernbert.encoder.packed_file import PackedFile

METHOD = "int8"
MATRICES = ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
_MATRIX = re.compile(r"model\.layers\.(\d+)\.(attn\.Wqkv|attn\.Wo|mlp\.Wi|mlp\.Wo)\.weight")
_SCALE = "_scale"
_MOST = 127.0
_HALF_A_STEP = 64  # of the seven bits of a float's 24 that a scale leaves free


def is_quantized(folder: Path) -> bool:
    """Whether the folder's matrices are in 8 bits, as far as its config.json can be read."""
    restore_interrupted(folder)
    try:
        return read_json(folder / "config.json").get("quantization") == METHOD
    except FolderError:
        return False


def quantize(weight: Float[Tensor, "O I"]) -> tuple[Int8[Tensor, "O I"], Float[Tensor, "O"]]:
    """A matrix as whole numbers up to 127, and the scale of each row; rows of zeros have the scale 0.

    A scale has 17 significant bits, so that 127 times it is exact: the matrix that is read back has the same
    scales and whole numbers as the one that was written.
    """
    weight = weight.float()
    scale = weight.abs().amax(dim=1) / _MOST
    scale = ((scale.view(torch.int32) + _HALF_A_STEP) & -2 * _HALF_A_STEP).view(torch.float32)
    divisor = torch.where(scale > 0, scale, 1.0)
    return (weight / divisor[:, None]).round().to(torch.int8), scale


def quantized(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model with the matrices of its layers in 8 bits; the others as they are."""
    written: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _MATRIX.fullmatch(name):
            written[name], written[name + _SCALE] = quantize(tensor)
        else:
            written[name] = tensor
    return written


def dequantized(
    folder: Path, tensors: Mapping[str, Tensor], cache: PackedFile | None = None
) -> dict[str, Tensor]:
    """What `quantized` made, in float32, mapped from `cache` if one is given; WeightsError where a matrix or
    its scale is missing or wrong.
    """
    read: dict[str, Tensor] = {}
    matrices: dict[str, tuple[Tensor, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.endswith(_SCALE) and _MATRIX.fullmatch(name.removesuffix(_SCALE)):
            if name.removesuffix(_SCALE) not in tensors:
                raise WeightsError(f"{folder} has {name} and not the matrix that it belongs to")
            continue
        if not _MATRIX.fullmatch(name):
            read[name] = tensor
            continue
        scale = tensors.get(name + _SCALE)
        if tensor.dtype != torch.int8 or scale is None or scale.shape != tensor.shape[:1]:
            found = f"{tensor.dtype}, " + ("no scale" if scale is None else f"scales {list(scale.shape)}")
            raise WeightsError(
                f"{folder}: {name} should be int8 {list(tensor.shape)} with a scale a row; found {found}"
            )
        matrices[name] = tensor, scale
    shapes = {name: matrix.shape for name, (matrix, _) in matrices.items()}
    return read | mapped_or_made(cache, "from_int8", shapes, torch.float32, lambda: _in_floats(matrices))


def _in_floats(matrices: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    return {name: matrix.float() * scale.float()[:, None] for name, (matrix, scale) in matrices.items()}


def errors_of_layers(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, float]]:
    """What 8 bits lose of each layer's matrices: the length of the difference, as a share of theirs."""
    errors: dict[int, dict[str, float]] = {}
    for name, tensor in tensors.items():
        if found := _MATRIX.fullmatch(name):
            whole, scale = quantize(tensor)
            lost = (whole * scale[:, None] - tensor.float()).norm() / tensor.float().norm().clamp_min(1e-30)
            errors.setdefault(int(found[1]), {})[found[2]] = float(lost)
    return errors
