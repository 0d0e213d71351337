"""The padded twin gives the packed model's numbers: every head and family, whatever stands beside a row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from modernbert.heads.embed import EmbedHeadConfig
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.pooling import POOLINGS
from modernbert.inference.padded import PaddedModel
from modernbert.pretrained.folder import read_folder
from tests.inference.padding import LENGTHS, OTHER_PARTS, assert_same, encoder_of, expected, inputs_of, rows
from tests.inference.tiny import BERT_HEADS, HEADS, write_tiny

CASES = [("modernbert", name) for name in HEADS] + [("bert", name) for name in BERT_HEADS]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("family", "name"), CASES, ids=lambda word: word)
def test_every_head_gives_what_the_packed_model_gives(folder_of, family, name, side):
    model = read_folder(folder_of(name, family), dtype=torch.float32)
    inputs = rows(LENGTHS, side=side)
    with torch.no_grad():
        found = PaddedModel(model).outputs(**inputs_of(model, inputs))
    assert_same(found, expected(model, inputs), inputs)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_every_pooling_leaves_padding_out(tmp_path, pooling, side):
    head = EmbedHeadConfig(poolings=(pooling,))
    model = read_folder(write_tiny(tmp_path / "model", head), dtype=torch.float32)
    inputs = rows(LENGTHS, side=side)
    with torch.no_grad():
        assert_same(PaddedModel(model).outputs(**inputs_of(model, inputs)), expected(model, inputs), inputs)


@pytest.mark.parametrize("name", OTHER_PARTS)
def test_other_parts_of_ours_have_a_twin_too(tmp_path, name):
    folder = write_tiny(tmp_path / "model", MlmHeadConfig(), encoder=encoder_of(OTHER_PARTS[name]))
    model = read_folder(folder, dtype=torch.float32)
    inputs = rows(LENGTHS)
    with torch.no_grad():
        assert_same(PaddedModel(model).outputs(**inputs_of(model, inputs)), expected(model, inputs), inputs)


def test_what_stands_at_padding_changes_nothing(folder_of):
    model = read_folder(folder_of("mlm"), dtype=torch.float32)
    graph, inputs = PaddedModel(model), inputs_of(model, rows((5, 20)))
    is_real = inputs["attention_mask"].bool()
    other = inputs | {"input_ids": torch.where(is_real, inputs["input_ids"], 77)}
    with torch.no_grad():
        first, second = (graph.outputs(**each)["logits"] for each in (inputs, other))
    assert torch.equal(first[is_real], second[is_real])
    assert not torch.equal(first, second)


def test_a_row_of_nothing_but_padding_is_finite_and_leaves_the_others_alone(folder_of):
    model = read_folder(folder_of("embed_raw"), dtype=torch.float32)
    graph = PaddedModel(model)
    inputs = rows((5, 0, 9))
    without = {name: each[[0, 2]] for name, each in inputs.items()}
    with torch.no_grad():
        found, alone = graph.outputs(**inputs_of(model, inputs)), graph.outputs(**inputs_of(model, without))
    for name, each in found.items():
        assert each.isfinite().all()
        torch.testing.assert_close(each[[0, 2]], alone[name])


def test_a_model_in_training_is_left_in_it_and_computed_without_dropout(folder_of):
    model = read_folder(folder_of("classify", "bert"), dtype=torch.float32)
    inputs = rows(LENGTHS)
    wanted = expected(model, inputs)
    model.module.train()
    with torch.no_grad():
        found = PaddedModel(model).eval().outputs(**inputs_of(model, inputs))
    assert_same(found, wanted, inputs)
    assert all(part.training for part in model.module.modules())


def test_a_vector_is_cut_as_the_folder_says(folder_of):
    model = read_folder(folder_of("embed"), dtype=torch.float32)
    model.settings = replace(model.settings, dimensions=7)
    with torch.no_grad():
        found = PaddedModel(model).outputs(**inputs_of(model, rows((3, 4))))
    assert found["sentence_embedding"].shape == (2, 7)
