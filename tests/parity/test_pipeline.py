"""Whole tasks against transformers: its pipelines where it has them, its models by hand where it has not.

Both read the same folders of random weights. In go texts, out come labels, words, entities and answers.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import CrossEncoder

import modernbert
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.pretrained.sentence import TextSettings
from tests.inference.tiny import BERT_HEADS, HEADS, TAGS, write_tiny

# fp32 sums in another order, on probabilities.
TOLERANCE = 1e-5
FAMILIES = {"modernbert": HEADS, "bert": BERT_HEADS}
TEXTS = [
    "Paris is the capital of France, and Sofia the capital of Bulgaria.",
    "He walked to the store and bought some bread",
    "caf\u00e9 \U0001f600 \u0421\u043e\u0444\u0438\u044f",
    "a",
]
QUESTION, CONTEXT = "Who walked to the store?", "Anna Meier walked to the store, and bought bread."

pytestmark = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def both(tmp_path, family):
    """A function that gives our model and a folder for theirs, by the name of the head."""

    def written(name: str) -> tuple[modernbert.Model, Path]:
        folder = write_tiny(tmp_path / "model", FAMILIES[family][name], family=family)
        return modernbert.load(folder, dtype="float32", device="cpu"), folder

    return written


def pipeline(task: str, folder: Path, **arguments: object) -> transformers.Pipeline:
    return transformers.pipeline(task, model=str(folder), device="cpu", **arguments)


@pytest.mark.parametrize("text", ["He walked to the [MASK].", "[MASK] is the capital of [MASK]", "a[MASK]b"])
def test_masks_have_the_candidates_of_the_pipeline(both, text):
    ours, folder = both("mlm")
    theirs = pipeline("fill-mask", folder)(text, top_k=8)
    found = ours.fill_mask(text, top_k=5)
    for mask, row in enumerate(theirs if isinstance(theirs[0], list) else [theirs]):
        # the pipeline also proposes the three rows behind the vocabulary's end, which are no words
        expected = [each for each in row if each["token"] < ours.tokenizer.vocab_size][:5]
        here = [fill for fill in found if fill.mask == mask]
        assert [fill.token_id for fill in here] == [each["token"] for each in expected]
        assert [fill.score for fill in here] == pytest.approx([e["score"] for e in expected], abs=TOLERANCE)


def test_labels_have_the_scores_of_the_pipeline(both):
    ours, folder = both("classify")
    for found, expected in zip(
        ours.classify(TEXTS), pipeline("text-classification", folder)(TEXTS, top_k=None), strict=True
    ):
        assert list(found.scores) == [each["label"] for each in expected]
        assert list(found.scores.values()) == pytest.approx(
            [each["score"] for each in expected], abs=TOLERANCE
        )


def test_pairs_have_the_scores_of_the_pipeline(both):
    ours, folder = both("classify")
    pairs = [(one, other) for one in TEXTS[1:] for other in TEXTS[1:]]
    theirs = pipeline("text-classification", folder)
    asked = [{"text": one, "text_pair": other} for one, other in pairs]
    for found, expected in zip(ours.classify(pairs), theirs(asked, top_k=None), strict=True):
        assert found.scores == pytest.approx({e["label"]: e["score"] for e in expected}, abs=TOLERANCE)


@pytest.mark.parametrize("names", [["input_ids", "attention_mask"], ["input_ids", "token_type_ids"]])
def test_token_types_are_told_where_the_folder_names_them(both, names):
    """transformers hands over what `model_input_names` lists, and the model takes type 0 for all else."""
    _, folder = both("classify")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_input_names": names}))
    ours = modernbert.load(folder, dtype="float32", device="cpu")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS[0], TEXTS[1], return_tensors="pt")).logits[0]
    expected = {model.config.id2label[i]: score for i, score in enumerate(logits.softmax(dim=-1).tolist())}
    (found,) = ours.classify([(TEXTS[0], TEXTS[1])])
    assert found.scores == pytest.approx(expected, abs=TOLERANCE)


def test_documents_have_the_ranks_of_a_cross_encoder(tmp_path, family):
    head = FAMILIES[family]["rerank"]
    assert isinstance(head, ClassifyHeadConfig)
    folder = write_tiny(tmp_path / "model", head, family=family, settings=TextSettings(activation="sigmoid"))
    ours = modernbert.load(folder, dtype="float32", device="cpu")
    expected = CrossEncoder(str(folder), device="cpu").rank(QUESTION, TEXTS)
    found = ours.rerank(QUESTION, TEXTS)
    assert [each.index for each in found] == [each["corpus_id"] for each in expected]
    assert [each.score for each in found] == pytest.approx(
        [each["score"] for each in expected], abs=TOLERANCE
    )


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_entities_are_those_of_the_pipeline(both):
    """Its `first` strategy gives a word the label of its first token; it splits words by blanks alone."""
    ours, folder = both("tag")
    words = ["Paris", "is", "the", "capital", "and", "Anna", "Meier", "walked", "to", "the", "store"]
    theirs = pipeline("token-classification", folder, aggregation_strategy="first")
    expected = [
        (each["entity_group"], each["start"], each["end"], pytest.approx(each["score"], abs=TOLERANCE))
        for each in theirs(" ".join(words))
    ]
    (found,) = ours.tag([words])
    assert len(found) > 2
    # its byte-level offsets may begin with the blank before the word
    trimmed = [
        (label, start + (" ".join(words)[start] == " "), end, score) for label, start, end, score in expected
    ]
    assert [(e.label, e.start, e.end, e.score) for e in found] == trimmed


def test_every_token_has_the_tag_scores_of_the_pipeline(both):
    ours, folder = both("tag")
    theirs = pipeline("token-classification", folder, aggregation_strategy="none", ignore_labels=[])
    for text in TEXTS:
        expected = theirs(text)
        logits = ours.module(modernbert.PackedBatch.from_sequences(ours.tokenizer.encode_ids([text])))
        best = logits.softmax(dim=-1).max(dim=-1)
        assert [TAGS[i] for i in best.indices[1:-1]] == [each["entity"] for each in expected]
        scores = [float(each["score"]) for each in expected]
        assert best.values[1:-1].tolist() == pytest.approx(scores, abs=TOLERANCE)


def test_answers_are_those_of_the_model_computed_by_hand(both):
    """Its pipeline is gone from transformers 5: softmax over all spans of the context and "no answer"."""
    ours, folder = both("span")
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(QUESTION, CONTEXT, return_tensors="pt", return_offsets_mapping=True)
    offsets, side = inputs.pop("offset_mapping")[0].tolist(), inputs.sequence_ids()
    with torch.no_grad():
        output = model(**inputs)
    starts, ends = (each[0].double().numpy() for each in (output.start_logits, output.end_logits))
    context = [i for i, which in enumerate(side) if which == 1]
    spans = [(starts[i] + ends[j], i, j) for i in context for j in context if i <= j]
    total = np.logaddexp.reduce([*(logit for logit, _, _ in spans), starts[0] + ends[0]])
    expected = sorted(spans, reverse=True)[:5]
    found = ours.answers(QUESTION, CONTEXT, top_k=5)
    assert len(found) == 5
    for answer, (logit, i, j) in zip(found, expected, strict=True):
        assert answer.text == CONTEXT[offsets[i][0] : offsets[j][1]].strip()
        assert answer.score == pytest.approx(float(np.exp(logit - total)), abs=TOLERANCE)


def test_choices_have_the_probabilities_of_the_model(both):
    ours, folder = both("choice")
    choices = ["to the store", "Paris", "the capital of France"]
    model = transformers.AutoModelForMultipleChoice.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer([QUESTION] * 3, choices, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = model(**{name: value[None] for name, value in inputs.items()}).logits[0].softmax(dim=-1)
    found = ours.choose(QUESTION, choices)
    assert found.index == int(expected.argmax())
    assert found.score == pytest.approx(float(expected.max()), abs=TOLERANCE)
