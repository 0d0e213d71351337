"""Every FlexBERT option written from its formula, on padded batches: the slow truth for whole models.

In go the configuration (as data), the parameters by name and lists of token ids; out come hidden states
`[B, N, D]` and logits `[B, N, V]`, of which only real positions mean anything. Nothing here calls a module, a
kernel or a fused function, the package's or torch's: matrix products, exp, tanh, erf and the like are all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import ParallelConfig, PostNormConfig, PreNormConfig
from modernbert.encoder.embedding import EmbeddingConfig
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.norm import LayerNormConfig, RmsNormConfig
from modernbert.encoder.rotary import RotaryConfig
from modernbert.heads.mlm import MlmHeadConfig

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Padded:
    """Sequences as rows of one rectangle, filled up on the right."""

    token_ids: Tensor  # [B, N]
    token_types: Tensor  # [B, N]
    is_real: Tensor  # [B, N]


def pad(sequences: Sequence[Sequence[int]], token_types: Sequence[Sequence[int]] | None = None) -> Padded:
    longest = max(len(sequence) for sequence in sequences)
    types = token_types or [[0] * len(sequence) for sequence in sequences]
    return Padded(
        token_ids=torch.tensor([[*row, *[0] * (longest - len(row))] for row in sequences]),
        token_types=torch.tensor([[*row, *[0] * (longest - len(row))] for row in types]),
        is_real=torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in sequences]),
    )


def logits(head: MlmHeadConfig, encoder: EncoderConfig, weights: Weights, batch: Padded) -> Tensor:
    """[B, N, V] from the weights of a whole masked language model."""
    x = hidden_states(encoder, _under("model.", weights), batch)
    if head.transform is not None:
        x = _linear(x, _under("head.dense.", weights))
        x = activate(head.transform.activation, x, _under("head.activation.", weights))
        x = _norm(head.transform.norm, x, _under("head.norm.", weights))
    table = "model.embeddings.tok_embeddings.weight" if head.is_tied else "decoder.weight"
    return _linear(x, {"weight": weights[table]} | _only("bias", _under("decoder.", weights)))


def hidden_states(config: EncoderConfig, weights: Weights, batch: Padded) -> Tensor:
    """[B, N, D] from the weights of an encoder."""
    assert isinstance(config.embedding, EmbeddingConfig)
    x = _embed(config.embedding, _under("embeddings.", weights), batch)
    for index, block in enumerate(config.blocks):
        x = _block(block, x, _under(f"layers.{index}.", weights), batch.is_real)
    return _norm(config.final_norm, x, _under("final_norm.", weights))


def _embed(config: EmbeddingConfig, weights: Weights, batch: Padded) -> Tensor:
    x = weights["tok_embeddings.weight"][batch.token_ids]
    if config.num_token_types:
        x = x + weights["token_types.weight"][batch.token_types]
    if config.positions is not None:
        first = config.positions.offset
        x = x + weights["positions.weight"][first : first + x.shape[1]]
    return _norm(config.norm, x, _under("norm.", weights))


def _block(block: object, x: Tensor, weights: Weights, is_real: Tensor) -> Tensor:
    def attention(y: Tensor) -> Tensor:
        return _attend(block.attention, y, _under("attn.", weights), is_real)

    def mlp(y: Tensor) -> Tensor:
        return _mlp(block.mlp, y, _under("mlp.", weights))

    def norm(name: str, config: object, y: Tensor) -> Tensor:
        return _norm(config, y, _under(name, weights))

    if isinstance(block, PreNormConfig):
        x = x + attention(norm("attn_norm.", block.attention_norm, x))
        return x + mlp(norm("mlp_norm.", block.mlp_norm, x))
    if isinstance(block, PostNormConfig):
        x = norm("attn_norm.", block.attention_norm, x + attention(x))
        return norm("mlp_norm.", block.mlp_norm, x + mlp(x))
    assert isinstance(block, ParallelConfig)
    y = norm("norm.", block.norm, x)
    return x + attention(y) + mlp(y)


def _attend(config: AttentionConfig, x: Tensor, weights: Weights, is_real: Tensor) -> Tensor:
    batch, length, hidden_size = x.shape
    head_dim = hidden_size // config.num_heads
    everything = _linear(x, _under("Wqkv.", weights))  # [B, N, 3 D]: all of q, then of k, then of v
    q, k, v = (
        everything[..., i * hidden_size : (i + 1) * hidden_size].reshape(
            batch, length, config.num_heads, head_dim
        )
        for i in range(3)
    )  # each [B, N, H, K]
    if config.rotary is not None:
        q, k = _rotate(config.rotary, q), _rotate(config.rotary, k)
    scores = (q[:, :, None] * k[:, None, :]).sum(dim=-1) / math.sqrt(
        head_dim
    )  # [B, N of queries, N of keys, H]
    position = torch.arange(length)
    is_seen = is_real[:, None, :].expand(batch, length, length)
    if config.window_each_side is not None:
        is_seen = is_seen & ((position[:, None] - position[None, :]).abs() <= config.window_each_side)
    # a padded query may see nothing at all: let it see itself, so that no NaN is there to leak into gradients
    is_seen = is_seen | (position[:, None] == position[None, :])
    scores = scores.masked_fill(~is_seen[..., None], -1e30)
    weight = (scores - scores.amax(dim=2, keepdim=True)).exp()
    weight = weight / weight.sum(dim=2, keepdim=True)
    mixed = (weight[..., None] * v[:, None]).sum(dim=2)  # [B, N, H, K]
    return _linear(mixed.reshape(batch, length, hidden_size), _under("Wo.", weights))


def _rotate(config: RotaryConfig, x: Tensor) -> Tensor:
    """Pair p of a head at position t is turned by t * theta ** (-2 p / R); R numbers take part."""
    rotary_size = round(config.fraction * x.shape[-1])
    num_pairs = rotary_size // 2
    out = list(x.unbind(dim=-1))
    for pair in range(num_pairs):
        a, b = (2 * pair, 2 * pair + 1) if config.is_interleaved else (pair, pair + num_pairs)
        speed = config.theta ** (-2.0 * pair / rotary_size)
        angle = (
            torch.arange(x.shape[1], dtype=torch.float32)[:, None] * speed
        )  # [N, 1], the same for every head
        cos, sin = angle.cos(), angle.sin()
        out[a], out[b] = x[..., a] * cos - x[..., b] * sin, x[..., b] * cos + x[..., a] * sin
    return torch.stack(out, dim=-1)


def _mlp(config: object, x: Tensor, weights: Weights) -> Tensor:
    inner = _linear(x, _under("Wi.", weights))
    if isinstance(config, GluConfig):
        value, gate = inner[..., : config.intermediate_size], inner[..., config.intermediate_size :]
        inner = activate(config.activation, value, _under("activation.", weights)) * gate
    else:
        assert isinstance(config, MlpConfig)
        inner = activate(config.activation, inner, _under("activation.", weights))
    return _linear(inner, _under("Wo.", weights))


def _norm(config: object, x: Tensor, weights: Weights) -> Tensor:
    if config is None:
        return x
    if isinstance(config, RmsNormConfig):
        return x / (x.square().mean(dim=-1, keepdim=True) + config.eps).sqrt() * weights["weight"]
    assert isinstance(config, LayerNormConfig)
    centred = x - x.mean(dim=-1, keepdim=True)
    normed = centred / (centred.square().mean(dim=-1, keepdim=True) + config.eps).sqrt() * weights["weight"]
    return normed + weights["bias"] if config.has_bias else normed


def _linear(x: Tensor, weights: Weights) -> Tensor:
    out = x @ weights["weight"].T
    return out + weights["bias"] if "bias" in weights else out


def _under(prefix: str, weights: Weights) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def _only(name: str, weights: Weights) -> dict[str, Tensor]:
    return {name: weights[name]} if name in weights else {}


def activate(name: str, x: Tensor, weights: Weights) -> Tensor:
    """The activation of that name; only prelu has a weight."""
    return (weights["weight"] * x).where(x < 0, x) if name == "prelu" else FORMULAS[name](x)


def _sigmoid(x: Tensor) -> Tensor:
    return 0.5 * (1.0 + (0.5 * x).tanh())


def _softplus(x: Tensor) -> Tensor:
    return x.clamp(min=0) + (1.0 + (-x.abs()).exp()).log()


def _elu(x: Tensor) -> Tensor:
    return (x.clamp(max=0).exp() - 1.0).where(x < 0, x)


def _hardsigmoid(x: Tensor) -> Tensor:
    return (x / 6.0 + 0.5).clamp(0.0, 1.0)


def _softmin(x: Tensor) -> Tensor:
    weight = (x.amin(dim=-1, keepdim=True) - x).exp()
    return weight / weight.sum(dim=-1, keepdim=True)


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, arXiv 1706.02515

FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "celu": _elu,  # alpha 1
    "elu": _elu,
    "gelu": lambda x: x * 0.5 * (1.0 + (x / math.sqrt(2.0)).erf()),
    "gelu_tanh": lambda x: 0.5 * x * (1.0 + (math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)).tanh()),
    "hardsigmoid": _hardsigmoid,
    "hardshrink": lambda x: x * (x.abs() > 0.5),
    "hardswish": lambda x: x * _hardsigmoid(x),
    "hardtanh": lambda x: x.clamp(-1.0, 1.0),
    "identity": lambda x: x,
    "leaky_relu": lambda x: (0.01 * x).where(x < 0, x),
    "logsigmoid": lambda x: -_softplus(-x),
    "mish": lambda x: x * _softplus(x).tanh(),
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
    "relu": lambda x: x.clamp(min=0.0),
    "relu2": lambda x: x.clamp(min=0.0) ** 2,
    "relu6": lambda x: x.clamp(0.0, 6.0),
    "rrelu": lambda x: ((1 / 8 + 1 / 3) / 2 * x).where(x < 0, x),  # outside training: the mean slope
    "selu": lambda x: SELU_SCALE * (SELU_ALPHA * (x.clamp(max=0).exp() - 1.0)).where(x < 0, x),
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "softmin": _softmin,
    "softplus": _softplus,
    "softshrink": lambda x: (x - 0.5 * x.sign()) * (x.abs() > 0.5),
    "softsign": lambda x: x / (1.0 + x.abs()),
    "tanh": torch.tanh,
    "tanhshrink": lambda x: x - x.tanh(),
}
