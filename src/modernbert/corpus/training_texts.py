"""The texts that a tokenizer is trained on: of each source the same, from the head of its files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modernbert.corpus.bad_lines import BadLines
from modernbert.corpus.documents import BadLine, Fields, documents_of, read_chunks
from modernbert.corpus.inputs import InputFile
from modernbert.corpus.long_texts import cut


def training_texts(
    files: Sequence[InputFile],
    fields: Fields,
    bad: BadLines,
    *,
    max_bytes: int | None,
    max_bad_share: float,
) -> Iterator[str]:
    """The texts of the files, in turns: the next is always from the source that gave the fewest bytes so far.

    Stops after `max_bytes` of text, so that no source is more than its share of them where all have as much.
    Long texts come in pieces. What is bad is counted in `bad`; CorpusError where that is too much, or all.
    """
    by_source: dict[str, list[InputFile]] = {}
    for file in files:
        by_source.setdefault(file.source, []).append(file)
    texts = {source: _texts(of_source, fields, bad, max_bad_share) for source, of_source in by_source.items()}
    num_bytes = dict.fromkeys(texts, 0)
    while texts and (max_bytes is None or sum(num_bytes.values()) < max_bytes):
        source = min(texts, key=num_bytes.__getitem__)
        text = next(texts[source], None)
        if text is None:
            del texts[source]
        else:
            num_bytes[source] += len(text.encode())
            yield from cut(text)
    bad.require_few(max_bad_share)
    bad.require_documents()


def _texts(files: Sequence[InputFile], fields: Fields, bad: BadLines, max_bad_share: float) -> Iterator[str]:
    numbers = {path: number for number, path in enumerate(bad.files)}
    for chunk in read_chunks(files):
        for found in documents_of(chunk, fields):
            bad.num_lines += 1
            if isinstance(found, BadLine):
                place = numbers[files[found.file].path]
                bad.add(BadLine(file=place, line=found.line, fault=found.fault, detail=found.detail))
                bad.require_few(max_bad_share)
            else:
                yield found.text
