"""Late interaction: MaxSim and its losses by their formulas, masks and skipped tokens, MultiVectorEncoder."""

import json
import math
import string
from dataclasses import replace

import numpy as np
import pytest
import torch

from modernbert.corpus.labelled import Rows
from modernbert.errors import CorpusError, TaskError, TrainingError
from modernbert.heads.embed import DenseConfig
from modernbert.inference.embedding import maxsim as maxsim_of_arrays
from modernbert.inference.loading import load
from modernbert.pretrained.folder import read_folder, write_folder
from modernbert.pretrained.settings import QueryExpansion
from modernbert.training.finetune_run import finetune
from modernbert.training.finetuning import Finetuning, TaskLoss
from modernbert.training.run import Switches
from modernbert.training.tasks import late_losses
from modernbert.training.tasks.late import LateInteraction, LateTask
from modernbert.training.tasks.late_losses import (
    Contrast,
    DistillScores,
    TokenVectors,
    maxsim,
    maxsim_of_own,
)
from modernbert.training.tasks.task import Notes, Parts
from tests.inference.tiny import HEADS, write_tiny
from tests.training.small_pairs import pairs, sets, write_lines, write_pairs
from tests.training.tasks.test_embed import batch_of

pytestmark = pytest.mark.usefixtures("no_pictures")

CPU = Switches(device="cpu")
FAST = Finetuning(epochs=4, batch_size=16, learning_rate=5e-3, patience=None)
SMALL = LateInteraction(dimensions=16, query_length=20)
# Sums in fp32 of some hundred numbers below 1.
FORMULA = 1e-5
# Gradients in fp32, summed pack by pack instead of at once; relative to the largest.
TOLERANCE = 1e-5


def texts_of(lengths, seed):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(length, 6, generator=draw) for length in lengths]


def laid(texts):
    return TokenVectors(torch.cat(texts), torch.tensor([len(text) for text in texts]))


def by_formula(query, document):
    return sum(max(float(q @ d) for d in document) for q in query)


QUERIES, DOCUMENTS = texts_of([2, 3, 4], 0), texts_of([3, 1, 5, 2, 4], 1)


def test_maxsim_is_what_its_formula_says_in_training_and_after_it(monkeypatch):
    wanted = torch.tensor([[by_formula(query, document) for document in DOCUMENTS] for query in QUERIES])
    arrays = [[text.numpy() for text in texts] for texts in (QUERIES, DOCUMENTS)]
    for at_once in (2**24, 70):
        monkeypatch.setattr(late_losses, "_AT_ONCE", at_once)
        monkeypatch.setattr("modernbert.inference.embedding._AT_ONCE", at_once)
        torch.testing.assert_close(maxsim(laid(QUERIES), laid(DOCUMENTS)), wanted, rtol=FORMULA, atol=FORMULA)
        assert maxsim_of_arrays(*arrays) == pytest.approx(wanted.numpy(), abs=10 * FORMULA)
    owner = torch.tensor([0, 0, 1, 2, 2])
    own = maxsim_of_own(laid(QUERIES), laid(DOCUMENTS), owner)
    torch.testing.assert_close(own, wanted[owner, torch.arange(5)], rtol=FORMULA, atol=FORMULA)


def test_maxsim_with_nothing_in_it_is_zero():
    some = [np.ones((2, 3), np.float32)]
    assert maxsim_of_arrays(some, [np.zeros((0, 3), np.float32), *some]).tolist() == [[0, 6]]
    assert maxsim_of_arrays([], some).shape == (0, 1)
    assert maxsim_of_arrays(some, []).shape == (1, 0)


def test_losses_are_what_their_formulas_say():
    batch = batch_of([0, 0, 1, 2, 2], [0, 2, 3], [(0, 3)], [3.0, 1.0, 2.0, 0.5, 1.5])
    scores = [[by_formula(query, document) / 2.0 for document in DOCUMENTS] for query in QUERIES]
    contrast = 0.0
    for i, positive in enumerate((0, 2, 3)):
        weights = {j: math.exp(scores[i][j]) for j in range(5) if (i, j) != (0, 3)}
        contrast -= math.log(weights[positive] / sum(weights.values()))
    found = Contrast(temperature=2.0)(laid(QUERIES), laid(DOCUMENTS), batch)
    assert float(found) == pytest.approx(contrast, rel=FORMULA)
    divergence = 0.0
    for i, own in enumerate(([0, 1], [2], [3, 4])):
        ours, theirs = (
            [math.exp(x) for x in each]
            for each in ([scores[i][j] for j in own], [batch.scores[j].item() / 2.0 for j in own])
        )
        for said, wanted in zip(ours, theirs, strict=True):
            share = wanted / sum(theirs)
            divergence += share * (math.log(share) - math.log(said / sum(ours)))
    found = DistillScores(temperature=2.0)(laid(QUERIES), laid(DOCUMENTS), batch)
    assert float(found) == pytest.approx(4 * divergence, rel=10 * FORMULA)


def prepared(config, tmp_path, content):
    path = write_lines(tmp_path / "rows.jsonl", content)
    rows = Rows.write(tmp_path / "train.jsonl", config.read(str(path), Notes()))
    return config.prepare(Parts(train=rows, dev=None, test=None), Notes()), rows


def examples_of(task, rows, folder, limit=64):
    model = load(folder, dtype="float32", device="cpu")
    model.pretrained = task.begin(model.pretrained, seed=0)
    return list(task.examples(rows, model, limit, Notes())), model


@pytest.mark.parametrize("loss", [Contrast(), DistillScores()], ids=lambda each: type(each).__name__)
def test_a_batch_in_many_packs_has_the_loss_and_gradient_of_one(loss, tmp_path, encoder, monkeypatch):
    rows = [row | {"scores": [3, 2, 1]} for row in sets(16)]
    found = []
    for budget, at_once in ((10_000, 2**24), (60, 2000)):
        monkeypatch.setattr(late_losses, "_AT_ONCE", at_once)
        task, kept = prepared(replace(SMALL, loss=loss, pack_tokens=budget), tmp_path, rows)
        examples, model = examples_of(task, kept, encoder)
        inputs = task.inputs(examples)
        assert (len(inputs[0].packs) == 1) == (budget == 10_000)
        module = model.pretrained.module.train()
        value = TaskLoss(module, task, "auto")(*inputs)[0]
        value.backward()
        found.append((value.detach(), torch.cat([each.grad.flatten() for each in module.parameters()])))
    (loss_one, one), (loss_many, many) = found
    assert float(abs(loss_one - loss_many) / loss_one) < TOLERANCE
    assert float((one - many).abs().max() / one.abs().max()) < TOLERANCE


def test_what_is_learned_from_is_what_the_model_compares(tmp_path, encoder):
    task, rows = prepared(replace(SMALL, loss=Contrast(temperature=1.0)), tmp_path, sets(6, num_negatives=0))
    examples, model = examples_of(task, rows, encoder)
    scores = model.maxsim([row["query"] for row in rows], [row["positives"][0] for row in rows])
    assert all(len(each.sequences[0].token_ids) == 20 for each in examples)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    wanted = -np.log(np.diag(shares) / shares.sum(axis=1)).sum()
    with torch.no_grad():
        found = float(task.loss(model.pretrained.module.eval(), *task.inputs(examples), backend="auto"))
    assert found == pytest.approx(float(wanted), rel=10 * FORMULA)


def test_documents_keep_no_vectors_of_punctuation_and_queries_do(tmp_path, encoder):
    task, rows = prepared(SMALL, tmp_path, sets(2))
    _, model = examples_of(task, rows, encoder)
    skiplist = model.config.head.skiplist
    assert {"!", ",", "\u0120,"} <= set(skiplist)
    assert all(word.lstrip("\u0120\u2581") in string.punctuation for word in skiplist)
    text = "a dog , ! , and a king"
    query, document = (model.embed_tokens([text], prompt=name)[0] for name in ("query", "document"))
    assert len(query) == 20
    tokens = model.tokenizer.encode_ids([f"document: {text}"])[0]
    assert (
        len(document) == sum(model.tokenizer.token(token) not in skiplist for token in tokens) < len(tokens)
    )
    other, _ = prepared(replace(SMALL, skips_punctuation=False, expands_queries=False), tmp_path, sets(2))
    _, model = examples_of(other, rows, encoder)
    assert model.config.head.skiplist == ()
    assert model.pretrained.settings.query_length == 20
    assert len(model.embed_tokens(["a dog"], prompt="query")[0]) < 20


def test_pairs_teach_a_model_that_multi_vector_encoder_loads_with_the_same_maxsim(tmp_path, encoder):
    from sentence_transformers import MultiVectorEncoder

    data = write_pairs(tmp_path / "pairs.jsonl")
    out = finetune(SMALL, data, model=encoder, out=tmp_path / "out", settings=FAST, switches=CPU)
    lines = (out / "evaluations.jsonl").read_text().splitlines()
    figures = [json.loads(line)["sources"]["dev"] for line in lines]
    assert max(each["ndcg@10"] for each in figures) > 0.7, "20 documents in any order give 0.3"
    assert figures[-1]["loss"] < figures[0]["loss"]

    model = load(out, dtype="float32", device="cpu")
    assert model.pretrained.settings.query_expansion == QueryExpansion(length=20)
    theirs = MultiVectorEncoder(str(out), device="cpu")
    queries = [query for query, _ in pairs(6, seed=9)]
    documents = [f"{document} ! , ," for _, document in pairs(8, seed=9)]
    wanted = theirs.similarity(theirs.encode_query(queries), theirs.encode_document(documents)).numpy()
    ours = model.maxsim(queries, documents)
    assert ours.shape == (6, 8)
    # 20 products of a query's tokens, each to 1e-6
    assert np.abs(ours - wanted).max() < 1e-4
    assert wanted.std() > 0.1
    assert [len(each) for each in model.embed_tokens(documents, prompt="document")] == [
        len(each) for each in theirs.encode_document(documents)
    ]


def test_a_crash_changes_nothing(tmp_path, encoder, monkeypatch):
    data = write_pairs(tmp_path / "pairs.jsonl", num=66)
    settings = replace(FAST, epochs=2)
    whole = finetune(SMALL, data, model=encoder, out=tmp_path / "whole", settings=settings, switches=CPU)
    with monkeypatch.context() as patch:
        steps, real = [], LateTask.loss

        def crash(*args, **words):
            steps.append(1)
            if len(steps) == 6:
                raise KeyboardInterrupt
            return real(*args, **words)

        patch.setattr(LateTask, "loss", crash)
        with pytest.raises(KeyboardInterrupt):
            finetune(SMALL, data, model=encoder, out=tmp_path / "cut", settings=settings, switches=CPU)
    cut = finetune(SMALL, data, model=encoder, out=tmp_path / "cut", settings=settings, switches=CPU)
    for name in ("model.safetensors", "1_Dense/model.safetensors", "results.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_teachers_scores_are_learned_where_there_are_some(tmp_path):
    with_scores = [row | {"scores": [3, 2, 1]} for row in sets(3)]
    assert isinstance(prepared(SMALL, tmp_path, with_scores)[0].goal, DistillScores)
    assert isinstance(prepared(SMALL, tmp_path, sets(3))[0].goal, Contrast)
    with pytest.raises(CorpusError, match="DistillScores needs a teacher's score"):
        prepared(replace(SMALL, loss=DistillScores()), tmp_path, sets(3))
    with pytest.raises(CorpusError, match="learns from queries with documents"):
        prepared(SMALL, tmp_path, [{"text_a": "a", "text_b": "b", "score": 1}])
    with pytest.raises(TrainingError, match="1 or more"):
        replace(SMALL, query_length=0)


def test_a_late_interaction_model_keeps_its_projection(tmp_path):
    folder = write_tiny(tmp_path / "tiny", HEADS["token_embed"])
    old = read_folder(folder)
    ours = LateTask(config=SMALL, goal=Contrast()).begin(old, seed=0)
    assert ours.config.head.dense == (DenseConfig(out_features=8, has_bias=False),)
    assert torch.equal(ours.module.dense[0].linear.weight, old.module.dense[0].linear.weight)


def test_a_folder_of_our_own_kind_keeps_masks_and_skiplist(tmp_path, encoder):
    from modernbert.encoder.activation import ACTIVATIONS

    task, _ = prepared(SMALL, tmp_path, sets(2))
    model = task.begin(read_folder(encoder), seed=0)
    other = next(name for name in ACTIVATIONS if name not in ("gelu", "relu", "silu", "tanh"))
    blocks = tuple(
        replace(block, mlp=replace(block.mlp, activation=other)) if place else block
        for place, block in enumerate(model.config.encoder.blocks)
    )
    config = replace(model.config, encoder=replace(model.config.encoder, blocks=blocks))
    write_folder(tmp_path / "own", replace(model, config=config, module=config.build(), foreign={}))
    kept = read_folder(tmp_path / "own")
    assert json.loads((tmp_path / "own/config.json").read_text())["model_type"] != "modernbert"
    assert (kept.config, kept.settings) == (config, model.settings)


def test_masks_that_a_tokenizer_does_not_have_are_named(tmp_path, encoder):
    task, _ = prepared(SMALL, tmp_path, sets(2))
    model = load(encoder, dtype="float32", device="cpu")
    begun = task.begin(model.pretrained, seed=0)
    expansion = QueryExpansion(length=20, token="[NONE]")
    model.pretrained = replace(begun, settings=replace(begun.settings, query_expansion=expansion))
    with pytest.raises(TaskError, match=r"filled with \[NONE\]"):
        model.embed_tokens(["a"], prompt="query")
