"""From what a user names - files, folders, patterns, addresses - to a list of files in a fixed order.

    corpus/                              every file below it that is of a kind known here
    'data/**/*.jsonl.zst'                a pattern
    hf://datasets/org/name/*.parquet     anything fsspec can open: hf, s3, gs, https, memory ...
    books=novels/                        the same, with a name for the source of its documents

Each file says of which source its documents are: as the user named it, or by the first folder below the named
one, or by its own name (the folder's, where a file is one document).
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import fsspec.core

from modernbert.errors import CorpusError

Kind = Literal["document", "lines", "rows"]

_TEXT = ".txt .text .md .markdown .mdx .rst .tex .org .adoc"
_CODE = (
    ".py .pyi .pyx .js .mjs .cjs .jsx .ts .tsx .java .kt .kts .scala .groovy .c .h .cc .cpp .cxx .hpp .hh "
    ".cu .cuh .cs .fs .go .rs .rb .php .swift .m .mm .dart .lua .pl .pm .r .jl .hs .ml .mli .clj .ex .exs "
    ".erl .elm .zig .nim .v .vhd .sql .sh .bash .zsh .ps1 .vue .svelte .proto .cmake"
)
_DOCUMENTS = frozenset(f"{_TEXT} {_CODE}".split())
_LINES = frozenset((".jsonl", ".ndjson"))
_ROWS = frozenset((".parquet",))
COMPRESSED = (".gz", ".zst")
_NAMED = re.compile(r"(?P<source>\w[\w.-]*)=(?P<place>.+)", re.DOTALL)
# "train-00003-of-00064", "part-0007": numbers of files, not names of sources
_NUMBERED = re.compile(r"([-_.]?\d+-of-\d+|[-_.]0\d{2,})$")
_SHOWN = 5
# What fsspec wants for addresses of a kind, and where its client looks for the right to read.
_PACKAGES = {
    "hf": "huggingface_hub",
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
}
_CREDENTIALS = {
    "hf": "HF_TOKEN, or `hf auth login`, opens private data sets",
    "s3": "AWS_ACCESS_KEY_ID and the like, or ~/.aws, open private buckets; FSSPEC_S3_ANON=true asks a "
    "public one without",
    "gs": "`gcloud auth application-default login` opens private buckets",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """A file to read: one document, or one in each line or row. `size` is in bytes, as it lies there."""

    path: str
    kind: Kind
    source: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Files in the order in which they are read.

    `left_out` counts files of other kinds in folders, by their ending.
    """

    files: tuple[InputFile, ...]
    left_out: dict[str, int]


def find_inputs(inputs: Iterable[str]) -> Inputs:
    """All files that `inputs` name, each once; folders and patterns give theirs sorted by path.

    CorpusError where an input names nothing, or a file of an unknown kind.
    """
    found: dict[str, InputFile] = {}
    left_out: Counter[str] = Counter()
    for each in inputs:
        source, place = _split_name(each)
        for path, size, below in _look(place):
            kind = _kind_of(path)
            if kind is None and below is None:
                raise CorpusError(
                    f"{path} is of no kind that is read here. There are: text and code (one document a "
                    "file), .jsonl and .ndjson, all of these also as .gz and .zst, and .parquet\n"
                    "hint: rename the file, or write its documents as JSON lines"
                )
            if kind is None:
                left_out[_ending(path) or "no ending"] += 1
            elif path not in found:
                name = source or _source_of(path, kind, below)
                found[path] = InputFile(path=path, kind=kind, source=name, size=size)
    if not found:
        others = ", ".join(f"{ending} ({count})" for ending, count in left_out.most_common(_SHOWN))
        raise CorpusError(f"no files to read; files of other kinds: {others or 'none'}")
    return Inputs(files=tuple(found.values()), left_out=dict(left_out.most_common()))


def is_remote(path: str) -> bool:
    """Whether a path is an address, such as s3://bucket/key."""
    return "://" in path


def unreadable(path: str, error: Exception) -> CorpusError:
    """What went wrong with a file or an address, in words, and what may help."""
    scheme = path.partition("://")[0] if is_remote(path) else ""
    if scheme and isinstance(error, FileNotFoundError):  # some clients say no more than the path
        return CorpusError(f"{path} is not there: {_first_line(error)}")
    reason = f"{path} cannot be read: {_first_line(error)}"
    if isinstance(error, ImportError) and scheme in _PACKAGES:
        return CorpusError(f"{reason}\nhint: pip install {_PACKAGES[scheme]}")
    if scheme and not isinstance(error, ImportError | ValueError):
        reason += f" ({type(error).__name__})\nhint: is there a connection, and may you read it? "
        return CorpusError(reason + _CREDENTIALS.get(scheme, "Credentials come from the environment"))
    return CorpusError(reason)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _split_name(each: str) -> tuple[str | None, str]:
    """The source that the user named, and the place; a path that exists with a "=" in it is a path."""
    match = _NAMED.fullmatch(each)
    if match is None or os.path.exists(each):
        return None, each
    return match["source"], match["place"]


def _look(place: str) -> Iterator[tuple[str, int, str | None]]:
    """Path, size and, for files of a folder, the path inside it."""
    if is_remote(place):
        yield from _look_remote(place)
    elif os.path.isdir(place):
        for path in _walk(Path(place)):
            yield str(path), path.stat().st_size, path.relative_to(place).as_posix()
    elif os.path.isfile(place):
        yield place, os.path.getsize(place), None
    else:
        paths = sorted(path for path in glob.glob(place, recursive=True) if os.path.isfile(path))
        if not paths:
            what = "matches no file" if glob.has_magic(place) else "is neither a file nor a folder"
            raise CorpusError(f"{place} {what}")
        for path in paths:
            yield path, os.path.getsize(path), None


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder in the order of their names; hidden ones are left alone."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and (path := Path(parent, name)).is_file():
                yield path


def _look_remote(place: str) -> Iterator[tuple[str, int, str | None]]:
    try:
        system, inner = cast("tuple[Any, str]", fsspec.core.url_to_fs(place))
        is_pattern = glob.has_magic(inner)
        is_folder = not is_pattern and system.isdir(inner)
        listed: dict[str, dict[str, Any]] = (
            system.glob(inner, detail=True)
            if is_pattern
            else system.find(inner, detail=True)
            if is_folder
            else {inner: system.info(inner)}
        )
    except (
        Exception
    ) as error:  # each client's transport has errors of its own, which change with its versions
        raise unreadable(place, error) from error
    files = {path: about for path, about in sorted(listed.items()) if about["type"] == "file"}
    if not files:
        raise CorpusError(f"{place} matches no file")
    for path, about in files.items():
        below = path.removeprefix(inner).lstrip("/") if is_folder else None
        if below is None or not any(part.startswith(".") for part in below.split("/")):
            yield system.unstrip_protocol(path), int(about.get("size") or 0), below


def _ending(path: str) -> str:
    """The ending that tells the kind, without that of a compression."""
    name = PurePosixPath(path.replace(os.sep, "/")).name.lower()
    for compressed in COMPRESSED:
        name = name.removesuffix(compressed)
    return PurePosixPath(name).suffix


def _kind_of(path: str) -> Kind | None:
    ending, is_compressed = _ending(path), path.lower().endswith(COMPRESSED)
    if ending in _LINES or (ending == ".json" and is_compressed):  # C4 and others name JSON lines .json.gz
        return "lines"
    if ending in _DOCUMENTS:
        return "document"
    return "rows" if ending in _ROWS and not is_compressed else None


def _source_of(path: str, kind: Kind, below: str | None) -> str:
    folders: Sequence[str] = PurePosixPath(below).parts[:-1] if below else ()
    if folders:
        return folders[0]
    name = PurePosixPath(path if is_remote(path) else Path(path).resolve().as_posix())
    if kind == "document":
        return name.parent.name or "documents"
    stem = name.name
    for ending in (*COMPRESSED, _ending(path)):
        stem = stem[: -len(ending)] if ending and stem.lower().endswith(ending) else stem
    return _NUMBERED.sub("", stem) or stem
