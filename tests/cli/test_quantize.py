"""The verb quantize: what it writes, what it shows, what it refuses."""

from __future__ import annotations

import torch

from modernbert.pretrained.folder import read_folder
from tests.cli.conftest import assert_fails, json_lines


def test_quantize_writes_8_bits_and_shows_what_each_layer_lost(run, folders, tmp_path):
    result = run("quantize", str(folders["mlm"]), "--out", str(tmp_path / "int8"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["layer", "attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"]
    assert lines[1].split()[0] == "0"
    assert all(0 < float(each.removesuffix("%")) < 2 for each in lines[1].split()[1:])
    read = read_folder(tmp_path / "int8")
    assert read.is_int8
    whole = read_folder(folders["mlm"])
    for name, tensor in whole.module.state_dict().items():
        found = read.module.state_dict()[name].float()
        step = tensor.float().abs().amax() / 127
        assert (found - tensor.float()).abs().max() <= step
        assert read.module.state_dict()[name].dtype == torch.float32 or not name.startswith("model.layers")


def test_quantize_gives_json_lines(run, folders, tmp_path):
    result = run("quantize", str(folders["mlm"]), "--out", str(tmp_path / "int8"), "--json")
    rows = json_lines(result)
    assert rows[0]["layer"] == 0
    assert set(rows[0]["error"]) == {"attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"}


def test_quantize_refuses_what_is_in_8_bits_already(run, folders, tmp_path):
    assert run("quantize", str(folders["mlm"]), "--out", str(tmp_path / "int8")).exit_code == 0
    found = run("quantize", str(tmp_path / "int8"), "--out", str(tmp_path / "again"))
    assert_fails(found, "is in 8 bits already", "the model that it was made from")
    assert not (tmp_path / "again").exists()


def test_info_says_that_a_folder_is_in_8_bits(run, folders, tmp_path):
    run("quantize", str(folders["mlm"]), "--out", str(tmp_path / "int8"))
    found = run("info", str(tmp_path / "int8"))
    assert found.exit_code == 0, found.output
    assert "int8" in found.stdout
    assert "transformers does not read" in found.stdout


def test_quantize_does_not_write_over_the_model_that_it_reads(run, folders):
    before = {path: path.read_bytes() for path in folders["mlm"].rglob("*") if path.is_file()}
    found = run("quantize", str(folders["mlm"]), "--out", str(folders["mlm"] / ".." / folders["mlm"].name))
    assert_fails(found, "--out")
    assert {path: path.read_bytes() for path in folders["mlm"].rglob("*") if path.is_file()} == before
