"""Reading shards: documents as token ids on disk, any stretch of any document at once.

    shards/
      manifest.json             sources, parts, sizes, checksums, bad lines, versions
      tokenizer/                the files of the tokenizer that made the tokens
      000000-000000.tokens      ids of many documents end to end, without special tokens; uint16 or uint32
      000000-000000.index       a DOCUMENT for each: where its tokens end, and where its text stood

Files are mapped into memory, never read whole. Sizes and the manifest are checked on opening, each block of a
file against its checksum when it is first read. A part holds its documents source by source.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np

from modernbert.errors import CorpusError
from modernbert.files import restore_interrupted, sha256
from modernbert.progress import progress
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer"
FORMAT = "modernbert shards 1"
BLOCK_BYTES = 2**20
ENDINGS = (".tokens", ".index")
# `end` counts tokens from the start of the part; `file` is a place in the manifest's list; `line` counts from
# 1, and is 0 where the file is one document.
DOCUMENT = np.dtype([("end", "<i8"), ("line", "<i8"), ("file", "<i8")])
_OPEN_PARTS = 256  # mapped at once: systems limit the maps of a process (65,530 on Linux)
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The documents of one source in one part: rows `first_row` and on of its index."""

    part: int
    first_row: int
    num_documents: int


@dataclass(frozen=True, slots=True)
class _Part:
    """A part's files, mapped; `ends` is a field of the index."""

    tokens: NDArray[Any]
    index: NDArray[Any]
    ends: NDArray[np.int64]


@final
class Shards:
    """A folder of shards, open for reading; may be pickled, and then opens again.

    shards = Shards.open(Path("shards"))
    shards.sources                                        # ("books", "code")
    shards.tokens("books", 7, 0, 1022)                    # the first 1,022 tokens of the eighth book
    """

    folder: Path
    sources: tuple[str, ...]
    vocab_size: int
    tokenizer_sha256: str
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """Open a folder; CorpusError where its manifest or the size of a file is not as it was written."""
        return cls(folder)

    def __init__(self, folder: Path) -> None:
        restore_interrupted(folder)
        self.folder = folder
        self.manifest = _read_manifest(folder)
        self.sources = tuple(sorted(self.manifest["sources"]))
        self.vocab_size = self.manifest["vocab_size"]
        self.tokenizer_sha256 = self.manifest["tokenizer_sha256"]
        self._dtype = np.dtype(self.manifest["dtype"])
        self._parts: list[dict[str, Any]] = self.manifest["parts"]
        self._check_sizes()
        self._stretches, self._firsts = self._find_stretches()
        self._open: OrderedDict[int, _Part] = OrderedDict()
        self._opening = Lock()  # rows are made ahead in one thread while another evaluates
        self._right: dict[int, NDArray[np.bool_]] = {}  # blocks of tokens whose checksum was found right

    def __reduce__(self) -> tuple[type[Shards], tuple[Path]]:
        return Shards, (self.folder,)

    def __repr__(self) -> str:
        return f"Shards({str(self.folder)!r}, sources={self.sources})"

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens."""
        folder = self.folder / TOKENIZER
        if (found := sha256(folder / "tokenizer.json")) != self.tokenizer_sha256:
            raise CorpusError(
                f"{folder}/tokenizer.json is not the file that made these shards: its SHA-256 is {found}, "
                f"the manifest says {self.tokenizer_sha256}\n"
                "hint: copy it from the tokenizer that they were made with"
            )
        return Tokenizer.from_folder(folder)

    def require_tokenizer(self, tokenizer: Tokenizer) -> None:
        """CorpusError unless each id means the same token in the shards and in `tokenizer`.

        Files may differ: other versions write the same tokenizer in another form.
        """
        ours = self.tokenizer()
        if ours.vocab_size != tokenizer.vocab_size:
            found = f"{tokenizer.vocab_size} ids instead of {ours.vocab_size}"
        else:
            ids = range(ours.vocab_size)
            different = next((i for i in ids if _token(ours, i) != _token(tokenizer, i)), None)
            if different is None:
                return
            found = (
                f"id {different} is {_token(tokenizer, different)!r} instead of {_token(ours, different)!r}"
            )
        raise CorpusError(
            f"{self.folder} was made with another tokenizer than {tokenizer!r}, which has {found}\n"
            f"hint: use the one in {self.folder / TOKENIZER}, or write shards anew with --tokenizer"
        )

    def lengths(self, source: str) -> NDArray[np.int64]:
        """Tokens of each document of a source, [documents], each at least 1."""
        found = [self._lengths(self._part(stretch.part), stretch) for stretch in self._stretches_of(source)]
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def tokens(self, source: str, document: int, start: int, end: int) -> NDArray[np.int64]:
        """Tokens start..end of a document, [end - start], without special tokens."""
        number, row = self._find(source, document)
        part = self._part(number)
        begin, length = _bounds(part, row)
        if not 0 <= start <= end <= length:
            raise CorpusError(
                f"document {document} of {source!r} has {length} tokens; asked for {start} to {end}"
            )
        self._check_blocks(number, part, begin + start, begin + end)
        return part.tokens[begin + start : begin + end].astype(np.int64)

    def describe(self, source: str, document: int) -> str:
        """Where a document's text stood, such as "books.jsonl.zst, line 123"."""
        number, row = self._find(source, document)
        place = self._part(number).index[row]
        file, line = self.manifest["files"][int(place["file"])], int(place["line"])
        return f"{file}, line {line}" if line else str(file)

    def verify(self) -> None:
        """Hold every block of every file to its checksum; CorpusError names each that is wrong."""
        self.tokenizer()
        files = [(part, ending) for part in self._parts for ending in ENDINGS]
        wrong: list[str] = []
        for part, ending in progress(files, label="verify", total=len(files), unit="file"):
            path = self.folder / f"{part['name']}{ending}"
            wrong += [f"{path.name}, block {each}" for each in _wrong_blocks(path, part[ending])]
        if wrong:
            shown = "\n".join(f"  {each}" for each in wrong[:_SHOWN])
            more = f"\n  and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            raise CorpusError(_damaged(self.folder, f"blocks of {BLOCK_BYTES} bytes:\n{shown}{more}"))

    def _check_sizes(self) -> None:
        for part in self._parts:
            for ending in ENDINGS:
                path = self.folder / f"{part['name']}{ending}"
                size = path.stat().st_size if path.exists() else None
                if size != part[ending]["bytes"]:
                    found = "is missing" if size is None else f"has {size} bytes"
                    raise CorpusError(
                        _damaged(self.folder, f"{path.name} {found}; {part[ending]['bytes']} were written")
                    )

    def _find_stretches(self) -> tuple[dict[str, list[_Stretch]], dict[str, NDArray[np.int64]]]:
        """For each source its stretches, and the number of the first document of each."""
        stretches: dict[str, list[_Stretch]] = {source: [] for source in self.sources}
        for number, part in enumerate(self._parts):
            row = 0
            for source, counts in part["sources"].items():
                stretches[source].append(_Stretch(number, row, counts["documents"]))
                row += counts["documents"]
        firsts = {
            source: np.cumsum([0, *(each.num_documents for each in found)])
            for source, found in stretches.items()
        }
        return stretches, firsts

    def _stretches_of(self, source: str) -> list[_Stretch]:
        if source not in self._stretches:
            raise CorpusError(f"{self.folder} has no source {source!r}; it has {', '.join(self.sources)}")
        return self._stretches[source]

    def _find(self, source: str, document: int) -> tuple[int, int]:
        """The part of a document, and its row in the index there."""
        stretches, firsts = self._stretches_of(source), self._firsts[source]
        if not 0 <= document < firsts[-1]:
            raise CorpusError(f"{source!r} has {firsts[-1]} documents; there is no document {document}")
        place = int(np.searchsorted(firsts, document, side="right")) - 1
        stretch = stretches[place]
        return stretch.part, stretch.first_row + document - int(firsts[place])

    def _part(self, number: int) -> _Part:
        """A part's files, mapped; its index is checked whole."""
        with self._opening:
            if number not in self._open:
                self._open[number] = self._opened(number)
            self._open.move_to_end(number)
            while len(self._open) > _OPEN_PARTS:
                self._open.popitem(last=False)
            return self._open[number]

    def _opened(self, number: int) -> _Part:
        described = self._parts[number]
        name = self.folder / described["name"]
        wrong = _wrong_blocks(name.with_name(f"{name.name}.index"), described[".index"])
        for block in wrong:
            raise CorpusError(_damaged(self.folder, f"{name.name}.index, block {block}"))
        index = _map(f"{name}.index", DOCUMENT)
        return _Part(_map(f"{name}.tokens", self._dtype), index, index["end"])

    @staticmethod
    def _lengths(part: _Part, stretch: _Stretch) -> NDArray[np.int64]:
        rows = slice(stretch.first_row, stretch.first_row + stretch.num_documents)
        before = part.ends[stretch.first_row - 1] if stretch.first_row else 0
        return np.diff(part.ends[rows], prepend=before).astype(np.int64)

    def _check_blocks(self, number: int, part: _Part, begin: int, end: int) -> None:
        """Hold the blocks of these tokens to their checksums, each once."""
        crcs = self._parts[number][".tokens"]["crc32"]
        right = self._right.setdefault(number, np.zeros(len(crcs), np.bool_))
        size = self._dtype.itemsize
        blocks = range(begin * size // BLOCK_BYTES, -(-end * size // BLOCK_BYTES))
        for block in blocks:
            if not right[block]:
                first = block * BLOCK_BYTES // size
                content = part.tokens[first : first + BLOCK_BYTES // size]
                if zlib.crc32(cast("Any", content)) != crcs[block]:
                    name = f"{self._parts[number]['name']}.tokens"
                    raise CorpusError(_damaged(self.folder, f"{name}, block {block}"))
                right[block] = True


def checksums(blocks: Iterable[bytes | memoryview]) -> list[int]:
    """The CRC-32 of each block."""
    return [zlib.crc32(block) for block in blocks]


def digest(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a manifest, its own entry left out."""
    rest = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.exists():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        hint = (
            f"{unfinished} is there: run the same `modernbert shard` again, and it goes on"
            if unfinished.exists()
            else "`modernbert shard INPUT... --tokenizer FOLDER --out DIR` writes such a folder"
        )
        raise CorpusError(f"{folder} holds no shards: it has no {MANIFEST}\nhint: {hint}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CorpusError(_damaged(folder, f"{MANIFEST} is not JSON ({error})")) from None
    if not isinstance(content, dict) or "format" not in content:
        raise CorpusError(f"{path} is no manifest of shards")
    manifest = cast("dict[str, Any]", content)
    if manifest["format"] != FORMAT:
        raise CorpusError(
            f"{path} is of the format {manifest['format']!r}, and {FORMAT!r} is read here: write the shards "
            "anew"
        )
    if manifest.get("sha256") != digest(manifest):
        raise CorpusError(_damaged(folder, f"{MANIFEST} is not as it was written"))
    return manifest


def _damaged(folder: Path, what: str) -> str:
    return f"{folder} is damaged: {what}\nhint: copy it again, or write the shards anew"


def _wrong_blocks(path: Path, written: Mapping[str, Any]) -> list[int]:
    """Numbers of the blocks that are not as they were written."""
    with path.open("rb") as file:
        found = checksums(iter(lambda: file.read(BLOCK_BYTES), b""))
    pairs = zip(found, written["crc32"], strict=False)
    return [number for number, (ours, theirs) in enumerate(pairs) if ours != theirs]


def _map(path: str | os.PathLike[str], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))  # slices of a memmap are slow


def _bounds(part: _Part, row: int) -> tuple[int, int]:
    """Where the tokens of a document begin in the part, and how many they are."""
    begin = int(part.ends[row - 1]) if row else 0
    return begin, int(part.ends[row]) - begin


def _token(tokenizer: Tokenizer, token_id: int) -> str | None:
    try:
        return tokenizer.token(token_id)
    except ValueError:
        return None
