"""Labels, values, ranks and choices."""

import numpy as np
import pytest

import modernbert
from modernbert.errors import InputError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.inference.long_texts import pair_pieces, text_pieces
from modernbert.inference.results import Classification
from modernbert.pretrained.sentence import TextSettings
from modernbert.text.batch import PackedBatch
from tests.inference.tiny import LABELS, write_tiny

TOLERANCE = 1e-5
TEXTS = ["Paris is the capital", "bread", ""]
PAIRS = [("Paris is the capital", "of France"), ("bread", ""), ("", "bread")]
LONG = "He walked to the store and bought some bread for Anna. " * 6


def logits_of(model, pieces):
    batch = PackedBatch.from_sequences(
        [piece.token_ids for piece in pieces.sequences], [piece.token_types for piece in pieces.sequences]
    )
    return model.module(batch).detach().numpy()


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("head", "meaning"),
    [("classify", softmax), ("multi_label", lambda x: 1 / (1 + np.exp(-x))), ("regression", lambda x: x)],
)
def test_scores_mean_what_the_problem_says(model_of, head, meaning):
    model = model_of(head)
    labels = model.config.head.labels
    expected = meaning(logits_of(model, text_pieces(model.tokenizer, TEXTS, limit=48, overflow="error")))
    for found, row in zip(model.classify(TEXTS), expected, strict=True):
        assert np.abs(np.array([found.scores[label] for label in labels]) - row).max() <= TOLERANCE
        assert list(found.scores.values()) == sorted(found.scores.values(), reverse=True)
        assert found.label == labels[row.argmax()]
        assert found.score == max(found.scores.values())


def test_labels_above_a_threshold():
    found = Classification(scores={"a": 0.9, "b": 0.5, "c": 0.4})
    assert found.above() == ["a", "b"]
    assert found.above(0.95) == []


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_pairs_go_in_with_their_template_and_types(model_of, family):
    model = model_of("classify", family)
    encodings = model.tokenizer.encode([a for a, _ in PAIRS], [b for _, b in PAIRS])
    assert (1 in encodings[0].token_types) == (family == "bert")
    batch = PackedBatch.from_sequences([e.token_ids for e in encodings], [e.token_types for e in encodings])
    expected = softmax(model.module(batch).detach().numpy())
    for found, row in zip(model.classify(PAIRS), expected, strict=True):
        assert np.abs(np.array([found.scores[label] for label in LABELS]) - row).max() <= TOLERANCE
    assert model.classify([list(pair) for pair in PAIRS]) == model.classify(PAIRS)


def test_the_windows_of_a_long_text_count_by_their_tokens(model_of):
    model = model_of("classify")
    pieces = text_pieces(model.tokenizer, [LONG], limit=20, overflow="windows")
    assert len(set(pieces.num_tokens[0])) > 1
    expected = softmax(np.average(logits_of(model, pieces), axis=0, weights=pieces.num_tokens[0]))
    (found,) = model.classify([LONG], max_length=20)
    assert np.abs(np.array([found.scores[label] for label in LABELS]) - expected).max() <= TOLERANCE


def test_the_windows_of_a_long_pair_go_over_the_second_text(model_of):
    model = model_of("classify")
    pieces = pair_pieces(model.tokenizer, [("bread", LONG)], limit=20, overflow="windows")
    first = model.tokenizer.encode_ids(["bread"], add_special_tokens=False)[0]
    assert len(pieces.sequences) > 3
    assert all(piece.token_ids[1 : len(first) + 1] == first for piece in pieces.sequences)
    expected = softmax(np.average(logits_of(model, pieces), axis=0, weights=pieces.num_tokens[0]))
    (found,) = model.classify([("bread", LONG)], max_length=20)
    assert np.abs(np.array([found.scores[label] for label in LABELS]) - expected).max() <= TOLERANCE


def test_documents_come_back_best_first_with_their_places(model_of):
    model = model_of("rerank")
    documents = ["Paris", "He walked to the store", "bread", "the capital of Bulgaria"]
    found = model.rerank("the capital", documents)
    assert sorted(each.index for each in found) == [0, 1, 2, 3]
    assert all(each.document == documents[each.index] for each in found)
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    assert model.rerank("the capital", documents, top_k=2) == found[:2]
    assert len(model.rerank("the capital", documents, top_k=99)) == 4
    assert model.rerank("the capital", []) == []


def test_of_a_long_document_the_best_window_counts(model_of):
    model = model_of("rerank")
    pieces = pair_pieces(model.tokenizer, [("bread", LONG)], limit=20, overflow="windows")
    best = logits_of(model, pieces).max()
    (found,) = model.rerank("bread", [LONG], max_length=20)
    assert found.score == pytest.approx(1 / (1 + np.exp(-best)), abs=TOLERANCE)


@pytest.mark.parametrize(
    ("activation", "meaning"),
    [("identity", lambda x: x), ("tanh", np.tanh), (None, lambda x: 1 / (1 + np.exp(-x)))],
)
def test_a_folder_may_name_what_scores_go_through(tmp_path, activation, meaning):
    head = ClassifyHeadConfig(labels=("relevance",), problem="regression")
    write_tiny(tmp_path / "model", head, settings=TextSettings(activation=activation, max_seq_length=30))
    model = modernbert.load(tmp_path / "model", dtype="float32", device="cpu")
    (found,) = model.rerank("bread", ["Paris"])
    (raw,) = model.classify([("bread", "Paris")])
    assert found.score == pytest.approx(meaning(raw.score), abs=TOLERANCE)


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_the_choice_with_the_best_score_wins(model_of, family):
    model = model_of("choice", family)
    choices = ["to the store", "Paris", "the capital of France", "bread"]
    pieces = pair_pieces(model.tokenizer, [("He walked", c) for c in choices], limit=48, overflow="error")
    expected = softmax(logits_of(model, pieces)[:, 0])
    found = model.choose("He walked", choices)
    assert found.index == expected.argmax()
    assert found.text == choices[found.index]
    assert found.score == pytest.approx(expected.max(), abs=TOLERANCE)


def test_no_choices_are_refused(model_of):
    with pytest.raises(InputError, match="at least one choice"):
        model_of("choice").choose("He walked", [])


def test_no_documents_to_keep_are_refused(model_of):
    with pytest.raises(InputError, match="top_k must be 1 or more, found 0"):
        model_of("rerank").rerank("bread", ["Paris"], top_k=0)
