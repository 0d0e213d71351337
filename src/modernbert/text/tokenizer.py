"""Text to token ids and back, from the tokenizer files of a model folder.

In go strings, out come ids with the characters they cover. Nothing is ever cut or padded here, user text cannot smuggle in
special tokens unless asked to, and the files are kept as bytes, so that a saved folder holds exactly what was loaded. This
is the one module that knows the `tokenizers` package.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, final

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from modernbert.errors import InputError, TokenizerError
from modernbert.files import write_atomic

SpecialTokens = Literal["plain", "parse"]

_KEPT_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_VOCABULARY_FILES = ("vocab.txt", "vocab.json", "merges.txt")
_KNOWN_NAMES = {
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "pad": ("[PAD]", "<pad>"),
    "mask": ("[MASK]", "<mask>"),
    "unk": ("[UNK]", "<unk>"),
}
_ABSURD_LENGTH = 10**9  # transformers writes 1e30 for "no limit"


@dataclass(frozen=True, slots=True)
class Encoding:
    """One text, or a pair of them, as tokens; all five lists are equally long.

    `offsets` are characters of the text that a token came from (for a pair's second text: of that text; for words: of
    the words joined by one space), (0, 0) for special tokens around it. `sequence_ids` is 0 or 1 by text and None for
    those special tokens. `word_ids` is filled by `encode_words` alone.
    """

    token_ids: list[int]
    token_types: list[int]
    offsets: list[tuple[int, int]]
    sequence_ids: list[int | None]
    word_ids: list[int | None]


@dataclass(frozen=True, slots=True)
class Specials:
    """Special tokens that stand together, each with its token type."""

    token_ids: tuple[int, ...]
    token_types: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class SingleTemplate:
    """What goes around one text: prefix, text, suffix."""

    prefix: Specials
    text_type: int
    suffix: Specials

    @property
    def num_specials(self) -> int:
        """How many tokens the template adds to a text."""
        return len(self.prefix) + len(self.suffix)


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """What goes around two texts: prefix, first, middle, second, suffix."""

    prefix: Specials
    first_type: int
    middle: Specials
    second_type: int
    suffix: Specials

    @property
    def num_specials(self) -> int:
        """How many tokens the template adds to a pair."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


@dataclass(frozen=True, slots=True)
class Template:
    """The special tokens of a tokenizer, so that windows can be put together from bare ids."""

    single: SingleTemplate
    pair: PairTemplate


@final
class Tokenizer:
    """The tokenizer of a model folder; safe to share between threads and to pickle.

    `special_tokens="plain"`, the default, reads "[SEP]" in a text as five characters; "parse" turns it into the special
    token, as filling masks needs. Added tokens that are not special (ModernBERT's runs of blanks, "|||IP_ADDRESS|||")
    are part of the vocabulary and match either way.

        tokenizer = Tokenizer.from_folder(Path("modernbert-base"))
        tokenizer.encode_ids(["Hello World!"])   # [[50281, 12092, 3645, 2, 50282]]
    """

    vocab_size: int  # number of ids, added tokens and holes included: the largest id + 1
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
        """Read tokenizer.json; without one, build from vocab.txt (BERT) or vocab.json and merges.txt (RoBERTa)."""
        files = _read_files(folder, _KEPT_FILES)
        if "tokenizer.json" not in files:
            files |= _read_files(folder, _VOCABULARY_FILES)
        return cls(files, str(folder))

    def __init__(self, files: Mapping[str, bytes], source: str = "memory") -> None:
        self._files = dict(files)
        self._source = source
        config = self._read_json("tokenizer_config.json")
        names = self._read_json("special_tokens_map.json")
        if "tokenizer.json" not in self._files:
            self._files["tokenizer.json"] = _build_definition(self._files, config, source)
        definition = self._read_json("tokenizer.json")
        candidates = {role: _candidates(role, config, names) for role in _KNOWN_NAMES}
        if _mask_takes_blank(candidates["mask"], config, names):
            _let_take_blank(definition, candidates["mask"])
        with _failure_named(f"{source}/tokenizer.json is no tokenizer file, or a broken one"):
            self._parse = _load(definition, candidates)
            self._plain = _load(definition, candidates)
            self._plain.encode_special_tokens = True
        self._describe(candidates)
        self.model_max_length = _max_length(config, source)
        with _failure_named(f"{source}/tokenizer.json cannot encode"):
            _keep_special_ids_out(self._plain, self.special_ids - {self.unk_id})
            self.template = _probe_template(self._plain, source)

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
        return [_encoding(each) for each in encoded]

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

        `word_ids` names each token's word and `offsets` are characters of the joined text. A token goes to the word of
        its first visible character; one that is only the blank between words belongs to none, and an empty word has
        no token.
        """
        split = [_checked_words(words, index) for index, words in enumerate(sentences)]
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

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads(self._files.get(name, b"{}"))
        except (ValueError, RecursionError) as error:
            hint = f"the file has {len(self._files[name])} bytes and may have been cut: fetch it again"
            raise TokenizerError(f"{self._source}/{name} is not JSON ({error})\nhint: {hint}") from error
        if not isinstance(content, dict):
            raise TokenizerError(f"{self._source}/{name} holds a {type(content).__name__}, not a JSON object")
        return cast("dict[str, Any]", content)

    def _describe(self, candidates: Mapping[str, list[str]]) -> None:
        vocabulary = self._parse.get_vocab(with_added_tokens=True)
        found = {role: _first_in(vocabulary, names) for role, names in candidates.items()}
        ids = {role: vocabulary.get(name) if name else None for role, name in found.items()}
        added = self._parse.get_added_tokens_decoder()
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self.cls_id, self.sep_id, self.pad_id = ids["cls"], ids["sep"], ids["pad"]
        self.mask_id, self.unk_id, self.mask_token = ids["mask"], ids["unk"], found["mask"]
        self.special_ids = frozenset(each for each, token in added.items() if token.special)


# Files and names


def _read_files(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    try:
        return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    except OSError as error:
        raise TokenizerError(f"{error.filename} cannot be read: {error.strerror}") from error


def _named(value: object) -> str | None:
    """Special tokens are written as a string or as a dict with its flags."""
    content = cast("dict[str, object]", value).get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _candidates(role: str, *sources: Mapping[str, Any]) -> list[str]:
    named = [_named(source.get(f"{role}_token")) for source in sources]
    return [name for name in named if name] + list(_KNOWN_NAMES[role])


def _first_in(vocabulary: Mapping[str, int], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in vocabulary), None)


def _max_length(config: Mapping[str, Any], source: str) -> int | None:
    length = config.get("model_max_length")
    if length is None or (isinstance(length, int | float) and length > _ABSURD_LENGTH):
        return None
    if not isinstance(length, int | float) or length < 1:
        raise TokenizerError(f"{source}/tokenizer_config.json: model_max_length is {length!r}, not a length")
    return int(length)


def _mask_takes_blank(names: Iterable[str], config: Mapping[str, Any], named: Mapping[str, Any]) -> bool:
    """Whether a file beside tokenizer.json says that the mask token swallows the blank before it.

    Tokenizers derived from ModernBERT's lost that in tokenizer.json alone.
    """
    entries = [config.get("mask_token"), named.get("mask_token")]
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        entries += cast("dict[str, object]", decoder).values()
    flagged = [cast("dict[str, object]", entry) for entry in entries if isinstance(entry, dict)]
    return any(entry.get("lstrip") is True and entry.get("content") in names for entry in flagged)


def _let_take_blank(definition: dict[str, Any], names: Iterable[str]) -> None:
    for token in definition.get("added_tokens") or []:
        if token["content"] in names:
            token["lstrip"] = True


# Building and probing


def _load(definition: Mapping[str, Any], candidates: Mapping[str, list[str]]) -> tokenizers.Tokenizer:
    """A fresh object that cuts and pads nothing and knows all named special tokens of its vocabulary as such."""
    whole = {**definition, "truncation": None, "padding": None}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(whole, ensure_ascii=False))
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    named = [_first_in(vocabulary, names) for names in candidates.values()]
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True) for name in named if name and name not in special]
    )
    return tokenizer


def _build_definition(files: Mapping[str, bytes], config: Mapping[str, Any], source: str) -> bytes:
    if "vocab.txt" in files:
        build = _build_wordpiece
    elif "vocab.json" in files and "merges.txt" in files:
        build = _build_byte_level
    else:
        raise TokenizerError(
            f"{source} has no tokenizer: looked for tokenizer.json, for vocab.txt (WordPiece) and for vocab.json with "
            f"merges.txt (byte-level BPE); found {', '.join(sorted(files)) or 'none of them'}\n"
            "hint: AutoTokenizer.from_pretrained(...).save_pretrained(...) of transformers writes a tokenizer.json"
        )
    with _failure_named(f"{source}: no tokenizer can be built from {', '.join(sorted(files))}"):
        return build(files, config).to_str(pretty=True).encode()


def _build_wordpiece(files: Mapping[str, bytes], config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    lines = files["vocab.txt"].decode().removesuffix("\n").split("\n")
    vocabulary = {line.removesuffix("\r"): index for index, line in enumerate(lines)}
    name = {role: _first_in(vocabulary, _candidates(role, config)) or "" for role in _KNOWN_NAMES}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=name["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{name['cls']}:0 $A:0 {name['sep']}:0",
        pair=f"{name['cls']}:0 $A:0 {name['sep']}:0 $B:1 {name['sep']}:1",
        special_tokens=[(name[role], vocabulary[name[role]]) for role in ("cls", "sep")],
    )
    tokenizer.add_special_tokens([each for each in name.values() if each])
    return tokenizer


def _build_byte_level(files: Mapping[str, bytes], config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    vocabulary: dict[str, int] = json.loads(files["vocab.json"])
    lines = files["merges.txt"].decode().splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    name = {role: _first_in(vocabulary, _candidates(role, config)) or "" for role in _KNOWN_NAMES}
    prefix_space = bool(config.get("add_prefix_space", False))
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, cast("list[tuple[str, str]]", merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    sep, cls = ((name[role], vocabulary[name[role]]) for role in ("sep", "cls"))
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=prefix_space)
    others = [each for role, each in name.items() if each and role != "mask"]
    tokenizer.add_special_tokens(
        [*others, *([AddedToken(name["mask"], lstrip=True)] if name["mask"] else [])]
    )
    return tokenizer


def _keep_special_ids_out(plain: tokenizers.Tokenizer, special_ids: Iterable[int | None]) -> None:
    """Split the names of special tokens in plain text, for models that hold them as words too (Unigram, WordLevel)."""
    added = plain.get_added_tokens_decoder()
    names = {added[each].content: each for each in special_ids if each is not None}
    encoded = plain.encode_batch(list(names), add_special_tokens=False)
    if not any(each in encoding.ids for each, encoding in zip(names.values(), encoded, strict=True)):
        return
    first_characters = "|".join(
        f"{_literal(name[0])}(?={_literal(name[1:])})" for name in names if len(name) > 1
    )
    split = pre_tokenizers.Split(Regex(first_characters), "isolated")
    before = plain.pre_tokenizer
    plain.pre_tokenizer = pre_tokenizers.Sequence([before, split]) if before else split


def _literal(text: str) -> str:
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)


def _probe_template(tokenizer: tokenizers.Tokenizer, source: str) -> Template:
    """Find what the post-processor puts around texts by encoding one."""
    words = ("a", "0", *tokenizer.get_vocab(with_added_tokens=False))
    texts = (word for word in words if tokenizer.encode(word, add_special_tokens=False).ids)
    text = next(texts, None)
    if text is None:
        raise TokenizerError(f"{source}/tokenizer.json gives no token for any text")
    try:
        (prefix, suffix), (text_type,) = _around_texts(tokenizer.encode(text), num_texts=1)
        (first, middle, last), types = _around_texts(tokenizer.encode(text, text), num_texts=2)
    except ValueError as error:
        raise TokenizerError(f"{source}/tokenizer.json: template repeats, drops or reorders texts") from error
    return Template(
        SingleTemplate(prefix, text_type, suffix), PairTemplate(first, types[0], middle, types[1], last)
    )


def _around_texts(encoding: tokenizers.Encoding, num_texts: int) -> tuple[list[Specials], list[int]]:
    """The special tokens before, between and after the texts, and each text's token type."""
    sequence_ids, specials, types, end = encoding.sequence_ids, list[Specials](), list[int](), 0
    for text in [*range(num_texts), None]:
        start = len(sequence_ids) if text is None else sequence_ids.index(text, end)
        if any(each is not None for each in sequence_ids[end:start]):
            raise ValueError("texts out of order")
        specials.append(Specials(tuple(encoding.ids[end:start]), tuple(encoding.type_ids[end:start])))
        if text is not None:
            types.append(encoding.type_ids[start])
            end = start + next(
                (i for i, each in enumerate(sequence_ids[start:]) if each != text), len(sequence_ids)
            )
    return specials, types


# Checking what comes in, converting what comes out


@contextlib.contextmanager
def _failure_named(what: str) -> Iterator[None]:
    """Turn what the Rust library raises, its panics included, into a TokenizerError."""
    try:
        yield
    except TokenizerError:
        raise
    except Exception as error:
        raise TokenizerError(f"{what}: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the class cannot be imported
            raise
        raise TokenizerError(f"{what}: {error}") from None


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
        raise InputError(f"needs a list with each {what} in it, not one {type(texts).__name__}")
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
            f"{what} has a lone surrogate, {text[error.start]!a}, at character {error.start}, which is half a character\n"
            "hint: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') mends the text"
        ) from None


def _checked_words(words: Sequence[str], index: int) -> list[str]:
    return _checked(words, f"sentence {index}: word")


def _encoding(encoding: tokenizers.Encoding) -> Encoding:
    ids = encoding.ids
    no_words: list[int | None] = [None] * len(ids)
    return Encoding(ids, encoding.type_ids, encoding.offsets, encoding.sequence_ids, no_words)


def _word_ids(encoding: Encoding, words: Sequence[str], text: str) -> list[int | None]:
    word_at: list[int | None] = []  # by character of the joined text
    for index, word in enumerate(words):
        word_at += [index] * len(word) + [None]
    return [
        None if sequence is None else _word_of(text, word_at, *offsets)
        for offsets, sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True)
    ]


def _word_of(text: str, word_at: Sequence[int | None], start: int, end: int) -> int | None:
    characters = range(start, min(max(end, start + 1), len(text)))
    visible = (word_at[i] for i in characters if not text[i].isspace())
    blank = (word_at[i] for i in characters if word_at[i] is not None)
    return next(visible, next(blank, None))
