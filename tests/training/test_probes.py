"""Probes tell what vectors are good for, the same every time, and a run learns the same without them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from modernbert.corpus.shard_writing import write_shards
from modernbert.corpus.shards import Shards
from modernbert.encoder.presets import modernbert_sized
from modernbert.errors import CorpusError
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.text.batch import PackedBatch
from modernbert.training import journal, loop, probe_scores
from modernbert.training.curves import draw, summarize
from modernbert.training.pretraining import MaskedLoss
from modernbert.training.probe_scores import (
    classification_scores,
    discriminate,
    retrieval_scores,
    words_mrr,
)
from modernbert.training.probe_texts import NUM_DOCUMENTS, NUM_TEXTS, SHORTEST, Chooser, Halves, LabelledTexts
from modernbert.training.probes import ProbeConfig, Probes
from modernbert.training.run import Switches, pretrain
from tests.corpus.in_memory import FIRST_ID, PLACES, InMemory
from tests.inference.tiny import byte_level
from tests.training.small_corpus import documents, small_shards
from tests.training.small_recipe import small_recipe
from tests.training.toy import ALONE

ON_CPU = Switches(device="cpu")
# float32 sums of a handful of tokens, taken in another order.
FP32_TOLERANCE = 1e-5
CHOOSER = Chooser.of(byte_level(), 34)  # room for 32 tokens between [CLS] and [SEP]


def labelled(labels: list[str], is_second: list[bool]) -> LabelledTexts:
    texts = [np.array([1])] * len(labels)
    return LabelledTexts(origin="source", texts=texts, labels=labels, is_second=np.array(is_second))


def halves(queries: list[list[int]], seconds: list[list[int]], sources: list[str]) -> Halves:
    first, second = ([np.array(ids) for ids in each] for each in (queries, seconds))
    return Halves(queries=first, documents=second, sources=sources)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return small_shards(tmp_path_factory.mktemp("corpus")).folder


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> Path:
    return small_shards(tmp_path_factory.mktemp("valid"), seed=5, num=40).folder


@pytest.fixture(scope="module")
def probed(shards, valid, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("probed")
    assert pretrain(small_recipe(), shards, folder, valid=valid, probes=ProbeConfig(), switches=ON_CPU)
    return folder


@pytest.fixture(scope="module")
def module() -> MaskedLoss:
    encoder = modernbert_sized(num_layers=2, hidden_size=16, num_heads=2, intermediate_size=24)
    config = ModelConfig(encoder=replace(encoder, vocab_size=512, pad_token_id=0), head=MlmHeadConfig())
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return MaskedLoss(config.build()).eval()


def probes_of(module: MaskedLoss, valid: Path, *, row_tokens: int = 256) -> Probes:
    return Probes.choose(
        ProbeConfig(),
        Shards.open(valid),
        byte_level(),
        module.model.model,
        seq_len=34,
        row_tokens=row_tokens,
        precision=torch.float32,
    )


# Scores


def test_the_classifier_is_that_of_scikit_learn_where_nothing_is_shrunk(monkeypatch):
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    monkeypatch.setattr(probe_scores, "SHRINKAGE", 0.0)
    generator = np.random.default_rng(0)
    classes = np.repeat(np.arange(3), 50)
    vectors = generator.normal(size=(150, 6)) * [1, 2, 3, 4, 5, 0.1] + classes[:, None] * 0.7
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(vectors, classes)
    asked = generator.normal(size=(200, 6)) + 0.7
    assert np.array_equal(discriminate(vectors, classes, asked), theirs.predict(asked))


def test_many_texts_of_one_label_do_not_win_the_others():
    generator = np.random.default_rng(1)
    classes = np.repeat([0, 1], [190, 10])
    vectors = generator.normal(size=(200, 40)) + classes[:, None] * 0.8
    guesses = discriminate(vectors, classes, generator.normal(size=(100, 40)) + 0.8)
    assert np.mean(guesses == 1) > 0.9


def test_vectors_that_do_not_differ_are_classified_without_a_word():
    assert discriminate(np.ones((4, 3)), np.array([0, 0, 1, 1]), np.ones((2, 3))).tolist() == [0, 0]


def test_accuracy_is_balanced_and_every_label_is_named():
    labels = ["code"] * 6 + ["books"] * 2
    vectors = np.array([[0.0], [1.0]] * 3 + [[8.0], [3.0]])
    found = classification_scores(vectors, labelled(labels, [False, True] * 4))
    assert found["recall"] == {"books": 0.5, "code": 1.0}
    assert found["balanced_accuracy"] == 0.75
    assert found["majority"] == 0.5
    assert found["num_texts"] == 8


def test_halves_that_are_alike_are_found_and_others_are_not():
    generator = np.random.default_rng(2)
    content = generator.normal(size=(60, 12))
    both = np.concatenate([content, content + 0.1 * generator.normal(size=content.shape)])
    texts = halves([[1]] * 60, [[1]] * 60, ["a"] * 30 + ["b"] * 30)
    found = retrieval_scores(both, texts)
    assert found["accuracy_at_1"] == found["mrr"] == 1.0
    assert found["mrr_by_source"] == {"a": 1.0, "b": 1.0}
    by_chance = retrieval_scores(generator.normal(size=(120, 12)), texts)
    assert by_chance["mrr"] < 0.2


def test_a_direction_that_all_texts_share_hides_less_than_from_plain_cosines():
    generator = np.random.default_rng(3)
    content = generator.normal(size=(40, 12))
    both = np.concatenate([content, content + 0.1 * generator.normal(size=content.shape)])
    shared = both + 3.0 * generator.normal(size=(80, 1)) * np.ones(12)
    plain = np.mean(1.0 / probe_scores._ranks(*np.split(shared, 2)))
    found = retrieval_scores(shared, halves([[1]] * 40, [[1]] * 40, ["a"] * 40))["mrr"]
    assert found > 0.7 > 0.5 > plain


def test_vectors_that_are_all_the_same_are_found_by_no_one():
    found = retrieval_scores(np.ones((8, 3)), halves([[1]] * 4, [[1]] * 4, ["a"] * 4))
    assert found["mrr"] == 0.25
    assert found["accuracy_at_1"] == 0.0


def test_words_alone_find_what_shares_rare_words():
    queries = [[1, 7, 7, 2], [1, 8, 2], [1, 9, 2]]
    assert words_mrr(halves(queries, [[1, 7, 2], [1, 5, 8, 2], [1, 9, 9, 9, 2]], ["a"] * 3)) == 1.0
    assert words_mrr(halves(queries, [[1, 2], [1, 2], [1, 2]], ["a"] * 3)) == pytest.approx(1 / 3)


# Texts


def test_texts_of_sources_are_within_their_limits_and_evenly_spaced():
    corpus = InMemory({"books": [5000] * 4, "code": [20] * 1000, "tiny": [SHORTEST - 1] * 50})
    found = CHOOSER.of_sources(corpus)
    assert isinstance(found, LabelledTexts)
    assert set(found.labels) == {"books", "code"}
    assert len(found.texts) <= NUM_TEXTS
    assert found.labels.count("books") == 84  # a third of NUM_TEXTS, as many of each of four documents
    assert found.labels.count("code") == 85
    assert {len(text) for text in found.texts} == {34, 22}
    numbers = [int(text[1] - FIRST_ID) // PLACES for text in found.texts]
    assert max(numbers) % 1_000_000 == 999
    by_half = [
        {n for n, second in zip(numbers, found.is_second, strict=True) if second is half} for half in (0, 1)
    ]
    assert not by_half[0] & by_half[1]


def test_pieces_of_a_long_document_do_not_overlap():
    corpus = InMemory({"a": [100] * 2, "b": [64] * 2})
    found = CHOOSER.of_sources(corpus)
    assert isinstance(found, LabelledTexts)
    ids = np.concatenate([text[1:-1] for text in found.texts])
    assert len(ids) == len(set(ids.tolist()))
    assert len(found.texts) == 2 * 3 + 2 * 2


def test_halves_follow_one_another_in_their_document():
    corpus = InMemory({"a": [17, 15, 16], "b": [500]})
    found = CHOOSER.halves(corpus)
    assert isinstance(found, Halves)
    assert found.sources == ["a", "a", "b"]
    for query, second in zip(found.queries, found.documents, strict=True):
        assert len(query) == len(second) <= 34
        assert second[1] == query[-2] + 1
    many = CHOOSER.halves(InMemory({name: [100] * 500 for name in "abc"}))
    assert isinstance(many, Halves)
    assert len(many.queries) <= NUM_DOCUMENTS


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [
        ({"books": [100] * 9}, "two sources with two held-out documents or more, found books"),
        ({"books": [100] * 9, "code": [100]}, "found books"),
        ({"books": [3], "code": [2]}, "found none"),
    ],
)
def test_sources_that_cannot_be_told_apart_say_why(lengths, reason):
    found = CHOOSER.of_sources(InMemory(lengths))
    assert isinstance(found, str)
    assert reason in found


def test_a_lone_document_has_nothing_to_be_found_among():
    found = CHOOSER.halves(InMemory({"books": [100]}))
    assert isinstance(found, str)
    assert "two held-out documents of 16 tokens or more" in found


# Vectors


def test_a_vector_is_the_mean_of_the_hidden_states_of_its_text(module, valid):
    probes = probes_of(module, valid)
    assert probes.labelled is not None
    found = probes._vectors(module, ALONE, probes.labelled.texts)
    encoder = module.model.model
    with torch.no_grad():
        for text, vector in zip(probes.labelled.texts[::9], found[::9], strict=True):
            alone = encoder(PackedBatch.from_sequences([text.tolist()])).mean(dim=0)
            np.testing.assert_allclose(vector, alone.double().numpy(), atol=FP32_TOLERANCE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretended:
    """One of several processes whose shares are added up by the test."""

    rank: int
    world_size: int
    device: torch.device

    def sum(self, values: Tensor) -> Tensor:
        return values


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_texts_and_call_the_module_equally_often(module, valid, world_size):
    probes = probes_of(module, valid)
    assert probes.halves is not None
    texts = probes.halves.queries
    shares, calls = [], []
    counter = module.register_forward_hook(lambda *_: calls.append(rank))
    for rank in range(world_size):
        group = Pretended(rank=rank, world_size=world_size, device=torch.device("cpu"))
        shares.append(probes._vectors(module, group, texts))  # pyright: ignore[reportArgumentType]
    counter.remove()
    assert len({calls.count(rank) for rank in range(world_size)}) == 1
    assert np.array_equal(np.sum(shares, axis=0), probes._vectors(module, ALONE, texts))


def test_what_listens_to_the_encoder_is_taken_away_again(module, valid):
    probes_of(module, valid).figures(module, ALONE)
    assert not module.model.model._forward_hooks


# Runs


def test_evaluations_hold_the_scores_with_every_source_by_name(probed):
    rows = journal.read(probed / journal.EVALUATIONS)
    assert len(rows) > 2
    for row in rows:
        found = row["probes"]
        assert set(found["classification"]["recall"]) == {"notes", "tales"}
        assert set(found["retrieval"]["mrr_by_source"]) == {"notes", "tales"}
        assert found["classification"]["majority"] == 0.5
        assert 0.0 <= found["classification"]["balanced_accuracy"] <= 1.0
        assert 0.0 < found["retrieval"]["mrr"] <= 1.0
    json.dumps(rows, allow_nan=False)


def test_a_run_learns_the_same_with_probes_and_without(probed, shards, valid, tmp_path):
    assert pretrain(small_recipe(), shards, tmp_path, valid=valid, switches=ON_CPU)
    with_probes, without = (journal.read(each / journal.STEPS) for each in (probed, tmp_path))
    same = ("step", "tokens", "loss", "nll", "accuracy", "gradient_norm", "learning_rate", "mask_rate")
    assert [[row[key] for key in same] for row in with_probes] == [
        [row[key] for key in same] for row in without
    ]
    evaluated = [
        [
            {key: row[key] for key in row if key != "probes"}
            for row in journal.read(each / journal.EVALUATIONS)
        ]
        for each in (probed, tmp_path)
    ]
    assert evaluated[0] == evaluated[1]


def test_probes_may_begin_when_a_run_goes_on_and_give_what_they_would_have_given(
    probed, shards, valid, tmp_path, monkeypatch
):
    take = loop._take

    def ended(run: loop.Run, step: loop.TrainingStep) -> dict:
        if run.place.step == 12:
            raise RuntimeError("killed")
        return take(run, step)

    monkeypatch.setattr(loop, "_take", ended)
    with pytest.raises(RuntimeError, match="killed"):
        pretrain(small_recipe(), shards, tmp_path, valid=valid, switches=ON_CPU)
    monkeypatch.undo()
    assert pretrain(small_recipe(), shards, tmp_path, valid=valid, probes=ProbeConfig(), switches=ON_CPU)
    resumed, whole = (journal.read(each / journal.EVALUATIONS) for each in (tmp_path, probed))
    assert "probes" not in resumed[0]
    assert [row["step"] for row in resumed] == [row["step"] for row in whole]
    assert [row for row in resumed if "probes" in row] == whole[-len([r for r in resumed if "probes" in r]) :]


def test_held_out_text_of_one_source_is_said_to_be_no_classification(shards, tmp_path):
    lines = [json.dumps({"text": text}) + "\n" for text in documents(20, 3, 60)]
    (tmp_path / "tales.jsonl").write_text("".join(lines))
    one = write_shards(
        [str(tmp_path / "tales.jsonl")], tmp_path / "one", tokenizer=byte_level(), num_workers=1
    )
    recipe = small_recipe().scaled_to(1000)
    with pytest.warns(
        UserWarning, match=r"classification probe is left out: it needs two sources .* found tales"
    ):
        assert pretrain(
            recipe, shards, tmp_path / "run", valid=one.folder, probes=ProbeConfig(), switches=ON_CPU
        )
    row = journal.read(tmp_path / "run" / journal.EVALUATIONS)[-1]
    assert set(row["probes"]) == {"retrieval"}
    assert draw(tmp_path / "run").exists()


def test_without_held_out_text_there_is_nothing_to_probe(tmp_path):
    (tmp_path / "one.jsonl").write_text(json.dumps({"text": "walked " * 50}) + "\n")
    one = write_shards([str(tmp_path / "one.jsonl")], tmp_path / "one", tokenizer=byte_level(), num_workers=1)
    with pytest.warns(UserWarning, match="no text is held out, so there is nothing to probe"):
        assert pretrain(
            small_recipe().scaled_to(600), one.folder, tmp_path / "run", probes=ProbeConfig(), switches=ON_CPU
        )


def test_scores_are_summed_up_and_drawn(probed, monkeypatch):
    drawn = []
    monkeypatch.setattr("modernbert.training.curves.curves", lambda panels, *_, **__: drawn.extend(panels))
    draw(probed)
    panels = {panel.title: panel.lines for panel in drawn if panel.title.startswith("probe")}
    apart, found = panels.values()
    assert set(apart) == {"over all", "majority", "notes", "tales"}
    assert set(found) == {"over all", "words alone", "notes", "tales"}
    assert all(len(points) == len(apart["over all"]) > 2 for points in (*apart.values(), *found.values()))
    assert summarize(probed).probe_classification == apart["over all"][-1][1]
    assert summarize(probed).probe_retrieval == found["over all"][-1][1]


# A file of the user's


def write_labels(path: Path) -> Path:
    rows = [("walked to the store", "verb"), ("the man and the woman", "noun")] * 6
    if path.suffix == ".csv":
        path.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows))
    else:
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_labels_of_a_file_stand_for_the_sources(shards, valid, tmp_path, ending):
    path = write_labels(tmp_path / f"mine.{ending}")
    recipe = small_recipe().scaled_to(1500)
    probes = ProbeConfig(labelled=path)
    assert pretrain(recipe, shards, tmp_path / "run", valid=valid, probes=probes, switches=ON_CPU)
    found = journal.read(tmp_path / "run" / journal.EVALUATIONS)[-1]["probes"]
    assert found["classification"]["labels"] == path.name
    assert set(found["classification"]["recall"]) == {"verb", "noun"}
    assert found["classification"]["balanced_accuracy"] == 1.0  # each label has one text, again and again
    assert "mrr" in found["retrieval"]


def test_a_file_with_one_label_is_refused_before_training(shards, valid, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"text": "one", "label": "a"}\n{"text": "two", "label": "a"}\n')
    with pytest.raises(CorpusError, match="nothing to tell apart: it needs two labels"):
        pretrain(
            small_recipe(),
            shards,
            tmp_path / "run",
            valid=valid,
            probes=ProbeConfig(labelled=path),
            switches=ON_CPU,
        )
