"""A larger model begun from a smaller one: every weight of the new model is a weight of the old.

        old  a b c         middle  c|a b c|a b     the old block in the middle, wrapped around
                           edge    a b c|a b       the old block first, then again from its start

Wider: vectors are repeated so, attention by whole heads, and queries, keys, values and the two halves of a
gated unit each by themselves. What reads a repeated vector is divided among its copies, so that sums stay as
they were (Chen et al. 2016, arXiv 1511.05641): where all widths are whole multiples, the new model computes
what the old one does. Deeper: each new layer is an old one at about the same depth (Rae et al. 2021, arXiv
2112.11446), a global one from a global one and a local one from a local one.

ModernBERT-large began from base in a similar way (Warner et al. 2024, arXiv 2412.13663, section 2.3.2).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import ParallelConfig, PostNormConfig, PreNormConfig
from modernbert.encoder.config import from_json, to_json
from modernbert.encoder.encoder import EncoderConfig
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.presets import PRESETS
from modernbert.errors import ConfigError
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.heads.model import ALL_PARTS, ModelConfig
from modernbert.pretrained.config_file import CONFIG_FILE, FAMILIES, OWN_MODEL_TYPE
from modernbert.pretrained.family import head_kind
from modernbert.pretrained.folder import Pretrained
from modernbert.pretrained.keys import Keys
from modernbert.pretrained.surgery import differences, listed
from modernbert.pretrained.weights import fill, read_json, state_of
from modernbert.progress import progress

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

Mode = Literal["middle", "edge"]
LayerMap = Literal["aligned", "published"]
MODES: tuple[Mode, ...] = ("middle", "edge")
LAYER_MAPS: tuple[LayerMap, ...] = ("aligned", "published")
Block = PreNormConfig | PostNormConfig | ParallelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """How a model is tiled.

    `layers` is how new layers find old ones: see `layer_map`. With `divides_copies=False` sums grow with the
    number of copies, as in the published way. Copies that are equal learn the same for ever where there is no
    dropout, so those of matrices get noise: `noise` times the standard deviation of their matrix.
    """

    mode: Mode = "middle"
    layers: LayerMap = "aligned"
    divides_copies: bool = True
    noise: float = 0.01
    seed: int = 17

    def __post_init__(self) -> None:
        if self.mode not in MODES or self.layers not in LAYER_MAPS or self.noise < 0:
            raise ConfigError(
                f"{self} cannot be: mode is one of {', '.join(MODES)}, layers one of "
                f"{', '.join(LAYER_MAPS)}, noise 0 or more"
            )


def tile_model(small: Pretrained, to: EncoderConfig, how: Tiling = Tiling()) -> Pretrained:
    """A model of the shape `to`, with the head, the vocabulary and the tokenizer of `small`, and its numbers.

    Head sizes, kinds of blocks, biases and activations must be the same, and nothing may be smaller than in
    `small`: ConfigError names what is. Windows, rotary thetas and dropouts are those of `to`. A layer made
    from one without an attention norm (ModernBERT's first) gets the norm of the embeddings, behind which that
    one stood. A model tiled to its own shape is the same model.
    """
    old = small.config.encoder
    new = replace(to, vocab_size=old.vocab_size, pad_token_id=old.pad_token_id)
    layers = layer_map(old, new, how.layers)
    _require_fit(old, new, layers)
    config = replace(small.config, encoder=new)
    with torch.device("meta"):
        module = config.build()
    plan = _Plan(small.config, config, layers, how)
    tensors = state_of(small.module) | dict(small.carried)
    names = progress(state_of(module), label="tile", total=len(state_of(module)), unit=" tensors")
    tiled = {name: plan.tiled(name, tensors) for name in names}
    carried = {name: plan.tiled(name, tensors) for name in small.carried}
    fill(module, tiled, source="the tiled model")
    return replace(small, config=config, module=module.eval(), carried=carried)


def layer_map(old: EncoderConfig, new: EncoderConfig, how: LayerMap = "aligned") -> tuple[int, ...]:
    """For each new layer the old one that it is made from.

    published   round(i * num_old / num_new), halves to the even number; at most the last
    aligned     the nearest to i * num_old / num_new of those that see as much: everything, or a window;
                where the old model has no layer of that kind, the nearest of all
    """
    num_old, num_new = len(old.blocks), len(new.blocks)
    if how == "published":
        return tuple(min(round(i * num_old / num_new), num_old - 1) for i in range(num_new))
    kinds = [_is_global(block) for block in old.blocks]
    found: list[int] = []
    for i, block in enumerate(new.blocks):
        alike = [j for j, kind in enumerate(kinds) if kind == _is_global(block)] or range(num_old)
        found.append(min(alike, key=lambda j, i=i: (abs(j * num_new - i * num_old), j)))
    return tuple(found)


def encoder_named(name: str | Path) -> EncoderConfig:
    """The shape of a preset, or of a config.json (or the folder that holds one): ours or transformers'."""
    if str(name) in PRESETS:
        return PRESETS[str(name)]()
    path = Path(name) / CONFIG_FILE if Path(name).is_dir() else Path(name)
    if not path.is_file():
        raise ConfigError(f"{str(name)!r} is no preset and no config.json; presets are {', '.join(PRESETS)}")
    raw, source = read_json(path), str(path)
    if raw.get("model_type") == OWN_MODEL_TYPE:
        config = from_json(raw.get("model") or {}, ALL_PARTS)
        if isinstance(config, ModelConfig):
            return config.encoder
    for family in FAMILIES:
        if raw.get("model_type") == family.model_type:
            return family.read(Keys(raw, source), head_kind(raw, source)).encoder
    raise ConfigError(f"{path} describes no encoder that is known: model_type is {raw.get('model_type')!r}")


# Where the numbers of each tensor come from


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """For each place along an axis of a new tensor: its place in the old one, and whether it is a copy.

    A copy is what lies outside the one whole block of the old. `num_copies` counts how often the old place
    comes in all.
    """

    sources: Int[Tensor, "N"]
    is_copy: Bool[Tensor, "N"]
    num_copies: Int[Tensor, "N"]


def tiled_axis(num_old: int, num_new: int, mode: Mode, *, size: int = 1, num_parts: int = 1) -> Axis:
    """An axis of parts that lie one after the other, each of so many units (heads, say) of `size` numbers."""
    start = (num_new - num_old) // 2 if mode == "middle" else 0
    place = torch.arange(num_new)
    unit = (place - start) % num_old
    is_copy = (place < start) | (place >= start + num_old)
    part = torch.arange(num_parts)[:, None, None] * num_old * size
    sources = (part + unit[:, None] * size + torch.arange(size)).flatten()
    return Axis(
        sources=sources,
        is_copy=is_copy[:, None].expand(num_parts, -1, size).flatten(),
        num_copies=sources.bincount()[sources],
    )


# The axes of each tensor, by its name; "read" ones are summed over. None: as in the old tensor.
_ATTENTION, _MLP = r"model\.layers\.\d+\.attn\.", r"model\.layers\.\d+\.mlp\."
_RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"model\.embeddings\.(tok_embeddings|positions|token_types)\.weight", (None, "hidden")),
    (r"(model\.|head\.)(.*\.)?(final_|attn_|mlp_)?norm\.(weight|bias)", ("hidden",)),
    (_ATTENTION + r"Wqkv\.weight", ("qkv", "read hidden")),
    (_ATTENTION + r"Wqkv\.bias", ("qkv",)),
    (_ATTENTION + r"Wo\.weight", ("hidden", "read heads")),
    (_MLP + r"Wi\.weight", ("inner", "read hidden")),
    (_MLP + r"Wi\.bias", ("inner",)),
    (_MLP + r"Wo\.weight", ("hidden", "read inner")),
    (r"model\.layers\.\d+\.(attn|mlp)\.Wo\.bias", ("hidden",)),
    (r"(head|(.*\.)?pooler)\.dense\.weight", ("hidden", "read hidden")),
    (r"(head|(.*\.)?pooler)\.dense\.bias", ("hidden",)),
    (r"(decoder|classifier|cls\.seq_relationship)\.weight", (None, "read hidden")),
    (r"(decoder|classifier|cls\.seq_relationship)\.bias", (None,)),
    (r"dense\.0\.linear\.weight", (None, "read pooled")),
    (r"dense\.[1-9]\d*\.linear\.weight", (None, None)),
    (r"dense\.\d+\.linear\.bias", (None,)),
)


class _Plan:
    """What tiling needs to know for each tensor."""

    def __init__(self, old: ModelConfig, new: ModelConfig, layers: Sequence[int], how: Tiling) -> None:
        self._old, self._new, self._layers, self._how = old.encoder, new.encoder, layers, how
        self._num_pooled = len(getattr(old.head, "poolings", ("mean",)))
        self._divided_norm = _norm_before_tied_decoder(old) if how.divides_copies else None
        self._generator = torch.Generator().manual_seed(how.seed)

    def tiled(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """The new tensor of this name."""
        old = self._source(name, tensors)
        kinds = next((kinds for pattern, kinds in _RULES if re.fullmatch(pattern, name)), None)
        if kinds is None or len(kinds) != old.ndim:
            raise ConfigError(f"{name} belongs to a part that tiling does not know")
        if name.rpartition(".")[0] == self._divided_norm:
            kinds = ("read hidden",)
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        axes = [None if kind is None else self._axis(kind, int(layer[1]) if layer else 0) for kind in kinds]
        x = old.float()
        for dim, axis in enumerate(axes):
            x = x if axis is None else x.index_select(dim, axis.sources)
        x = self._with_noise(x, axes, old)
        for dim, (kind, axis) in enumerate(zip(kinds, axes, strict=True)):
            if axis is not None and str(kind).startswith("read") and self._how.divides_copies:
                x = x / axis.num_copies.reshape([-1 if each == dim else 1 for each in range(x.ndim)])
        return x.to(old.dtype, copy=True)

    def _source(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """The old tensor; for the attention norm that an old first layer lacks, the embeddings' norm."""
        theirs = re.sub(r"(?<=model\.layers\.)\d+", lambda found: str(self._layers[int(found[0])]), name)
        if theirs in tensors:
            return tensors[theirs]
        kind = name.rpartition(".")[2]
        embedding_norm = tensors.get(f"model.embeddings.norm.{kind}")
        if embedding_norm is not None:
            return embedding_norm
        return (torch.ones if kind == "weight" else torch.zeros)(self._old.hidden_size)

    def _axis(self, kind: str, layer: int) -> Axis:
        old, new = self._old, self._new
        one, other = _parts(old.blocks[self._layers[layer]]), _parts(new.blocks[layer])
        along: Callable[..., Axis] = partial(tiled_axis, mode=self._how.mode)
        what = kind.removeprefix("read ")
        if what in ("qkv", "heads"):
            size = old.hidden_size // one[0].num_heads
            num_parts = 3 if what == "qkv" else 1
            return along(one[0].num_heads, other[0].num_heads, size=size, num_parts=num_parts)
        if what == "inner":
            num_parts = 2 if isinstance(one[1], GluConfig) and kind == what else 1
            return along(one[1].intermediate_size, other[1].intermediate_size, num_parts=num_parts)
        num_parts = self._num_pooled if what == "pooled" else 1
        return along(old.hidden_size, new.hidden_size, num_parts=num_parts)

    def _with_noise(self, x: Tensor, axes: Sequence[Axis | None], old: Tensor) -> Tensor:
        """Copies in matrices moved a little, so that they do not learn the same for ever."""
        if x.ndim != 2 or not self._how.noise:
            return x
        is_copy = torch.zeros(x.shape, dtype=torch.bool)
        for dim, axis in enumerate(axes):
            if axis is not None:
                is_copy |= axis.is_copy[:, None] if dim == 0 else axis.is_copy
        if not is_copy.any():
            return x
        size = self._how.noise * float(old.float().std())
        return x + size * is_copy * torch.randn(x.shape, generator=self._generator)


# What fits


def _require_fit(old: EncoderConfig, new: EncoderConfig, layers: Sequence[int]) -> None:
    smaller = [
        f"{name}: {before} -> {after}"
        for name, before, after in (
            ("hidden_size", old.hidden_size, new.hidden_size),
            ("layers", len(old.blocks), len(new.blocks)),
        )
        if after < before
    ]
    other = list(differences(_ends(old), _ends(new)))
    for i, source in enumerate(layers):
        one, two = _parts(old.blocks[source]), _parts(new.blocks[i])
        where = f"layer {i}, made from layer {source}: "
        other += [where + each for each in differences(*_comparable(old.blocks[source], new.blocks[i]))]
        sizes = [each.hidden_size / part[0].num_heads for each, part in ((old, one), (new, two))]
        if sizes[0] != sizes[1]:
            other.append(f"{where}head size: {sizes[0]:g}, {sizes[1]:g}")
        if two[1].intermediate_size < one[1].intermediate_size:
            smaller.append(
                f"intermediate_size of {where}{one[1].intermediate_size} -> {two[1].intermediate_size}"
            )
    if smaller:
        raise ConfigError("a model is tiled to a larger one; this one would be smaller:\n" + listed(smaller))
    if other:
        raise ConfigError(
            "only sizes, windows, thetas and dropouts may differ between a model and the one tiled from it; "
            f"these differ too:\n{listed(other)}"
        )


def _ends(encoder: EncoderConfig) -> dict[str, Any]:
    """What stands before and behind the layers, as data, without what may differ."""
    data = to_json(encoder)
    data["embedding"].pop("dropout", None)
    return {name: data[name] for name in ("embedding", "final_norm")}


def _parts(block: Any) -> tuple[AttentionConfig, MlpConfig | GluConfig]:
    if (
        isinstance(block, Block)
        and isinstance(block.attention, AttentionConfig)
        and isinstance(block.mlp, MlpConfig | GluConfig)
    ):
        return block.attention, block.mlp
    raise ConfigError(f"{type(block).__name__} is, or holds, a part that tiling does not know: {block}")


def _comparable(old: Any, new: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two blocks as data, without what may differ."""
    one, two = to_json(old), to_json(new)
    for data in (one, two):
        for part, names in (
            ("attention", ("num_heads", "window_each_side", "dropout", "out_dropout")),
            ("mlp", ("intermediate_size", "dropout", "out_dropout")),
        ):
            for name in names:
                del data[part][name]
        if isinstance(data["attention"]["rotary"], dict):
            data["attention"]["rotary"].pop("theta", None)
    if one.get("attention_norm", 0) is None and two.get("attention_norm") is not None:
        del one["attention_norm"], two["attention_norm"]
    return one, two


def _is_global(block: Any) -> bool:
    return _parts(block)[0].window_each_side is None


def _norm_before_tied_decoder(config: ModelConfig) -> str | None:
    """A tied decoder reads with the embeddings, which cannot be divided: the norm before it is."""
    head = config.head
    if not isinstance(head, MlmHeadConfig) or not head.is_tied:
        return None
    if head.transform is not None and head.transform.norm is not None:
        return "head.norm"
    if head.transform is None and config.encoder.final_norm is not None:
        return "model.final_norm"
    raise ConfigError(
        "the decoder is tied and has no norm before it, so what it reads cannot be divided among copies; "
        "tile with divides_copies=False"
    )
