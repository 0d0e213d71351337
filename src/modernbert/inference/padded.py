"""A model as its padded twin: the same modules and tensors, called with rows of one rectangle.

In go token ids [B, N] and which of them are real; out come the numbers that the packed model gives at the
real positions. It exists for exporters, whose graphs have no packs. Only what knows the bounds of sequences
is replaced: attention, the angles it turns by, and pooling. All that treats tokens one by one is the model's
own, so nothing here has weights.

A token sees the real tokens of its row, in local layers those with `|i - j| <= window_each_side`, all others
behind a mask: O(n^2) whatever the window.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from modernbert.encoder.attention import Attention
from modernbert.encoder.embedding import Embedding
from modernbert.encoder.encoder import Encoder
from modernbert.encoder.rotary import Rotary, angles
from modernbert.heads.classify import ChoiceModel, SequenceClassifier
from modernbert.heads.embed import Pooler, TextEmbedder, TokenEmbedder
from modernbert.heads.mlm import MaskedLanguageModel
from modernbert.heads.tokens import SpanHeadConfig, TokenClassifier
from modernbert.pretrained.folder import Pretrained
from modernbert.text.batch import PackedBatch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class PaddedModel(nn.Module):
    """The padded twin of a model, from the inputs of transformers' models to named outputs."""

    def __init__(self, model: Pretrained) -> None:
        super().__init__()
        encoder, settings = model.config.encoder, model.settings
        self.twin = padded_twin(model.module, max(encoder.max_positions, settings.max_seq_length or 0))
        self.is_span = isinstance(model.config.head, SpanHeadConfig)
        self.dimensions = settings.dimensions
        types = cast(Embedding, cast(Encoder, model.module.model).embeddings).token_types
        self.has_token_types = types is not None and types.num_embeddings > 1

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Inputs [B, N], or [B, choices, N] where the head chooses; what `outputs` gives, without names."""
        return tuple(self.outputs(input_ids, attention_mask, token_type_ids).values())

    def outputs(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What the head gives for rows: of tokens [B, N, ...], of texts [B, ...]."""
        twin = self.twin
        if isinstance(twin, ChoiceModel):
            types = None if token_type_ids is None else token_type_ids.flatten(0, 1)
            rows = Rows.of(input_ids.flatten(0, 1), attention_mask.flatten(0, 1), types)
            scores = twin.scores(pool_rows(self.hidden(rows), rows, twin.pooling))  # [B * choices, 1]
            return {"logits": scores.view(input_ids.shape[:2])}
        rows = Rows.of(input_ids, attention_mask, token_type_ids)
        hidden = self.hidden(rows)  # [B, N, D]
        if isinstance(twin, MaskedLanguageModel):
            return {"logits": twin.logits(hidden)}
        if isinstance(twin, SequenceClassifier):
            return {"logits": twin.scores(pool_rows(hidden, rows, twin.pooling))}
        if isinstance(twin, TokenClassifier):
            logits = twin.scores(hidden)
            if not self.is_span:
                return {"logits": logits}
            return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
        if isinstance(twin, TokenEmbedder):
            return {"last_hidden_state": hidden, "token_embeddings": twin.finish(hidden)}
        if isinstance(twin, Pooler):
            pooled = pool_rows(hidden, rows, "cls")
            return {"last_hidden_state": hidden, "pooler_output": twin.head(pooled)}
        assert isinstance(twin, TextEmbedder)
        pooled = twin.finish([pool_rows(hidden, rows, mode) for mode in twin.poolings])
        vectors = pooled[:, : self.dimensions]
        return {"last_hidden_state": hidden, "token_embeddings": hidden, "sentence_embedding": vectors}

    def hidden(self, rows: Rows) -> Tensor:
        """The last hidden states of rows, [B, N, D]."""
        return cast(Encoder, self.twin.model)(cast(PackedBatch, rows), "sdpa")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """What modules find in the place of a PackedBatch: sequences as rows, padding on either side.

    Positions count the real tokens of a row, as in a pack. `max_seqlen` is what learned positions are checked
    against: how long a row will be is not known when a graph is made, so it stands for none. `made` holds
    what several layers need: their masks and angles.
    """

    token_ids: Int[Tensor, "B N"]
    is_real: Bool[Tensor, "B N"]
    position_ids: Int[Tensor, "B N"]
    token_types: Int[Tensor, "B N"] | None
    max_seqlen: int = 0
    made: dict[object, Any] = field(default_factory=dict[object, Any])

    @classmethod
    def of(cls, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Rows:
        """The rows that inputs [B, N] stand for, named as transformers names them."""
        is_real = attention_mask != 0
        return cls(
            token_ids=input_ids,
            is_real=is_real,
            position_ids=(is_real.long().cumsum(dim=1) - 1).clamp(min=0),
            token_types=token_type_ids,
        )

    def once(self, key: object, make: Callable[[], Any]) -> Any:
        """What `make` gives, made for the first layer that asks."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]


def padded_twin(module: nn.Module, num_positions: int) -> nn.Module:
    """The module for `Rows`: its own tensors, without dropout, and attention that knows of padding.

    Rotary positions end behind `num_positions`.
    """
    if isinstance(module, Attention):
        return PaddedAttention(module, num_positions)
    if isinstance(module, nn.RReLU):  # what it is outside training; ONNX has no other
        return nn.LeakyReLU((module.lower + module.upper) / 2)
    if isinstance(module, nn.LogSigmoid):
        return LogSigmoid()
    twin = copy.copy(module)
    twin.training = False
    twin._modules = {  # pyright: ignore[reportPrivateUsage]  # a module's parts have no other door
        name: None if part is None else padded_twin(part, num_positions)
        for name, part in module._modules.items()  # pyright: ignore[reportPrivateUsage]
    }
    return twin


class PaddedAttention(nn.Module):
    """`Attention` over rows, with the same parameters.

    Angles come from a table: a runtime that rounds to 16 bits could not compute them from large positions.
    """

    def __init__(self, attention: Attention, num_positions: int) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.window_each_side = attention.window_each_side
        self.Wqkv, self.Wo = copy.copy(attention.Wqkv), copy.copy(attention.Wo)  # their modes are not ours
        self.is_interleaved, self.turning, self.tables = False, None, ()
        rotary = cast("Rotary | None", attention.positions)
        if rotary is not None:
            self.is_interleaved = rotary.is_interleaved
            self.turning = (rotary.theta, rotary.rotary_size)
            self.tables = angles(*self.turning, num_positions, torch.device("cpu"))  # each [P, R/2]

    def forward(self, x: Float[Tensor, "B N D"], rows: Rows, backend: str) -> Float[Tensor, "B N D"]:
        """Mix the real tokens of each row."""
        del backend
        qkv = self.Wqkv(x).unflatten(-1, (3, self.num_heads, -1))  # [B, N, 3, H, K]
        qkv = qkv.permute(2, 0, 3, 1, 4)  # [3, B, H, N, K]
        qk, v = qkv[:2], qkv[2]
        if self.turning is not None:
            cos, sin = rows.once(self.turning, lambda: [_at(rows, each) for each in self.tables])
            qk = _turned(qk, cos, sin, self.is_interleaved)
        q, k = qk.unbind(0)  # each [B, H, N, K]
        mask = rows.once(self.window_each_side, lambda: _mask(rows, self.window_each_side))
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.Wo(mixed.transpose(1, 2).flatten(2))  # [B, H, N, K] -> [B, N, D]


class LogSigmoid(nn.Module):
    """log(sigmoid(x)); exporters write it as these two steps, which for x below -87 is minus infinity."""

    def forward(self, x: Tensor) -> Tensor:
        """Element by element."""
        return -nn.functional.softplus(-x)


def pool_rows(x: Float[Tensor, "B N D"], rows: Rows, mode: str) -> Float[Tensor, "B D"]:
    """`pool` over rows: of a row of nothing but padding, numbers without meaning."""
    if mode == "max":
        lowest = torch.finfo(torch.float32).min
        return torch.where(rows.is_real[:, :, None], x, lowest).amax(dim=1)
    weight = _weights(rows, mode) * rows.is_real  # [B, N]
    return (x * weight[:, :, None]).sum(dim=1)


def _at(rows: Rows, table: Float[Tensor, "P R/2"]) -> Float[Tensor, "B 1 N R/2"]:
    return nn.functional.embedding(rows.position_ids, table)[:, None]


def _mask(rows: Rows, window_each_side: int | None) -> Float[Tensor, "B 1 N N"]:
    """What is added to the scores of a layer: 0 where a token is seen."""
    is_seen = rows.is_real[:, None, None, :]  # [B, 1, 1, N]
    if window_each_side is not None:
        apart = rows.position_ids[:, :, None] - rows.position_ids[:, None, :]  # [B, N, N]
        is_seen = is_seen & (apart.abs() <= window_each_side)[:, None]
    # not -inf: a row that is all padding would be NaN
    return torch.where(is_seen, 0.0, torch.finfo(torch.float32).min)


def _weights(rows: Rows, mode: str) -> Float[Tensor, "B N"]:
    """How much each real token counts."""
    position = rows.position_ids  # [B, N]
    length = rows.is_real.sum(dim=1, keepdim=True).clamp(min=1).float()  # [B, 1]
    if mode == "cls":
        return (position == 0).float()
    if mode == "lasttoken":
        return (position == length - 1).float()
    if mode == "mean":
        return 1.0 / length
    if mode == "mean_sqrt_len_tokens":
        return 1.0 / length.sqrt()
    assert mode == "weightedmean", mode
    return (position + 1.0) * 2.0 / (length * (length + 1.0))


def _turned(x: Float[Tensor, "2 B H N K"], cos: Tensor, sin: Tensor, is_interleaved: bool) -> Tensor:
    """`kernels.fused.rotary_qkv` for q and k, as operations that exporters know."""
    size = 2 * cos.shape[-1]
    turned, rest = x[..., :size], x[..., size:]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if is_interleaved else turned.chunk(2, dim=-1)
    pair = a * cos - b * sin, b * cos + a * sin  # each [2, B, H, N, R/2]
    together = torch.stack(pair, dim=-1).flatten(-2) if is_interleaved else torch.cat(pair, dim=-1)
    return torch.cat((together, rest), dim=-1) if rest.shape[-1] else together
