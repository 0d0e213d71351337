"""What this machine has: devices and the number formats that it computes in at full speed."""

from __future__ import annotations

import torch

from modernbert.errors import BackendError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str | torch.device) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one.

    Raises BackendError where it is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise BackendError(f"unknown device {name!r}; use 'auto', 'cpu', 'cuda' or 'cuda:N'") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA device(s)"
        raise BackendError(
            f"device {str(name)!r} was asked for, but torch finds {found} here; use device='cpu' or 'auto'"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise BackendError(
            f"device {str(name)!r} was asked for, but torch finds no Apple GPU here; use device='cpu'"
        )
    if device.type not in ("cpu", "cuda", "mps"):
        raise BackendError(f"device {str(name)!r} is not supported; use 'auto', 'cpu', 'cuda' or 'cuda:N'")
    return device


def resolve_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype of that name; "auto" is bfloat16 where the device is fast in it, else float32."""
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name == "auto":
        return torch.bfloat16 if _has_fast_bfloat16(device) else torch.float32
    if name not in tuple(DTYPES):
        raise BackendError(f"unknown dtype {name!r}; use 'auto', {', '.join(map(repr, DTYPES))}")
    return DTYPES[name]


def _has_fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))
