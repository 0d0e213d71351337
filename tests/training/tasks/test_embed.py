"""Embeddings: losses by their formulas, batches of any size, mined negatives, folders that others load."""

import itertools
import json
import math
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional

from modernbert.cli.finetune_vectors import colbert, embed, rerank
from modernbert.corpus.labelled import Rows
from modernbert.corpus.retrieval_files import read_judgements
from modernbert.errors import CorpusError, TrainingError
from modernbert.heads.embed import EmbedHeadConfig
from modernbert.inference.engine import SequenceIds
from modernbert.inference.loading import load
from modernbert.pretrained.folder import read_folder
from modernbert.pretrained.settings import TextSettings
from modernbert.training.finetune_run import Sources, finetune
from modernbert.training.finetuning import Finetuning, TaskLoss
from modernbert.training.retrieval_scores import Best, collection_of_folder, measure
from modernbert.training.run import Switches
from modernbert.training.tasks.embed import Embed, EmbedTask
from modernbert.training.tasks.embed_losses import CoSent, InfoNce, MarginMse, SetBatch, Triplet
from modernbert.training.tasks.embed_scores import find_by_vectors
from modernbert.training.tasks.late import LateInteraction
from modernbert.training.tasks.late_losses import DistillScores
from modernbert.training.tasks.mining import Mining, mine_negatives
from modernbert.training.tasks.packs import in_chunks
from modernbert.training.tasks.query_sets import QueryFields, identity
from modernbert.training.tasks.rerank import Rerank
from modernbert.training.tasks.set_examples import set_batch
from modernbert.training.tasks.task import Notes, Parts
from tests.inference.tiny import HEADS, write_tiny
from tests.training.small_pairs import pairs, sets, write_judged, write_lines, write_pairs

pytestmark = pytest.mark.usefixtures("no_pictures")

CPU = Switches(device="cpu")
FAST = Finetuning(epochs=5, batch_size=16, learning_rate=5e-3, patience=None)
# Gradients in fp32, summed pack by pack instead of at once; relative to the largest.
TOLERANCE = 1e-5
# Sums in fp32 of some dozen numbers near 1.
FORMULA = 1e-5


def prepared(config, tmp_path, content, name="rows.jsonl"):
    path = write_lines(tmp_path / name, content)
    rows = Rows.write(tmp_path / "train.jsonl", config.read(str(path), Notes()))
    return config.prepare(Parts(train=rows, dev=None, test=None), Notes()), rows


def examples_of(task, rows, folder, limit=64):
    model = load(folder, dtype="float32", device="cpu")
    model.pretrained = task.begin(model.pretrained, seed=0)
    return list(task.examples(rows, model, limit, Notes()))


# Losses.


def unit(num, seed):
    return functional.normalize(torch.randn(num, 6, generator=torch.Generator().manual_seed(seed)), dim=-1)


def batch_of(owner, positive, excluded=(), scores=()):
    return SetBatch(
        owner=torch.tensor(owner),
        positive=torch.tensor(positive),
        excluded=torch.tensor(excluded, dtype=torch.long).reshape(-1, 2),
        scores=torch.tensor(scores),
    )


def test_infonce_is_what_its_formula_says_both_ways():
    queries, documents = unit(3, 0), unit(5, 1)
    batch = batch_of([0, 0, 1, 2, 2], [0, 2, 3], [(0, 3), (1, 4)])
    forth = back = 0.0
    for i, positive in enumerate((0, 2, 3)):
        seen = [j for j in range(5) if (i, j) not in {(0, 3), (1, 4)}]
        scores = {j: math.exp(float(queries[i] @ documents[j]) / 0.1) for j in seen}
        forth -= math.log(scores[positive] / sum(scores.values()))
    for k, positive in enumerate((0, 2, 3)):  # document 3 answers query 0 too
        seen = [i for i in range(3) if (i, positive) != (0, 3)]
        scores = {i: math.exp(float(queries[i] @ documents[positive]) / 0.1) for i in seen}
        back -= math.log(scores[k] / sum(scores.values()))
    one_way = InfoNce(temperature=0.1)(queries, documents, batch)
    both = InfoNce(temperature=0.1, both_ways=True)(queries, documents, batch)
    assert float(one_way) == pytest.approx(forth, rel=FORMULA)
    assert float(both) == pytest.approx((forth + back) / 2, rel=FORMULA)


def test_margin_mse_and_triplet_are_what_their_formulas_say():
    queries, documents = unit(2, 0), unit(5, 1)
    scores = [9.0, 1.0, 4.0, 8.0, 2.0]
    batch = batch_of([0, 0, 0, 1, 1], [0, 3], scores=scores)
    wanted_mse = wanted_triplet = 0.0
    for i, (positive, negatives) in enumerate(((0, (1, 2)), (3, (4,)))):
        mse, triplet = [], []
        for j in negatives:
            margin = float(queries[i] @ (documents[positive] - documents[j])) / 0.1
            mse.append((margin - (scores[positive] - scores[j])) ** 2)
            near, far = (float((queries[i] - documents[n]).square().sum()) for n in (positive, j))
            triplet.append(max(0.0, near - far + 0.5))
        wanted_mse += float(np.mean(mse))
        wanted_triplet += float(np.mean(triplet))
    assert float(MarginMse(temperature=0.1)(queries, documents, batch)) == pytest.approx(
        wanted_mse, rel=FORMULA
    )
    assert float(Triplet(margin=0.5)(queries, documents, batch)) == pytest.approx(wanted_triplet, rel=FORMULA)


def test_cosent_is_what_its_formula_says():
    first, second, scores = unit(4, 0), unit(4, 1), torch.tensor([3.0, 1.0, 2.0, 1.0])
    cosines = [float(first[i] @ second[i]) for i in range(4)]
    total = sum(
        math.exp((cosines[j] - cosines[i]) / 0.1)
        for i, j in itertools.permutations(range(4), 2)
        if scores[i] > scores[j]
    )
    loss = CoSent(temperature=0.1)(first, second, scores)
    assert float(loss) == pytest.approx(4 * math.log(1 + total), rel=FORMULA)


def test_infonce_of_many_blocks_of_rows_is_that_of_one(monkeypatch):
    found = []
    for rows_at_once in (1024, 3):
        monkeypatch.setattr("modernbert.training.tasks.embed_losses._ROWS_AT_ONCE", rows_at_once)
        queries, documents = unit(8, 0).requires_grad_(), unit(10, 1).requires_grad_()
        batch = batch_of([0, 0, 1, 2, 3, 3, 4, 5, 6, 7], [0, 2, 3, 4, 6, 7, 8, 9], [(0, 3), (5, 9)])
        loss = InfoNce(both_ways=True)(queries, documents, batch)
        loss.backward()
        found.append((loss.detach(), queries.grad, documents.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)


# Batches.


@pytest.mark.parametrize(
    "loss", [InfoNce(both_ways=True), Triplet(margin=1.0)], ids=lambda x: type(x).__name__
)
def test_a_batch_in_many_packs_has_the_loss_and_gradient_of_one(loss, tmp_path, encoder):
    found = []
    for budget in (10_000, 60):
        task, rows = prepared(Embed(loss=loss, pack_tokens=budget, dimensions=(8,)), tmp_path, sets(20))
        module = task.begin(read_folder(encoder), seed=0).module
        inputs = task.inputs(examples_of(task, rows, encoder))
        assert (len(inputs[0].packs) == 1) == (budget == 10_000)
        value = TaskLoss(module, task, "auto")(*inputs)[0]
        value.backward()
        found.append((value.detach(), torch.cat([each.grad.flatten() for each in module.parameters()])))
    (loss_one, one), (loss_many, many) = found
    assert float(abs(loss_one - loss_many) / loss_one) < TOLERANCE
    assert float((one - many).abs().max() / one.abs().max()) < TOLERANCE


def test_cosines_are_in_fp32_where_the_model_computes_in_less(tmp_path, encoder):
    task, rows = prepared(Embed(loss=InfoNce(temperature=0.01)), tmp_path, sets(12))
    inputs = task.inputs(examples_of(task, rows, encoder))
    vectors = unit(len(inputs[0].packs[0].lengths), 0)
    losses = []
    for is_on in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_on):
            losses.append(float(task.loss(lambda pack, backend: vectors, *inputs, backend="auto")))
    assert losses[0] == losses[1]


def test_dropout_of_a_batch_in_packs_is_the_same_in_both_passes(tmp_path, encoder):
    task, rows = prepared(Embed(pack_tokens=60), tmp_path, sets(12))
    pretrained = task.begin(read_folder(encoder), seed=0)

    class Dropped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.drop = pretrained.module, torch.nn.Dropout(0.3)

        def forward(self, batch, backend):
            return self.drop(self.model(batch, backend))

    module = Dropped().train()
    chunks, batch = task.inputs(examples_of(task, rows, encoder))
    gradients = []
    for run in (in_chunks, lambda m, c, b: torch.cat([m(each, b) for each in c.packs])):
        torch.manual_seed(3)
        module.zero_grad()
        vectors = functional.normalize(run(module, chunks, "auto"), dim=-1)
        num = len(batch.positive)
        task.goal(vectors[:num], vectors[num:], batch).backward()
        gradients.append(torch.cat([each.grad.flatten() for each in module.parameters()]))
    assert len(chunks.packs) > 3
    assert float((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()) < TOLERANCE


def test_the_same_text_in_another_row_is_no_negative(tmp_path, encoder):
    rows = [
        {"query": "old dog", "positive": "the hound", "negatives": ["a sail"]},
        {"query": "near dog", "positive": "The  hound", "negatives": ["an oak"]},  # the same but for case
        {"query": "old dog", "positive": "with a hound", "negatives": ["a sail"]},
        {"query": "a sail", "positive": "some ship", "negatives": []},
    ]
    task, rows = prepared(Embed(), tmp_path, rows)
    _, batch = set_batch(examples_of(task, rows, encoder))
    # documents: 0 the hound, 1 a sail | 2 The hound, 3 an oak | 4 with a hound, 5 a sail | 6 some ship
    assert batch.owner.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert batch.positive.tolist() == [0, 2, 4, 6]
    assert sorted(map(tuple, batch.excluded.tolist())) == [
        *[(0, 2), (0, 4)],  # the same text, and the other answer of the same query
        (1, 0),
        *[(2, 0), (2, 2)],
        *[(3, 1), (3, 5)],  # the query itself
    ]


def test_each_answer_of_a_row_is_learned_and_none_of_them_as_a_negative(tmp_path, encoder):
    row = {"query": "old dog", "positives": ["a hound", "the hound"], "negatives": ["a", "b", "c"]}
    row["scores"] = [9, 8, 3, 2, 1]
    task, rows = prepared(Embed(num_negatives=2), tmp_path, [row])
    examples = examples_of(task, rows, encoder)
    assert [len(each.sequences) for each in examples] == [4, 4]
    _, batch = set_batch(examples)
    assert batch.scores.tolist() == [9, 3, 2, 8, 3, 2]
    assert sorted(map(tuple, batch.excluded.tolist())) == [(0, 3), (1, 0)]
    assert batch.negatives.tolist() == [1, 2, 4, 5]


def test_identities_are_whole_numbers_that_float32_holds():
    for text in ("a", "the hound", "\u0431\u044a\u043b\u0433\u0430\u0440\u0441\u043a\u0438"):
        numbers = identity(text)
        assert np.array(numbers, np.float32).astype(int).tolist() == list(numbers)
        assert identity(f" {text.upper()}\n") == numbers


def test_texts_are_learned_from_as_the_model_reads_them(tmp_path, encoder):
    config = Embed(query_prompt="ask: ", document_prompt="tell: ")
    task, rows = prepared(config, tmp_path, sets(3))
    example = examples_of(task, rows, encoder)[0]
    model = load(encoder, device="cpu")
    wanted = model.tokenizer.encode_ids([f"ask: {rows[0]['query']}", f"tell: {rows[0]['positives'][0]}"])
    assert [each.token_ids for each in example.sequences[:2]] == wanted


# Whole runs.


def test_pairs_teach_a_model_that_sentence_transformers_loads_with_its_prompts(tmp_path, encoder):
    from sentence_transformers import SentenceTransformer

    data = write_pairs(tmp_path / "pairs.jsonl")
    task = Embed(query_prompt="ask: ", document_prompt="tell: ", dimensions=(8,), pack_tokens=200)
    out = finetune(task, data, model=encoder, out=tmp_path / "out", settings=FAST, switches=CPU)
    evaluations = [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]
    figures = [row["sources"]["dev"] for row in evaluations]
    best = max(each["ndcg@10"] for each in figures)
    assert best > 0.8, "20 documents in any order give 0.3"
    assert best > figures[0]["ndcg@10"]
    assert {"mrr@10", "recall@100", "ndcg@10 (8)", "loss"} <= figures[0].keys()

    model = load(out, dtype="float32", device="cpu")
    assert model.pretrained.settings.prompts == {"query": "ask: ", "document": "tell: "}
    theirs = SentenceTransformer(str(out), device="cpu")
    texts = [text for pair in pairs(5, seed=9) for text in pair]
    for name, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        assert np.abs(model.embed(texts, prompt=name) - encode(texts)).max() < 1e-5
    prediction = json.loads((out / "predictions.jsonl").read_text().splitlines()[0])
    assert prediction["place"] >= 1
    assert len(prediction["found"]) == 3
    assert "| ndcg@10 |" in (out / "report.md").read_text()


def test_scored_pairs_are_learned_in_their_order(tmp_path, encoder):
    found = pairs(100)
    rows = [
        {"text_a": query, "text_b": found[(place + step) % 100][1], "score": 5.0 if step == 0 else 1.0}
        for place, (query, _) in enumerate(found)
        for step in (0, 7)
    ]
    data = write_lines(tmp_path / "scored.jsonl", rows)
    out = finetune(Embed(), data, model=encoder, out=tmp_path / "out", settings=FAST, switches=CPU)
    results = json.loads((out / "results.json").read_text())
    assert results["dev"]["spearman"] > 0.6, "an untrained model is near 0"
    assert json.loads((out / "recipe.json").read_text())["task"]["loss"] is None


def test_a_folder_of_judgements_is_learned_from_and_measured_whole(tmp_path, encoder):
    folder = write_judged(
        tmp_path / "judged", {"train": range(200), "dev": range(200, 230), "test": range(230, 264)}
    )
    task = Embed(evaluate_on=str(folder))
    sources = Sources(train=str(folder), test=str(folder / "qrels" / "test.tsv"))
    out = finetune(task, sources, model=encoder, out=tmp_path / "out", settings=FAST, switches=CPU)
    results = json.loads((out / "results.json").read_text())
    assert "judged dev: ndcg@10" in results["dev"]
    assert results["test"]["ndcg@10"] > 0.5, "one of 66 documents is right: chance is below 0.1"
    model = load(out, dtype="float32", device="cpu")
    collection = collection_of_folder(folder, "test", spool=tmp_path / "spool")
    again = measure(collection, lambda queries, documents: find_by_vectors(model, queries, documents))
    assert again.figures["ndcg@10"] == pytest.approx(results["test"]["ndcg@10"])
    assert len(collection.document_ids) == 66
    assert next(iter(collection.documents)).startswith("told ")


def test_an_embedding_model_keeps_its_pooling_and_dense_layers(tmp_path):
    head = replace(HEADS["embed_dense"], poolings=("cls",))
    folder = write_tiny(tmp_path / "tiny", head, settings=TextSettings(prompts={"query": "q: ", "x": "y"}))
    task = EmbedTask(config=Embed(document_prompt="d: "), goal=InfoNce())
    ours = task.begin(read_folder(folder), seed=0)
    assert ours.config.head == replace(head, is_normalized=True)
    assert ours.settings.prompts == {"query": "q: ", "x": "y", "document": "d: "}
    other = EmbedTask(config=Embed(pooling="max"), goal=InfoNce()).begin(read_folder(folder), seed=0)
    assert other.config.head == EmbedHeadConfig(poolings=("max",), is_normalized=True)
    with pytest.raises(TrainingError, match="between 1 and 11"):
        EmbedTask(config=Embed(dimensions=(12,)), goal=InfoNce()).begin(read_folder(folder), seed=0)


# Negatives.


def test_mined_negatives_are_near_and_no_hidden_answers(tmp_path):
    folder = write_tiny(tmp_path / "tiny", HEADS["embed"])
    rows = [{"query": query, "positive": document} for query, document in pairs(30)]
    data = write_lines(tmp_path / "pairs.jsonl", rows)
    mining = Mining(model=str(folder), num_negatives=3, depth=30, largest_share=0.9, margin=0.02)
    out = mine_negatives(data, tmp_path / "mined.jsonl", mining)
    model = load(folder, dtype="float32", device="cpu")
    documents = [document for _, document in pairs(30)]
    for row in map(json.loads, out.read_text().splitlines()):
        cosines = model.similarity([row["query"]], documents)[0]
        by_text = dict(zip(documents, cosines, strict=True))
        answer = by_text[row["positives"][0]]
        ceiling = min(0.9 * answer if answer > 0 else answer, answer - 0.02)
        allowed = [text for text in documents if by_text[text] <= ceiling]
        wanted = sorted(allowed, key=lambda text: -by_text[text])[:3]
        found = [float(by_text[text]) for text in row["negatives"]]
        assert found == pytest.approx([float(by_text[text]) for text in wanted], abs=1e-5)
        assert row["positives"][0] not in row["negatives"]
    again = mine_negatives(data, tmp_path / "again.jsonl", mining)
    assert again.read_bytes() == out.read_bytes()
    strict = mine_negatives(data, tmp_path / "strict.jsonl", replace(mining, largest_share=None, margin=2.5))
    assert all(json.loads(line)["negatives"] == [] for line in strict.read_text().splitlines())


def test_a_run_may_mine_for_itself(tmp_path, encoder):
    folder = write_tiny(tmp_path / "tiny", HEADS["embed"])
    notes = Notes()
    config = Embed(mine=Mining(model=str(folder), num_negatives=2, largest_share=None))
    judged = write_judged(tmp_path / "judged", {"train": range(10)})
    rows = list(config.read(str(judged), notes))
    assert [len(row["negatives"]) for row in rows] == [2] * 10
    held = {document for _, document in pairs(66)[10:]}
    assert any(text.removeprefix("told ") in held for row in rows for text in row["negatives"])
    assert "negatives for 10 queries" in notes.lines[0]


# What cannot be learned from.


@pytest.mark.parametrize(
    ("loss", "rows", "message"),
    [
        (CoSent(), [{"query": "a", "positive": "b"}], "learns from pairs with a score"),
        (InfoNce(), [{"text_a": "a", "text_b": "b", "score": 1}], "learns from queries with documents"),
        (Triplet(), [{"query": "a", "positive": "b"}], "needs a negative in every row; 1 of 1"),
        (MarginMse(), [{"query": "a", "positive": "b", "negative": "c"}], "needs a teacher's score"),
    ],
    ids=["cosent", "infonce", "triplet", "margin_mse"],
)
def test_rows_without_what_the_loss_needs_are_refused(loss, rows, message, tmp_path):
    with pytest.raises(CorpusError, match=message):
        prepared(Embed(loss=loss), tmp_path, rows)


def test_a_folder_without_the_split_names_those_it_has(tmp_path):
    folder = write_judged(tmp_path / "judged", {"train": range(5), "test": range(5, 8)})
    with pytest.raises(
        CorpusError, match=r"no judgements qrels/dev.tsv; it has test, train\nhint.*qrels/test.tsv"
    ):
        prepared(Embed(evaluate_on=str(folder)), tmp_path, sets(3))
    with pytest.raises(CorpusError, match="no folder to measure retrieval on"):
        prepared(Embed(evaluate_on=str(tmp_path / "none.csv")), tmp_path, sets(3))


# Search.


def test_the_best_are_those_of_one_sort_with_ties_by_their_order():
    draw = np.random.default_rng(0)
    scores = draw.integers(0, 20, size=(2500, 70)).astype(np.float32)
    best = Best(2500, 9)
    for start in (0, 30, 60):
        best.add(scores[:, start : start + 30])
    wanted = np.argsort(-scores, axis=1, kind="stable")[:, :9]
    assert (best.places == wanted).all()
    assert (best.scores == np.take_along_axis(scores, wanted, 1)).all()


def test_judged_documents_of_gain_zero_are_negatives(tmp_path):
    folder = write_judged(tmp_path / "judged", {"train": range(3)})
    with (folder / "qrels/train.tsv").open("a") as file:
        file.write("q0\td9\t0\nq0\td8\t2\n")
    row = next(iter(Embed().read(str(folder), Notes())))
    texts = [f"told {document}" for _, document in pairs(66)]
    assert row["positives"] == [texts[8], texts[0]]
    assert row["negatives"] == [texts[9]]
    assert read_judgements(folder, "train")[row["query_id"]]["d8"] == 2


def test_sequences_keep_their_order_over_chunks(tmp_path, encoder):
    task, rows = prepared(Embed(pack_tokens=30), tmp_path, sets(4))
    examples = examples_of(task, rows, encoder)
    chunks, _ = task.inputs(examples)
    laid = torch.cat([pack.token_ids for pack in chunks.packs]).tolist()
    queries = [each.sequences[0] for each in examples]
    documents = [sequence for each in examples for sequence in each.sequences[1:]]
    assert all(isinstance(each, SequenceIds) for each in documents)
    assert laid == [token for each in (*queries, *documents) for token in each.token_ids]


# In the command line.


def task_of_command(monkeypatch, command, *words):
    """What a command of `finetune` would learn, without learning it."""
    found = []
    module = import_module("modernbert.cli.finetune")  # whose name the group of commands has taken
    monkeypatch.setattr(module, "train", lambda ctx, task, *rest: found.append(task))
    result = CliRunner().invoke(command, ["data.jsonl", "--out", "out", "--model", "model", *words])
    assert result.exit_code == 0, result.output
    return found[0]


def test_the_command_line_says_all_of_it(monkeypatch):
    assert task_of_command(monkeypatch, embed) == Embed()
    words = ["--loss", "infonce-both", "--temperature", "0.1", "--dimensions", "64,32"]
    words += [
        "--dimension-weights",
        "1,0.5",
        "--query-prompt",
        "q: ",
        "--document",
        "passage",
        "--eval",
        "scifact",
    ]
    words += ["--mine", "embedder", "--mine-margin", "0.1", "--pack-tokens", "1024"]
    assert task_of_command(monkeypatch, embed, *words) == Embed(
        loss=InfoNce(temperature=0.1, both_ways=True),
        dimensions=(64, 32),
        dimension_weights=(1.0, 0.5),
        query_prompt="q: ",
        evaluate_on="scifact",
        mine=Mining(model="embedder", margin=0.1),
        fields=QueryFields(document="passage"),
        pack_tokens=1024,
    )
    for name, loss in (("triplet", Triplet()), ("margin-mse", MarginMse()), ("cosent", CoSent())):
        assert task_of_command(monkeypatch, embed, "--loss", name).loss == loss
    assert task_of_command(monkeypatch, rerank, "--loss", "listwise") == Rerank(loss="listwise")
    assert task_of_command(monkeypatch, colbert) == LateInteraction()
    words = ["--loss", "distill", "--no-expansion", "--keep-punctuation", "--query-length", "16"]
    assert task_of_command(monkeypatch, colbert, *words) == LateInteraction(
        loss=DistillScores(), expands_queries=False, skips_punctuation=False, query_length=16
    )


def test_dimensions_that_are_no_numbers_are_refused():
    words = ["data.jsonl", "--out", "out", "--model", "model", "--dimensions", "many"]
    result = CliRunner().invoke(embed, words)
    assert result.exit_code == 2
    assert "'many' is no list of numbers" in result.output
