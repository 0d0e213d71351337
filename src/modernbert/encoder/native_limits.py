"""What the native forward can express of an encoder, and in words what it cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from modernbert.encoder.attention import Attention
from modernbert.encoder.block import ParallelBlock, PostNormBlock, PreNormBlock
from modernbert.encoder.embedding import Embedding, LearnedPositions
from modernbert.encoder.mlp import Glu, Mlp
from modernbert.encoder.rotary import Rotary
from modernbert.kernels import native_library as native

if TYPE_CHECKING:
    from modernbert.encoder.encoder import Encoder

BLOCKS = {PreNormBlock: native.PRE_NORM, PostNormBlock: native.POST_NORM, ParallelBlock: native.PARALLEL}
ACTIVATIONS: Mapping[type[nn.Module], str] = {
    nn.Identity: "identity",
    nn.GELU: "gelu",
    nn.ReLU: "relu",
    nn.SiLU: "silu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
}


def unsupported(encoder: Encoder, lanes: int, has_hooks: bool) -> list[str]:
    """What of this encoder a plan cannot express; `lanes` are the numbers of this processor's vectors."""
    reasons = dict.fromkeys(_unsupported(encoder, lanes, has_hooks))  # a layer like the last one adds nothing
    return list(reasons)


def _unsupported(encoder: Encoder, lanes: int, has_hooks: bool) -> Iterator[str]:
    if has_hooks:
        yield "has no place for forward hooks, and a module has one"
    if encoder.config.hidden_size % lanes:
        yield f"needs sizes that are multiples of {lanes}, hidden_size is {encoder.config.hidden_size}"
    dtype = next(encoder.parameters()).dtype
    for parameter in encoder.parameters():
        if parameter.dtype not in (torch.float32, torch.bfloat16) or parameter.device.type != "cpu":
            yield (
                "takes weights of float32 or bfloat16 on a processor, one is "
                f"{parameter.dtype} on {parameter.device}"
            )
        elif parameter.dtype != dtype:
            yield f"takes weights of one dtype, found {dtype} and {parameter.dtype}"
        elif not parameter.is_contiguous() or type(parameter) not in (nn.Parameter, torch.Tensor):
            yield "needs weights that are plain and contiguous"
    embedding = encoder.embeddings
    if type(embedding) is not Embedding:
        yield f"does not know embeddings of type {type(embedding).__name__}"
    else:
        if type(embedding.positions) not in (LearnedPositions, type(None)):
            yield f"does not know positions of type {type(embedding.positions).__name__}"
        for table in (embedding.tok_embeddings, embedding.token_types):
            if type(table) not in (nn.Embedding, type(None)):
                yield f"does not know an embedding table of type {type(table).__name__}"
        yield from _unsupported_norm(embedding.norm)
    yield from _unsupported_norm(encoder.final_norm)
    for block in encoder.layers:
        yield from _unsupported_block(block, encoder.config.hidden_size, lanes)


def _unsupported_block(block: nn.Module, hidden_size: int, lanes: int) -> Iterator[str]:
    if type(block) not in BLOCKS:
        yield f"does not know blocks of type {type(block).__name__}"
        return
    norms = (block.norm,) if type(block) is ParallelBlock else (block.attn_norm, block.mlp_norm)
    for norm in norms:
        yield from _unsupported_norm(cast(nn.Module, norm))
    attention, mlp = block.attn, block.mlp
    if type(attention) is not Attention:
        yield f"does not know attention of type {type(attention).__name__}"
    else:
        head_dim = hidden_size // attention.num_heads
        if head_dim % lanes:
            yield f"needs heads of a multiple of {lanes} numbers, found {head_dim}"
        rotary = attention.positions
        if type(rotary) not in (Rotary, type(None)):
            yield f"does not know positions of type {type(rotary).__name__}"
        elif isinstance(rotary, Rotary) and rotary.rotary_size % (2 * lanes):
            yield f"turns multiples of {2 * lanes} numbers of a head, not {rotary.rotary_size}"
        yield from _unsupported_linear(attention.Wqkv, attention.Wo)
    if type(mlp) not in (Mlp, Glu):
        yield f"does not know an MLP of type {type(mlp).__name__}"
        return
    assert isinstance(mlp, Mlp | Glu)
    yield from _unsupported_linear(mlp.Wi, mlp.Wo)
    if activation_of(mlp.activation) is None:
        yield f"does not know the activation {mlp.activation}"
    if mlp.Wo.in_features % lanes:
        yield f"needs sizes that are multiples of {lanes}, an intermediate_size is {mlp.Wo.in_features}"


def _unsupported_linear(*layers: nn.Module) -> Iterator[str]:
    for layer in layers:
        if type(layer) is not nn.Linear:
            yield f"does not know a linear layer of type {type(layer).__name__}"


def _unsupported_norm(norm: nn.Module) -> Iterator[str]:
    if type(norm) not in (nn.Identity, nn.LayerNorm, nn.RMSNorm):
        yield f"does not know norms of type {type(norm).__name__}"


def activation_of(module: nn.Module) -> str | None:
    """The library's name of it, or None."""
    if type(module) is nn.GELU:
        return {"none": "gelu", "tanh": "gelu_tanh"}.get(module.approximate)
    return ACTIVATIONS.get(type(module)) or {"QuickGelu": "quick_gelu", "SquaredRelu": "relu2"}.get(
        type(module).__name__
    )
