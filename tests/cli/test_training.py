"""The verbs about training: a run from the command line, its table, and calls that are wrong."""

import json

import click
import pytest
from click.testing import CliRunner

from modernbert.cli import verbs
from modernbert.cli.training import parse_count
from tests.training.small_corpus import small_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return small_shards(tmp_path_factory.mktemp("corpus")).folder


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "mine.py"
    path.write_text("from tests.training.small_recipe import small_recipe as recipe\n")
    return path


@pytest.fixture(scope="module")
def finished(shards, recipe_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first"
    call = ["pretrain", str(recipe_file), "--data", str(shards), "--out", str(folder), "--device", "cpu"]
    result = CliRunner().invoke(verbs, [*call, "--tokens", "2k", "--seed", "5"])
    assert result.exit_code == 0, result.output
    assert "finished" in result.stderr
    assert result.stdout == ""
    return folder


def test_a_recipe_file_is_run_with_the_length_and_seed_asked_for(finished):
    recipe = json.loads((finished / "recipe.json").read_text())
    assert sum(phase["tokens"] for phase in recipe["phases"]) == pytest.approx(2000, abs=2)
    assert recipe["seed"] == 5
    assert (finished / "final" / "config.json").exists()
    assert (finished / "curves.png").exists()
    assert list((finished / "tensorboard").iterdir())


def test_runs_prints_a_table_and_draws(finished):
    result = CliRunner().invoke(verbs, ["runs", str(finished.parent)])
    assert result.exit_code == 0
    head, row = result.stdout.splitlines()
    assert head.split()[:3] == ["run", "recipe", "phase"]
    assert row.startswith("first  small")
    assert row.endswith("finished")
    assert "curves.png" in result.stderr


def test_runs_gives_json(finished):
    result = CliRunner().invoke(verbs, ["runs", str(finished), "--json"])
    row = json.loads(result.stdout)
    assert row["is_finished"] is True
    assert row["loss"] > 0
    assert row["curves"].endswith("curves.png")


def test_probes_are_shown_beside_the_losses(shards, recipe_file, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("text,label\n" + "walked to,verb\nthe man,noun\n" * 4)
    call = ["pretrain", str(recipe_file), "--data", str(shards), "--out", str(tmp_path / "run")]
    call += ["--valid", str(shards), "--tokens", "1k", "--device", "cpu"]
    result = CliRunner().invoke(verbs, [*call, "--probe-classification", str(labels)])
    assert result.exit_code == 0, result.output
    head, row = CliRunner().invoke(verbs, ["runs", str(tmp_path / "run")]).stdout.splitlines()
    assert "told apart  found" in head
    found = json.loads(CliRunner().invoke(verbs, ["runs", str(tmp_path / "run"), "--json"]).stdout)
    assert f"{found['probe_classification']:.3f}" in row
    assert f"{found['probe_retrieval']:.3f}" in row


@pytest.mark.filterwarnings("default")
def test_a_probe_that_cannot_be_is_said_in_one_line(recipe_file, tmp_path):
    made = small_shards(tmp_path / "one", num=8)  # too few to hold one back
    call = ["pretrain", str(recipe_file), "--data", str(made.folder), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(verbs, [*call, "--tokens", "500", "--device", "cpu", "--probe"])
    assert result.exit_code == 0, result.output
    assert "warning: no text is held out, so there is nothing to probe" in result.stderr


def test_a_run_that_began_goes_on_and_says_when_there_is_nothing_to_do(finished, shards, recipe_file):
    call = ["pretrain", str(recipe_file), "--data", str(shards), "--out", str(finished), "--device", "cpu"]
    result = CliRunner().invoke(verbs, [*call, "--tokens", "2k", "--seed", "5"])
    assert result.exit_code == 0
    result = CliRunner().invoke(verbs, [*call, "--tokens", "3k", "--seed", "5"])
    assert result.exit_code == 1
    assert "was begun with another recipe" in result.stderr


def test_an_unknown_recipe_is_told(shards, tmp_path):
    result = CliRunner().invoke(verbs, ["pretrain", "huge", "--data", str(shards), "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "unknown recipe 'huge'; there are: tiny, nano, own_language, base, large" in result.stderr


def test_a_folder_without_runs_is_told(tmp_path):
    result = CliRunner().invoke(verbs, ["runs", str(tmp_path)])
    assert result.exit_code == 1
    assert "there is no run in" in result.stderr


@pytest.mark.parametrize(
    ("text", "count"),
    [("300", 300), ("20M", 20_000_000), ("1.5b", 1_500_000_000), ("2_000k", 2_000_000), ("1,000", 1000)],
)
def test_counts_are_read_as_people_write_them(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "M", "0", "-5", "ten", "5MM"])
def test_other_counts_are_refused(text):
    with pytest.raises(click.BadParameter, match="no number of tokens"):
        parse_count(text)
