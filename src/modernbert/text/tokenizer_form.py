"""The form of a tokenizer: all of its files but the vocabulary, to be filled with another one.

The form is the normaliser, pre-tokenizer, special tokens, template and decoder; ModernBERT's is written here,
any other is taken from the files of an existing tokenizer. Filling it puts ids right wherever files name
them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from modernbert.errors import TokenizerError
from modernbert.text.tokenizer import Tokenizer
from modernbert.text.tokenizer_files import add_definition

Files = dict[str, bytes]

SPECIALS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
_KEPT = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_UNUSED = re.compile(r"\[unused\d+\]")
_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
_SPECIAL = _PLAIN | {"normalized": False, "special": True}


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """The files of a tokenizer whose vocabulary does not count, and its added tokens as tokenizer.json has
    them.

    `specials` get the first ids; `others`, which are no special tokens, the ids behind what is learned.
    """

    files: Files
    definition: dict[str, Any]
    specials: tuple[dict[str, Any], ...]
    others: tuple[dict[str, Any], ...]

    @property
    def model(self) -> dict[str, Any]:
        """The part of tokenizer.json with the vocabulary."""
        return cast("dict[str, Any]", self.definition["model"])

    @property
    def kind(self) -> str:
        """BPE, WordPiece, Unigram or WordLevel; files from before 0.10 of tokenizers leave it out."""
        return str(self.model.get("type") or ("Unigram" if "unk_id" in self.model else "BPE"))

    @property
    def is_byte_level(self) -> bool:
        """Whether texts are cut into bytes, so that 256 symbols write any text."""
        return '"ByteLevel"' in json.dumps(self.definition.get("pre_tokenizer"))


def modernbert_form(*, max_length: int = 8192, space_runs: int = 0) -> Form:
    """ModernBERT's: byte-level BPE after NFC, cased, without a blank before the first word.

    Runs of 2 to `space_runs` blanks are tokens of their own; ModernBERT has 24.
    """
    specials = [_SPECIAL | {"content": name, "lstrip": name == "[MASK]"} for name in SPECIALS]
    others = [_PLAIN | {"content": " " * length} for length in range(space_runs, 1, -1)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    cls, sep = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]"))
    definition: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": byte_level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [cls, first, sep],
            "pair": [cls, first, sep, second, sep],
            "special_tokens": {
                name: {"id": name, "ids": [0], "tokens": [name]} for name in ("[CLS]", "[SEP]")
            },
        },
        "decoder": byte_level,
        "model": {"type": "BPE", "unk_token": None, "vocab": {}, "merges": []},
    }
    roles = {f"{name[1:-1].lower()}_token": name for name in SPECIALS}
    config = {
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max_length,
        "tokenizer_class": "PreTrainedTokenizerFast",
        **roles,
    }
    flags = {each["content"]: {name: each[name] for name in each if name != "special"} for each in specials}
    files = {
        "tokenizer_config.json": _json(config),
        "special_tokens_map.json": _json({role: flags[name] for role, name in roles.items()}),
    }
    return Form(files=files, definition=definition, specials=tuple(specials), others=tuple(others))


def form_of(files: Mapping[str, bytes], source: str) -> Form:
    """The form of an existing tokenizer; `source` goes into messages."""
    files = add_definition(files, source)
    tokenizer = Tokenizer(files, source)
    definition = cast("dict[str, Any]", json.loads(files["tokenizer.json"]))
    written = cast("list[dict[str, Any]]", definition.get("added_tokens") or [])
    added = {token["content"]: {name: token[name] for name in token if name != "id"} for token in written}
    names = [tokenizer.token(each) for each in sorted(tokenizer.special_ids)]
    specials = [
        _SPECIAL | {"content": name, "lstrip": name == tokenizer.mask_token} | added.get(name, {})
        for name in names
    ]
    others = [token for name, token in added.items() if name not in names and not _UNUSED.fullmatch(name)]
    kept = {name: files[name] for name in _KEPT[1:] if name in files}
    return Form(files=kept, definition=definition, specials=tuple(specials), others=tuple(others))


def filled(form: Form, model: Mapping[str, Any], multiple: int) -> Files:
    """The files of a tokenizer of this form around a learned model.

    The specials have the first ids of its vocabulary. [unused] entries make the number of ids a multiple of
    `multiple`.
    """
    ids = _vocabulary(model)
    if wrong := [
        token["content"] for place, token in enumerate(form.specials) if ids.get(token["content"]) != place
    ]:
        raise TokenizerError(
            f"the special tokens {wrong} did not get the first ids; the form cannot be filled"
        )
    added = list(form.specials)
    ends = len(ids) + sum(token["content"] not in ids for token in form.others)
    unused = [_PLAIN | {"content": f"[unused{each}]"} for each in range(-ends % multiple)]
    for token in (*form.others, *unused):
        ids.setdefault(str(token["content"]), len(ids))
        added.append(token)
    numbered = sorted(
        ({"id": ids[token["content"]], **token} for token in added), key=lambda token: token["id"]
    )
    definition = {
        **form.definition,
        "truncation": None,
        "padding": None,
        "added_tokens": numbered,
        "post_processor": _renumbered(form.definition.get("post_processor"), ids),
        "model": model,
    }
    return {
        "tokenizer.json": _json(definition),
        **{
            name: _with_decoder(content, numbered) if name == "tokenizer_config.json" else content
            for name, content in form.files.items()
        },
    }


def _vocabulary(model: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pieces with their scores
        pieces = cast("list[tuple[str, float]]", vocabulary)
        return {piece: number for number, (piece, _) in enumerate(pieces)}
    return dict(cast("dict[str, int]", vocabulary))


def _renumbered(processor: Any, ids: Mapping[str, int]) -> Any:
    """A post-processor with the new ids of the tokens that it names."""
    if processor is None:
        return None
    renumbered = dict(cast("dict[str, Any]", processor))
    if "processors" in renumbered:
        renumbered["processors"] = [_renumbered(each, ids) for each in renumbered["processors"]]
    try:
        for name in ("cls", "sep"):
            if name in renumbered:
                renumbered[name] = [renumbered[name][0], ids[renumbered[name][0]]]
        if "special_tokens" in renumbered:
            renumbered["special_tokens"] = {
                name: {**token, "ids": [ids[each] for each in token["tokens"]]}
                for name, token in renumbered["special_tokens"].items()
            }
    except KeyError as error:
        raise TokenizerError(f"the template names {error}, which is no special token of the form") from None
    return renumbered


def _with_decoder(config: bytes, added: Sequence[Mapping[str, Any]]) -> bytes:
    """tokenizer_config.json with the added tokens by their new ids, as transformers reads them."""
    content = cast("dict[str, Any]", json.loads(config))
    by_id = {str(token["id"]): {name: token[name] for name in token if name != "id"} for token in added}
    return _json(
        {"added_tokens_decoder": by_id, **{k: v for k, v in content.items() if k != "added_tokens_decoder"}}
    )


def _json(content: Any) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()
