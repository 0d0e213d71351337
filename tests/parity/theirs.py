"""transformers' models as the oracle: weights that make every part matter, their numbers, and ours on the
same texts.

Rows of a padded batch go into their model; the real tokens of the same rows, packed, go into ours.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from modernbert.text.batch import PackedBatch

# The project's own bound on every hidden state and score in fp32; what is seen is 1e-6 to 1e-5, from sums in
# another order.
TOLERANCE = 1e-4
# Numbers smaller than this would agree whatever a model computes; random models give 1, MiniLM 0.2.
LEAST_SPREAD = 0.1
# Matrices of gain 1.6 give attention scores of spread 1.6 ** 2: far from uniform, and not yet one-hot.
# Through 22 layers such weights carry fp32's own rounding to 1e-4 (their model against itself in fp64:
# 0.9e-4), so deep models get less.
GAIN = 1.6
GAIN_OF_DEEP_MODELS = 1.3

AUTO_CLASSES = {
    "none": transformers.AutoModel,
    "mlm": transformers.AutoModelForMaskedLM,
    "classify": transformers.AutoModelForSequenceClassification,
    "tag": transformers.AutoModelForTokenClassification,
    "span": transformers.AutoModelForQuestionAnswering,
    "choice": transformers.AutoModelForMultipleChoice,
}
ENDINGS = {
    "none": "Model",
    "mlm": "ForMaskedLM",
    "classify": "ForSequenceClassification",
    "tag": "ForTokenClassification",
    "span": "ForQuestionAnswering",
    "choice": "ForMultipleChoice",
}


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Random texts as rows of one rectangle, an even number: each two can be the choices of a question."""

    token_ids: Tensor  # [B, N]
    is_real: Tensor  # [B, N]
    token_types: Tensor | None  # [B, N]

    @property
    def packed(self) -> PackedBatch:
        return PackedBatch.from_padded(self.token_ids, self.is_real, self.token_types)

    @property
    def position_ids(self) -> Tensor:
        """Counted from the first real token of each row, as BERT under left padding must be told."""
        return (self.is_real.long().cumsum(dim=1) - 1).clamp(min=0)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What a model says on texts: the hidden state of every real token, and the scores of its head."""

    hidden: Tensor  # [T, D]
    scores: Tensor | None


def random_texts(
    lengths: Sequence[int],
    *,
    vocab_size: int,
    pad_id: int = 0,
    side: str = "right",
    num_types: int = 0,
    seed: int = 0,
) -> Texts:
    """Token ids above 4, so that none is special; of two types, the second begins in mid-text."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    is_real = torch.tensor([[column < length for column in range(shape[1])] for length in lengths])
    token_ids = torch.randint(5, vocab_size, shape, generator=generator)
    token_types = torch.tensor(
        [[num_types == 2 and column >= length // 2 for column in range(shape[1])] for length in lengths]
    ).long()
    if side == "left":
        is_real, token_types = is_real.flip(1), token_types.flip(1)
    return Texts(
        token_ids=token_ids.masked_fill(~is_real, pad_id),
        is_real=is_real,
        token_types=token_types.masked_fill(~is_real, 0) if num_types else None,
    )


def randomize(model: nn.Module, seed: int = 0, gain: float = GAIN) -> nn.Module:
    """Draw every parameter anew: norms' weights and biases too, so that none can be left out unseen."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 2:
            parameter.data = gain * parameter.shape[1] ** -0.5 * drawn
        else:
            parameter.data = (name.endswith("weight") + 0.3 * drawn).to(parameter.dtype)
    return model.eval()


def build_theirs(
    name: str, config: transformers.PreTrainedConfig, seed: int = 0, gain: float = GAIN
) -> transformers.PreTrainedModel:
    """The class of that name with random weights; their own drawing, which is slow, is left out."""
    with no_init_weights():
        model = getattr(transformers, name)(config)
    model.tie_weights()
    return randomize(model, seed, gain)


@torch.no_grad()
def their_numbers(model: transformers.PreTrainedModel, texts: Texts) -> Numbers:
    """Hidden states of their encoder, and scores of the whole model, at real tokens only."""
    inputs = {"input_ids": texts.token_ids, "attention_mask": texts.is_real.long()}
    if model.config.model_type == "bert":
        inputs["position_ids"] = texts.position_ids
    if texts.token_types is not None:
        inputs["token_type_ids"] = texts.token_types
    name = type(model).__name__
    if name.endswith("ForMultipleChoice"):
        inputs = {key: value.unflatten(0, (-1, 2)) for key, value in inputs.items()}  # [B/2, 2, N]
    hidden: list[Tensor] = []
    hook = model.base_model.register_forward_hook(lambda *call: hidden.append(call[-1][0]))
    output = model(**inputs)
    hook.remove()
    return Numbers(hidden=hidden[0][texts.is_real], scores=_scores(name, output, texts.is_real))


def _scores(name: str, output: transformers.utils.ModelOutput, is_real: Tensor) -> Tensor | None:
    if name.endswith("Model"):
        return None
    if name.endswith("ForQuestionAnswering"):
        return torch.stack([output.start_logits, output.end_logits], dim=-1)[is_real]
    if name.endswith("ForMultipleChoice"):
        return output.logits.reshape(-1, 1)
    is_for_tokens = name.endswith(("ForMaskedLM", "ForTokenClassification"))
    return output.logits[is_real] if is_for_tokens else output.logits


@torch.no_grad()
def our_numbers(read: Pretrained, batch: PackedBatch, *, has_scores: bool) -> Numbers:
    """The same from our model; no scores for an encoder alone, which gives none over there."""
    hidden = read.module.model(batch)
    return Numbers(hidden=hidden, scores=read.module(batch) if has_scores else None)


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    """Equal within the tolerance, and of a size at which that says something."""
    assert ours.shape == theirs.shape
    assert theirs.std() > LEAST_SPREAD, f"these numbers are too small to compare: {theirs.std()}"
    gap = (ours - theirs).abs().max().item()
    assert gap <= tolerance, f"the largest difference is {gap:.2g}"


def assert_same_numbers(read: Pretrained, batch: PackedBatch, expected: Numbers) -> None:
    """Our hidden states and scores equal theirs."""
    ours = our_numbers(read, batch, has_scores=expected.scores is not None)
    assert_same(ours.hidden, expected.hidden)
    if expected.scores is not None:
        assert ours.scores is not None
        assert_same(ours.scores, expected.scores)


def assert_same_both_ways(theirs: transformers.PreTrainedModel, texts: Texts, folder: Path) -> Pretrained:
    """Their folder in ours, then our folder in theirs: the same numbers, tensors and configuration."""
    theirs.save_pretrained(folder / "theirs")
    read = read_folder(folder / "theirs")
    expected = their_numbers(theirs, texts)
    assert_same_numbers(read, texts.packed, expected)

    write_folder(folder / "ours", read)
    back = load_theirs(folder / "ours", type(theirs))
    assert_same_tensors(back, theirs)
    again = read_folder(folder / "ours")
    assert again.config == read.config
    assert_same_numbers(again, texts.packed, their_numbers(back, texts))
    return read


def load_theirs(folder: Path, wanted: type[transformers.PreTrainedModel]) -> transformers.PreTrainedModel:
    """Our folder in transformers, through the Auto class of its head, every tensor in its place, unwarned."""
    auto = next(auto for kind, auto in AUTO_CLASSES.items() if wanted.__name__.endswith(ENDINGS[kind]))
    with warnings_of("transformers") as warned:
        model, info = auto.from_pretrained(folder, output_loading_info=True)
    assert type(model) is wanted
    assert not any(info[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert warned == []
    return model.eval()


def assert_same_tensors(one: nn.Module, other: nn.Module) -> None:
    """Two modules with the same tensors under the same names, bit for bit."""
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@contextmanager
def warnings_of(logger_name: str) -> Iterator[list[str]]:
    """What a library logs as a warning or worse; transformers' logger does not reach pytest by itself."""
    messages: list[str] = []
    transformers.utils.logging.warning_once.cache_clear()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger(logger_name)
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
