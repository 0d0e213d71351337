"""The tokenizer files of a model folder, as bytes and as what they say.

In goes a folder, out come the files byte for byte, the definition that the tokenizer is built from and the
names of its special tokens. Folders from before tokenizer.json hold a bare vocabulary: the definition is then
written here, as transformers would.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from modernbert.errors import TokenizerError

_KEPT = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt")
_WELL_KNOWN = {
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "pad": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
    "unk": ("[UNK]", "<unk>"),
}
_NO_LIMIT = 10**9  # transformers writes 1e30


@dataclass(frozen=True, slots=True)
class FilesContent:
    """What the files say; `names` lists what each special token may be called, the likeliest first.

    Without `has_token_types` a model is not told the second text of a pair from the first.
    """

    definition: dict[str, Any]
    names: dict[str, list[str]]
    mask_takes_blank: bool
    model_max_length: int | None
    has_token_types: bool


def read_files(folder: Path) -> dict[str, bytes]:
    """The tokenizer files of a folder by name; bare vocabularies only where there is no tokenizer.json."""
    files = _read(folder, _KEPT)
    return files if "tokenizer.json" in files else files | _read(folder, _VOCABULARIES)


def add_definition(files: Mapping[str, bytes], source: str) -> dict[str, bytes]:
    """The same files, with a tokenizer.json built from vocab.txt or from vocab.json and merges.txt."""
    if "tokenizer.json" in files:
        return dict(files)
    found = ", ".join(sorted(files)) or "none of them"
    if "vocab.txt" not in files and not {"vocab.json", "merges.txt"} <= set(files):
        raise TokenizerError(
            f"{source} has no tokenizer: looked for tokenizer.json, for vocab.txt (WordPiece) and for\n"
            f"vocab.json with merges.txt (byte-level BPE); found {found}\n"
            "hint: save_pretrained() of a transformers tokenizer writes a tokenizer.json"
        )
    define = _define_wordpiece if "vocab.txt" in files else _define_byte_level
    try:
        definition = define(files, _json(files, "tokenizer_config.json", source), _names(files, source))
    except (ValueError, TypeError) as error:
        raise TokenizerError(f"{source}: cannot build a tokenizer from {found}: {error}") from error
    return {**files, "tokenizer.json": json.dumps(definition, ensure_ascii=False, indent=2).encode()}


def understand(files: Mapping[str, bytes], source: str) -> FilesContent:
    """Read what the files say; `source` goes into messages."""
    config = _json(files, "tokenizer_config.json", source)
    names = _names(files, source)
    length = config.get("model_max_length")
    if length is not None and not (isinstance(length, int | float) and length >= 1):
        raise TokenizerError(f"{source}/tokenizer_config.json: model_max_length is {length!r}, not a length")
    return FilesContent(
        definition=_json(files, "tokenizer.json", source),
        names=names,
        mask_takes_blank=_mask_takes_blank(
            names["mask"], config, _json(files, "special_tokens_map.json", source)
        ),
        model_max_length=None if length is None or length > _NO_LIMIT else int(length),
        # transformers hands over only what is named here; where nothing is, token types are among it
        has_token_types="token_type_ids" in config.get("model_input_names", ("token_type_ids",)),
    )


def first_in(vocabulary: Mapping[str, int], names: Iterable[str]) -> str | None:
    """The first of several names that the vocabulary has."""
    return next((name for name in names if name in vocabulary), None)


def _read(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    try:
        return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    except OSError as error:
        raise TokenizerError(f"{error.filename} cannot be read: {error.strerror}") from error


def _json(files: Mapping[str, bytes], name: str, source: str) -> dict[str, Any]:
    try:
        content = json.loads(files.get(name, b"{}"))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(
            f"{source}/{name} is not JSON: {error}\n"
            f"hint: it has {len(files[name])} bytes and may have been cut; fetch it again"
        ) from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{source}/{name} holds a {type(content).__name__}, not a JSON object")
    return cast("dict[str, Any]", content)


def _names(files: Mapping[str, bytes], source: str) -> dict[str, list[str]]:
    sources = [_json(files, name, source) for name in ("tokenizer_config.json", "special_tokens_map.json")]
    return {
        role: [name for each in sources if (name := _content(each.get(f"{role}_token")))] + list(well_known)
        for role, well_known in _WELL_KNOWN.items()
    }


def _content(token: object) -> str | None:
    """A token is written as a string, or as a dict with its flags."""
    content = cast("dict[str, object]", token).get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _mask_takes_blank(names: list[str], config: Mapping[str, Any], named: Mapping[str, Any]) -> bool:
    """Whether a file beside tokenizer.json says that the mask token swallows the blank before it.

    Some tokenizers derived from ModernBERT's say so there alone.
    """
    decoder = config.get("added_tokens_decoder")
    tokens = list(cast("dict[str, object]", decoder).values()) if isinstance(decoder, dict) else []
    tokens += [config.get("mask_token"), named.get("mask_token")]
    flagged = [cast("dict[str, object]", token) for token in tokens if isinstance(token, dict)]
    return any(token.get("lstrip") is True and _content(token) in names for token in flagged)


def _define_wordpiece(
    files: Mapping[str, bytes], config: Mapping[str, Any], names: Mapping[str, list[str]]
) -> dict[str, Any]:
    lines = files["vocab.txt"].decode().removesuffix("\n").split("\n")
    vocabulary = {line.removesuffix("\r"): index for index, line in enumerate(lines)}
    cls, sep, unk = (_must_have(vocabulary, names[role]) for role in ("cls", "sep", "unk"))
    return {
        "version": "1.0",
        "added_tokens": _added_tokens(vocabulary, names, mask_takes_blank=False),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
            "strip_accents": config.get("strip_accents"),
            "lowercase": config.get("do_lower_case", True),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "BertProcessing",
            "sep": [sep, vocabulary[sep]],
            "cls": [cls, vocabulary[cls]],
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": unk,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }


def _define_byte_level(
    files: Mapping[str, bytes], config: Mapping[str, Any], names: Mapping[str, list[str]]
) -> dict[str, Any]:
    vocabulary = cast("dict[str, int]", json.loads(files["vocab.json"]))
    lines = files["merges.txt"].decode().split("\n")
    cls, sep = (_must_have(vocabulary, names[role]) for role in ("cls", "sep"))
    byte_level = {"add_prefix_space": bool(config.get("add_prefix_space", False)), "trim_offsets": True}
    return {
        "version": "1.0",
        "added_tokens": _added_tokens(vocabulary, names, mask_takes_blank=True),
        "pre_tokenizer": {"type": "ByteLevel", **byte_level},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [sep, vocabulary[sep]],
            "cls": [cls, vocabulary[cls]],
            **byte_level,
        },
        "decoder": {"type": "ByteLevel", **byte_level},
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            "merges": [
                line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")
            ],
        },
    }


def _added_tokens(
    vocabulary: Mapping[str, int], names: Mapping[str, list[str]], *, mask_takes_blank: bool
) -> list[dict[str, Any]]:
    found = {role: name for role, possible in names.items() if (name := first_in(vocabulary, possible))}
    flags = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    tokens = [
        {"id": vocabulary[name], "content": name, "lstrip": role == "mask" and mask_takes_blank, **flags}
        for role, name in found.items()
    ]
    return sorted(tokens, key=lambda token: cast("int", token["id"]))


def _must_have(vocabulary: Mapping[str, int], names: list[str]) -> str:
    name = first_in(vocabulary, names)
    if name is None:
        raise ValueError(f"the vocabulary has none of {', '.join(dict.fromkeys(names))}")
    return name
