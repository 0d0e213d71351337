"""Threads of tokenizers, of torch and of the kernels: as many as were asked for, by whoever asks once."""

import os
import subprocess
import sys

import pytest
import torch

from modernbert.kernels.hardware import num_processors, num_threads, settle_threads

COUNTED = """
import os, sys, warnings
import torch
import modernbert

model = modernbert.load(sys.argv[1], dtype="float32", backend=sys.argv[2])
if sys.argv[3] != "as they are":
    torch.set_num_threads(int(sys.argv[3]))
num_before = len(os.listdir("/proc/self/task"))  # torch starts a pool of its own in set_num_threads
for _ in model.stream(["the lawyer from New York"] * 300).embed():
    pass
print(torch.get_num_threads(), num_before, len(os.listdir("/proc/self/task")))
"""


def counted(folder, backend, asked, **environment):
    """The threads of torch, and those of the whole process before and behind a stream of texts."""
    unset = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    result = subprocess.run(
        [sys.executable, "-W", "always", "-c", COUNTED, str(folder), backend, asked],
        env={**unset, "TOKENIZERS_PARALLELISM": "true", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    num_torch, num_before, num_all = map(int, result.stdout.split())
    return num_torch, num_before, num_all, result.stderr


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc to count threads")
def test_one_thread_for_torch_is_one_for_all(folder_of):
    num_torch, _, num_all, said = counted(folder_of("embed"), "auto", "as they are", OMP_NUM_THREADS="1")
    assert num_torch == 1
    assert num_all <= 3  # the caller's, one of tokenizers, and one that torch starts by itself
    assert said == ""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc to count threads")
@pytest.mark.parametrize("backend", ["auto", "sdpa"])
def test_ten_thousand_threads_are_as_many_as_there_are_processors(folder_of, backend):
    num_torch, num_before, num_all, said = counted(folder_of("embed"), backend, "10000")
    assert num_torch == num_processors()
    assert num_all - num_before <= 2 * num_processors() + 2
    assert said.count(f"torch was to use 10000 threads where this process may use {num_torch}") == 1


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc to count threads")
@pytest.mark.parametrize("asked", ["0", "10000"])
def test_a_count_in_the_environment_that_makes_no_sense_does_no_harm(folder_of, asked):
    num_torch, num_before, num_all, _ = counted(
        folder_of("embed"), "auto", "as they are", OMP_NUM_THREADS=asked
    )
    assert 1 <= num_torch <= num_processors()
    assert num_all - num_before <= 2 * num_processors() + 2


def test_no_thread_count_is_below_one(monkeypatch):
    with pytest.raises(RuntimeError, match="positive"):
        torch.set_num_threads(0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10**6)
    assert num_threads() == num_processors()
    told = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    with pytest.warns(UserWarning, match="torch was to use 1000000 threads"):
        settle_threads()
    assert told == [num_processors()]
