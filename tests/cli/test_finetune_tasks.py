"""Every task of finetune, and distill, once for real: a small file becomes a folder that other verbs take."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import modernbert
from tests.cli.conftest import assert_fails, json_lines

NAMES, PLACES, KINDS = ("ada", "the cat", "a dog"), ("london", "the rain"), ("good", "bad", "wet", "in")
# Different texts of words that the tokenizer of these tests knows.
CHOSEN = list(itertools.product(NAMES, PLACES, KINDS))
# Of a few updates on a few rows nobody expects more.
pytestmark = pytest.mark.filterwarnings("default:learning brought nothing better")
FOLDER = "FOLDER"  # stands for the new one in what asks it
FAST = ("--epochs", "1", "--batch-size", "8", "--lr", "1e-3", "--device", "cpu")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A task with a row of its file for each of CHOSEN, a wrong call of it, and what asks the folder."""

    command: Sequence[str]
    rows: Sequence[dict[str, Any]]
    wrong: Sequence[str]
    complaint: Sequence[str]
    ask: Sequence[str]


def tagged(name: str, place: str, kind: str) -> dict[str, Any]:
    words = [*name.split(), "lives", "in", *place.split(), "is", kind]
    marked = [
        "B-PER",
        *["I-PER"] * (len(name.split()) - 1),
        "O",
        "O",
        "B-LOC",
        *["I-LOC"] * (len(place.split()) - 1),
    ]
    return {"tokens": words, "tags": [*marked, "O", "O"]}


def asked(name: str, place: str, kind: str) -> dict[str, Any]:
    """A kind of "in" stands for a question that the context does not answer."""
    context = f"{name} lives in {place} . it is {kind}"
    answers = [] if kind == "in" else [{"text": place, "start": context.index(place)}]
    return {"question": f"where is {name} ?", "context": context, "answers": answers}


def searched(name: str, place: str, kind: str) -> dict[str, Any]:
    return {
        "query": f"who is {kind} in {place} ? {name}",
        "positive": f"{name} is {kind} .",
        "negative": f"{place} is {kind} .",
    }


SEARCHED = [searched(*each) for each in CHOSEN]
CASES = {
    "tag": Case(
        command=("finetune", "tag"),
        rows=[tagged(*each) for each in CHOSEN],
        wrong=("--words", "no_such"),
        complaint=("no_such", "'tokens', 'tags'"),
        ask=("tag", "ada lives in london", "--model", FOLDER),
    ),
    "answer": Case(
        command=("finetune", "answer"),
        rows=[asked(*each) for each in CHOSEN],
        wrong=("--negatives", "-1"),
        complaint=("negatives",),
        ask=("answer", "where is ada ?", "--context", "ada lives in london", "--model", FOLDER),
    ),
    "embed": Case(
        command=("finetune", "embed"),
        rows=SEARCHED,
        wrong=("--query", "no_such"),
        complaint=("no column 'no_such'", "'query', 'positive', 'negative'"),
        ask=("embed", "a good cat", "--model", FOLDER),
    ),
    "rerank": Case(
        command=("finetune", "rerank"),
        rows=SEARCHED,
        wrong=("--document", "no_such"),
        complaint=("no column 'no_such'", "'query', 'positive', 'negative'"),
        ask=("rerank", "who is good ?", "ada is good", "the rain is wet", "--model", FOLDER),
    ),
    "colbert": Case(
        command=("finetune", "colbert", "--query-length", "16", "--dimensions", "8"),
        rows=SEARCHED,
        wrong=("--negatives", "no_such"),
        complaint=("no column 'no_such'", "'query', 'positive', 'negative'"),
        ask=("info", FOLDER),
    ),
    "distill": Case(
        command=("distill",),
        rows=[{"text": " ".join(each)} for each in CHOSEN],
        wrong=("--text", "no_such"),
        complaint=("no column 'no_such'", "it has 'text'"),
        ask=("embed", "a good cat", "--model", FOLDER),
    ),
}


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture
def file(tmp_path, case) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in case.rows))
    return path


def call(run, case, folders, file, out, *options):
    """The command of a case; distill names its model and its file in words of its own."""
    words = (*FAST, "--out", str(out), *options)
    if case.command == ("distill",):
        student = ("--to", str(folders["mlm"]), "--texts", str(file))
        return run("distill", str(folders["embed"]), *student, *words)
    return run(*case.command, str(file), *words, kind="mlm")


def test_a_file_becomes_a_folder_with_a_report_that_other_verbs_take(run, folders, file, case, tmp_path):
    out = tmp_path / "out"
    done = call(run, case, folders, file, out)
    assert done.exit_code == 0, done.stderr
    assert f"finished: {out} is a model folder; read {out / 'report.md'}" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "out.unfinished").exists()
    assert "## Results" in (out / "report.md").read_text()
    predictions = (out / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) >= 2
    assert all(isinstance(json.loads(line), dict) for line in predictions)
    assert json_lines(run(*(str(out) if word is FOLDER else word for word in case.ask), "--json"))
    assert modernbert.load(out).tasks


def test_a_column_or_a_value_that_is_not_there_is_named(run, folders, file, case, tmp_path):
    result = call(run, case, folders, file, tmp_path / "out", *case.wrong)
    assert_fails(result, *case.complaint)
    assert not (tmp_path / "out").exists()


def test_after_a_wrong_column_the_right_one_begins_anew(run, tmp_path):
    """What the first call has read must not be what the second one learns from."""
    table = tmp_path / "reviews.csv"
    lines = (f"{name} in {place} {kind},{kind},same" for name, place, kind in CHOSEN if kind in KINDS[:2])
    table.write_text("\n".join(["text,stars,source", *lines]) + "\n")
    words = (str(table), "--out", str(tmp_path / "out"), *FAST)
    wrong = run("finetune", "classify", *words, "--label", "source", kind="mlm")
    assert_fails(wrong, "have the label 'same'; there is nothing to tell apart")
    right = run("finetune", "classify", *words, "--label", "stars", kind="mlm")
    assert right.exit_code == 0, right.stderr
    asked = json_lines(run("classify", "--model", str(tmp_path / "out"), "--json", "a good cat"))
    assert asked[0]["label"] in ("good", "bad")


def test_questions_without_a_context_are_told(run, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"question": "who ?", "text": "ada", "answers": []}\n')
    words = ("--out", str(tmp_path / "out"), *FAST)
    result = run("finetune", "answer", str(tmp_path / "rows.jsonl"), *words, kind="mlm")
    assert_fails(result, "no column 'context'", "'question', 'text', 'answers'")
