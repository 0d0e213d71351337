"""Devices and number formats by their names, and what is said where there is none of that name."""

from __future__ import annotations

import platform
import subprocess
import sys

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


IS_GLIBC = platform.libc_ver()[0] == "glibc"
# Fills 64 MB again and again: the page faults of the last ten times. Where freed memory stays there are none
# by then, after a few in which an aligned block does not quite fit the hole that the last one left.
FILLS = """
import resource, sys, torch
from modernbert.kernels.hardware import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
faults = []
for _ in range(30):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16 * 2**20)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[-10:]))
"""


@pytest.mark.skipif(not IS_GLIBC, reason="only the allocator of glibc can be told")
def test_memory_that_was_freed_is_not_mapped_afresh():
    left, kept = (
        int(subprocess.run([sys.executable, "-c", FILLS, how], check=True, capture_output=True).stdout)
        for how in ("left", "kept")
    )
    assert kept < left / 10
    assert left > 100
