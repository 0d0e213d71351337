"""New models out of old ones, without training: the mean of several, and one with another vocabulary.

In go model folders or what was read from them, out comes a `Pretrained` to be written or trained on. The
third operation, a larger model begun from a smaller one, is in tiling.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from modernbert.encoder.config import to_json
from modernbert.errors import ConfigError, InputError, TokenizerError
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.pretrained.folder import Pretrained, read_folder
from modernbert.pretrained.weights import check_numbers, fill, state_of
from modernbert.progress import progress
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float

VOCABULARY_MULTIPLE = 64  # rows of an embedding: matrix products like it
_TABLE = "model.embeddings.tok_embeddings.weight"
_MOST_SHOWN = 5


def average_models(folders: Sequence[Path]) -> Pretrained:
    """The uniform mean of models of one kind, such as the last checkpoints of a run; summed in fp64.

    All must have the same configuration and vocabulary: ConfigError or TokenizerError name what differs.
    Everything but the numbers is that of the first folder, and so is their dtype. WeightsError where one
    holds NaN.
    """
    if len(folders) < 2:
        raise InputError(f"a mean needs two models or more, found {len(folders)}")
    first = _read(folders[0])
    sums = {name: tensor.double() for name, tensor in _tensors(first).items()}
    for folder in progress(folders[1:], label="average", total=len(folders) - 1, unit=" models"):
        other = _read(folder)
        _require_same(folders[0], first, folder, other)
        for name, tensor in _tensors(other).items():
            sums[name] += tensor
    means = {name: sums[name] / len(folders) for name in sums}
    return _with_tensors(first, first.module, means)


@dataclass(frozen=True, kw_only=True, slots=True)
class VocabularyMatch:
    """For each entry of a new vocabulary the old entries that its text is made of; none where nothing fits.

    `num_kept` entries are in both, `num_composed` are made of several pieces, or of another entry's text.
    """

    pieces: tuple[tuple[int, ...], ...]
    num_kept: int
    num_composed: int

    @property
    def num_unmatched(self) -> int:
        """Entries that begin at the mean of the whole old table."""
        return len(self.pieces) - self.num_kept - self.num_composed


def match_vocabulary(old: Tokenizer, new: Tokenizer) -> VocabularyMatch:
    """Find each new entry in the old vocabulary: the same entry, else the pieces of its text.

    [CLS] and its like are found by what they are for, whatever they are called.
    """
    texts_old, texts_new = entry_texts(old), entry_texts(new)
    roles = _same_roles(old, new)
    asked = [text or "" for text in texts_new]
    encoded = old.encode_ids(asked, add_special_tokens=False)
    pieces: list[tuple[int, ...]] = []
    num_kept = 0
    for index, text in enumerate(texts_new):
        same = roles.get(index, _same_entry(old, texts_old, new, index, text))
        num_kept += same is not None
        found = [] if text is None else [each for each in encoded[index] if each != old.unk_id]
        pieces.append(tuple(found) if same is None else (same,))
    num_composed = sum(map(bool, pieces)) - num_kept
    return VocabularyMatch(pieces=tuple(pieces), num_kept=num_kept, num_composed=num_composed)


def resize_vocabulary(
    model: Pretrained, tokenizer: Tokenizer, match: VocabularyMatch | None = None
) -> Pretrained:
    """The same model for another tokenizer, as a start for training on another language or domain.

    An entry of both vocabularies keeps its row of the embedding (and of the decoder); a new one begins at the
    mean of the rows of the pieces that the old tokenizer makes of its text, or of all rows where that finds
    none. Rows come in multiples of 64. TokenizerError where the model has no tokenizer of its own.
    """
    if model.tokenizer is None:
        raise TokenizerError("the model has no tokenizer: nothing says what its rows stand for")
    match = match or match_vocabulary(model.tokenizer, tokenizer)
    num_rows = -(-tokenizer.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    encoder = replace(model.config.encoder, vocab_size=num_rows, pad_token_id=tokenizer.pad_id)
    config = replace(model.config, encoder=encoder)
    num_known = model.tokenizer.vocab_size
    tensors = {
        name: _composed(tensor, match.pieces, num_rows, num_known) if _has_rows(model, name) else tensor
        for name, tensor in _tensors(model).items()
    }
    # ids that transformers reads beside the tokenizer, and that the new one would contradict
    foreign = {key: value for key, value in model.foreign.items() if not key.endswith("_token_id")}
    with torch.device("meta"):
        module = config.build()
    renewed = replace(model, config=config, tokenizer=tokenizer, foreign=foreign)
    return _with_tensors(renewed, module, tensors)


def entry_texts(tokenizer: Tokenizer) -> list[str | None]:
    """What each entry adds to a text that goes before it: " the" or "the", "ing" for "##ing".

    None for ids without an entry, for special tokens, and for bytes that are no character alone.
    """
    texts: list[str | None] = [None] * tokenizer.vocab_size
    plain = [
        i for i in range(len(texts)) if i not in tokenizer.special_ids and _entry(tokenizer, i) is not None
    ]
    word = next((i for i in plain if tokenizer.decode([i]).isalnum()), None)
    before = [] if word is None else [word]
    start = tokenizer.decode(before)
    for i in progress(plain, label="entries", total=len(plain), unit=" entries"):
        text = tokenizer.decode([*before, i]).removeprefix(start)
        texts[i] = None if "\ufffd" in text else text
    return texts


# Means


def _read(folder: Path) -> Pretrained:
    model = read_folder(folder)
    check_numbers(folder, model.module)
    return model


def _tensors(model: Pretrained) -> dict[str, Tensor]:
    return state_of(model.module) | dict(model.carried)


def _require_same(path: Path, first: Pretrained, other_path: Path, other: Pretrained) -> None:
    found = list(differences(to_json(first.config), to_json(other.config)))
    if _tensors(first).keys() != _tensors(other).keys():
        found.append(
            f"tensors: {', '.join(sorted(_tensors(first).keys() ^ _tensors(other).keys()))} in one alone"
        )
    if found:
        raise ConfigError(f"{path} and {other_path} are not of one kind:\n{listed(found)}")
    if found := list(_vocabulary_differences(first.tokenizer, other.tokenizer)):
        raise TokenizerError(f"{path} and {other_path} have different tokenizers:\n{listed(found)}")


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two JSON-like values differ, as "path: value here, value there"."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys((*one, *other)):
            inner = f"{path}.{name}" if path else str(name)
            yield from differences(one.get(name), other.get(name), inner)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{path}.{index}")
    elif isinstance(one, list) and isinstance(other, list):
        yield f"{path}: {len(one)} of them, {len(other)}"
    elif one != other:
        yield f"{path}: {one!r}, {other!r}"


def listed(found: Sequence[str]) -> str:
    """The first few of them, a line each, and how many more there are."""
    lines = [f"  {each}" for each in found[:_MOST_SHOWN]]
    if len(found) > _MOST_SHOWN:
        lines.append(f"  and {len(found) - _MOST_SHOWN} more")
    return "\n".join(lines)


def _vocabulary_differences(one: Tokenizer | None, other: Tokenizer | None) -> Iterator[str]:
    if one is None or other is None:
        if one is not other:
            yield "one has none"
        return
    if one.vocab_size != other.vocab_size:
        yield f"entries: {one.vocab_size}, {other.vocab_size}"
    for index in range(min(one.vocab_size, other.vocab_size)):
        a, b = _entry(one, index), _entry(other, index)
        if a != b:
            yield f"entry {index}: {a!r}, {b!r}"
    if one.special_ids != other.special_ids:
        yield f"special tokens: {sorted(one.special_ids)}, {sorted(other.special_ids)}"


def _entry(tokenizer: Tokenizer, index: int) -> str | None:
    """An entry in its raw form; None for a hole in the ids."""
    try:
        return tokenizer.token(index)
    except InputError:
        return None


# Vocabularies


def _same_roles(old: Tokenizer, new: Tokenizer) -> dict[int, int]:
    pairs = (
        (new.cls_id, old.cls_id),
        (new.sep_id, old.sep_id),
        (new.pad_id, old.pad_id),
        (new.mask_id, old.mask_id),
        (new.unk_id, old.unk_id),
    )
    return {ours: theirs for ours, theirs in pairs if ours is not None and theirs is not None}


def _same_entry(
    old: Tokenizer, old_texts: Sequence[str | None], new: Tokenizer, index: int, text: str | None
) -> int | None:
    """The old id of the same entry, if it stands for the same text there: "the" may be " the" elsewhere."""
    raw = _entry(new, index)
    found = None if raw is None else old.id_of(raw)
    return found if found is not None and old_texts[found] == text else None


def _has_rows(model: Pretrained, name: str) -> bool:
    """Whether a tensor has a row for each entry of the vocabulary."""
    is_decoder = name.startswith("decoder.") and isinstance(model.config.head, MlmHeadConfig)
    return name == _TABLE or is_decoder


def _composed(
    table: Float[Tensor, "V ..."], pieces: Sequence[Sequence[int]], num_rows: int, num_known: int
) -> Float[Tensor, "V2 ..."]:
    """The mean of each list of pieces as a row; without pieces, and behind the last, the mean of all rows."""
    rows = table.float().reshape(len(table), -1)
    flat = torch.tensor([each for piece in pieces for each in piece], dtype=torch.long)
    lengths = torch.tensor([len(piece) for piece in pieces])
    starts = lengths.cumsum(0) - lengths
    mean = rows[:num_known].mean(dim=0)
    found = mean.repeat(num_rows, 1)
    if len(flat):
        composed = embedding_bag(flat, rows, starts, mode="mean")
        found[: len(pieces)] = torch.where((lengths > 0)[:, None], composed, mean)
    return found.reshape(num_rows, *table.shape[1:]).to(table.dtype)


def _with_tensors(model: Pretrained, module: nn.Module, tensors: Mapping[str, Tensor]) -> Pretrained:
    """The model with these numbers, in the dtypes that it has."""
    dtypes = {name: tensor.dtype for name, tensor in _tensors(model).items()}
    ready = {name: tensor.to(dtypes[name], copy=True) for name, tensor in tensors.items()}
    carried = {name: ready.pop(name) for name in model.carried}
    fill(module, ready, source="the new model")
    return replace(model, module=module.eval(), carried=carried)
