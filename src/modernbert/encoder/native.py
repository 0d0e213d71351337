"""A whole forward in the native library: from an Encoder to a plan, and a plan on a pack.

A plan holds the encoder's matrices packed for this processor's products. It is made when it is first needed
and made anew when a weight, a part or a hook has changed. What it cannot express it says in words, and the
modules run. It serves inference alone, on a processor, without gradients. Weights of bfloat16 are multiplied
as such where the processor can, and as float32 elsewhere; sums, norms and what flows between the layers are
float32.

A change is seen by torch's own counters, by the identity of parts and tensors, and, since writing through
`.data` is not counted, by a look at eight numbers in the middle row of each matrix. Where that row stays what
it was, a change made that way is missed.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from modernbert.encoder.attention import Attention
from modernbert.encoder.block import ParallelBlock
from modernbert.encoder.embedding import Embedding, LearnedPositions
from modernbert.encoder.mlp import Glu, Mlp
from modernbert.encoder.native_limits import BLOCKS, activation_of, unsupported
from modernbert.encoder.packed_file import FEWEST_BYTES, keep, mapped, write_blocks
from modernbert.encoder.rotary import Rotary, angles, num_angles
from modernbert.encoder.watched import Watched
from modernbert.errors import BackendError, InputError
from modernbert.kernels import native_library as native
from modernbert.kernels.hardware import num_threads

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float
    from torch import Tensor

    from modernbert.encoder.encoder import Encoder
    from modernbert.encoder.packed_file import PackedFile
    from modernbert.text.batch import PackedBatch


@dataclass(kw_only=True, slots=True)
class _Cache:
    """A plan, or why there is none, until something changes."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    plan: Plan | None = None
    refused: tuple[Watched, list[str]] | None = None


class NativeEncoder:
    """The plan of one encoder, kept up to date; may be shared between threads.

    `is_on` says whether "auto" takes it: a model that is loaded to be asked turns it on, training leaves it
    off. `is_int8` has the products run on 8-bit weights.
    """

    def __init__(self, is_on: bool = False, is_int8: bool = False) -> None:
        self.is_on = is_on
        self.is_int8 = is_int8
        self._cache = _Cache()
        self._original: Encoder | None = None

    def plan_for(self, encoder: Encoder, batch: PackedBatch) -> Plan | list[str]:
        """The plan of this encoder's weights as they are now, or why this call cannot run natively."""
        library = native.library()
        if library is None:
            return [cast(str, native.missing())]
        if reasons := _unsupported_call(batch):
            return reasons
        whole = self._original or encoder
        with self._cache.lock:
            plan, refused = self._cache.plan, self._cache.refused
            if plan is not None and plan.is_current(whole, self._products(whole)):
                watched = plan.watched
            elif refused is not None and refused[0].is_unchanged(whole):
                return refused[1]
            else:
                self._cache.plan, watched = None, Watched(whole)
                reasons = unsupported(whole, int(library.modernbert_lanes()), watched.has_hooks)
                self._cache.refused = (watched, reasons) if reasons else None
                if reasons:
                    return reasons
                plan = self._cache.plan = Plan(library, whole, watched, self._products(whole))
        if self._original is None and watched.drops_out:
            return ["serves inference alone, and a part of this encoder is in training mode, with dropout"]
        return plan

    def prepare(self, encoder: Encoder, packed: PackedFile | None) -> None:
        """Make the plan now if "auto" takes it, from the packed file, which is written if it is not there.

        For weights as they have just been read: what somebody has changed since must not be kept for others.
        """
        library = native.library()
        if packed is None or library is None or not self.is_on:
            return
        watched = Watched(encoder)
        products = self._products(encoder)
        if watched.num_packed_bytes(products) < FEWEST_BYTES:
            return
        if unsupported(encoder, int(library.modernbert_lanes()), watched.has_hooks):
            return
        path = packed.path(encoder.config, products)
        with self._cache.lock:
            self._cache.plan = Plan(library, encoder, watched, products, path)

    def _products(self, encoder: Encoder) -> str:
        """What the products are computed in: a name of native_library.PRODUCTS."""
        if self.is_int8:
            return "int8"
        return "bfloat16" if _dtype(encoder) == torch.bfloat16 and native.has_bf16() else "float32"

    def drop(self) -> None:
        """Give the packed weights back; the next call makes them anew."""
        self._cache.plan = None

    def for_twin(self, original: Encoder) -> NativeEncoder:
        """For a copy of the modules that shares every tensor with `original`: the same plan."""
        twin = NativeEncoder(self.is_on, self.is_int8)
        twin._cache = self._cache
        twin._original = self._original or original
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> NativeEncoder:
        """A copy of an encoder gets a plan of its own."""
        return NativeEncoder(self.is_on, self.is_int8)

    def __reduce__(self) -> tuple[type[NativeEncoder], tuple[bool, bool]]:
        return NativeEncoder, (self.is_on, self.is_int8)


def _unsupported_call(batch: PackedBatch) -> list[str]:
    if torch.is_grad_enabled():
        return ["serves inference alone: call it under torch.no_grad() or torch.inference_mode()"]
    if batch.token_ids.device.type != "cpu":
        return [f"runs on a processor, the batch is on {batch.token_ids.device}"]
    if torch.is_autocast_enabled("cpu"):
        return ["knows nothing of torch.autocast"]
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    if is_traced or type(batch.token_ids) is not torch.Tensor:
        return ["cannot be traced or exported"]
    return []


class Plan:
    """An encoder's packed weights: those in the file at `path`, or packed here and written there."""

    def __init__(
        self,
        library: ctypes.CDLL,
        encoder: Encoder,
        watched: Watched,
        products: str,
        path: Path | None = None,
    ) -> None:
        self._library = library
        self.watched = watched
        self._products = products
        self._dtype = _dtype(encoder)
        self._rotaries: list[Rotary] = []
        self._tables: dict[int, tuple[Any, list[Tensor]]] = {}
        self._positions = _learned_positions(encoder)
        self._hidden_size = encoder.config.hidden_size
        self._vocab_size = encoder.config.vocab_size
        layers = (native.LayerSpec * len(encoder.layers))(*map(self._layer, encoder.layers))
        embedding = cast(Embedding, encoder.embeddings)
        positions, types = self._positions, embedding.token_types
        spec = native.ModelSpec(
            hidden_size=self._hidden_size,
            vocab_size=embedding.tok_embeddings.num_embeddings,
            num_layers=len(encoder.layers),
            num_positions=0 if positions is None else positions.num_positions,
            position_offset=0 if positions is None else positions.offset,
            num_token_types=0 if types is None else types.num_embeddings,
            products=native.PRODUCTS[products],
            is_bf16=_is_bf16(embedding.tok_embeddings.weight),
            tokens=embedding.tok_embeddings.weight.data_ptr(),
            positions=None if positions is None else positions.weight.data_ptr(),
            token_types=None if types is None else types.weight.data_ptr(),
            embedding_norm=_norm(embedding.norm),
            final_norm=_norm(encoder.final_norm),
            layers=layers,
        )
        self._kept = None if path is None else mapped(path)
        self._plan = self._mapped_plan(spec)
        if not self._plan:
            self._plan = library.modernbert_plan_new(ctypes.byref(spec))
            if not self._plan:
                raise BackendError("there is no memory for the packed weights; pass backend='sdpa'")
            if path is not None and keep(path, partial(write_blocks, self._blocks())):
                self._take_mapped(spec, path)

    def __del__(self) -> None:
        if getattr(self, "_plan", None):
            self._library.modernbert_plan_free(self._plan)

    def _mapped_plan(self, spec: native.ModelSpec) -> int | None:
        """A plan on the mapped file; None where there is none, or it holds other weights."""
        if self._kept is None:
            return None
        return self._library.modernbert_plan_map(ctypes.byref(spec), self._kept.address, self._kept.num_bytes)

    def _take_mapped(self, spec: native.ModelSpec, path: Path) -> None:
        """Change over to the file that was written from this plan, and give its own memory back."""
        self._kept = mapped(path)
        if plan := self._mapped_plan(spec):
            self._library.modernbert_plan_free(self._plan)
            self._plan = plan

    def _blocks(self) -> Sequence[native.Block]:
        num = self._library.modernbert_plan_blocks(self._plan, None, 0)
        blocks = (native.Block * num)()
        self._library.modernbert_plan_blocks(self._plan, blocks, num)
        return list(blocks)

    def is_current(self, encoder: Encoder, products: str) -> bool:
        """Whether the encoder is still what was packed."""
        return (
            products == self._products
            and self.watched.is_unchanged(encoder)
            and bool(self._library.modernbert_plan_is_current(self._plan))
        )

    @property
    def num_bytes(self) -> int:
        """Memory of the packed weights."""
        return int(self._library.modernbert_plan_bytes(self._plan))

    def forward(self, batch: PackedBatch) -> Float[Tensor, "T D"]:
        """The last hidden state of every token."""
        if self._positions is not None:
            self._positions.check(batch)
        ids, positions, bounds = batch.token_ids.long(), batch.position_ids.long(), batch.cu_seqlens.int()
        types = None if batch.token_types is None else batch.token_types.long().contiguous()
        ids, positions, bounds = ids.contiguous(), positions.contiguous(), bounds.contiguous()
        if len(positions) != len(ids) or (types is not None and len(types) != len(ids)):
            raise InputError(f"a batch of {len(ids)} tokens needs as many positions and types")
        pack = native.Pack(
            num_tokens=len(ids),
            num_sequences=len(bounds) - 1,
            max_seqlen=batch.max_seqlen,
            token_ids=ids.data_ptr(),
            position_ids=positions.data_ptr(),
            token_types=None if types is None else types.data_ptr(),
            cu_seqlens=bounds.data_ptr(),
            tables=self._tables_for(batch.max_seqlen),
            is_out_bf16=self._dtype == torch.bfloat16,
        )
        out = torch.empty(len(ids), self._hidden_size, dtype=self._dtype)
        where = ctypes.c_int64(0)
        status = self._library.modernbert_forward(
            self._plan, ctypes.byref(pack), num_threads(), out.data_ptr(), ctypes.byref(where)
        )
        if status != native.OK:
            self._raise(status, where.value, batch)
        return out

    def _tables_for(self, max_seqlen: int) -> Any:
        """The angles of each kind of rotary positions, for sequences up to this length."""
        length = num_angles(max_seqlen)
        if length not in self._tables:
            pairs = [angles(r.theta, r.rotary_size, length, torch.device("cpu")) for r in self._rotaries]
            tables = (native.RotaryTable * max(1, len(pairs)))(
                *(native.RotaryTable(cos.data_ptr(), sin.data_ptr(), length) for cos, sin in pairs)
            )
            kept = [tensor for pair in pairs for tensor in pair]
            self._tables = {length: (tables, kept)} | dict(list(self._tables.items())[:3])
        return self._tables[length][0]

    def _raise(self, status: int, where: int, batch: PackedBatch) -> None:
        if status == native.BAD_TOKEN:
            raise IndexError(
                f"token {where} of the batch is {int(batch.token_ids[where])}, outside the vocabulary of "
                f"{self._vocab_size}"
            )
        if status == native.BAD_POSITION:
            raise IndexError(
                f"token {where} of the batch has position {int(batch.position_ids[where])}, and sequences of "
                f"max_seqlen={batch.max_seqlen} have none so high"
            )
        if status == native.BAD_TOKEN_TYPE:
            raise IndexError(f"token {where} of the batch is of a type that the model has not learned")
        if status == native.BAD_BOUNDS:
            raise InputError(
                f"cu_seqlens must rise from 0 to the {len(batch.token_ids)} tokens, in steps of at most "
                f"max_seqlen={batch.max_seqlen}; bound {where} does not"
            )
        if status == native.BAD_THREADS:
            raise BackendError(
                f"{num_threads()} threads cannot be started; set fewer with torch.set_num_threads"
            )
        raise BackendError("there is no memory for this batch; make it smaller")

    def _layer(self, block: nn.Module) -> native.LayerSpec:
        attention = cast(Attention, block.attn)
        mlp = cast("Mlp | Glu", block.mlp)
        rotary = cast("Rotary | None", attention.positions)
        is_parallel = type(block) is ParallelBlock
        return native.LayerSpec(
            block=BLOCKS[type(block)],  # pyright: ignore[reportArgumentType]  # `unsupported` has looked
            num_heads=attention.num_heads,
            window=-1 if attention.window_each_side is None else min(attention.window_each_side, 2**30),
            rotary_size=0 if rotary is None else rotary.rotary_size,
            is_interleaved=False if rotary is None else rotary.is_interleaved,
            table=0 if rotary is None else self._table_of(rotary),
            is_gated=type(mlp) is Glu,
            activation=native.ACTIVATIONS[cast(str, activation_of(mlp.activation))],
            attention_norm=_norm(cast(nn.Module, block.norm if is_parallel else block.attn_norm)),
            mlp_norm=native.NormSpec() if is_parallel else _norm(cast(nn.Module, block.mlp_norm)),
            qkv=_linear(attention.Wqkv),
            attention_out=_linear(attention.Wo),
            mlp_in=_linear(mlp.Wi),
            mlp_out=_linear(mlp.Wo),
        )

    def _table_of(self, rotary: Rotary) -> int:
        for number, known in enumerate(self._rotaries):
            if (known.theta, known.rotary_size) == (rotary.theta, rotary.rotary_size):
                return number
        self._rotaries.append(rotary)
        return len(self._rotaries) - 1


def _norm(norm: nn.Module) -> native.NormSpec:
    if isinstance(norm, nn.LayerNorm):
        bias = cast("Tensor | None", norm.bias)
        where = None if bias is None else bias.data_ptr()
        return native.NormSpec(
            native.LAYER_NORM, norm.eps, norm.weight.data_ptr(), where, _is_bf16(norm.weight)
        )
    if isinstance(norm, nn.RMSNorm):
        eps = torch.finfo(torch.float32).eps if norm.eps is None else norm.eps
        return native.NormSpec(native.RMS_NORM, eps, norm.weight.data_ptr(), None, _is_bf16(norm.weight))
    return native.NormSpec()


def _linear(layer: nn.Linear) -> native.LinearSpec:
    bias = cast("Tensor | None", layer.bias)
    return native.LinearSpec(
        layer.weight.data_ptr(),
        None if bias is None else bias.data_ptr(),
        layer.in_features,
        layer.out_features,
        _is_bf16(layer.weight),
    )


def _is_bf16(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bfloat16


def _dtype(encoder: Encoder) -> torch.dtype:
    return next(encoder.parameters()).dtype


def _learned_positions(encoder: Encoder) -> LearnedPositions | None:
    return cast("LearnedPositions | None", cast(Embedding, encoder.embeddings).positions)
