"""Text to token ids and back, from the tokenizer files of a model folder.

In go strings, out come ids with the characters they cover. Nothing is ever cut or padded here, user text
cannot smuggle in special tokens unless asked to, and the files are kept as bytes, so that a saved folder
holds exactly what was loaded. This is the one module that knows the `tokenizers` package.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal, cast, final

import tokenizers
from tokenizers import AddedToken, Regex, pre_tokenizers

from modernbert.errors import InputError, TokenizerError
from modernbert.files import write_atomic
from modernbert.text.chunking import PairTemplate, Segment, SingleTemplate, Template
from modernbert.text.tokenizer_files import FilesContent, add_definition, first_in, read_files, understand

SpecialTokens = Literal["plain", "parse"]


# What the Rust library under `tokenizers` reads when it starts its threads, once in a process.
_NUM_THREADS = "RAYON_NUM_THREADS"


@contextmanager
def tokenizer_threads(num: int) -> Generator[None]:
    """Have the threads of all tokenizers be so many, if none has been loaded before the block loads one.

    They are started once in a process, one a processor unless RAYON_NUM_THREADS says otherwise.
    """
    is_open = _NUM_THREADS not in os.environ
    if is_open:
        os.environ[_NUM_THREADS] = str(num)
    try:
        yield
    finally:
        if is_open:
            os.environ.pop(_NUM_THREADS, None)


@dataclass(frozen=True, slots=True)
class Encoding:
    """One text, or a pair of them, as tokens; all five lists are equally long.

    `offsets` are characters of the text that a token came from (for a pair's second text: of that text; for
    words: of the words joined by one space), (0, 0) for special tokens around it. `sequence_ids` is 0 or 1 by
    text and None for those special tokens. `word_ids` is filled by `encode_words` alone.
    """

    token_ids: list[int]
    token_types: list[int]
    offsets: list[tuple[int, int]]
    sequence_ids: list[int | None]
    word_ids: list[int | None]


@final
class Tokenizer:
    """The tokenizer of a model folder; safe to share between threads and to pickle.

    `special_tokens="plain"`, the default, reads "[SEP]" in a text as five characters; "parse" turns it into
    the special token, as filling masks needs. Added tokens that are not special (ModernBERT's runs of blanks,
    "|||IP_ADDRESS|||") are part of the vocabulary and match either way.

        tokenizer = Tokenizer.from_folder(Path("modernbert-base"))
        tokenizer.encode_ids(["Hello World!"])   # [[50281, 12092, 3645, 2, 50282]]
    """

    vocab_size: int  # the largest id + 1, so added tokens and holes are counted
    cls_id: int | None
    sep_id: int | None
    pad_id: int | None
    mask_id: int | None
    unk_id: int | None
    mask_token: str | None
    special_ids: frozenset[int]
    model_max_length: int | None  # None where the files say nothing, or 1e30
    template: Template

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read tokenizer.json, or build it from vocab.txt (BERT) or vocab.json with merges.txt (RoBERTa)."""
        return cls(read_files(folder), str(folder))

    def __init__(self, files: Mapping[str, bytes], source: str = "memory") -> None:
        self._source = source
        self._files = add_definition(files, source)
        content = understand(self._files, source)
        with _failure_named(f"{source}/tokenizer.json is no tokenizer file, or a broken one"):
            self._parse = _load(content)
            self._plain = _load(content)
            self._plain.encode_special_tokens = True
        self._describe(content)
        with _failure_named(f"{source}/tokenizer.json"):
            _keep_special_ids_out(self._plain, self.special_ids - {self.unk_id})
            self.template = _probe_template(self._plain, content.has_token_types)

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[dict[str, bytes], str]]:
        # The pickles of `tokenizers` objects lose `encode_special_tokens`.
        return Tokenizer, (self._files, self._source)

    def __repr__(self) -> str:
        return f"Tokenizer({self._source!r}, vocab_size={self.vocab_size})"

    def encode(
        self,
        texts: Iterable[str],
        pairs: Iterable[str] | None = None,
        *,
        add_special_tokens: bool = True,
        special_tokens: SpecialTokens = "plain",
    ) -> list[Encoding]:
        """Encode each text, or each text together with its second text from `pairs`."""
        batch, reader = _batch(texts, pairs), self._reader(special_tokens)
        with _failure_named(f"{self._source}: the tokenizer failed"):
            encoded = reader.encode_batch(batch, add_special_tokens=add_special_tokens)
        return [_encoding(each, self._has_token_types) for each in encoded]

    def encode_ids(
        self,
        texts: Iterable[str],
        pairs: Iterable[str] | None = None,
        *,
        add_special_tokens: bool = True,
        special_tokens: SpecialTokens = "plain",
    ) -> list[list[int]]:
        """The token ids that `encode` gives, faster, as no offsets are kept."""
        batch, reader = _batch(texts, pairs), self._reader(special_tokens)
        with _failure_named(f"{self._source}: the tokenizer failed"):
            encoded = reader.encode_batch_fast(batch, add_special_tokens=add_special_tokens)
        return [each.ids for each in encoded]

    def encode_words(
        self,
        sentences: Iterable[Sequence[str]],
        *,
        add_special_tokens: bool = True,
        special_tokens: SpecialTokens = "plain",
    ) -> list[Encoding]:
        """Encode sentences that come as words: the ids are those of the words joined by one space.

        `word_ids` names each token's word and `offsets` are characters of the joined text. A token goes to
        the word of its first visible character; one that is only the blank between words belongs to none, and
        an empty word has no token.
        """
        split = [_checked(words, f"sentence {index}: word") for index, words in enumerate(sentences)]
        joined = [" ".join(words) for words in split]
        encoded = self.encode(joined, add_special_tokens=add_special_tokens, special_tokens=special_tokens)
        return [
            replace(encoding, word_ids=_word_ids(encoding, words, text))
            for encoding, words, text in zip(encoded, split, joined, strict=True)
        ]

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """The text of some ids, as the tokenizer's own decoder puts it together."""
        ids = [int(each) for each in token_ids]
        for each in ids:
            self.token(each)
        with _failure_named(f"{self._source}: the tokenizer failed"):
            return self._parse.decode(ids, skip_special_tokens=skip_special_tokens)

    def token(self, token_id: int) -> str:
        """The vocabulary entry of an id, in its raw form (a blank may look like U+0120 or U+2581)."""
        found = self._parse.id_to_token(token_id) if 0 <= token_id < self.vocab_size else None
        if found is None:
            raise InputError(f"no token has id {token_id}; ids go from 0 to {self.vocab_size - 1}")
        return found

    def id_of(self, token: str) -> int | None:
        """The id of a vocabulary entry in its raw form, or None."""
        return self._parse.token_to_id(token)

    @property
    def files(self) -> Mapping[str, bytes]:
        """What `save` writes: the files by their names, byte for byte as they came."""
        return dict(self._files)

    def save(self, folder: Path) -> None:
        """Write the files into `folder`, byte for byte as they came.

        A tokenizer that came without a tokenizer.json gets one, beside its vocabulary files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            write_atomic(folder / name, content)

    def _reader(self, special_tokens: str) -> tokenizers.Tokenizer:
        # The choice is state of a `tokenizers` object, so that threads need one object for each.
        if special_tokens not in ("plain", "parse"):
            raise InputError(f"special_tokens is 'plain' or 'parse', not {special_tokens!r}")
        return self._plain if special_tokens == "plain" else self._parse

    def _describe(self, content: FilesContent) -> None:
        vocabulary = self._parse.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        found = {role: first_in(vocabulary, names) for role, names in content.names.items()}
        ids = {role: vocabulary[name] if name else None for role, name in found.items()}
        self.cls_id, self.sep_id, self.pad_id = ids["cls"], ids["sep"], ids["pad"]
        self.mask_id, self.unk_id, self.mask_token = ids["mask"], ids["unk"], found["mask"]
        self.model_max_length = content.model_max_length
        self._has_token_types = content.has_token_types
        added = self._parse.get_added_tokens_decoder()
        self.special_ids = frozenset(each for each, token in added.items() if token.special)


def _load(content: FilesContent) -> tokenizers.Tokenizer:
    """A fresh object that cuts and pads nothing and knows the named tokens of its vocabulary as special."""
    whole = {**content.definition, "truncation": None, "padding": None}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(whole, ensure_ascii=False))
    added = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    for role, names in content.names.items():
        name = next((name for name in names if tokenizer.token_to_id(name) is not None), None)
        if name is not None:
            takes_blank = role == "mask" and content.mask_takes_blank
            tokenizer.add_special_tokens([_as_special(name, added.get(name), takes_blank)])
    return tokenizer


def _as_special(name: str, known: AddedToken | None, takes_blank: bool) -> AddedToken:
    if known is None:
        return AddedToken(name, lstrip=takes_blank, normalized=False, special=True)
    return AddedToken(
        name,
        lstrip=known.lstrip or takes_blank,
        rstrip=known.rstrip,
        single_word=known.single_word,
        normalized=known.normalized,
        special=True,
    )


def _keep_special_ids_out(plain: tokenizers.Tokenizer, special_ids: Iterable[int | None]) -> None:
    """In plain text split the names of special tokens, for models that also know them as words (Unigram)."""
    names = [name for each in special_ids if each is not None and (name := plain.id_to_token(each))]
    bare = plain.encode_batch(names, add_special_tokens=False)
    if any(plain.token_to_id(name) in each.ids for name, each in zip(names, bare, strict=True)):
        heads = (f"{re.escape(name[:1])}(?={re.escape(name[1:])})" for name in names)
        split = pre_tokenizers.Split(Regex("|".join(heads)), "isolated")
        before = plain.pre_tokenizer
        plain.pre_tokenizer = pre_tokenizers.Sequence([before, split]) if before else split


def _probe_template(tokenizer: tokenizers.Tokenizer, has_token_types: bool) -> Template:
    """Find what the post-processor puts around texts by encoding one."""
    words = chain(("a", "0"), (tokenizer.id_to_token(each) or "" for each in range(1000)))
    text = next((word for word in words if tokenizer.encode(word, add_special_tokens=False).ids), None)
    if text is None:
        raise ValueError("no text gives a token")
    (prefix, suffix), (text_type,) = _around_texts(tokenizer.encode(text), 1, has_token_types)
    pair = tokenizer.encode(text, text)
    (before, middle, after), (first_type, second_type) = _around_texts(pair, 2, has_token_types)
    return Template(
        SingleTemplate(prefix, text_type, suffix),
        PairTemplate(before, first_type, middle, second_type, after),
    )


def _around_texts(
    encoding: tokenizers.Encoding, num_texts: int, has_token_types: bool
) -> tuple[list[Segment], list[int]]:
    """The special tokens before, between and after the texts, and each text's token type."""
    ids, types, owners = encoding.ids, _types(encoding, has_token_types), encoding.sequence_ids
    bounds = [0]
    for text in range(num_texts):
        start = owners.index(text) if text in owners else 0
        bounds += [start, start + owners.count(text)]
    gaps = list(zip(bounds[::2], [*bounds[1::2], len(ids)], strict=True))
    if any(owner is not None for start, end in gaps for owner in owners[start:end]) or len(ids) < num_texts:
        raise ValueError("the template repeats, drops or reorders texts")
    specials = [Segment(tuple(ids[start:end]), tuple(types[start:end])) for start, end in gaps]
    return specials, [types[start] for start in bounds[1::2]]


# Checking what comes in, converting what comes out


@contextmanager
def _failure_named(what: str) -> Generator[None]:
    """Turn what the Rust library raises, its panics included, into a TokenizerError."""
    try:
        yield
    except BaseException as error:
        is_panic = type(error).__name__ == "PanicException"  # the class cannot be imported
        if not is_panic and not isinstance(error, Exception):
            raise
        raise TokenizerError(f"{what}: {error}") from error


def _batch(texts: Iterable[str], pairs: Iterable[str] | None) -> list[str] | list[tuple[str, str]]:
    first = _checked(texts, "text")
    if pairs is None:
        return first
    second = _checked(pairs, "second text")
    if len(first) != len(second):
        raise InputError(f"{len(first)} texts but {len(second)} second texts: each needs one")
    return list(zip(first, second, strict=True))


def _checked(texts: Iterable[str], what: str) -> list[str]:
    if isinstance(texts, str | bytes) or not isinstance(cast("object", texts), Iterable):
        raise InputError(f"{what}s come as a list of strings, not as one {type(texts).__name__}")
    checked = list(texts)
    for index, text in enumerate(checked):
        if not isinstance(cast("object", text), str):
            raise InputError(f"{what} {index} is of type {type(text).__name__}, not str")
        if not text.isascii():
            _check_encodable(text, f"{what} {index}")
    return checked


def _check_encodable(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} has {text[error.start]!a} at {error.start}: a lone surrogate, half a character\n"
            "hint: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') mends a text"
        ) from None


def _encoding(encoding: tokenizers.Encoding, has_token_types: bool) -> Encoding:
    ids = encoding.ids
    no_words: list[int | None] = [None] * len(ids)
    types = _types(encoding, has_token_types)
    return Encoding(ids, types, encoding.offsets, encoding.sequence_ids, no_words)


def _types(encoding: tokenizers.Encoding, has_token_types: bool) -> list[int]:
    return encoding.type_ids if has_token_types else [0] * len(encoding.ids)


def _word_ids(encoding: Encoding, words: Sequence[str], text: str) -> list[int | None]:
    word_at: list[int | None] = []  # by character of the joined text
    for index, word in enumerate(words):
        word_at += [index] * len(word) + [None]
    return [
        None if sequence is None else _word_of(text, word_at, *offsets)
        for offsets, sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True)
    ]


def _word_of(text: str, word_at: Sequence[int | None], start: int, end: int) -> int | None:
    visible = (word_at[i] for i in range(start, end) if not text[i].isspace())
    blank = (word_at[i] for i in range(start, end) if word_at[i] is not None)
    return next(visible, next(blank, None))
