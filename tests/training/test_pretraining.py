"""A whole run on a small corpus: text is learned, the folder is one that others read, mistakes are told."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import modernbert
from modernbert.corpus.shard_writing import write_shards
from modernbert.corpus.shards import Shards
from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.presets import modernbert_sized
from modernbert.errors import TrainingError
from modernbert.files import held
from modernbert.recipes import RECIPES, find
from modernbert.text.tokenizer import Tokenizer
from modernbert.training import journal, run
from modernbert.training.optim import AdoptConfig
from modernbert.training.parallel import Group
from modernbert.training.run import Switches, pretrain
from tests.inference.tiny import byte_level, word_piece
from tests.training.small_corpus import small_shards, write_corpus
from tests.training.small_recipe import small_recipe

ON_CPU = Switches(device="cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return small_shards(tmp_path_factory.mktemp("corpus")).folder


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> Path:
    return small_shards(tmp_path_factory.mktemp("valid"), seed=5, num=40).folder


@pytest.fixture(scope="module")
def finished(shards, valid, tmp_path_factory) -> Path:
    """A run of ten times the small recipe's tokens, long enough to learn something."""
    folder = tmp_path_factory.mktemp("run")
    recipe = small_recipe()
    assert pretrain(recipe.scaled_to(10 * recipe.num_tokens), shards, folder, valid=valid, switches=ON_CPU)
    return folder


def test_the_text_is_learned(finished):
    rows = journal.read(finished / journal.STEPS)
    evaluations = journal.read(finished / journal.EVALUATIONS)
    assert rows[0]["loss"] > 4.0
    assert evaluations[-1]["loss"] < 0.75 * evaluations[0]["loss"]
    assert set(evaluations[-1]["sources"]) == {"notes", "tales"}


def test_every_step_is_told_with_what_a_reader_asks_for(finished):
    rows = journal.read(finished / journal.STEPS)
    wanted = {"step", "tokens", "loss", "accuracy", "learning_rate", "mask_rate", "gradient_norm", "phase"}
    assert all(wanted <= row.keys() for row in rows)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert {row["phase"] for row in rows} == {"pretrain", "decay"}
    assert {row["mask_rate"] for row in rows if row["phase"] == "decay"} == {0.2}


def test_the_folder_is_read_by_us_and_by_transformers(finished):
    from transformers import AutoModelForMaskedLM

    ours = modernbert.load(finished / "final", dtype="float32", device="cpu")
    thetas = [block.attention.rotary.theta for block in ours.config.encoder.blocks]
    assert thetas == [160_000.0, 10_000.0, 10_000.0]
    theirs = AutoModelForMaskedLM.from_pretrained(finished / "final").eval()
    ids = ours.tokenizer.encode_ids(["the man walked to store"])
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits[0]
        found = ours.module(modernbert.PackedBatch.from_sequences(ids))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_finished_run_called_again_has_nothing_to_do(finished, shards, valid):
    before = (finished / journal.STEPS).read_text()
    recipe = small_recipe()
    final = pretrain(recipe.scaled_to(10 * recipe.num_tokens), shards, finished, valid=valid, switches=ON_CPU)
    assert final == finished / "final"
    assert (finished / journal.STEPS).read_text() == before


def test_a_changed_recipe_is_refused_by_name_of_the_field(finished, shards, valid):
    recipe = small_recipe()
    changed = replace(recipe.scaled_to(10 * recipe.num_tokens), seed=3)
    with pytest.raises(TrainingError, match=r"(?s)another recipe.*seed: 17 -> 3"):
        pretrain(changed, shards, finished, valid=valid, switches=ON_CPU)


def test_other_shards_are_refused(finished, valid, tmp_path):
    recipe = small_recipe()
    other = small_shards(tmp_path, seed=9).folder
    with pytest.raises(TrainingError, match=r"(?s)another recipe.*corpus\.sources\.notes\.tokens"):
        pretrain(recipe.scaled_to(10 * recipe.num_tokens), other, finished, valid=valid, switches=ON_CPU)


def test_other_weights_are_refused_by_name_of_the_field(finished, shards, valid):
    recipe = small_recipe()
    assert recipe.encoder is not None
    wider = modernbert_sized(num_layers=3, hidden_size=48, num_heads=2, intermediate_size=24)
    for changed, field in (
        (replace(recipe, encoder=wider), r"encoder\.hidden_size: 32 -> 48"),
        (
            replace(recipe, optimizer=AdoptConfig()),
            r"optimizer\.is: \"StableAdamWConfig\" -> \"AdoptConfig\"",
        ),
    ):
        with pytest.raises(TrainingError, match=rf"(?s)another recipe.*{field}"):
            pretrain(changed, shards, finished, valid=valid, switches=ON_CPU)


def test_other_words_in_as_many_tokens_are_refused(tmp_path):
    tokenizer, made = byte_level(), {}
    for name, word in {"one": "walked", "other": "worked"}.items():
        assert len(tokenizer.encode_ids(["walked"])[0]) == len(tokenizer.encode_ids(["worked"])[0])
        path = tmp_path / name / "text.jsonl"
        path.parent.mkdir()
        path.write_text(json.dumps({"text": f"the man {word} to store. " * 30}) + "\n")
        made[name] = write_shards([str(path)], tmp_path / name / "shards", tokenizer=tokenizer, num_workers=1)
    recipe = small_recipe().scaled_to(600)
    assert pretrain(recipe, made["one"].folder, tmp_path / "run", switches=ON_CPU)
    with pytest.raises(TrainingError, match=r"(?s)another recipe.*corpus\.shards_sha256"):
        pretrain(recipe, made["other"].folder, tmp_path / "run", switches=ON_CPU)
    with pytest.raises(TrainingError, match=r"(?s)another recipe.*corpus\.held_out_sha256"):
        pretrain(recipe, made["one"].folder, tmp_path / "run", valid=made["other"].folder, switches=ON_CPU)


def test_one_other_token_among_all_is_enough_to_refuse_a_folder(finished, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(finished / "final", folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    one, other = (token for token, number in vocabulary.items() if number in (40, 41))
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(content))
    recipe = replace(small_recipe(), encoder=None, start_from=str(folder))
    with pytest.raises(TrainingError, match=r"(?s)another tokenizer than that of .*id 40 is"):
        pretrain(recipe, small_shards(tmp_path).folder, tmp_path / "run", switches=ON_CPU)


def test_a_sequence_longer_than_a_published_model_is_refused(shards, tmp_path):
    recipe = small_recipe()
    assert recipe.encoder is not None
    first = replace(recipe.phases[0], tokens=300)
    short = replace(recipe, encoder=replace(recipe.encoder, max_positions=48), phases=(first,))
    final = pretrain(short, shards, tmp_path / "short", switches=ON_CPU)
    longer = replace(recipe, encoder=None, start_from=str(final))
    with pytest.raises(TrainingError, match=r"sequences of 64 tokens, but .*final is made for 48"):
        pretrain(longer, shards, tmp_path / "run", switches=ON_CPU)


def test_sigterm_before_the_first_step_saves_and_ends(shards, tmp_path, monkeypatch):
    build = run._build

    def told_meanwhile(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return build(*args, **kwargs)

    monkeypatch.setattr(run, "_build", told_meanwhile)
    assert pretrain(small_recipe(), shards, tmp_path / "run", switches=ON_CPU) is None
    monkeypatch.undo()
    assert len(journal.read(tmp_path / "run" / journal.STEPS)) == 1
    assert pretrain(small_recipe(), shards, tmp_path / "run", switches=ON_CPU)


def test_a_broken_recipe_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "mine.py"
    for text, said in (
        ("x = 1\ndef recipe(:\n", r"mine\.py, line 2: SyntaxError"),
        ("import nothing_like_it\n", r"mine\.py, line 1: ModuleNotFoundError"),
        ("def recipe():\n    return 1 / 0\n", r"mine\.py, line 2: ZeroDivisionError"),
    ):
        path.write_text(text)
        with pytest.raises(TrainingError, match=said):
            find(str(path))


@pytest.mark.parametrize(
    "wrong", [{"num_kept": 0}, {"seed": 2**40}, {"save_every_tokens": "x"}, {"valid_mask_rate": 7.0}]
)
def test_a_recipe_says_which_value_cannot_be(wrong):
    with pytest.raises(TrainingError, match=next(iter(wrong))):
        replace(small_recipe(), **wrong)


def test_two_runs_in_one_folder_are_kept_apart(shards, tmp_path):
    with held(tmp_path) as is_ours:
        assert is_ours
        with pytest.raises(TrainingError, match="another process is training in"):
            pretrain(small_recipe(), shards, tmp_path, switches=ON_CPU)


def test_a_run_goes_on_from_a_published_folder(finished, shards, tmp_path):
    recipe = replace(small_recipe(), encoder=None, start_from=str(finished / "final"))
    assert pretrain(recipe, shards, tmp_path, switches=ON_CPU)
    first = journal.read(tmp_path / journal.STEPS)[0]
    last = journal.read(finished / journal.STEPS)[-1]
    assert first["loss"] < 1.3 * last["loss"]


def test_a_folder_with_another_tokenizer_is_refused(finished, tmp_path):
    inputs = write_corpus(tmp_path / "text")
    other = write_shards(inputs, tmp_path / "shards", tokenizer=word_piece(), num_workers=1)
    recipe = replace(small_recipe(), encoder=None, start_from=str(finished / "final"))
    with pytest.raises(TrainingError, match="another tokenizer"):
        pretrain(recipe, other.folder, tmp_path / "run", switches=ON_CPU)


def test_shards_of_two_tokenizers_do_not_go_together(shards, tmp_path):
    inputs = write_corpus(tmp_path / "text")
    other = write_shards(inputs, tmp_path / "shards", tokenizer=word_piece(), num_workers=1)
    with pytest.raises(TrainingError, match="different tokenizers"):
        pretrain(small_recipe(), shards, tmp_path / "run", valid=other.folder, switches=ON_CPU)


def test_a_sequence_longer_than_the_model_is_refused(shards, tmp_path):
    recipe = small_recipe()
    assert recipe.encoder is not None
    short = replace(recipe, encoder=replace(recipe.encoder, max_positions=48))
    with pytest.raises(TrainingError, match=r"sequences of 64 tokens, .* made for 48"):
        pretrain(short, shards, tmp_path, switches=ON_CPU)


def test_a_theta_for_layers_that_are_not_there_is_refused(shards, tmp_path):
    recipe = small_recipe()
    assert recipe.encoder is not None
    blocks = tuple(replace(block, attention=AttentionConfig(num_heads=2)) for block in recipe.encoder.blocks)
    without = replace(recipe, encoder=replace(recipe.encoder, blocks=blocks))
    with pytest.raises(TrainingError, match="global_theta needs layers"):
        pretrain(without, shards, tmp_path, switches=ON_CPU)


@pytest.mark.parametrize(
    "texts", [["one short text"], ["a"], ["walked " * 500]], ids=["short", "token", "long"]
)
def test_one_document_is_enough(texts, tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    made = write_shards([str(path)], tmp_path / "shards", tokenizer=byte_level(), num_workers=1)
    recipe = small_recipe().scaled_to(600)
    assert pretrain(recipe, made.folder, tmp_path / "run", switches=ON_CPU)


def test_recomputed_layers_change_nothing_but_rounding(shards, tmp_path):
    recipe = small_recipe()
    for name, switches in {"plain": ON_CPU, "again": Switches(device="cpu", recomputes_layers=True)}.items():
        assert pretrain(recipe, shards, tmp_path / name, switches=switches)
    plain, again = (journal.read(tmp_path / name / journal.STEPS) for name in ("plain", "again"))
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in plain], abs=1e-5)


def test_without_a_compiler_one_warning_is_given_and_training_goes_on(shards, tmp_path, monkeypatch):
    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(UserWarning, match="torch.compile does not work here .no C.. compiler found"):
        assert pretrain(
            small_recipe().scaled_to(600), shards, tmp_path, switches=Switches(device="cpu", compiles=True)
        )


def test_the_theta_of_a_phase_is_set_when_a_run_goes_on_inside_it(shards, tmp_path, monkeypatch):
    from modernbert.training import loop

    take = loop._take

    def ended(given: loop.Run, step: loop.TrainingStep) -> dict:
        if given.place.step == 20:
            raise KeyboardInterrupt
        return take(given, step)

    monkeypatch.setattr(loop, "_take", ended)
    with pytest.raises(KeyboardInterrupt):
        pretrain(small_recipe(), shards, tmp_path, switches=ON_CPU)
    monkeypatch.setattr(loop, "_take", take)
    final = pretrain(small_recipe(), shards, tmp_path, switches=ON_CPU)
    whole = pretrain(small_recipe(), shards, tmp_path / "whole", switches=ON_CPU)
    assert final is not None
    assert whole is not None
    assert (final / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (final / "config.json").read_text() == (whole / "config.json").read_text()


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_are_whole(name):
    recipe = find(name)
    assert recipe.name == name
    assert recipe.encoder is not None
    assert all(phase.seq_len <= recipe.encoder.max_positions for phase in recipe.phases)
    longer = find(name, tokens=2 * recipe.num_tokens, seed=99)
    assert longer.num_tokens == pytest.approx(2 * recipe.num_tokens, rel=1e-6)
    assert longer.seed == 99


def test_nano_fits_into_sixteen_mebibytes():
    recipe = find("nano")
    assert recipe.encoder is not None
    config = modernbert.ModelConfig(
        encoder=replace(recipe.encoder, vocab_size=16_384, pad_token_id=3), head=recipe.head
    )
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in config.build().parameters())
    assert 2 * count <= 16 * 2**20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        ("x = 1", "has no function `recipe`"),
        ("def recipe():\n    return 3", "returns int, not a Recipe"),
    ],
)
def test_a_recipe_file_that_is_none_says_why(tmp_path, content, message):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TrainingError, match=message):
        find(str(path))


def test_an_unknown_recipe_names_those_there_are():
    with pytest.raises(TrainingError, match="unknown recipe 'huge'; there are: tiny, nano"):
        find("huge")


def test_a_recipe_of_ones_own_is_found(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from modernbert.recipes.tiny import tiny\n\n\ndef recipe():\n    return tiny()\n")
    assert find(str(path), tokens=1000).num_tokens == pytest.approx(1000, abs=3)


def test_held_out_text_is_not_learned_from(shards):
    opened = Shards.open(shards)
    alone = Group(rank=0, world_size=1, device=torch.device("cpu"))
    learned, held_out = run._documents(opened, None, 0.1, alone)
    assert held_out is not None
    for source in opened.sources:
        seen = {learned.describe(source, i) for i in range(len(learned.lengths(source)))}
        kept = {held_out.describe(source, i) for i in range(len(held_out.lengths(source)))}
        assert not seen & kept
        assert len(seen) + len(kept) == len(opened.lengths(source))
        assert len(kept) == round(0.1 * len(opened.lengths(source)))


def test_the_tokenizer_of_the_shards_is_the_models(finished, shards):
    assert Tokenizer.from_folder(finished / "final").encode_ids(["walked to"]) == Shards.open(
        shards
    ).tokenizer().encode_ids(["walked to"])
