"""What a model folder holds, as plain values with names: what `modernbert info` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modernbert.cli.models import verbs_of
from modernbert.encoder.attention import AttentionConfig
from modernbert.encoder.block import ParallelConfig, PostNormConfig, PreNormConfig
from modernbert.encoder.encoder import BlockPart
from modernbert.encoder.mlp import GluConfig, MlpConfig
from modernbert.encoder.rotary import RotaryConfig
from modernbert.heads.embed import EmbedHeadConfig, TokenEmbedHeadConfig
from modernbert.heads.model import HeadPart
from modernbert.inference.tasks import describe, tasks_of
from modernbert.pretrained.folder import Pretrained, describe_layout
from modernbert.pretrained.weights import state_of

_LETTERS = "GLabcdefhijkmnopqrstuvwxyz"


def facts_of(name: str, folder: Path, pretrained: Pretrained) -> dict[str, Any]:
    """The facts, ready for JSON, in the order in which a person reads them."""
    config, encoder = pretrained.config, pretrained.config.encoder
    tasks = tasks_of(config.head)
    pattern, kinds = layer_pattern(encoder.blocks)
    settings = pretrained.settings
    return {
        "model": name,
        "folder": str(folder),
        "kind": describe(config.head),
        "verbs": verbs_of(tasks),
        "methods": list(tasks),
        "written_as": "modernbert-parts, in 8 bits, which transformers does not read"
        if pretrained.is_int8
        else describe_layout(config),
        "parameters": _sizes(pretrained),
        "dtype_in_file": _dtype_in_file(pretrained),
        "hidden_size": encoder.hidden_size,
        "layers": f"{len(encoder.blocks)}: {pattern}",
        "layer_kinds": kinds,
        "vocabulary": {
            "rows": encoder.vocab_size,
            "tokenizer": None if pretrained.tokenizer is None else pretrained.tokenizer.vocab_size,
        },
        "max_length": _max_length(pretrained),
        "pooling": _pooling(config.head),
        "prompts": dict(settings.prompts),
        "files": {
            str(path.relative_to(folder)): path.stat().st_size
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }


def _dtype_in_file(pretrained: Pretrained) -> str | None:
    if pretrained.is_int8:
        return "int8"
    return None if pretrained.dtype_of_file is None else str(pretrained.dtype_of_file).removeprefix("torch.")


def layer_pattern(blocks: tuple[BlockPart, ...]) -> tuple[str, dict[str, str]]:
    """A letter for each layer, and what each letter means: G for global attention, L for local."""
    letter_of: dict[str, str] = {}
    pattern = ""
    for block in blocks:
        words = describe_block(block)
        if words not in letter_of:
            free = [letter for letter in _LETTERS if letter not in letter_of.values()] or ["?"]
            wanted = "L" if words.startswith("local") else "G" if words.startswith("global") else free[-1]
            letter_of[words] = wanted if wanted in free else free[-1]
        pattern += letter_of[words]
    return pattern, {letter: words for words, letter in letter_of.items()}


def describe_block(block: BlockPart) -> str:
    """A layer in a few words, without what differs between layers of one kind (a first norm left out)."""
    if not isinstance(block, PreNormConfig | PostNormConfig | ParallelConfig):
        return f"a {type(block).__name__}"
    order = {PreNormConfig: "pre-norm", PostNormConfig: "post-norm", ParallelConfig: "parallel"}[type(block)]
    return f"{_describe_attention(block.attention)}; {_describe_mlp(block.mlp)}; {order}"


def _describe_attention(attention: object) -> str:
    if not isinstance(attention, AttentionConfig):
        return f"attention by {type(attention).__name__}"
    window = attention.window_each_side
    reach = "global" if window is None else f"local, {window} tokens each side"
    theta = f", theta {attention.rotary.theta:,.0f}" if isinstance(attention.rotary, RotaryConfig) else ""
    return f"{reach}{theta}, {attention.num_heads} heads"


def _describe_mlp(mlp: object) -> str:
    if isinstance(mlp, GluConfig):
        return f"gated MLP of {mlp.intermediate_size:,}"
    return f"MLP of {mlp.intermediate_size:,}" if isinstance(mlp, MlpConfig) else f"a {type(mlp).__name__}"


def _sizes(pretrained: Pretrained) -> dict[str, int]:
    sizes = {name: tensor.numel() for name, tensor in state_of(pretrained.module).items()}
    embeddings = sum(size for name, size in sizes.items() if name.startswith("model.embeddings."))
    head = sum(size for name, size in sizes.items() if not name.startswith("model."))
    total = sum(sizes.values())
    return {"total": total, "embeddings": embeddings, "layers": total - embeddings - head, "head": head}


def _max_length(pretrained: Pretrained) -> int:
    """As `Model.max_length`, for folders without a tokenizer too."""
    if pretrained.settings.max_seq_length is not None:
        return pretrained.settings.max_seq_length
    limit = None if pretrained.tokenizer is None else pretrained.tokenizer.model_max_length
    positions = pretrained.config.encoder.max_positions
    return positions if limit is None else min(limit, positions)


def _pooling(head: HeadPart) -> str | None:
    if isinstance(head, TokenEmbedHeadConfig):
        return "none: a vector for each token"
    if not isinstance(head, EmbedHeadConfig):
        return None
    dense = "".join(f", then {layer.out_features} numbers" for layer in head.dense)
    return " and ".join(head.poolings) + dense + (", length 1" if head.is_normalized else "")
