"""A model with another head: what fine-tuning begins with.

Of the heads that could do, the one is taken that the folder's own family has words for, so that transformers
loads the result; weights that the old model has for it are kept.

    ModernBERT    norm(gelu(dense(x))) before the scores, taken over from the masked-language-model head
    BERT          tanh(dense(cls)) before classes, taken over from the published pooler; nothing before tags
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from modernbert.encoder.norm import LayerNormConfig
from modernbert.heads.model import HeadPart, ModelConfig
from modernbert.heads.transform import TransformConfig
from modernbert.pretrained.config_file import OWN_MODEL_TYPE
from modernbert.pretrained.folder import Pretrained, describe_layout
from modernbert.pretrained.weights import state_of

# From a transform and a pooling to a head; a head of tokens has no use for the second.
HeadBuilder = Callable[[TransformConfig | None, str], HeadPart]
_POOLER = re.compile(r"^.*pooler\.dense\.")


def with_head(model: Pretrained, build: HeadBuilder, *, seed: int) -> Pretrained:
    """The same encoder, on the CPU in fp32, with the head that `build` gives for its family.

    What the old head or the published pooler has under the same names and shapes is taken over; the rest is
    drawn by `seed`.
    """
    config = next(
        (config for config in _candidates(model, build) if not _is_own(config)),
        next(_candidates(model, build)),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = config.build()
    module = module.float()
    old = state_of(model.module) | _pooler(model.carried)
    places = module.state_dict()
    fitting = {
        name: value for name, value in old.items() if name in places and value.shape == places[name].shape
    }
    module.load_state_dict(fitting, strict=False)
    return replace(model, config=config, module=module, carried={}, dtype_of_file=None)


def _candidates(model: Pretrained, build: HeadBuilder):
    own = getattr(model.config.head, "transform", None)
    norm = model.config.encoder.final_norm
    published = TransformConfig(norm=norm if isinstance(norm, LayerNormConfig) else LayerNormConfig())
    pooler = TransformConfig(activation="tanh", has_bias=True, norm=None)
    tries = ((own or published, "mean"), (pooler, "cls"), (None, "cls"))
    if model.foreign.get("model_type") not in (None, "modernbert"):
        tries = tries[1:] + tries[:1]
    for transform, pooling in tries:
        yield replace(model.config, head=build(transform, pooling))


def _is_own(config: ModelConfig) -> bool:
    return describe_layout(config).startswith(OWN_MODEL_TYPE)


def _pooler(carried: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published pooler as the transform of a head."""
    return {
        _POOLER.sub("head.dense.", name): value.float()
        for name, value in carried.items()
        if "pooler.dense" in name
    }
