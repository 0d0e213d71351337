"""Packs never show: results are in the order of the input, and no text's result depends on the others."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

import modernbert
from modernbert.errors import WeightsError
from modernbert.inference.engine import Engine, SequenceIds
from modernbert.inference.outside_training import outside_training
from tests.inference.tiny import BERT_HEADS, HEADS, byte_level, tiny_modernbert, write_tiny

# fp32 sums in another order, on numbers of size 1.
MATES = 1e-5
TEXTS = ["Paris", "He walked to the store", "", "bread " * 30, "the capital of France is Paris. " * 2, "a"]


def test_results_come_in_the_order_of_the_input():
    lengths = [3, 9, 1, 4, 9, 2]
    sequences = [SequenceIds(token_ids=[i] * n, token_types=[0] * n) for i, n in enumerate(lengths)]
    seen: list[int] = []

    def forward(batch):
        seen.append(batch.num_tokens)
        return [int(piece[0]) for piece in batch.split(batch.token_ids)]

    engine = Engine(device=torch.device("cpu"), budget_tokens=10)
    assert engine.run(sequences, forward, label="test") == [0, 1, 2, 3, 4, 5]
    assert len(seen) > 1
    assert sum(seen) == sum(lengths)
    assert engine.run([], forward, label="test") == []


@pytest.mark.parametrize("family", ["modernbert", "bert"])
@pytest.mark.parametrize("method", ["embed", "classify", "tag", "hidden_states"])
def test_batch_mates_and_order_do_not_change_a_result(model_of, method, family):
    model = model_of({"hidden_states": "embed"}.get(method, method), family)
    together = numbers(model, method, TEXTS)
    backwards = numbers(model, method, TEXTS[::-1])[::-1]
    alone = [numbers(model, method, [text])[0] for text in TEXTS]
    for one, other, third in zip(together, backwards, alone, strict=True):
        assert one.shape == other.shape == third.shape
        assert np.abs(one - other).max(initial=0.0) <= MATES
        assert np.abs(one - third).max(initial=0.0) <= MATES


def test_the_same_call_gives_the_same_bits(model_of):
    model = model_of("embed")
    assert np.array_equal(model.embed(TEXTS), model.embed(TEXTS))


def test_threads_may_share_a_model(model_of):
    model = model_of("embed")
    expected = model.embed(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: model.embed(TEXTS), range(16)):
            assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "method", ["embed", "classify", "tag", "hidden_states", "embed_tokens", "fill_masks"]
)
def test_no_texts_give_no_results(model_of, method):
    heads = {"hidden_states": "embed", "embed_tokens": "token_embed", "fill_masks": "mlm"}
    model = model_of(heads.get(method, method))
    found = getattr(model, method)([])
    assert len(found) == 0
    if method == "embed":
        assert found.shape == (0, 64)
        assert found.dtype == np.float32


def test_hidden_states_may_go_on_into_training(model_of):
    (hidden,) = model_of("embed").hidden_states(["a text"])
    probe = torch.nn.Linear(64, 1)
    probe(hidden).sum().backward()
    assert probe.weight.grad is not None


def test_asking_before_training_does_not_spoil_it(model_of):
    model = model_of("classify")
    model.classify(["a text"])
    from modernbert import PackedBatch

    batch = PackedBatch.from_sequences(model.tokenizer.encode_ids(["a text"]))
    model.module(batch).sum().backward()
    assert all(parameter.grad is not None for parameter in model.module.parameters())
    model.module.zero_grad()


@pytest.mark.parametrize(("name", "family"), [("classify", "bert"), ("tag", "bert"), ("mlm", "dropout")])
def test_what_is_asked_of_a_model_in_training_has_no_dropout(tmp_path, model_of, name, family):
    method = {"classify": "classify", "tag": "tag", "mlm": "embed"}[name]
    if family == "dropout":
        encoder = tiny_modernbert(byte_level().vocab_size)
        encoder = replace(encoder, embedding=replace(encoder.embedding, dropout=0.5))
        model = modernbert.load(write_tiny(tmp_path / "model", HEADS[name], encoder=encoder), dtype="float32")
    else:
        model = modernbert.load(
            write_tiny(tmp_path / "model", BERT_HEADS[name], family="bert"), dtype="float32"
        )
    expected = numbers(model, method, TEXTS)
    hidden = model.hidden_states(TEXTS)
    model.module.train()
    for found, wanted in zip(numbers(model, method, TEXTS), expected, strict=True):
        assert np.array_equal(found, wanted)
    assert all(torch.equal(*pair) for pair in zip(model.hidden_states(TEXTS), hidden, strict=True))
    assert all(part.training for part in model.module.modules())  # left as the user set it


def test_a_twin_outside_training_shares_every_tensor(model_of):
    module = model_of("classify").module
    assert outside_training(module) is module
    module.train()
    try:
        twin = outside_training(module)
        ours, theirs = module.state_dict(keep_vars=True), twin.state_dict(keep_vars=True)
        assert [id(tensor) for tensor in ours.values()] == [id(tensor) for tensor in theirs.values()]
        assert not any(part.training for part in twin.modules())
    finally:
        module.eval()


@pytest.mark.parametrize(
    ("head", "ask"),
    [
        ("embed", lambda model: model.embed(["bread"])),
        ("token_embed", lambda model: model.embed_tokens(["bread"])),
        ("mlm", lambda model: model.fill_mask("a [MASK]")),
        ("classify", lambda model: model.classify(["bread"])),
        ("rerank", lambda model: model.rerank("bread", ["Paris"])),
        ("tag", lambda model: model.tag(["bread"])),
        ("span", lambda model: model.answer("Who?", "bread")),
        ("choice", lambda model: model.choose("Who?", ["bread"])),
    ],
)
def test_results_that_are_no_numbers_are_an_error_that_names_the_text(tmp_path, head, ask):
    model = modernbert.load(write_tiny(tmp_path / "model", HEADS[head]), dtype="float32")
    model.encoder.final_norm.weight.data[0] = float("nan")
    with pytest.raises(WeightsError, match=r"for (text|pair|window) 0 the model gives NaN .*info --check"):
        ask(model)
    assert model.hidden_states(["bread"])[0].isnan().any()  # as they are, for whoever looks for the cause


def numbers(model, method, texts):
    """What a method says of each text, as arrays."""
    found = getattr(model, method)(texts)
    if method == "classify":
        return [np.array([each.scores[label] for label in sorted(each.scores)]) for each in found]
    if method == "tag":
        return [np.array([(e.start, e.end, e.score) for e in entities]) for entities in found]
    return [np.asarray(each) for each in found]
