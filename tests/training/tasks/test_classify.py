"""Classification: labels from columns, losses by their formulas, and what is fitted into the weights."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from modernbert.corpus.labelled import Rows
from modernbert.errors import CorpusError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.inference.pipeline import Model
from modernbert.pretrained.folder import read_folder
from modernbert.pretrained.heads import with_head
from modernbert.training.tasks import classify_scores
from modernbert.training.tasks.classify import Classify, ClassifyTask
from modernbert.training.tasks.task import Notes, Parts
from tests.training.small_task import write_tiny_encoder

TOLERANCE = 1e-6
PAIRS = {"text": "one", "second": "two"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


def model_with(folder, labels, problem="single_label"):
    pretrained = with_head(
        read_folder(folder),
        lambda transform, pooling: ClassifyHeadConfig(
            labels=labels, problem=problem, pooling=pooling, transform=transform
        ),
        seed=0,
    )
    return Model(pretrained, device=torch.device("cpu"))


def rows_of(tmp_path, content, name="x.csv", **words):
    (tmp_path / name).write_text(content)
    config = Classify(**words)
    return config, Rows.write(tmp_path / "rows.jsonl", config.read(str(tmp_path / name), Notes()))


def prepared(config, rows, **parts):
    notes = Notes()
    return config.prepare(Parts(train=rows, dev=parts.get("dev"), test=parts.get("test")), notes), notes


def test_labels_come_in_their_order_numbers_before_words(tmp_path):
    config, rows = rows_of(tmp_path, "text,label\n" + "".join(f"t,{x}\n" for x in ("10", "b", "9", "a", "9")))
    task, _ = prepared(config, rows)
    assert task.labels == ("9", "10", "a", "b")
    assert task.shares == (0.4, 0.2, 0.2, 0.2)


def test_several_labels_of_a_row_are_split_or_listed(tmp_path):
    config, rows = rows_of(tmp_path, 'text,label\na,x|y\nb,"[""y"", ""z""]"\nc,y\n', problem="multi_label")
    assert rows.column("label") == [["x", "y"], ["y", "z"], ["y"]]
    task, _ = prepared(config, rows)
    assert task.labels == ("x", "y", "z")


def test_a_value_that_is_no_number_names_its_line(tmp_path):
    with pytest.raises(CorpusError, match="line 3: label is 'much', and not a number"):
        rows_of(tmp_path, "text,label\na,1.5\nb,much\n", problem="regression")


def test_pairs_are_read_and_encoded_as_pairs(tmp_path, folder):
    config, rows = rows_of(
        tmp_path, "one,two,label\nthe film,its music,1\na story,people,0\n", text="one", second="two"
    )
    task, notes = prepared(config, rows)
    model = model_with(folder, ("0", "1"))
    first = next(task.examples(rows, model, 64, notes))
    wanted = model.tokenizer.encode_ids(["the film"], ["its music"])[0]
    assert first.sequences[0].token_ids == wanted
    assert list(first.targets) == [1]


def test_labels_that_training_never_saw_are_told_and_not_learned(tmp_path, folder):
    config, rows = rows_of(tmp_path, "text,label\na,x\nb,y\n")
    dev = Rows.write(
        tmp_path / "dev.jsonl",
        [{"text": "c", "label": "z", "line": 2}, {"text": "d", "label": "x", "line": 3}],
    )
    task, notes = prepared(config, rows, dev=dev)
    assert notes.lines == [
        "1 rows of the dev part have labels that training never saw (z); they count as wrong"
    ]
    assert len(list(task.examples(dev, model_with(folder, ("x", "y")), 64, notes))) == 1


def test_a_column_of_identifiers_is_no_column_of_labels(tmp_path):
    config, rows = rows_of(tmp_path, "text,label\n" + "".join(f"t{i},{i}\n" for i in range(60)))
    with pytest.raises(CorpusError, match=r"60 different labels in 60 rows, such as '0'.*--regression"):
        prepared(config, rows)


def loss_of(task, logits, targets):
    return task.loss(lambda batch, backend: logits, None, targets, backend="auto")


def task_of(problem="single_label", labels=("a", "b", "c"), shares=(0.5, 0.3, 0.2), **words):
    return ClassifyTask(config=Classify(problem=problem, **words), labels=labels, shares=shares)


def test_losses_are_those_of_torch():
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    targets = labels[:, None].float()
    assert loss_of(task_of(), logits, targets) == pytest.approx(
        functional.cross_entropy(logits, labels, reduction="sum").item(), abs=TOLERANCE
    )
    assert loss_of(task_of(label_smoothing=0.1), logits, targets) == pytest.approx(
        functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.1).item(), abs=TOLERANCE
    )
    sets = (torch.rand(6, 3) < 0.5).float()
    assert loss_of(task_of("multi_label"), logits, sets) == pytest.approx(
        functional.binary_cross_entropy_with_logits(logits, sets).item() * 6, abs=1e-5
    )
    values = torch.randn(6, 1)
    assert loss_of(
        task_of("regression", labels=("v",), shares=(1.0,)), logits[:, :1], values
    ) == pytest.approx(float(((logits[:, :1] - values) ** 2).sum()), abs=1e-5)


def test_balanced_classes_count_alike_and_their_mean_is_one():
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    logits = torch.zeros(10, 3)
    task = task_of(class_weights="balanced")
    assert float(loss_of(task, logits, labels[:, None].float())) == pytest.approx(10 * np.log(3), abs=1e-4)
    for number, count in ((0, 5), (1, 3), (2, 2)):
        alone = loss_of(task, logits[:count], torch.full((count, 1), float(number)))
        assert float(alone) == pytest.approx(10 * np.log(3) / 3, abs=1e-4)


def test_a_temperature_goes_into_the_weights_and_changes_no_label(tmp_path, folder):
    model = model_with(folder, ("x", "y"))
    with torch.no_grad():
        model.module.classifier.weight.mul_(40)
    texts = [f"the film {i} was on screen" for i in range(60)]
    before = model.classify(texts)
    draw = np.random.default_rng(0)
    rows = [{"text": text, "label": str(draw.choice(["x", "y"])), "line": i} for i, text in enumerate(texts)]
    dev = Rows.write(tmp_path / "dev.jsonl", rows)
    settled = classify_scores.settle(model, dev, ("x", "y"), "single_label")
    after = model.classify(texts)
    assert settled["temperature"] > 1.5, "labels by lot deserve no confidence"
    assert settled["and after"] < settled["calibration error before"]
    assert [each.label for each in after] == [each.label for each in before]
    one, other = (np.log(each[0].scores["x"] / each[0].scores["y"]) for each in (before, after))
    assert other == pytest.approx(one / settled["temperature"], rel=1e-4)


def test_thresholds_go_into_the_weights_so_that_a_half_decides(tmp_path, folder):
    labels = ("x", "y")
    model = model_with(folder, labels, "multi_label")
    texts = [f"{'great' if i % 3 else 'dull'} film {i}" for i in range(60)]
    before = np.array([[each.scores[name] for name in labels] for each in model.classify(texts)])
    rows = [
        {
            "text": text,
            "label": [name for place, name in enumerate(labels) if before[i, place] > cut[place]],
            "line": i,
        }
        for cut in [np.quantile(before, 0.7, axis=0)]
        for i, text in enumerate(texts)
    ]
    dev = Rows.write(tmp_path / "dev.jsonl", rows)
    classify_scores.settle(model, dev, labels, "multi_label")
    found = classify_scores.evaluate(model, dev, labels, "multi_label")
    assert found.figures["subset_accuracy"] == 1.0
    assert [sorted(row["predicted"]) for row in found.predictions] == [row["label"] for row in rows]


def test_too_few_rows_fit_nothing(tmp_path):
    assert classify_scores.settle(None, [None] * 10, ("x", "y"), "single_label") == {}
