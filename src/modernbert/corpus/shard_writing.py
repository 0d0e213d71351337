"""Writing shards: text in, a folder of token ids out, by many processes, going on where a kill stopped it.

    shards.unfinished/     plan.json: what was asked for; then the parts that are done, each with its record
    shards/                the same folder under its name, once the manifest is in it

A part is the documents of one chunk of the input, so it is the same whoever writes it: a run that was killed
and begun again, with any number of workers, gives the same bytes as one that was not. Memory does not grow
with the corpus.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from modernbert.corpus.bad_lines import MAX_BAD_SHARE, BadLines
from modernbert.corpus.documents import CHUNK_BYTES, Fields, read_chunks
from modernbert.corpus.inputs import Inputs, find_inputs
from modernbert.corpus.parts import PartWriter, Record, token_dtype
from modernbert.corpus.shards import ENDINGS, FORMAT, MANIFEST, TOKENIZER, Shards, digest
from modernbert.corpus.workers import in_workers, num_processors
from modernbert.errors import CorpusError
from modernbert.files import fsync_folder, sha256, write_atomic
from modernbert.progress import Bar
from modernbert.text.tokenizer import Tokenizer

_PLAN = "plan.json"
_MAX_SOURCES = 1000
# What a plan says of the versions: other ones may give other tokens.
_PACKAGES = ("modernbert", "tokenizers")


def write_shards(
    inputs: Sequence[str],
    out: Path,
    *,
    tokenizer: Tokenizer,
    fields: Fields = Fields(),
    max_bad_share: float = MAX_BAD_SHARE,
    num_workers: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Shards:
    """Write the documents of `inputs` (see inputs.find_inputs) as shards into the folder `out`; open them.

    Called again after a kill with the same arguments, it goes on; where all is done, it only opens. Workers
    default to the processors there are; they are spawned, so a script that calls this needs the guard
    `if __name__ == "__main__"`, or `num_workers=1`. Raises CorpusError: no documents, too many bad lines, a
    disk without room, another plan for the same folder.
    """
    if (num_workers is not None and num_workers < 1) or chunk_bytes < 1 or not 0 <= max_bad_share <= 1:
        raise CorpusError(
            "num_workers and chunk_bytes are at least 1 and max_bad_share is from 0 to 1, found "
            f"{num_workers}, {chunk_bytes} and {max_bad_share}"
        )
    found = find_inputs(inputs)
    work = out.with_name(f"{out.name}.unfinished")
    try:
        plan = _begin(work, out, found, tokenizer, fields, chunk_bytes)
        if not (out / MANIFEST).exists():
            writer = PartWriter(work, tokenizer, fields)
            _write_parts(found, writer, chunk_bytes, max_bad_share, num_workers or num_processors())
            _finish(work, out, plan, found.left_out)
    except OSError as error:
        raise CorpusError(
            f"{out} could not be written: {error}\n"
            f"hint: the finished parts are kept in {work}; once there is room and the right to write, run "
            "the same again, and it goes on"
        ) from error
    return Shards.open(out)


def _begin(
    work: Path, out: Path, found: Inputs, tokenizer: Tokenizer, fields: Fields, chunk_bytes: int
) -> dict[str, Any]:
    """The plan of this run, written down; CorpusError where another was begun in the same place."""
    is_written = (out / MANIFEST).exists()
    if not is_written and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CorpusError(f"{out} is there and holds no shards; name another folder, or remove it")
    plan: dict[str, Any] = {
        "format": FORMAT,
        "tokenizer_sha256": _sha256_of(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "dtype": token_dtype(tokenizer.vocab_size).str,
        "fields": {"text": fields.text, "source": fields.source},
        "chunk_bytes": chunk_bytes,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "files": [file.path for file in found.files],
        "file_bytes": [file.size for file in found.files],
        "file_sources": [file.source for file in found.files],
    }
    place = out / MANIFEST if is_written else work / _PLAN
    if place.exists() and (begun := json.loads(place.read_bytes())) != plan:
        if is_written or any(work.glob("*.tokens")):
            _require_same(begun, plan, place.parent)
        else:  # nothing to keep, as where --field was wrong
            shutil.rmtree(work)
    if not is_written:
        tokenizer.save(work / TOKENIZER)
        write_atomic(place, json.dumps(plan))
    return plan


def _sha256_of(tokenizer: Tokenizer) -> str:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        return sha256(Path(folder) / "tokenizer.json")


def _require_same(old: Mapping[str, Any], new: Mapping[str, Any], folder: Path) -> None:
    for name, asked in new.items():
        if (begun := old.get(name)) == asked:
            continue
        if isinstance(begun, list) and isinstance(asked, list):
            pairs = enumerate(itertools.zip_longest(begun, asked, fillvalue="none"))
            place = next(number for number, (one, other) in pairs if one != other)
            name = f"{name}, number {place}"
            begun, asked = (each[place] if place < len(each) else "none" for each in (begun, asked))
        raise CorpusError(
            f"{folder} was written for another call: {name} was {begun!r}, and is {asked!r} now\n"
            "hint: name another folder with --out, or remove this one to write it anew"
        )


def _write_parts(
    found: Inputs, writer: PartWriter, chunk_bytes: int, max_bad_share: float, num_workers: int
) -> None:
    """Write every part that is not there yet."""
    done = _done(writer.folder)
    bad = BadLines(files=[file.path for file in found.files])
    sources: set[str] = set()
    whole = _whole_files(done.values())
    chunks = read_chunks(found.files, chunk_bytes=chunk_bytes, is_done=whole.__contains__)
    jobs = (chunk for chunk in chunks if chunk.name not in done)
    records = itertools.chain(done.values(), in_workers(writer, jobs, num_workers=num_workers))
    for record in _with_progress(records, sum(file.size for file in found.files)):
        bad.merge(record["bad_lines"])
        bad.require_few(max_bad_share)
        sources |= record["sources"].keys()
        if len(sources) > _MAX_SOURCES:
            raise CorpusError(
                f"more than {_MAX_SOURCES} sources, such as {', '.join(sorted(sources)[:3])}: does the field "
                f"{writer.fields.source!r} name each document instead?"
            )
    bad.require_documents()


def _done(work: Path) -> dict[str, Record]:
    """The records of the parts that are whole, by name and in their order."""
    records = [json.loads(path.read_bytes()) for path in sorted(work.glob("*-*.json"))]
    return {record["name"]: record for record in records}


def _whole_files(records: Iterable[Record]) -> set[int]:
    """Numbers of the files of which every part is done: their last part is, and all before it are."""
    parts: dict[int, list[Record]] = {}
    for record in records:
        parts.setdefault(record["file"], []).append(record)
    return {
        file
        for file, found in parts.items()
        if found[-1]["is_last"] and found[-1]["number"] == len(found) - 1
    }


def _with_progress(records: Iterable[Record], num_bytes: int) -> Iterator[Record]:
    """The same records; the bar counts bytes of the inputs, as they lie on disk."""
    bar = Bar(label="shard", total=num_bytes, unit="B")
    try:
        for record in records:
            yield record
            bar.advance(record["input_bytes"])
    finally:
        bar.close()


def _finish(work: Path, out: Path, plan: Mapping[str, Any], left_out: Mapping[str, int]) -> None:
    """Write the manifest and give the folder its name. What a kill in here leaves, the same steps finish."""
    if not (work / MANIFEST).exists():
        manifest = _manifest(plan, left_out, list(_done(work).values()))
        write_atomic(work / MANIFEST, json.dumps(manifest, indent=1))
    for path in [*work.glob("*-*.json"), work / _PLAN]:
        path.unlink(missing_ok=True)
    if out.exists():
        out.rmdir()  # empty, as was seen in the beginning
    os.rename(work, out)
    fsync_folder(out.parent)


def _manifest(
    plan: Mapping[str, Any], left_out: Mapping[str, int], records: Sequence[Record]
) -> dict[str, Any]:
    bad = BadLines(files=plan["files"])
    sources: dict[str, dict[str, int]] = {}
    for record in records:
        bad.merge(record["bad_lines"])
        for source, counts in record["sources"].items():
            total = sources.setdefault(source, dict.fromkeys(counts, 0))
            for name, count in counts.items():
                total[name] += count
    if not sources:
        raise CorpusError(
            f"no text gave a token, in {sum(record['without_tokens'] for record in records)} documents"
        )
    content: dict[str, Any] = {
        **plan,
        "sources": dict(sorted(sources.items())),
        "bad_lines": bad.as_data(),
        "without_tokens": sum(record["without_tokens"] for record in records),
        "left_out_files": dict(left_out),
        "mended": sum(record["mended"] for record in records),
        "parts": [
            {"name": record["name"], "sources": record["sources"], **{each: record[each] for each in ENDINGS}}
            for record in records
            if record["sources"]
        ],
    }
    return {**content, "sha256": digest(content)}
