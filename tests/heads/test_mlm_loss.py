"""The loss of a masked language model is that of its logits at the masked tokens, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.text.batch import PackedBatch
from tests.encoder.small import VOCAB_SIZE, random_sequences, small_config

# fp32 on both sides through three layers, sums in another order
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
BATCH = PackedBatch.from_sequences(random_sequences([40, 1, 9]))
POSITIONS = torch.tensor([0, 3, 17, 40, 49])
LABELS = torch.randint(VOCAB_SIZE, (5,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "head",
    [
        MlmHeadConfig(),
        MlmHeadConfig(is_tied=False),
        MlmHeadConfig(transform=None, has_decoder_bias=False),
    ],
    ids=["tied", "untied", "bare"],
)
@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.01)], ids=["plain", "both"])
def test_loss_and_gradients_are_those_of_the_logits_at_masked_tokens(head, smoothing, z_loss):
    torch.manual_seed(0)
    model = ModelConfig(encoder=small_config(), head=head).build()
    found = model.loss(BATCH, POSITIONS, LABELS, label_smoothing=smoothing, z_loss=z_loss)
    logits = model(BATCH, positions=POSITIONS)
    expected = F.cross_entropy(logits, LABELS, label_smoothing=smoothing, reduction="sum")
    expected = expected + z_loss * logits.logsumexp(dim=1).square().sum()
    torch.testing.assert_close(found.loss, expected, **TOLERANCE)
    torch.testing.assert_close(found.nll, F.cross_entropy(logits, LABELS, reduction="sum"), **TOLERANCE)
    assert found.num_correct == (logits.argmax(dim=1) == LABELS).sum()
    parameters = list(model.parameters())
    for ours, plain in zip(
        torch.autograd.grad(found.loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(ours, plain, **TOLERANCE)


def test_micro_batches_add_up_to_one_large_batch():
    torch.manual_seed(0)
    model = ModelConfig(encoder=small_config(), head=MlmHeadConfig()).build()
    parameters = list(model.parameters())
    whole = torch.autograd.grad(model.loss(BATCH, POSITIONS, LABELS).loss / 5, parameters)
    pieces = BATCH.split(BATCH.token_ids)
    shares = [((0,), slice(0, 3)), ((1, 2), slice(3, 5))]  # three masked tokens in one, two in the other
    added = [torch.zeros_like(x) for x in parameters]
    for sequences, which in shares:
        batch = PackedBatch.from_sequences([pieces[i].tolist() for i in sequences])
        first = 0 if sequences == (0,) else 40
        loss = model.loss(batch, POSITIONS[which] - first, LABELS[which]).loss / 5
        for total, part in zip(added, torch.autograd.grad(loss, parameters), strict=True):
            total += part
    for ours, expected in zip(added, whole, strict=True):
        torch.testing.assert_close(ours, expected, **TOLERANCE)
