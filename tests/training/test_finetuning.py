"""Fine-tuning steps: exact updates however they are packed, the order of examples, groups by layer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from modernbert.errors import TrainingError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.inference.engine import SequenceIds
from modernbert.training.examples import Example, Examples
from modernbert.training.finetuning import Finetuning, FinetuningJob, TaskLoss, learning_groups, mean_loss
from modernbert.training.optim import SCALE, AdamWConfig
from modernbert.training.parallel import Group
from modernbert.training.tasks.packs import pack_examples, targets_of
from tests.encoder.small import VOCAB_SIZE, small_config
from tests.training.toy import ALONE

# Relative. In fp32 sums in another order differ; a mean over the wrong count would be off by percents.
TOLERANCE = 1e-6


class Halves:
    """A task without text: which half of the vocabulary do the tokens come from?"""

    metric = "accuracy"
    takes_whole_batches = False

    def inputs(self, examples):
        return pack_examples(examples), targets_of(examples)

    def loss(self, module, batch, targets, *, backend):
        return torch.nn.functional.cross_entropy(module(batch, backend), targets.long(), reduction="sum")


@pytest.fixture
def examples(tmp_path):
    return Examples.write(tmp_path / "examples", random_examples(23))


def random_examples(num, seed=0):
    numbers = np.random.default_rng(seed)
    for row in range(num):
        half = int(numbers.integers(2))
        ids = (
            numbers.integers(VOCAB_SIZE // 2, size=numbers.integers(2, 30)) + half * VOCAB_SIZE // 2
        ).tolist()
        yield Example(
            sequences=[SequenceIds(token_ids=ids, token_types=[0] * len(ids))], targets=[half], row=row
        )


def module_for(dropout=0.0):
    torch.manual_seed(0)
    head = ClassifyHeadConfig(labels=("low", "high"), dropout=dropout)
    return TaskLoss(ModelConfig(encoder=small_config(), head=head).build(), Halves(), "auto")


def job_for(examples, settings, group=ALONE, is_over=lambda: False):
    return FinetuningJob(
        settings=settings,
        task=Halves(),
        examples=examples,
        learning_rate=1e-3,
        group=group,
        evaluate=dict,
        is_over=is_over,
    )


def gradient_of(step, module):
    module.zero_grad()
    weight = sum(micro.weight for micro in step.micros)
    for micro in step.micros:
        (module(*micro.inputs)[0] * (1 / weight if micro.weight else 0.0)).backward()
    return torch.cat([each.grad.flatten() for each in module.parameters()])


def test_examples_come_back_from_disk_as_they_were(examples):
    for given, found in zip(random_examples(23), (examples[i] for i in range(23)), strict=True):
        assert found.sequences == given.sequences
        assert list(found.targets) == list(given.targets)
        assert (found.row, found.weight) == (given.row, given.weight)
    assert examples.lengths.tolist() == [each.num_tokens for each in random_examples(23)]


def test_an_example_of_several_sequences_keeps_them_apart(tmp_path):
    sequences = [
        SequenceIds(token_ids=[1, 2, 3], token_types=[0, 0, 1]),
        SequenceIds(token_ids=[4], token_types=[0]),
    ]
    found = Examples.write(
        tmp_path / "x", [Example(sequences=sequences, targets=np.array([0.5, -1.25, 3.0]), row=7, weight=3)]
    )
    assert found[0].sequences == sequences
    assert found[0].targets.tolist() == [0.5, -1.25, 3.0]
    assert (found[0].row, found[0].weight, found.num_tokens) == (7, 3, 4)


def test_the_packs_of_a_batch_do_not_change_its_gradient(examples):
    module = module_for()
    whole, cut = (
        next(job_for(examples, Finetuning(batch_size=16, pack_tokens=budget)).steps(None))[0]
        for budget in (10_000, 40)
    )
    assert len(whole.micros) == 1
    assert len(cut.micros) > 4
    one, many = gradient_of(whole, module), gradient_of(cut, module)
    assert float((one - many).norm() / one.norm()) < TOLERANCE
    assert float(one.norm()) > 0.1, "a gradient of nothing would agree with anything"


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_a_batch_and_leave_nothing_out(examples, world_size):
    settings = Finetuning(batch_size=16, pack_tokens=60)
    alone = next(job_for(examples, settings).steps(None))[0]
    steps = [
        next(
            job_for(
                examples, settings, Group(rank=rank, world_size=world_size, device=torch.device("cpu"))
            ).steps(None)
        )[0]
        for rank in range(world_size)
    ]
    assert len({len(step.micros) for step in steps}) == 1, "gradients are exchanged at the same micro-batch"
    shared = {micro.number: micro for step in steps for micro in step.micros if micro.weight}
    assert {number: micro.weight for number, micro in shared.items()} == {
        micro.number: micro.weight for micro in alone.micros
    }
    for micro in alone.micros:
        assert torch.equal(micro.inputs[0].token_ids, shared[micro.number].inputs[0].token_ids)


def test_every_epoch_takes_every_example_once_in_an_order_of_its_own(examples):
    settings = Finetuning(epochs=3, batch_size=5)
    orders = {}
    for step, _ in job_for(examples, settings).steps(None):
        rows = [int(line.split()[-1]) for line in step.documents()]
        orders.setdefault(step.stage, []).extend(rows)
    assert list(orders) == ["epoch 1", "epoch 2", "epoch 3"]
    assert all(sorted(order) == list(range(1, 24)) for order in orders.values())
    assert orders["epoch 1"] != orders["epoch 2"] != orders["epoch 3"]


def test_the_steps_after_a_state_are_those_that_followed_it(examples):
    settings = Finetuning(epochs=2, batch_size=5)
    steps = list(job_for(examples, settings).steps(None))
    assert [step.is_last_of_stage for step, _ in steps] == [False, False, False, False, True] * 2
    for place, (_, state) in enumerate(steps):
        rest = list(job_for(examples, settings).steps(state))
        assert [step.documents() for step, _ in rest] == [step.documents() for step, _ in steps[place + 1 :]]
        assert [step.learning_rate_share for step, _ in rest] == [
            step.learning_rate_share for step, _ in steps[place + 1 :]
        ]


def test_the_rate_rises_and_falls_to_nothing(examples):
    settings = Finetuning(epochs=4, batch_size=4, warmup_share=0.25)
    shares = [step.learning_rate_share for step, _ in job_for(examples, settings).steps(None)]
    peak = shares.index(max(shares))
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert 0 < shares[-1] < 0.1
    assert max(shares) > 0.9


def test_a_run_that_is_over_begins_no_further_epoch(examples):
    told = iter([False, True])
    job = job_for(examples, Finetuning(epochs=5, batch_size=8), is_over=lambda: next(told))
    assert {step.stage for step, _ in job.steps(None)} == {"epoch 1"}


def test_layers_further_from_the_head_learn_more_slowly():
    module = module_for()
    groups = learning_groups(module, Finetuning(layer_decay=0.5))
    scale_of = {name: group.learning_rate_scale for group in groups for name, _ in group.parameters}
    assert set(scale_of) == {name for name, _ in module.named_parameters()}
    assert scale_of["model.model.embeddings.tok_embeddings.weight"] == 0.5**4
    assert scale_of["model.model.layers.0.mlp.Wi.weight"] == 0.5**3
    assert scale_of["model.model.layers.2.mlp.Wi.weight"] == 0.5
    assert scale_of["model.model.final_norm.weight"] == scale_of["model.classifier.weight"] == 1.0
    assert not next(g for g in groups if "model.classifier.bias" in dict(g.parameters)).decays
    optimizer = AdamWConfig().build(module, groups)
    assert sorted({group[SCALE] for group in optimizer.param_groups}) == [0.5**4, 0.5**3, 0.5**2, 0.5, 1.0]


def test_frozen_layers_do_not_learn():
    module = module_for()
    groups = learning_groups(module, Finetuning(num_frozen_layers=2))
    learning = {name for group in groups for name, _ in group.parameters}
    assert not any(".embeddings." in name or "layers.0." in name or "layers.1." in name for name in learning)
    assert any("layers.2." in name for name in learning)
    assert {name for name, each in module.named_parameters() if each.requires_grad} == learning


def test_a_mean_loss_does_not_depend_on_packs_and_leaves_the_module_in_training(examples):
    module = module_for(dropout=0.5).train()
    cpu = torch.device("cpu")
    one, other = (mean_loss(module, examples, Finetuning(pack_tokens=n), cpu) for n in (10_000, 50))
    assert one == pytest.approx(other, abs=TOLERANCE)
    assert module.training


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({"epochs": 0}, "1 or more"),
        ({"batch_size": 0}, "1 or more"),
        ({"max_length": 0}, "1 or more"),
        ({"seed": -1}, "0 or more"),
        ({"num_frozen_layers": -1}, "0 or more"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"learning_rate": float("nan")}, "above 0"),
        ({"layer_decay": 0.0}, "above 0 and at most 1"),
        ({"layer_decay": 1.5}, "above 0 and at most 1"),
        ({"warmup_share": 1.0}, "0 or more and below 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, bound):
    ((name, value),) = changes.items()
    with pytest.raises(TrainingError, match=f"^{name}={value} cannot be: it must be {bound}$"):
        replace(Finetuning(), **changes)


def test_narrower_models_learn_faster_unless_told():
    assert Finetuning().rate_for(768) == 8e-5
    assert Finetuning().rate_for(256) == pytest.approx(2.4e-4)
    assert Finetuning().rate_for(1024) == 8e-5
    assert Finetuning(learning_rate=1e-5).rate_for(256) == 1e-5
