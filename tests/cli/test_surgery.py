"""average, tile and resize: what they write, what they say, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from modernbert.heads.mlm import MlmHeadConfig
from modernbert.pretrained.folder import read_folder, write_folder
from modernbert.pretrained.weights import state_of
from modernbert.text.tokenizer import Tokenizer
from tests.cli.conftest import SPECIALS, WORDS, assert_fails, json_lines, write_small


@pytest.fixture
def checkpoints(tmp_path, tokenizer):
    """Two folders of one kind, whose second holds twice the numbers of the first."""
    first = write_small(tmp_path / "first", MlmHeadConfig(), tokenizer)
    model = read_folder(first)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.mul_(2)
    write_folder(tmp_path / "second", model)
    return first, tmp_path / "second"


def test_average_writes_the_mean(run, checkpoints, tmp_path):
    first, second = checkpoints
    result = run("average", str(first), str(second), "--out", str(tmp_path / "mean"))
    assert result.exit_code == 0, result.output
    assert "is the mean of 2 models" in result.stderr
    assert result.stdout == ""
    one, mean = (state_of(read_folder(path).module) for path in (first, tmp_path / "mean"))
    for name, tensor in one.items():
        torch.testing.assert_close(mean[name], 1.5 * tensor)


def test_average_refuses_models_of_two_kinds(run, folders, tmp_path):
    found = run("average", str(folders["mlm"]), str(folders["tag"]), "--out", str(tmp_path / "mean"))
    assert_fails(found, "are not of one kind", "head.kind: 'mlm_head', 'tag_head'")
    assert not (tmp_path / "mean").exists()
    assert_fails(run("average", str(folders["mlm"]), "--out", str(tmp_path / "mean")), "two models or more")


def test_tile_writes_a_larger_model_that_answers(run, folders, tmp_path):
    large, to = tmp_path / "large", tmp_path / "shape"
    small = read_folder(folders["mlm"])
    blocks = small.config.encoder.blocks
    write_small(to, MlmHeadConfig(), None)
    path = to / "config.json"
    text = path.read_text()
    assert '"num_hidden_layers": 2' in text
    assert run("tile", str(folders["mlm"]), "--to", str(path), "--out", str(large)).exit_code == 0
    same = read_folder(large)
    assert same.config.encoder.blocks == blocks
    for name, tensor in state_of(small.module).items():
        assert torch.equal(state_of(same.module)[name], tensor), name
    changed = text.replace('"hidden_size": 16', '"hidden_size": 32')
    changed = changed.replace('"num_attention_heads": 2', '"num_attention_heads": 4')
    path.write_text(changed.replace('"intermediate_size": 24', '"intermediate_size": 40'))
    result = run("tile", str(folders["mlm"]), "--to", str(path), "--out", str(large))
    assert result.exit_code == 0, result.output
    assert "it is a start to train from" in result.stderr
    assert read_folder(large).config.encoder.hidden_size == 32
    (row,) = json_lines(run("fill-mask", "--model", str(large), "--json", "the [MASK] sat"))
    assert row["text"] == "the [MASK] sat"


def test_tile_says_what_is_smaller_and_what_is_unknown(run, folders, tmp_path):
    call = ("tile", str(folders["mlm"]), "--out", str(tmp_path / "large"), "--to")
    assert_fails(run(*call, "ettin-17m"), "head size: 8, 64")
    assert_fails(run(*call, "ettin"), "'ettin' is no preset and no config.json")
    assert_fails(run(*call, "ettin-17m", "--mode", "left"), "'left' is not one of 'middle', 'edge'", code=2)
    assert not (tmp_path / "large").exists()


def test_resize_says_how_many_entries_it_found(run, folders, tmp_path):
    Tokenizer({"vocab.txt": "\n".join([*SPECIALS, *WORDS[:4], "zebra"]).encode()}).save(tmp_path / "tok")
    out = tmp_path / "resized"
    result = run("resize", str(folders["mlm"]), "--tokenizer", str(tmp_path / "tok"), "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "has 10 entries: 9 kept, 0 made of pieces, 1 begun at the mean of all" in result.stderr
    model = read_folder(out)
    assert model.config.encoder.vocab_size == 64
    assert model.tokenizer is not None
    assert model.tokenizer.id_of("zebra") == 9


def test_resize_refuses_a_model_without_a_tokenizer(run, folders, tmp_path):
    write_small(tmp_path / "bare", MlmHeadConfig(), None)
    tokenizer = str(folders["mlm"])
    found = run("resize", str(tmp_path / "bare"), "--tokenizer", tokenizer, "--out", str(tmp_path / "out"))
    assert_fails(found, "bare has no tokenizer")
