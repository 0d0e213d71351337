"""The verb export: what it writes, and what it refuses in one message."""

from __future__ import annotations

import sys

import onnxruntime
import pytest

from modernbert.inference import export
from tests.cli.conftest import assert_fails


@pytest.fixture
def without_tracing(monkeypatch) -> None:
    """A stand-in for the graph, which takes seconds to make."""
    monkeypatch.setattr(export, "_traced", lambda *_: None)
    monkeypatch.setattr(
        export, "_write_graph", lambda _, folder: (folder / "model.onnx").write_bytes(b"graph")
    )


def test_export_writes_a_graph_that_runs(run, folders, tmp_path):
    out = tmp_path / "onnx"
    result = run("export", str(folders["rerank"]), "--format", "onnx", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert result.stderr == f"modernbert: {out} is written\n"
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    row = {"input_ids": [[1, 7, 8, 2]], "attention_mask": [[1, 1, 1, 1]]}
    assert session.run(["logits"], row)[0].shape == (1, 1)


@pytest.mark.usefixtures("without_tracing")
def test_onnx_is_the_default_and_the_only_format(run, folders, tmp_path):
    out = tmp_path / "onnx"
    assert run("export", str(folders["mlm"]), "--out", str(out)).exit_code == 0
    assert (out / "model.onnx").exists()
    found = run("export", str(folders["mlm"]), "--format", "gguf", "--out", str(out))
    assert_fails(found, "'gguf' is not 'onnx'", code=2)


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("without_tracing")
def test_a_folder_in_8_bits_is_exported_in_float32_and_says_so(run, folders, tmp_path):
    run("quantize", str(folders["mlm"]), "--out", str(tmp_path / "int8"))
    result = run("export", str(tmp_path / "int8"), "--out", str(tmp_path / "onnx"))
    assert result.exit_code == 0, result.output
    assert "warning: the model is in 8 bits; the export holds the same weights in float32" in result.stderr


def test_what_is_no_export_is_not_written_over(run, folders, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    found = run("export", str(folders["mlm"]), "--out", str(tmp_path))
    assert_fails(found, f"{tmp_path} exists and is no export", "name a new folder")
    assert_fails(run("export", str(folders["mlm"]), "--out", str(folders["mlm"])), "is no export")
    assert (folders["mlm"] / "model.safetensors").exists()


def test_without_onnx_the_message_names_the_extra(run, folders, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = run("export", str(folders["mlm"]), "--out", str(tmp_path / "onnx"))
    assert_fails(found, "pip install 'modernbert[export]'")
    assert not (tmp_path / "onnx").exists()
