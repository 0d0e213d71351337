"""Distillation: the student comes near its teacher, in vectors of the teacher's size, or in classes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from modernbert.errors import TaskError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.inference.engine import SequenceIds
from modernbert.inference.loading import load
from modernbert.pretrained.folder import read_folder, write_folder
from modernbert.pretrained.heads import with_head
from modernbert.training.examples import Example
from modernbert.training.finetune_run import finetune
from modernbert.training.finetuning import Finetuning, TaskLoss
from modernbert.training.run import Switches
from modernbert.training.tasks.distill import Distill
from modernbert.training.tasks.packs import in_chunks
from modernbert.training.tasks.task import Notes, Parts
from tests.inference.tiny import HEADS, byte_level, tiny_modernbert, write_tiny
from tests.training.small_task import reviews, write_tiny_encoder

CPU = Switches(device="cpu")
FAST = Finetuning(epochs=4, batch_size=16, learning_rate=5e-3, pack_tokens=300)
# Gradients in fp32, summed pack by pack instead of at once; relative to the largest.
TOLERANCE = 1e-5


@pytest.fixture(scope="session")
def student(tmp_path_factory):
    return write_tiny_encoder(tmp_path_factory.mktemp("student") / "tiny")


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in reviews(150)))
    return path


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    # a narrow one: the more random weights a teacher has, the harder it is to learn what it says
    wide = tiny_modernbert(byte_level().vocab_size + 3)
    blocks = tuple(replace(each, mlp=replace(each.mlp, intermediate_size=24)) for each in wide.blocks)
    encoder = replace(wide, hidden_size=32, blocks=blocks)
    return write_tiny(tmp_path_factory.mktemp("teacher") / "tiny", HEADS["embed_dense"], encoder=encoder)


def test_a_student_comes_near_the_vectors_of_its_teacher(tmp_path, student, texts, teacher):
    task = Distill(teacher=str(teacher), pack_tokens=300)
    out = finetune(task, texts, model=student, out=tmp_path / "out", settings=FAST, switches=CPU)
    model, theirs = (load(each, dtype="float32", device="cpu") for each in (out, teacher))
    new = [text for text, _ in reviews(40, seed=77)]
    ours, wanted = model.embed(new), theirs.embed(new)
    assert ours.shape == wanted.shape
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    assert float((ours * wanted).sum(axis=1).mean()) > 0.8, "an untrained student is near 0"
    assert "| test |" in (out / "report.md").read_text()


def test_sentence_transformers_gives_the_same_vectors_of_a_student(tmp_path, student, texts, teacher):
    from sentence_transformers import SentenceTransformer

    task = Distill(teacher=str(teacher), pack_tokens=300)
    settings = Finetuning(epochs=1, batch_size=16, pack_tokens=300)
    out = finetune(task, texts, model=student, out=tmp_path / "out", settings=settings, switches=CPU)
    new = [text for text, _ in reviews(5, seed=7)]
    ours = load(out, dtype="float32", device="cpu").embed(new)
    theirs = SentenceTransformer(str(out), device="cpu").encode(new)
    assert np.abs(ours - theirs).max() < 1e-5


def test_the_loss_of_vectors_is_computed_in_float32_whatever_the_model_computes_in(teacher):
    task = Distill(teacher=str(teacher)).prepare(Parts(train=None, dev=None, test=None), Notes())
    draw = torch.Generator().manual_seed(0)
    theirs = torch.randn(6, 12, generator=draw)
    ours = theirs + 0.01 * torch.randn(6, 12, generator=draw)
    examples = [
        Example(sequences=[SequenceIds(token_ids=[1, 2], token_types=[0, 0])], targets=each, row=0)
        for each in theirs.numpy()
    ]
    inputs = task.inputs(examples)
    plain = task.loss(lambda batch, backend: ours, *inputs, backend="auto")
    with torch.autocast("cpu", torch.bfloat16):
        found = task.loss(lambda batch, backend: ours, *inputs, backend="auto")
    assert float(plain) > 0
    assert torch.equal(found, plain)


def test_a_student_says_what_a_classifier_says(tmp_path, student, texts):
    folder = tmp_path / "classifier"
    labels = ("a", "b", "c")
    model = with_head(
        read_folder(student),
        lambda transform, pooling: ClassifyHeadConfig(labels=labels, pooling=pooling, transform=transform),
        seed=3,
    )
    with torch.no_grad():
        model.module.classifier.weight.mul_(50)
    write_folder(folder, model)
    out = finetune(
        Distill(teacher=str(folder)),
        texts,
        model=student,
        out=tmp_path / "out",
        settings=replace(FAST, epochs=10),
        switches=CPU,
    )
    ours, theirs = (load(each, dtype="float32", device="cpu") for each in (out, folder))
    assert ours.config.head.labels == labels
    new = [text for text, _ in reviews(60, seed=5)]
    same = [
        one.label == other.label for one, other in zip(ours.classify(new), theirs.classify(new), strict=True)
    ]
    assert np.mean(same) > 0.8


def test_a_batch_in_many_packs_has_the_gradient_of_one(student, teacher):
    draw = np.random.default_rng(0)
    examples = [
        Example(
            sequences=[SequenceIds(token_ids=ids, token_types=[0] * len(ids))],
            targets=draw.standard_normal(12),
            row=row,
        )
        for row in range(20)
        for ids in [draw.integers(5, 300, size=draw.integers(3, 25)).tolist()]
    ]
    gradients = []
    for budget in (10_000, 60):
        task = Distill(teacher=str(teacher), pack_tokens=budget).prepare(
            Parts(train=None, dev=None, test=None), Notes()
        )
        module = with_head(read_folder(student), task.head, seed=0).module
        inputs = task.inputs(examples)
        assert (len(inputs[0].packs) == 1) == (budget == 10_000)
        loss = TaskLoss(module, task, "auto")(*inputs)[0]
        loss.backward()
        gradients.append(torch.cat([each.grad.flatten() for each in module.parameters()]))
    assert float((gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max()) < TOLERANCE


def test_the_loss_is_what_its_formula_says(teacher):
    task = Distill(teacher=str(teacher), structure=0.5).prepare(
        Parts(train=None, dev=None, test=None), Notes()
    )
    ours, theirs = torch.randn(4, 6), torch.randn(4, 6)
    one, other = (torch.nn.functional.normalize(each, dim=1) for each in (ours, theirs))
    wanted = sum(1 - float(one[i] @ other[i]) for i in range(4))
    wanted += (
        0.5 * sum(float(one[i] @ one[j] - other[i] @ other[j]) ** 2 for i in range(4) for j in range(4)) / 3
    )
    assert float(task._vector_loss(ours, other)) == pytest.approx(wanted, abs=1e-5)


def test_a_teacher_of_neither_kind_is_refused(tmp_path):
    folder = write_tiny(tmp_path / "tag", HEADS["tag"])
    with pytest.raises(TaskError, match="neither vectors nor classes"):
        Distill(teacher=str(folder)).prepare(Parts(train=None, dev=None, test=None), Notes())


def test_without_gradients_nothing_is_computed_twice(student, teacher):
    task = Distill(teacher=str(teacher), pack_tokens=40).prepare(
        Parts(train=None, dev=None, test=None), Notes()
    )
    module = with_head(read_folder(student), task.head, seed=0).module.eval()
    sequences = [SequenceIds(token_ids=[5] * 20, token_types=[0] * 20) for _ in range(4)]
    chunks, _ = task.inputs([Example(sequences=[each], targets=[0.0], row=0) for each in sequences])
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        assert in_chunks(module, chunks, "auto").shape == (4, 12)
    assert len(calls) == 2
