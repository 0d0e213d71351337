"""Devices and number formats by their names, and what is said where there is none of that name."""

from __future__ import annotations

import pytest
import torch

from modernbert.errors import BackendError
from modernbert.kernels.hardware import resolve_device, resolve_dtype


def test_names_and_torchs_own_values_will_do():
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")
    assert resolve_dtype("float16", torch.device("cpu")) is torch.float16
    assert resolve_dtype(torch.bfloat16, torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize("device", [None, 1.5, ["cpu"], "gpu"])
def test_what_is_no_device_is_named(device):
    with pytest.raises(BackendError, match=r"unknown device .*; use 'auto', 'cpu'"):
        resolve_device(device)


def test_an_apple_gpu_is_asked_for_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(BackendError, match="'mps' was asked for, but torch finds no Apple GPU here"):
        resolve_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("mps") == torch.device("mps")


@pytest.mark.parametrize("dtype", [None, ["float32"], "int8", torch.int8])
def test_what_is_no_number_format_is_named(dtype):
    with pytest.raises(BackendError, match=r"unknown dtype .*; use 'auto', 'float32'"):
        resolve_dtype(dtype, torch.device("cpu"))
