"""Finding answers: spans as tokens, windows with and without them, SQuAD's scores, the threshold for none."""

import json
import random
import re
import string
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForQuestionAnswering

import modernbert
from modernbert.errors import CorpusError
from modernbert.heads.tokens import SpanHeadConfig
from modernbert.inference.answering import read_questions
from modernbert.inference.loading import load
from modernbert.pretrained.folder import write_folder
from modernbert.training.tasks import answer_report, answer_scores
from modernbert.training.tasks.answer import FindAnswers, FindAnswersTask, token_span
from modernbert.training.tasks.packs import pack_examples
from modernbert.training.tasks.task import Notes, Parts
from tests.inference.tiny import byte_level, word_piece
from tests.training.small_task import BAD, FILLING, GOOD
from tests.training.token_tasks import finetuned, learn, model_with_head, rows_of

# Two programs, or two packs, add up in another order.
TOLERANCE = 1e-5
CONTEXT = (
    "Anna Meier walked to New York. She bought bread. \u0421\u043e\u0444\u0456\u044f \U0001f600 came too."
)


def model_with(base):
    return model_with_head(base, lambda transform, pooling: SpanHeadConfig(transform=transform))


def row_of(question, context, *texts):
    return {
        "id": question,
        "question": question,
        "context": context,
        "answers": [{"text": text, "start": context.index(text)} for text in texts],
        "is_impossible": not texts,
        "context_id": context,
    }


TASK = FindAnswersTask(config=FindAnswers(), may_have_none=True)


def examples_of(rows, model, limit, task=TASK):
    notes = Notes()
    return list(task.examples(rows, model, limit, notes)), notes


# ---- the data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", [byte_level(), word_piece()], ids=["bytes", "pieces"])
@pytest.mark.parametrize(
    "text",
    [
        "Anna",
        "New York",
        "bread",
        "\u0421\u043e\u0444\u0456\u044f \U0001f600",
        "\u0421\u043e\u0444\u0456\u044f",
        "came too.",
    ],
)
def test_the_tokens_of_an_answer_give_it_back(tokenizer, text):
    (read,) = read_questions(["Who?"], [CONTEXT], tokenizer=tokenizer, limit=200)
    first, last = token_span(read, {"text": text, "start": CONTEXT.index(text)})
    assert CONTEXT[read.starts[first] : read.ends[last]] == text


def test_an_answer_inside_a_token_takes_the_whole_token(tmp_path, bases):
    model = model_with(bases["modernbert"])
    rows = rows_of(tmp_path, [row_of("who", "the people were great", "eat")])
    (example,), notes = examples_of(rows, model, 64)
    start, end = (int(each) for each in example.targets[:2])
    ids = example.sequences[0].token_ids[start : end + 1]
    assert model.tokenizer.decode(ids).strip() == "great"
    assert notes.lines == ["1 answers begin or end inside a token; the whole tokens were learned"]


def test_an_answer_that_no_token_stands_for_is_left_out_and_counted(tmp_path, bases):
    rows = rows_of(tmp_path, [row_of("who", "a \u200b b", "\u200b"), row_of("who", "a b", "b")])
    examples, notes = examples_of(rows, model_with(bases["bert"]), 40)
    assert [each.row for each in examples] == [1]
    assert notes.lines == [
        "1 questions have an answer that the tokenizer has no token for, and were left out"
    ]


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_windows_learn_their_answer_or_none(tmp_path, bases, family):
    model = model_with(bases[family])
    context = " ".join(f"{word} {i} and" for i, word in enumerate([*FILLING, "Paris", *FILLING]))
    rows = rows_of(tmp_path, [row_of("who was it", context, "Paris")])
    task = replace(TASK, config=FindAnswers(negatives=1000))
    examples, notes = examples_of(rows, model, 40, task)
    (read,) = read_questions(["who was it"], [context], tokenizer=model.tokenizer, limit=40)
    assert len(examples) == len(read.windows) > 3
    span = token_span(read, {"text": "Paris", "start": context.index("Paris")})
    num_holding = 0
    for example, window in zip(examples, read.windows, strict=True):
        assert example.sequences[0].token_ids == window.token_ids
        start, end, body_start, body_end = (int(each) for each in example.targets)
        (whole,) = model.tokenizer.encode(["who was it"], [context])
        assert window.token_ids[:body_start] == whole.token_ids[:body_start]
        assert body_end == len(window.token_ids) - 1
        if window.start <= span[0] and span[1] < window.end:
            num_holding += 1
            assert (start, end) == tuple(each - window.start + body_start for each in span)
        else:
            assert (start, end) == (0, 0)
        assert example.weight == 1
    assert num_holding >= 1
    assert notes.lines == ["1 questions have contexts that do not fit 40 tokens, which were read in windows"]


def test_few_windows_without_the_answer_are_learned_and_always_the_same(tmp_path, bases):
    model = model_with(bases["modernbert"])
    context = " ".join([*FILLING * 6, "lovely", *FILLING * 6])
    rows = rows_of(tmp_path, [row_of("who", context, "lovely"), row_of("where", context)])
    examples, _ = examples_of(rows, model, 40)
    num_none = Counter(each.row for each in examples if each.targets[0] == 0)
    assert num_none == {0: 2, 1: 2}
    assert any(each.row == 0 and each.targets[0] > 0 for each in examples)
    again, _ = examples_of(rows, model, 40)
    assert [each.sequences for each in examples] == [each.sequences for each in again]


def test_questions_that_cannot_be_learned_are_counted(tmp_path, bases):
    model = model_with(bases["modernbert"])
    long_answer = " ".join(FILLING * 3)
    rows = rows_of(
        tmp_path,
        [
            row_of(" ".join(FILLING * 4), "the film", "film"),
            row_of("who", f"a {long_answer} story", long_answer),
            row_of("what", "the film", "film"),
        ],
    )
    examples, notes = examples_of(rows, model, 30)
    assert [each.row for each in examples] == [2]
    assert notes.lines == [
        "1 questions have contexts that do not fit 30 tokens, which were read in windows",
        "1 questions leave no room for their context in 30 tokens and were left out",
        "1 questions have an answer that no window holds whole, and were left out",
    ]


def test_questions_without_any_answer_teach_nothing(tmp_path):
    rows = rows_of(tmp_path, [row_of("who", "a b")])
    with pytest.raises(CorpusError, match="none of the 1 questions to learn from has an answer"):
        FindAnswers().prepare(Parts(train=rows, dev=None, test=None), Notes())


def test_shared_contexts_and_unseen_kinds_of_questions_are_told(tmp_path):
    rows = rows_of(tmp_path, [row_of("who", "a b", "b")])
    dev = rows_of(tmp_path, [row_of("where", "a b", "a"), row_of("when", "c")], "dev.jsonl")
    notes = Notes()
    task = FindAnswers().prepare(Parts(train=rows, dev=dev, test=None), notes)
    assert task.metric == "f1"
    assert notes.lines == [
        "1 of 2 questions of the dev part are about contexts that also stand in train",
        "1 questions of the dev part have no answer, and training has none such: the model always gives one",
    ]


# ---- the loss ----------------------------------------------------------------------------------------------


def test_the_loss_goes_over_the_context_and_the_first_token(tmp_path, bases):
    model = model_with(bases["modernbert"])
    rows = [row_of("who was it", "the film was great", "great"), row_of("where", "a story about people")]
    examples, _ = examples_of(rows_of(tmp_path, rows), model, 64)
    module = model.module.eval().requires_grad_(False)
    batch = pack_examples(examples)
    wanted = 0.0
    for example, logits in zip(examples, batch.split(module(batch)), strict=True):
        start, end, body_start, body_end = (int(each) for each in example.targets)
        places = [0, *range(body_start, body_end)]
        for side, place in enumerate((start, end)):
            wanted -= float(logits[places, side].log_softmax(0)[places.index(place)]) / 2
    found = TASK.loss(module, *TASK.inputs(examples), backend="auto")
    assert float(found) == pytest.approx(wanted, abs=TOLERANCE)
    alone = [float(TASK.loss(module, *TASK.inputs([each]), backend="auto")) for each in examples]
    assert float(found) == pytest.approx(sum(alone), abs=TOLERANCE)


def test_the_gradient_of_the_loss_is_finite(tmp_path, bases):
    model = model_with(bases["modernbert"])
    rows = [row_of("who was it", "the film was great", "great"), row_of("where", "a story about people")]
    examples, _ = examples_of(rows_of(tmp_path, rows), model, 64)
    TASK.loss(model.module, *TASK.inputs(examples), backend="auto").backward()
    assert all(torch.isfinite(each.grad).all() for each in model.module.parameters() if each.grad is not None)


# ---- the scores: the rules of evaluate-v2.0.py, once more --------------------------------------------------


def official_normalize(text):
    text = "".join(each for each in text.lower() if each not in set(string.punctuation))
    return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())


def official_scores(given, wanted):
    gold = [each for each in wanted if official_normalize(each)] or [""]
    exact = max(int(official_normalize(each) == official_normalize(given)) for each in gold)

    def f1(each):
        one, other = official_normalize(each).split(), official_normalize(given).split()
        same = sum((Counter(one) & Counter(other)).values())
        if len(one) == 0 or len(other) == 0:
            return int(one == other)
        if same == 0:
            return 0
        precision, recall = 1.0 * same / len(other), 1.0 * same / len(one)
        return (2 * precision * recall) / (precision + recall)

    return exact, max(f1(each) for each in gold)


# ---- the model ---------------------------------------------------------------------------------------------


def mixed_rows(num=60, seed=0):
    """Of what kind was the film? The answer is the one word of praise or blame, where there is one."""
    draw = random.Random(seed)
    rows = []
    for _ in range(num):
        words = [draw.choice(FILLING) for _ in range(draw.randint(3, 14))]
        found = []
        if draw.random() < 0.5:
            found = [draw.choice((*GOOD, *BAD))]
            words.insert(draw.randrange(len(words)), found[0])
        rows.append(row_of("the film was", " ".join(words), *found))
    return rows


def test_predictions_are_what_the_model_answers_and_the_threshold_decides(tmp_path, bases):
    model = model_with(bases["modernbert"])
    rows = rows_of(tmp_path, mixed_rows())
    before = answer_scores.evaluate(model, rows, may_have_none=False)
    assert [row["predicted"] for row in before.predictions] == [
        model.answer(row["question"], row["context"]).text for row in rows
    ]
    assert before.figures["right_without_answer"] == 0.0
    settled = answer_scores.settle(model, rows, may_have_none=True)
    threshold = model.pretrained.settings.no_answer_threshold
    assert settled["threshold for no answer"] == threshold
    after = answer_scores.evaluate(model, rows, may_have_none=True)
    assert after.figures["f1"] == pytest.approx(after.figures["best_f1"])
    assert after.figures["f1"] == pytest.approx(settled["f1 on dev at the threshold"])
    for row, prediction in zip(rows, after.predictions, strict=True):
        found = model.answers(row["question"], row["context"], top_k=3)
        assert found[0].text == prediction["predicted"]
        assert (found[0].text == "") == (prediction["advantage"] > threshold)
        assert sum(each.score for each in found) <= 1 + TOLERANCE
        if found[0].text == "":
            assert len(found) == 3
            assert prediction["advantage"] == pytest.approx(np.log(found[0].score / found[1].score), abs=1e-4)


def test_figures_are_those_of_each_kind_of_question(tmp_path, bases):
    model = model_with(bases["modernbert"])
    rows = rows_of(tmp_path, mixed_rows())
    found = answer_scores.evaluate(model, rows, may_have_none=True)
    has_answer = answer_scores.answerable(found.predictions)
    f1 = np.array(
        [official_scores(p["predicted"], [a["text"] for a in p["answers"]]) for p in found.predictions]
    )
    assert found.figures["exact"] == pytest.approx(f1[:, 0].mean())
    assert found.figures["f1"] == pytest.approx(f1[:, 1].mean())
    assert found.figures["f1_with_answer"] == pytest.approx(f1[has_answer, 1].mean())
    assert found.figures["right_without_answer"] == pytest.approx(f1[~has_answer, 0].mean())


def test_a_question_that_is_too_long_counts_as_not_answered(tmp_path, bases):
    model = model_with(bases["bert"])
    rows = rows_of(tmp_path, [row_of("what is it " * 30, "a film", "film"), row_of("what", "a film", "film")])
    found = answer_scores.evaluate(model, rows, may_have_none=False)
    assert found.predictions[0]["predicted"] == ""
    assert found.predictions[1]["predicted"] != ""


def test_too_few_questions_of_a_kind_fit_no_threshold(tmp_path, bases):
    model = model_with(bases["modernbert"])
    rows = rows_of(tmp_path, mixed_rows(20))
    assert answer_scores.settle(model, rows, may_have_none=True) == {"threshold for no answer": 0.0}
    assert model.pretrained.settings.no_answer_threshold == 0.0
    assert answer_scores.settle(model, rows, may_have_none=False) == {}
    assert model.pretrained.settings.no_answer_threshold is None


@pytest.mark.parametrize(("may_have_none", "threshold"), [(True, 0.0), (False, None)])
def test_a_model_that_learns_anew_forgets_its_old_threshold_and_keeps_its_head(
    bases, may_have_none, threshold
):
    old = model_with(bases["modernbert"]).pretrained
    old.settings = replace(old.settings, no_answer_threshold=3.0)
    new = FindAnswersTask(config=FindAnswers(), may_have_none=may_have_none).begin(old, seed=5)
    assert new.settings.no_answer_threshold == threshold
    assert torch.equal(new.module.classifier.weight, old.module.classifier.weight)


@pytest.mark.parametrize("layout", ["auto", "parts"])
@pytest.mark.parametrize("threshold", [None, 0.0, -1.25])
def test_the_threshold_is_kept_in_the_folder(tmp_path, bases, layout, threshold):
    model = model_with(bases["modernbert"])
    kept = model.pretrained
    kept.settings = replace(kept.settings, no_answer_threshold=threshold)
    write_folder(tmp_path / "reader", kept, layout=layout)
    assert modernbert.load(tmp_path / "reader").pretrained.settings.no_answer_threshold == threshold
    if layout == "auto":
        theirs = AutoConfig.from_pretrained(tmp_path / "reader")
        assert getattr(theirs, "null_score_diff_threshold", None) == threshold


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_transformers_gives_the_same_scores(tmp_path, bases, family):
    model = model_with(bases[family])
    model.save(tmp_path / "reader")
    theirs = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "reader").eval()
    examples, _ = examples_of(rows_of(tmp_path, mixed_rows(4)), model, 40)
    with torch.no_grad():
        batch = pack_examples(examples)
        for example, ours in zip(examples, batch.split(model.module.eval()(batch)), strict=True):
            (sequence,) = example.sequences
            types = {"token_type_ids": torch.tensor([sequence.token_types])} if family == "bert" else {}
            wanted = theirs(input_ids=torch.tensor([sequence.token_ids]), **types)
            assert float((ours[:, 0] - wanted.start_logits[0]).abs().max()) < TOLERANCE
            assert float((ours[:, 1] - wanted.end_logits[0]).abs().max()) < TOLERANCE


def test_a_tiny_model_learns_to_answer_and_not_to(tmp_path, bases):
    train = rows_of(tmp_path, mixed_rows(200))
    held = rows_of(tmp_path, mixed_rows(80, seed=1), "held.jsonl")
    model = model_with(bases["modernbert"])
    examples, _ = examples_of(train, model, 64)
    learn(TASK, model, examples)
    TASK.settle(model, held)
    figures = TASK.evaluate(model, held).figures
    assert figures["exact_with_answer"] > 0.8
    assert figures["right_without_answer"] > 0.8


def test_a_few_dozen_questions_are_learned_by_heart(tmp_path, bases):
    """In windows, of which some hold no answer: wrong targets, scores or thresholds would show here."""
    behind = " . " + " ".join(FILLING * 2)
    rows = mixed_rows(60)
    for row in rows[::3]:
        row["context"] += behind
    train = rows_of(tmp_path, rows)
    model = model_with(bases["modernbert"])
    model.pretrained.settings = replace(model.pretrained.settings, max_seq_length=40)
    examples, notes = examples_of(train, model, 40)
    assert len(examples) > len(rows)
    assert notes.lines == ["20 questions have contexts that do not fit 40 tokens, which were read in windows"]
    learn(TASK, model, examples, num_steps=200)
    assert TASK.evaluate(model, train).figures["best_f1"] > 0.98
    TASK.settle(model, train)
    figures = TASK.evaluate(model, train).figures
    assert figures["f1_with_answer"] > 0.98
    assert figures["right_without_answer"] > 0.98


# ---- the report --------------------------------------------------------------------------------------------


def test_the_nearest_sentence_shares_most_words_with_the_question():
    row = row_of("Where did Anna live?", "It rained. Anna did live in Paris. Anna left.", "Paris")
    assert answer_report.nearest_sentence(row) == "Anna did live in Paris."


def given_rows(num, seed):
    """As a user's file has them."""
    return [
        {key: row[key] for key in ("id", "question", "context", "answers")} for row in mixed_rows(num, seed)
    ]


@pytest.fixture(scope="session")
def finished(tmp_path_factory, bases):
    return finetuned(FindAnswers(), tmp_path_factory.mktemp("answering"), bases["modernbert"], given_rows)


@pytest.mark.filterwarnings("ignore:learning brought nothing better")  # an epoch of 40 questions
def test_a_file_of_questions_becomes_a_folder_with_predictions_and_a_report(finished):
    rows = [json.loads(line) for line in (finished / "predictions.jsonl").read_text().splitlines()]
    model = load(finished, dtype="float32", device="cpu")
    assert model.pretrained.settings.no_answer_threshold == 0.0
    for row, source in zip(rows, mixed_rows(12, 2), strict=True):
        found = model.answers(source["question"], source["context"], top_k=5)
        assert row["predicted"] == found[0].text
        assert [each["text"] for each in row["best"]] == [each.text for each in found]
    report = (finished / "report.md").read_text()
    for words in (
        "this model, test",
        "the sentence most like the question, test",
        "always no answer, test",
        "## Answer or none",
        "## What went wrong",
    ):
        assert words in report
    assert (finished / "no_answer.png").exists()
