"""info and convert: what they say of a good folder, and of a broken one."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from modernbert.heads.mlm import MlmHeadConfig
from tests.cli.conftest import assert_fails, json_lines, write_small

# conftest's small model, in the options of the research code
FLEXBERT = {
    "vocab_size": 32,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 24,
    "bert_layer": "prenorm",
    "attention_layer": "rope",
    "mlp_layer": "glu",
    "embedding_layer": "sans_pos",
    "normalization": "layernorm",
    "norm_kwargs": {"eps": 1e-5, "bias": False},
    "hidden_act": "gelu",
    "head_pred_act": "gelu",
    "embed_norm": True,
    "final_norm": True,
    "skip_first_prenorm": True,
    "sliding_window": 8,
    "global_attn_every_n_layers": 2,
    "rotary_emb_base": 160_000.0,
    "local_attn_rotary_emb_base": 10_000.0,
}


@pytest.fixture
def copy(folders, tmp_path):
    return lambda kind: shutil.copytree(folders[kind], tmp_path / kind)


def test_info_names_parts_and_sizes(run, folders):
    shown = run("info", str(folders["embed"])).stdout
    for part in (
        "an encoder for embeddings",
        "embed, similarity",
        "layers         2: GL",
        "G  global, theta 160,000, 2 heads; gated MLP of 24; pre-norm",
        "L  local, 4 tokens each side, theta 10,000, 2 heads",
        "rows 32; tokenizer 24",
        "mean, length 1",
        "query who",
        "model.safetensors",
    ):
        assert part in shown, shown


def test_info_gives_one_json_object(run, folders):
    facts = json_lines(run("info", str(folders["mlm"]), "--json"))[0]
    tensors = load_file(folders["mlm"] / "model.safetensors")
    assert facts["parameters"]["embeddings"] == 32 * 16 + 16
    assert facts["parameters"]["total"] == sum(
        tensor.numel() for name, tensor in tensors.items() if name != "decoder.weight"
    )
    assert facts["verbs"] == ["fill-mask", "embed", "similarity"]
    assert facts["max_length"] == 64
    assert facts["dtype_in_file"] == "float32"
    assert facts["files"]["model.safetensors"] == (folders["mlm"] / "model.safetensors").stat().st_size
    assert "checks" not in facts


@pytest.mark.parametrize("kind", ["mlm", "embed", "classify", "rerank", "tag", "span"])
def test_check_finds_a_good_folder_right(run, folders, kind):
    checks = json_lines(run("info", str(folders[kind]), "--check", "--json"))[0]["checks"]
    assert [each["name"] for each in checks] == ["weights", "tokenizer", "forward", "packing"]
    assert all(each["is_right"] for each in checks)


def test_check_finds_numbers_that_are_none(run, copy):
    folder = copy("mlm")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "Wqkv" in name)
    tensors[name][0, :3] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    result = run("info", str(folder), "--check")
    assert result.exit_code == 1
    assert "WRONG  weights" in result.stdout
    assert "Wqkv.weight (3)" in result.stdout
    assert "something is wrong" in result.stderr
    assert run("info", str(folder)).exit_code == 0


def test_check_finds_a_folder_without_a_tokenizer(run, tmp_path):
    folder = write_small(tmp_path / "bare", MlmHeadConfig(), None)
    assert "tokenizer none" in run("info", str(folder)).stdout
    result = run("info", str(folder), "--check")
    assert result.exit_code == 1
    assert "WRONG  tokenizer" in result.stdout


def test_a_folder_with_wrong_tensors_is_named(run, copy):
    folder = copy("mlm")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "Wqkv" in name)
    tensors[name] = tensors[name][:5].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert_fails(run("info", str(folder)), str(folder), "of the wrong shape", "Wqkv", "[5, 16]")


def test_a_cut_file_is_named(run, copy):
    folder = copy("mlm")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert_fails(run("info", str(folder)), "model.safetensors", "cut")


def test_convert_to_our_parts_and_back(run, folders, tmp_path):
    parts, back = tmp_path / "parts", tmp_path / "back"
    first = run("convert", str(folders["mlm"]), str(parts), "--to", "parts")
    assert (first.exit_code, first.stdout) == (0, "")
    assert f"{parts} is written" in first.stderr
    assert run("convert", str(parts), str(back), "--dtype", "bfloat16").exit_code == 0
    facts = json_lines(run("info", str(back), "--json"))[0]
    assert facts["written_as"] == "modernbert"
    assert facts["dtype_in_file"] == "bfloat16"
    question = ("fill-mask", "the [MASK]", "--dtype", "float32", "--json", "--model")
    assert json_lines(run(*question, str(parts))) == json_lines(run(*question, str(folders["mlm"])))


def test_convert_refuses_what_it_cannot_do(run, folders, tmp_path):
    source = str(folders["mlm"])
    assert_fails(run("convert", str(tmp_path / "no"), str(tmp_path / "out")), "there is no folder")
    assert_fails(run("convert", source, str(tmp_path / "out"), "--to", "onnx"), "onnx", code=2)
    assert_fails(run("convert", source, str(tmp_path / "out"), "--preset", "nonsense"), "no preset")
    (tmp_path / "someone.txt").write_text("mine")
    assert_fails(run("convert", source, str(tmp_path)), "is not a model folder")
    assert not (tmp_path / "out").exists()


def write_bare_checkpoint(run, folder, path):
    """The tensors alone, as the research code leaves them."""
    assert run("convert", str(folder), str(path), "--to", "research").exit_code == 0
    content = torch.load(path, weights_only=True)
    del content["state"]["integrations"]
    torch.save(content, path)


@pytest.mark.parametrize(
    ("kind", "question"),
    [
        ("mlm", ("fill-mask", "the [MASK]")),
        ("classify", ("classify", "good cat")),
        ("embed", ("embed", "the cat", "--prompt", "query")),
        ("tag", ("tag", "ada lives")),
    ],
)
def test_convert_to_research_and_back_answers_the_same(run, folders, tmp_path, kind, question):
    checkpoint, target = tmp_path / "r.pt", tmp_path / "model"
    assert run("convert", str(folders[kind]), str(checkpoint), "--to", "research").exit_code == 0
    result = run("convert", str(checkpoint), str(target))
    assert result.exit_code == 0, result.stderr
    asked = (*question, "--dtype", "float32", "--json", "--model")
    assert json_lines(run(*asked, str(target))) == json_lines(run(*asked, str(folders[kind])))


def test_names_that_a_checkpoint_may_not_hold_are_said_as_options(run, folders, tmp_path):
    checkpoint = tmp_path / "r.pt"
    write_bare_checkpoint(run, folders["mlm"], checkpoint)
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "rng": np.arange(3)}, checkpoint)
    call = ("convert", str(checkpoint), str(tmp_path / "model"), "--preset", "modernbert-base")
    refused = run(*call)
    assert_fails(refused, "--allow numpy.dtype", "--allow numpy.ndarray")
    assert "allow=" not in refused.stderr


def test_convert_does_not_replace_the_folder_one_stands_in(run, folders, copy, monkeypatch):
    monkeypatch.chdir(copy("mlm"))
    assert_fails(run("convert", str(folders["mlm"]), "."), "the folder you stand in", "from outside", code=2)


def test_convert_reads_a_research_checkpoint(run, folders, tmp_path):
    checkpoint, target, options = tmp_path / "latest-rank0.pt", tmp_path / "model", tmp_path / "options.json"
    options.write_text(json.dumps(FLEXBERT))
    write_bare_checkpoint(run, folders["mlm"], checkpoint)
    described = ("--preset", str(options), "--tokenizer", str(folders["mlm"]))
    result = run("convert", str(checkpoint), str(target), *described)
    assert result.exit_code == 0, result.stderr
    question = ("fill-mask", "the [MASK]", "--dtype", "float32", "--json", "--model")
    assert json_lines(run(*question, str(target))) == json_lines(run(*question, str(folders["mlm"])))


def test_convert_refuses_a_checkpoint_that_it_does_not_understand(run, folders, tmp_path):
    checkpoint, target = tmp_path / "latest-rank0.pt", tmp_path / "model"
    write_bare_checkpoint(run, folders["mlm"], checkpoint)
    said = ("does not say what the model is", "--preset modernbert-base")
    assert_fails(run("convert", str(checkpoint), str(target)), *said)
    assert_fails(run("convert", str(checkpoint), str(target), "--preset", "modernbert-base"), "do not fit")
    junk = tmp_path / "junk.pt"
    junk.write_bytes(b"not a checkpoint")
    assert_fails(run("convert", str(junk), str(target), "--preset", "modernbert-base"), str(junk))
    assert not target.exists()
