"""Rerankers: rows from any file, losses by their formulas, an order that is learned, and CrossEncoder."""

import json
import math

import numpy as np
import pytest
import torch

from modernbert.corpus.labelled import Rows
from modernbert.errors import CorpusError, TrainingError
from modernbert.inference.loading import load
from modernbert.pretrained.folder import read_folder
from modernbert.training.finetune_run import finetune
from modernbert.training.finetuning import Finetuning
from modernbert.training.run import Switches
from modernbert.training.tasks.mining import Mining
from modernbert.training.tasks.rerank import Rerank, RerankTask
from modernbert.training.tasks.task import Notes, Parts
from tests.inference.tiny import HEADS, write_tiny
from tests.training.small_pairs import pairs, sets, write_judged, write_lines

pytestmark = pytest.mark.usefixtures("no_pictures")

CPU = Switches(device="cpu")
FAST = Finetuning(epochs=6, batch_size=16, learning_rate=5e-3, patience=None)
# Sums in fp32 of some dozen numbers near 1.
FORMULA = 1e-5
# Logits of pairs in another order of sums.
SAME_SCORE = 1e-5


def read(tmp_path, content, notes=None, **words):
    path = write_lines(tmp_path / "rows.jsonl", content)
    return list(Rerank(**words).read(str(path), notes or Notes()))


def grades_of(row):
    return dict(zip(row["documents"], row["grades"], strict=True))


def test_rows_of_one_query_become_one_with_its_labels_as_grades(tmp_path):
    rows = [
        {"query": "old dog", "document": "a hound", "label": 2},
        {"query": "near ship", "document": "a sail", "label": 1},
        {"query": "old  Dog", "document": "an oak", "label": 0},
        {"query": "near ship", "document": "a loaf", "label": 0},
    ]
    found = read(tmp_path, rows)
    assert [row["query"] for row in found] == ["old dog", "near ship"]
    assert grades_of(found[0]) == {"a hound": 2.0, "an oak": 0.0}
    assert grades_of(found[1]) == {"a sail": 1.0, "a loaf": 0.0}
    with pytest.raises(CorpusError, match="line 1: a grade is 0"):
        read(tmp_path, [{"query": "a", "document": "b", "label": -1}])


def test_pairs_alone_get_candidates_of_others_and_a_word_about_it(tmp_path):
    notes = Notes()
    rows = [{"query": query, "positive": document} for query, document in pairs(20)]
    found = read(tmp_path, rows, notes, num_negatives=3)
    documents = {document for _, document in pairs(20)}
    assert all(sorted(row["grades"]) == [0, 0, 0, 1] for row in found)
    assert all(len(set(row["documents"])) == 4 and documents.issuperset(row["documents"]) for row in found)
    assert "20 of 20 queries of rows.jsonl came without a wrong candidate" in notes.lines[0]
    assert read(tmp_path, rows, num_negatives=3) == found


def test_the_order_of_candidates_says_nothing_of_their_grades(tmp_path):
    found = read(tmp_path, sets(60, num_negatives=3))
    places = [row["grades"].index(1.0) for row in found]
    # each of four places is drawn 15 times of 60 at the mean; below 4 or above 26 once in 1,000
    assert all(4 <= count <= 26 for count in np.bincount(places, minlength=4))


def test_a_folder_of_judgements_gets_the_candidates_that_a_model_finds(tmp_path):
    folder = write_tiny(tmp_path / "tiny", HEADS["embed"])
    judged = write_judged(tmp_path / "judged", {"train": range(8)})
    with (judged / "qrels/train.tsv").open("a") as file:
        file.write("q0\td9\t2\n")
    config = Rerank(mine=Mining(model=str(folder), num_negatives=3, largest_share=None))
    rows = list(config.read(str(judged), Notes()))
    assert sorted(rows[0]["grades"]) == [0, 0, 0, 1, 2]
    assert all(sorted(row["grades"]) == [0, 0, 0, 1] for row in rows[1:])


def task_of(tmp_path, content, **words):
    path = write_lines(tmp_path / "rows.jsonl", content)
    rows = Rows.write(tmp_path / "train.jsonl", Rerank(**words).read(str(path), Notes()))
    return Rerank(**words).prepare(Parts(train=rows, dev=None, test=None), Notes()), rows


@pytest.mark.parametrize("loss", ["pointwise", "listwise"])
def test_losses_are_what_their_formulas_say(loss, tmp_path, encoder):
    graded = [
        {"query": query, "document": document, "label": label}
        for (query, _), labels in zip(pairs(3), ((2, 1, 0), (0, 1), (2, 0, 0)), strict=True)
        for (_, document), label in zip(pairs(3), labels, strict=False)
    ]
    task, rows = task_of(tmp_path, graded, loss=loss)
    assert task.best_grade == 2
    model = load(encoder, dtype="float32", device="cpu")
    model.pretrained = task.begin(model.pretrained, seed=0)
    module = model.pretrained.module.eval()
    torch.nn.init.normal_(module.classifier.weight, std=1.0)
    examples = list(task.examples(rows, model, 64, Notes()))
    assert [each.weight for each in examples] == ([3, 2, 3] if loss == "pointwise" else [1, 1, 1])
    wanted = 0.0
    for row in rows:
        logits = {
            text: math.log(each.score / (1 - each.score))
            for text in row["documents"]
            for each in model.rerank(row["query"], [text])
        }
        total = sum(row["grades"])
        for text, grade in grades_of(row).items():
            if loss == "pointwise":
                chance = 1 / (1 + math.exp(-logits[text]))
                wanted -= grade / 2 * math.log(chance) + (1 - grade / 2) * math.log(1 - chance)
            else:
                share = math.exp(logits[text]) / sum(map(math.exp, logits.values()))
                wanted -= grade / total * math.log(share)
    with torch.no_grad():
        found = float(task.loss(module, *task.inputs(examples), backend="auto"))
    assert found == pytest.approx(wanted, rel=10 * FORMULA)  # scores went through a sigmoid and back


def test_queries_whose_candidates_are_alike_teach_no_order(tmp_path, encoder):
    rows = [
        *({"query": "a dog", "document": document, "label": 1} for _, document in pairs(2)),
        *({"query": "a king", "document": document, "label": k} for k, (_, document) in enumerate(pairs(2))),
    ]
    task, kept = task_of(tmp_path, rows, loss="listwise", num_negatives=1)
    kept = Rows.write(
        tmp_path / "alike.jsonl", ({**row, "grades": [1.0] * len(row["grades"])} for row in kept)
    )
    notes = Notes()
    model = load(encoder, dtype="float32", device="cpu")
    assert list(task.examples(kept, model, 64, notes)) == []
    assert "2 queries whose candidates are all alike" in notes.lines[0]


@pytest.mark.parametrize("label", [0, 1])
def test_grades_that_are_all_the_same_are_refused(label, tmp_path):
    rows = [{"query": "a", "document": document, "label": label} for document in ("b", "c")]
    if label:  # one query, and no document of another that could be drawn
        rows = [{"query": "a", "document": "b", "label": 1}]
    with pytest.raises(CorpusError, match="there is no order to learn"):
        task_of(tmp_path, rows)


def test_an_unknown_loss_is_refused():
    with pytest.raises(TrainingError, match="pointwise or listwise"):
        Rerank(loss="pairwise")


@pytest.mark.parametrize("loss", ["pointwise", "listwise"])
def test_an_order_is_learned_and_cross_encoder_gives_the_same_scores(loss, tmp_path, encoder):
    from sentence_transformers import CrossEncoder

    # to match words across a pair takes long to learn; that right documents end in two noughts does not
    rows = [row | {"positive": f"{row['positive']} 0 0"} for row in sets(132, num_negatives=3)]
    data = write_lines(tmp_path / "sets.jsonl", rows)
    out = finetune(Rerank(loss=loss), data, model=encoder, out=tmp_path / "out", settings=FAST, switches=CPU)
    results = json.loads((out / "results.json").read_text())
    chance = results["beside"]["random order"]["ndcg@10"]
    lines = (out / "evaluations.jsonl").read_text().splitlines()
    figures = [json.loads(line)["sources"]["dev"] for line in lines]
    assert max(each["ndcg@10"] for each in figures) > chance + 0.1
    assert figures[-1]["loss"] < figures[0]["loss"]

    model = load(out, dtype="float32", device="cpu")
    assert model.pretrained.settings.activation == "sigmoid"
    query, documents = rows[0]["query"], [rows[0]["positive"], *rows[0]["negatives"]]
    ours = {each.index: each.score for each in model.rerank(query, documents)}
    theirs = CrossEncoder(str(out), device="cpu").predict([(query, each) for each in documents])
    assert np.abs(np.array([ours[i] for i in range(4)]) - theirs).max() < SAME_SCORE
    assert "| random order |" in (out / "report.md").read_text()
    prediction = json.loads((out / "predictions.jsonl").read_text().splitlines()[0])
    assert {"query", "place", "found"} <= prediction.keys()


def test_a_reranker_goes_on_with_its_own_head(tmp_path):
    folder = write_tiny(tmp_path / "tiny", HEADS["rerank"])
    old = read_folder(folder)
    ours = RerankTask(config=Rerank(), best_grade=1.0).begin(old, seed=0)
    assert ours.config == old.config
    assert torch.equal(ours.module.classifier.weight, old.module.classifier.weight)
