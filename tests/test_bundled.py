"""The models that come with the package: small, whole, the same in transformers, and what every verb asks."""

import gzip
import json
from pathlib import Path

import pytest
import torch
import transformers
from click.testing import CliRunner

import modernbert
from modernbert import bundled
from modernbert.cli import verbs
from modernbert.text.batch import PackedBatch

MOST_BYTES = 16 * 2**20
TEXTS = ["He walked to the [MASK].", "import [MASK] as np", "The capital of France is [MASK]. " * 40]
DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(params=bundled.names())
def name(request):
    return request.param


def test_there_is_one():
    assert bundled.names()


def test_it_is_small_and_has_a_card(name):
    folder = bundled.path(name)
    assert (folder / "model.safetensors").stat().st_size <= MOST_BYTES
    card = (folder / "README.md").read_text(encoding="utf-8")
    for part in ("license:", "How it was trained", "How good it is", "What it has read"):
        assert part in card


def test_its_figures_are_those_of_the_journal(name):
    """The card is written from the run's files, which stand in docs."""
    card = (bundled.path(name) / "README.md").read_text(encoding="utf-8")
    steps = gzip.decompress((DOCS / name / "journal.jsonl.gz").read_bytes()).splitlines()
    evaluations = (DOCS / name / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(evaluations[-1])
    assert f"{json.loads(steps[-1])['tokens']:,} tokens" in card
    assert f"| all | {last['loss']:.2f} | {last['accuracy']:.0%} |" in card


def test_transformers_gives_the_same_logits(name):
    folder = bundled.path(name)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = modernbert.load(name, dtype="float32", device="cpu")
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert model.tokenizer.encode_ids([text], special_tokens="parse") == [ids]
        with torch.inference_mode():
            expected = theirs(torch.tensor([ids])).logits[0]
            found = model.module(PackedBatch.from_sequences([ids]))
        assert (found - expected).abs().max().item() <= 1e-4


def test_it_reads_8192_tokens(name):
    model = modernbert.load(name)
    assert model.max_length == 8192
    assert len(model.fill_mask("word " * 4000 + "[MASK]" + " word" * 4000)) > 0


def test_pretraining_goes_on_from_it(name, tmp_path):
    """With shards of its own tokenizer, by its name."""
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"A text of number {i}. " * 30}) + "\n" for i in range(40)))
    shards, run = str(tmp_path / "shards"), str(tmp_path / "run")
    for arguments in (
        ["shard", str(text), "--tokenizer", str(bundled.path(name)), "--out", shards],
        ["pretrain", "tiny", "--data", shards, "--out", run, "--start-from", name, "--tokens", "9000"],
    ):
        result = CliRunner().invoke(verbs, arguments)
        assert result.exit_code == 0, result.output
    assert modernbert.load(tmp_path / "run" / "final").config.encoder.hidden_size == 256


def test_verbs_ask_it_where_no_model_is_named():
    for arguments in (["fill-mask", TEXTS[0]], ["embed", "rain"], ["info"]):
        result = CliRunner().invoke(verbs, arguments)
        assert result.exit_code == 0, result.output
    assert "fill-mask" in result.output
