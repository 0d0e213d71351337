"""The whole way from a CSV to a folder: it learns, it goes on after a crash, it says what is wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from modernbert.errors import CorpusError, TrainingError
from modernbert.inference.loading import load
from modernbert.training import journal, loop
from modernbert.training.finetune_run import Sources, finetune
from modernbert.training.finetune_trial import note_idle_processes
from modernbert.training.finetuning import Finetuning
from modernbert.training.parallel import Group
from modernbert.training.run import Switches
from modernbert.training.sweep import Sweep
from modernbert.training.tasks.classify import Classify, ClassifyTask
from modernbert.training.tasks.task import Notes
from tests.training.small_task import reviews, write_reviews, write_tiny_encoder

FAST = Finetuning(
    epochs=3, batch_size=8, learning_rate=3e-3, pack_tokens=200, patience=None, save_every_tokens=300
)
PLAIN = Classify()
CPU = Switches(device="cpu")
# Two programs add up in another order.
TOLERANCE = 1e-5


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture
def table(tmp_path):
    return write_reviews(tmp_path / "reviews.csv")


def run(table, encoder, out, task=PLAIN, settings=FAST, **options):
    return finetune(task, table, model=encoder, out=out, settings=settings, switches=CPU, **options)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, encoder):
    folder = tmp_path_factory.mktemp("finished")
    return run(write_reviews(folder / "reviews.csv", 160), encoder, folder / "sentiment")


def test_a_csv_becomes_a_model_that_has_learned(finished):
    model = load(finished, dtype="float32", device="cpu")
    new = reviews(60, seed=99)
    found = [each.label for each in model.classify([text for text, _ in new])]
    assert np.mean([one == label for one, (_, label) in zip(found, new, strict=True)]) > 0.8
    assert not finished.with_name("sentiment.unfinished").exists()


def test_the_folder_holds_all_that_a_run_is_asked_for(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        *("config.json", "model.safetensors", "tokenizer.json", "README.md", "report.md", "recipe.json"),
        *("journal.jsonl", "evaluations.jsonl", "predictions.jsonl", "curves.png", "confusion.png"),
    }
    report = (finished / "report.md").read_text()
    for words in (
        "this model, test",
        "TF-IDF and a linear model, test",
        "always the most common",
        "(confusion.png)",
    ):
        assert words in report
    for name in (line.split("](")[1].rstrip(")") for line in report.splitlines() if line.startswith("![")):
        assert (finished / name).exists()
    evaluations = journal.read(finished / "evaluations.jsonl")
    assert [row["step"] for row in evaluations] == [0, 16, 32, 48], "before the first update, and each epoch"
    assert {"loss", "accuracy", "macro_f1"} <= evaluations[0]["sources"]["dev"].keys()
    assert {row["loss_per"] for row in evaluations} == {"text"}
    assert "On the dev part, macro f1 was 0." in report
    recipe = json.loads((finished / "recipe.json").read_text())
    assert recipe["settings"]["learning_rate"] == 3e-3
    assert recipe["packages"]["torch"] == torch.__version__


def test_predictions_are_of_the_test_part_alone(finished):
    rows = journal.read(finished / "predictions.jsonl")
    assert len(rows) == 16
    assert {"text", "label", "line", "predicted", "scores"} <= rows[0].keys()


def test_transformers_gives_the_same_scores(finished):
    theirs = AutoModelForSequenceClassification.from_pretrained(finished).eval()
    tokenizer = AutoTokenizer.from_pretrained(finished)
    texts = [text for text, _ in reviews(5, seed=3)]
    with torch.no_grad():
        wanted = theirs(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(dim=-1)
    found = load(finished, dtype="float32", device="cpu").classify(texts)
    names = [theirs.config.id2label[number] for number in range(2)]
    ours = torch.tensor([[each.scores[name] for name in names] for each in found])
    assert float((ours - wanted).abs().max()) < TOLERANCE


def test_a_finished_run_is_only_opened(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    table = finished.parent / "reviews.csv"
    model = json.loads((finished / "recipe.json").read_text())["model"]["name"]
    assert run(table, model, finished) == finished
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_other_words_for_a_finished_run_name_what_differs(finished):
    model = json.loads((finished / "recipe.json").read_text())["model"]["name"]
    with pytest.raises(TrainingError, match=r"settings.epochs: 3 -> 4"):
        run(
            finished.parent / "reviews.csv",
            model,
            finished,
            settings=Finetuning(**vars_of(FAST) | {"epochs": 4}),
        )


def vars_of(settings):
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


@pytest.mark.parametrize("stop_at", [3, 12, 13, 25, 36])
def test_a_crash_changes_nothing(tmp_path, encoder, table, monkeypatch, stop_at):
    whole = run(table, encoder, tmp_path / "whole")
    take, steps = loop._take, []

    def failing(run, step):
        steps.append(step)
        if len(steps) == stop_at:
            raise KeyboardInterrupt
        return take(run, step)

    monkeypatch.setattr(loop, "_take", failing)
    with pytest.raises(KeyboardInterrupt):
        run(table, encoder, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    again = run(table, encoder, tmp_path / "again")
    for name in ("model.safetensors", "evaluations.jsonl", "predictions.jsonl"):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name
    losses = [[row["loss"] for row in journal.read(folder / "journal.jsonl")] for folder in (whole, again)]
    assert losses[0] == losses[1]


def test_the_best_weights_are_kept_and_not_the_last(tmp_path, encoder, table, monkeypatch):
    scores = iter([0.95, 0.5, 0.9, 0.7])  # the first is before learning, and no candidate
    from modernbert.training.tasks import classify_scores

    plain = classify_scores.figures
    monkeypatch.setattr(
        classify_scores,
        "figures",
        lambda *given: plain(*given) | {"macro_f1": next(scores, 0.0)},
    )
    kept = []
    from modernbert.training import finetune_trial

    write = finetune_trial.write_folder
    monkeypatch.setattr(
        finetune_trial, "write_folder", lambda target, model: (kept.append(target.name), write(target, model))
    )
    told = "macro_f1 was 0.9500 before the first update, and 0.9000 in the folder"
    with pytest.warns(UserWarning, match=told):
        out = run(table, encoder, tmp_path / "out")
    assert kept == ["best", "best"]
    report = (out / "report.md").read_text()
    assert told in report
    assert "macro f1 was 0.9500 before the first update, and at best 0.9000, after update 24" in report


def test_a_run_ends_when_nothing_gets_better(tmp_path, encoder, table, monkeypatch):
    from modernbert.training.tasks import classify_scores

    plain = classify_scores.figures
    monkeypatch.setattr(classify_scores, "figures", lambda *given: plain(*given) | {"macro_f1": 0.5})
    settings = Finetuning(**vars_of(FAST) | {"epochs": 9, "patience": 2})
    with pytest.warns(UserWarning, match="learning brought nothing better"):
        out = run(table, encoder, tmp_path / "out", settings=settings)
    assert len(journal.read(out / "evaluations.jsonl")) == 1 + 3, "the start, an epoch, and two no better"


def test_a_sweep_keeps_the_best_trial_and_tests_it_alone(tmp_path, encoder, table):
    sweep = Sweep(values={"learning_rate": (1e-7, 3e-3)})
    out = run(table, encoder, tmp_path / "out", sweep=sweep)
    assert json.loads((out / "recipe.json").read_text())["settings"]["learning_rate"] == 3e-3
    assert run(table, encoder, tmp_path / "out", sweep=sweep) == out, "what is finished is only opened"
    report = (out / "report.md").read_text()
    assert report.index("| lr=0.003 |") < report.index("| lr=1e-07 |")
    assert (out / "sweep.png").exists()


def test_adapting_to_the_texts_comes_first(tmp_path, encoder, table):
    settings = Finetuning(**vars_of(FAST) | {"adapt_passes": 2, "epochs": 1})
    out = run(table, encoder, tmp_path / "out", settings=settings)
    plain = run(table, encoder, tmp_path / "plain", settings=Finetuning(**vars_of(FAST) | {"epochs": 1}))
    ours, theirs = (load(folder, dtype="float32", device="cpu").encoder for folder in (out, plain))
    moved = [
        float((one - other).detach().abs().max())
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True)
    ]
    assert max(moved) > 0.01, "further pretraining moves the encoder by more than its fine-tuning alone"


def test_files_of_their_own_are_used_as_they_are(tmp_path, encoder):
    sources = Sources(
        train=str(write_reviews(tmp_path / "train.csv", 40, 1)),
        dev=str(write_reviews(tmp_path / "dev.csv", 20, 2)),
        test=str(write_reviews(tmp_path / "test.csv", 30, 3)),
    )
    out = run(sources, encoder, tmp_path / "out")
    assert "Of 40 rows train, 20 rows dev, 30 rows test." in (out / "report.md").read_text()
    assert len(journal.read(out / "predictions.jsonl")) == 30


def test_test_rows_that_were_learned_are_told(tmp_path, encoder):
    same = str(write_reviews(tmp_path / "train.csv", 40, 1))
    told = "40 of 40 rows of the dev part have texts that also stand in train"
    with pytest.warns(UserWarning, match=told):
        out = run(Sources(train=same, dev=same), encoder, tmp_path / "out")
    assert told in (out / "report.md").read_text()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (
            "text,label\n" + "".join(f"film {i},yes\n" for i in range(30)),
            CorpusError,
            "have the label 'yes'; there is nothing to tell apart",
        ),
        ("words,label\na,b\n", CorpusError, "has no column 'text'; it has 'words', 'label'"),
        ("text,label\n", CorpusError, "has no rows"),
        ("text,label\na,x\nb,y\n", CorpusError, "too few to split"),
    ],
)
def test_data_that_cannot_be_learned_leaves_no_model(tmp_path, encoder, content, error, message):
    path = tmp_path / "x.csv"
    path.write_text(content)
    with pytest.raises(error, match=message):
        run(path, encoder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path], "nothing half-written"


class Killed(Exception):
    """What stands for a kill."""


def killed_at(monkeypatch, step):
    """The loop as it is, until a step."""
    take, steps = loop._take, []

    def counted(*given):
        steps.append(1)
        if len(steps) == step:
            raise Killed
        return take(*given)

    monkeypatch.setattr(loop, "_take", counted)


def test_a_begun_run_of_other_words_is_forgotten_unless_it_has_learned(tmp_path, encoder, table, monkeypatch):
    out, other = tmp_path / "out", Finetuning(**vars_of(FAST) | {"seed": 5, "epochs": 1})
    for settings, step in ((FAST, 1), (other, 9)):
        with monkeypatch.context() as patched:
            killed_at(patched, step)
            with pytest.raises(Killed):
                run(table, encoder, out, settings=settings)
    assert list((tmp_path / "out.unfinished" / "checkpoints").iterdir())
    with pytest.raises(TrainingError, match=r"settings.seed: 5 -> 17"):
        run(table, encoder, out)
    run(table, encoder, out, settings=other)
    assert "was split by seed 5" in (out / "report.md").read_text()


def test_a_loss_that_is_not_a_number_is_told(tmp_path, encoder, table, monkeypatch):
    loss, calls = ClassifyTask.loss, []

    def sometimes(*given, **words):
        calls.append(1)
        return loss(*given, **words) * (float("nan") if len(calls) == 20 else 1.0)

    monkeypatch.setattr(ClassifyTask, "loss", sometimes)
    with pytest.warns(UserWarning, match="1 of 36 updates were left out, since their loss or gradient"):
        out = run(table, encoder, tmp_path / "out")
    (accident,) = journal.read(out / journal.ACCIDENTS)
    assert accident["documents"][0].startswith("training row ")


def test_losses_that_never_are_numbers_end_the_run(tmp_path, encoder, table, monkeypatch):
    loss = ClassifyTask.loss

    def never(*given, **words):
        return loss(*given, **words) * (float("nan") if torch.is_grad_enabled() else 1.0)

    monkeypatch.setattr(ClassifyTask, "loss", never)
    with pytest.raises(TrainingError, match=r"not a number(.|\n)*a lower learning rate"):
        run(table, encoder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_run_away_are_told(tmp_path, encoder, table):
    settings = Finetuning(**vars_of(FAST) | {"learning_rate": 1e30, "batch_size": 32})
    with pytest.raises(TrainingError, match="at a learning rate of 1e\\+30 the weights have run away"):
        run(table, encoder, tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("whole", "size", "num"), [(True, 3, 1), (True, 1, 0), (False, 3, 0)])
def test_processes_that_help_nothing_are_told(whole, size, num):
    task = replace(ClassifyTask(config=PLAIN, labels=(), shares=()), takes_whole_batches=whole)
    notes = Notes()
    note_idle_processes(task, "embed", Group(rank=0, world_size=size, device=torch.device("cpu")), notes)
    assert len(notes.lines) == num
    assert all("and the other 2 repeat it for nothing: start one process" in line for line in notes.lines)


def test_a_length_beyond_the_positions_is_refused(tmp_path, encoder, table):
    settings = Finetuning(**vars_of(FAST) | {"max_length": 10_000})
    with pytest.raises(TrainingError, match=r"max_length=10000 is more than the 8192 tokens"):
        run(table, encoder, tmp_path / "out", settings=settings)


def test_a_folder_of_someone_elses_is_not_touched(tmp_path, encoder, table):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(TrainingError, match="is no fine-tuned model"):
        run(table, encoder, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"
