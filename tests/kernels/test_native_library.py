"""The library alone: its products in floats and in 8 bits, where it is found, what is said without it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modernbert.errors import BackendError
from modernbert.kernels import native_library
from modernbert.kernels.hardware import resolve_device

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "scripts" / "build_native.py"
needs_native = pytest.mark.skipif(
    native_library.library() is None, reason=f"the native backend {native_library.missing()}"
)


def multiply(x, weight, products, *, num_threads=1, library=None):
    """x @ weight.T by the library."""
    out = torch.full((len(x), len(weight)), float("nan"))
    spec = native_library.LinearSpec(
        weight.data_ptr(), None, weight.shape[1], weight.shape[0], weight.dtype == torch.bfloat16
    )
    library = library or native_library.library()
    status = library.modernbert_linear(
        ctypes.byref(spec),
        native_library.PRODUCTS[products],
        x.data_ptr(),
        len(x),
        num_threads,
        out.data_ptr(),
    )
    assert status == native_library.OK
    return out


@pytest.fixture(params=native_library.INSTRUCTION_SETS)
def library_of(request):
    """The library of an instruction set, whichever this processor would choose itself."""
    path = native_library.FOLDER / f"native_{request.param}.so"
    if not native_library.supported(request.param):
        pytest.skip(f"this processor has no {request.param}")
    if not path.exists():
        pytest.skip(f"{path.name} has not been built")
    return native_library.open_library(path)


@pytest.mark.parametrize("num_in", [16, 48, 320, 1152, 4096])
@pytest.mark.parametrize("num_out", [1, 16, 40, 768])
def test_products_of_floats_agree_with_torch(library_of, num_in, num_out):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(num_out, num_in, generator=generator)
    for num_rows in (1, 5, 6, 7, 13, 95, 96, 97, 200):
        x = torch.randn(num_rows, num_in, generator=generator)
        found = multiply(x, weight, "float32", library=library_of, num_threads=2)
        expected = (x.double() @ weight.double().T).float()
        # as many roundings, 2**-24 each, of partial sums that grow to a few times the root of their number
        torch.testing.assert_close(found, expected, atol=5e-7 * num_in, rtol=1e-5)


@pytest.mark.parametrize("num_in", [64, 512, 768, 4096])
@pytest.mark.parametrize("sign", [1, -1])
def test_eight_bit_sums_are_exact_where_all_weights_and_activations_are_largest(library_of, num_in, sign):
    """Where bytes times bytes saturates in 16 bits, words times words must not come near its 32."""
    weight = torch.full((32, num_in), 2.0 * sign)
    x = torch.full((7, num_in), 3.0)
    found = multiply(x, weight, "int8", library=library_of)
    # all are exactly representable but for the two scales, which are rounded once each
    torch.testing.assert_close(found, torch.full((7, 32), 6.0 * num_in * sign), rtol=1e-6, atol=0)


@pytest.mark.parametrize("num_in", [16, 48, 768, 1152, 4096])
@pytest.mark.parametrize("num_out", [1, 40, 768])
def test_products_of_bfloat16_agree_with_torch(library_of, num_in, num_out):
    if not library_of.modernbert_has_bf16():
        pytest.skip("this instruction set has no bfloat16")
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(num_out, num_in, generator=generator).bfloat16()
    for num_rows in (1, 13, 14, 15, 97, 98, 99, 200):
        x = torch.randn(num_rows, num_in, generator=generator)
        found = multiply(x, weight, "bfloat16", library=library_of, num_threads=2)
        same = multiply(x.bfloat16().float(), weight.float(), "bfloat16", library=library_of)
        assert torch.equal(found, same)  # both sides are rounded as torch rounds
        expected = (x.bfloat16().double() @ weight.double().T).float()
        torch.testing.assert_close(found, expected, atol=5e-7 * num_in, rtol=1e-5)


def rounded_activations(x, library):
    """Activations as the library should round them, each row by its own scale.

    In 8 bits from lowest to highest, or in as many as keep sums below 2 ** 31.
    """
    if library.modernbert_has_bf16():
        low, high = x.amin(1, keepdim=True).clamp(max=0), x.amax(1, keepdim=True).clamp(min=0)
        step = (high - low) / 255
        zero = (-low / step).round()
        return ((x / step).round() + zero).clamp(0, 255).sub(zero).double() * step
    step = x.abs().amax(1, keepdim=True) / min(32767, (2**31 - 1) // (127 * x.shape[1]))
    return (x / step).round().double() * step


@pytest.mark.parametrize("num_in", [64, 768, 2624, 4096])
@pytest.mark.parametrize("offset", [0.0, 5.0, -5.0])
def test_eight_bit_products_are_those_of_the_rounded_numbers(library_of, num_in, offset):
    from modernbert.pretrained.quantized import quantize

    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(n, num_in, generator=generator) for n in (48, 50))
    x += offset
    whole, scale = quantize(weight)
    found = multiply(x, weight, "int8", library=library_of)
    expected = (rounded_activations(x, library_of) @ (whole * scale[:, None]).double().T).float()
    # a number that lies on the edge between two steps may go to either: few do, each of them a step off
    assert ((found - expected).norm() / expected.norm()).item() < 4e-4
    exact = (x.double() @ weight.double().T).float()
    assert ((found - exact).norm() / exact.norm()).item() < 0.02


def test_rows_of_zeros_stay_zeros(library_of):
    zeros, ones = torch.zeros(16, 64), torch.ones(16, 64)
    assert multiply(ones, zeros, "int8", library=library_of).eq(0).all()
    assert multiply(zeros, ones, "int8", library=library_of).eq(0).all()


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """An empty folder in place of the package's, and nothing found yet."""
    monkeypatch.setattr(native_library, "FOLDER", tmp_path)
    native_library._find.cache_clear()
    yield tmp_path
    native_library._find.cache_clear()


def test_without_a_file_the_message_says_how_to_build_it(own_folder):
    if not any(map(native_library.supported, native_library.INSTRUCTION_SETS)):
        pytest.skip("this processor has no native kernels")
    assert native_library.library() is None
    assert "has not been built" in native_library.missing()
    with pytest.raises(
        BackendError, match=r"dtype='int8' needs the native backend, which has not been built"
    ):
        native_library.require_int8(resolve_device("cpu"), "auto")


@needs_native
def test_a_file_of_another_version_is_left_alone_with_one_warning(own_folder, monkeypatch):
    for name in native_library.INSTRUCTION_SETS:
        built = Path(native_library.__file__).parent / f"native_{name}.so"
        if built.exists():
            shutil.copy(built, own_folder)
    found = f"version {native_library.VERSION}, this package needs 99"
    monkeypatch.setattr(native_library, "VERSION", 99)
    with pytest.warns(UserWarning, match=f"{found}; `make native` builds it anew"):
        assert native_library.library() is None
    assert native_library.library() is None  # without another word


def test_a_file_that_is_no_library_is_left_alone_with_one_warning(own_folder):
    if not any(map(native_library.supported, native_library.INSTRUCTION_SETS)):
        pytest.skip("this processor has no native kernels")
    for name in native_library.INSTRUCTION_SETS:
        (own_folder / f"native_{name}.so").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="the native backend cannot be used"):
        assert native_library.library() is None


CUT = """
import sys, warnings
from pathlib import Path
from modernbert.kernels import native_library
native_library.FOLDER = Path(sys.argv[1])
warnings.simplefilter("always")
print(native_library.library(), native_library.missing())
"""


@needs_native
@pytest.mark.parametrize("share", [0.001, 0.3, 0.95])
def test_a_file_that_is_cut_is_left_alone_and_kills_nobody(tmp_path, share):
    for name in native_library.INSTRUCTION_SETS:
        built = native_library.FOLDER / f"native_{name}.so"
        if built.exists():
            whole = built.read_bytes()
            (tmp_path / built.name).write_bytes(whole[: int(share * len(whole))])
    call = [sys.executable, "-c", CUT, str(tmp_path)]
    found = subprocess.run(call, capture_output=True, text=True, check=True)  # the loader would raise SIGBUS
    assert found.stdout.startswith("None cannot be used: ")
    assert found.stderr.count("is cut short; `make native` builds it anew") == 1


def test_a_processor_without_the_instructions_has_none(own_folder, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert native_library.library() is None
    assert native_library.missing() == "needs a processor with one of: avx512_bf16, avx512, avx2"


def test_eight_bits_are_for_processors_and_for_the_native_backend():
    with pytest.raises(BackendError, match="is for processors, not for cuda"):
        native_library.require_int8(torch.device("cuda"), "auto")
    with pytest.raises(BackendError, match="needs the native backend, not 'sdpa'"):
        native_library.require_int8(torch.device("cpu"), "sdpa")


@pytest.mark.slow
def test_sanitisers_find_nothing(tmp_path):
    """Addresses and undefined behaviour, on every shape that the checks below run."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None or sys.platform != "linux":
        pytest.skip("needs g++ on Linux")
    subprocess.run([sys.executable, BUILD, "--sanitize", "--out", tmp_path], check=True)
    runtime = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        # Python and torch leave memory behind at their end, which is none of ours
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
    }
    child = [sys.executable, "-m", "tests.kernels.sanitized", str(tmp_path)]
    subprocess.run(child, check=True, env=environment, cwd=ROOT)
