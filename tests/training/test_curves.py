"""What a run looks like to a person: a picture that is there, and a line that adds up."""

import json

import pytest

from modernbert.errors import InputError, TrainingError
from modernbert.plots import Panel, curves
from modernbert.training.curves import draw, find_runs, summarize
from modernbert.training.loop import train
from tests.training.toy import ToyJob, toy_run


@pytest.fixture
def finished(tmp_path):
    folder = tmp_path / "runs" / "one"
    assert train(toy_run(folder, ToyJob(broken={3: float("nan")})))
    recipe = {"name": "toy", "phases": [{"tokens": 48}, {"tokens": 48}]}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder


def test_a_run_is_summed_up(finished):
    found = summarize(finished)
    assert (found.name, found.recipe, found.phase) == ("one", "toy", "second")
    assert (found.step, found.tokens, found.total_tokens, found.num_skipped) == (12, 96, 96, 1)
    assert found.valid_accuracy == 0.5
    assert found.loss is not None
    assert found.is_finished is False


def test_a_fine_tuning_is_summed_up_by_its_dev_part(finished):
    (finished / "recipe.json").write_text(json.dumps({"name": "classify", "task": {}}))
    rows = [{"step": 0, "sources": {"dev": {"loss": 1.5, "accuracy": 0.25}}}]
    (finished / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = summarize(finished)
    assert (found.recipe, found.tokens, found.total_tokens) == ("classify", 96, None)
    assert (found.valid_loss, found.valid_accuracy) == (1.5, 0.25)
    assert not found.is_finished
    (finished / "config.json").write_text("{}")
    assert summarize(finished).is_finished


def test_its_curves_are_drawn(finished):
    path = draw(finished)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.parent == finished


def test_runs_are_found_in_a_folder_or_are_the_folder(finished, tmp_path):
    assert find_runs(tmp_path / "runs") == [finished]
    assert find_runs(finished) == [finished]
    with pytest.raises(TrainingError, match="there is no run in"):
        find_runs(tmp_path)


def test_a_run_without_a_step_says_so(tmp_path):
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(TrainingError, match="has made no step yet"):
        summarize(tmp_path)


def test_curves_without_a_point_are_refused(tmp_path):
    with pytest.raises(InputError, match="nothing to draw"):
        curves([Panel(title="a", lines={"b": []})], tmp_path / "x.png", title="t", x_label="x")
    assert list(tmp_path.iterdir()) == []


def test_one_point_and_phases_are_drawn(tmp_path):
    panel = Panel(title="a", lines={"b": [(1e6, 2.0)]}, marks={"extend": 5e5}, is_logarithmic=True)
    curves([panel] * 4, tmp_path / "x.png", title="t", x_label="tokens")
    assert (tmp_path / "x.png").stat().st_size > 10_000
