"""A tokenizer trained on text: ModernBERT's form, or that of any existing one, with a vocabulary of its own.

Special tokens have the first ids, so that these depend on the form alone; then comes what the text taught,
then added tokens that are not special. As in ModernBERT, the number of ids is a multiple of 64, which matrix
products like, and [unused] entries make up what is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import tokenizers
from tokenizers import pre_tokenizers, trainers

from modernbert.errors import TokenizerError
from modernbert.text.tokenizer import Tokenizer
from modernbert.text.tokenizer_files import read_files
from modernbert.text.tokenizer_form import Form, filled, form_of, modernbert_form

MULTIPLE = 64
MIN_FREQUENCY = 2  # of a pair: what was seen once teaches nothing
_BYTES = 256
_SAMPLE = "one two three"


def train_tokenizer(
    texts: Iterable[str],
    *,
    vocab_size: int,
    like: Path | None = None,
    max_length: int = 8192,
    space_runs: int = 0,
) -> Tokenizer:
    """Train a vocabulary of `vocab_size` ids, special tokens included, on texts that are read once.

    The form is that of the tokenizer in the folder `like`; without one it is ModernBERT's, for texts of
    `max_length` tokens, with runs of 2 to `space_runs` blanks as tokens of their own. Texts that are too few
    give fewer ids. Their number is rounded up to a multiple of 64. The same texts give the same tokenizer,
    byte for byte. Raises TokenizerError.

        tokenizer = train_tokenizer(texts, vocab_size=16_384)
        tokenizer.save(Path("tokenizer"))
    """
    form = (
        modernbert_form(max_length=max_length, space_runs=space_runs)
        if like is None
        else form_of(read_files(like), str(like))
    )
    first = [str(token["content"]) for token in form.specials] + _fallback_bytes(form)
    num_learned = vocab_size - len(form.others)
    least = len(first) + (_BYTES if form.is_byte_level else 0)
    if num_learned <= least:
        raise TokenizerError(
            f"a vocabulary of {vocab_size} leaves nothing to learn: special tokens, single bytes and added "
            f"tokens take {least + len(form.others)}; ask for more"
        )
    learned = _learn(texts, form, _trainer(form, num_learned, first))
    if len(learned["vocab"]) <= least:
        raise TokenizerError(
            "the texts taught nothing: they are empty, or no two characters stand together twice in them"
        )
    return Tokenizer(filled(form, learned, MULTIPLE), "the trained tokenizer")


def _learn(texts: Iterable[str], form: Form, trainer: Any) -> dict[str, Any]:
    """The model part of tokenizer.json, trained."""
    bare = _bare(form)
    if form.kind != "Unigram" and len(_words(bare)) == 1:
        raise TokenizerError(
            "this tokenizer does not cut texts into words before it looks for tokens, and such a vocabulary "
            "cannot be trained here\n"
            "hint: leave out --like, or name a byte-level, WordPiece or Unigram tokenizer"
        )
    try:
        bare.train_from_iterator(texts, trainer)
    except Exception as error:
        if (
            type(error) is not Exception
        ):  # the Rust library raises Exception itself; others are the texts' own
            raise
        raise TokenizerError(f"the tokenizer could not be trained: {error}") from error
    return cast("dict[str, Any]", json.loads(bare.to_str())["model"])


def _bare(form: Form) -> tokenizers.Tokenizer:
    """The form around an empty model, without what needs ids."""
    if form.kind == "Unigram":
        empty: dict[str, Any] = {"vocab": [["", 0.0]], "unk_id": 0}
    else:
        empty = {"vocab": {}} | ({"merges": []} if form.kind == "BPE" else {})
    without = dict.fromkeys(("post_processor", "truncation", "padding"))
    bare = {
        **form.definition,
        **without,
        "added_tokens": [],
        "model": {**form.model, **empty, "type": form.kind},
    }
    return tokenizers.Tokenizer.from_str(json.dumps(bare))


def _words(bare: tokenizers.Tokenizer) -> list[tuple[str, tuple[int, int]]]:
    normalized = bare.normalizer.normalize_str(_SAMPLE) if bare.normalizer else _SAMPLE
    return bare.pre_tokenizer.pre_tokenize_str(normalized) if bare.pre_tokenizer else [(normalized, (0, 0))]


def _trainer(form: Form, vocab_size: int, first: list[str]) -> Any:
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "special_tokens": first,
        "show_progress": sys.stderr.isatty(),
    }
    if form.is_byte_level:
        common["initial_alphabet"] = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = form.model
    if form.kind == "BPE":
        names = ("continuing_subword_prefix", "end_of_word_suffix")
        affixes = {name: model[name] for name in names if model.get(name) is not None}
        return trainers.BpeTrainer(min_frequency=MIN_FREQUENCY, **affixes, **common)
    if form.kind == "WordPiece":
        prefix = model.get("continuing_subword_prefix", "##")
        return trainers.WordPieceTrainer(
            min_frequency=MIN_FREQUENCY, continuing_subword_prefix=prefix, **common
        )
    if form.kind == "Unigram":
        unknown = model.get("unk_id")
        name = None if unknown is None else model["vocab"][unknown][0]
        return trainers.UnigramTrainer(unk_token=name, **common)
    if form.kind == "WordLevel":
        return trainers.WordLevelTrainer(min_frequency=MIN_FREQUENCY, **common)
    raise TokenizerError(f"a tokenizer of the kind {form.kind!r} cannot be trained here")


def _fallback_bytes(form: Form) -> list[str]:
    """The entries that write characters which the vocabulary lacks, byte by byte."""
    return [f"<0x{each:02X}>" for each in range(_BYTES)] if form.model.get("byte_fallback") else []
