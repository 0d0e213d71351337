"""Text of a file in any encoding, block by block or line by line; a wrong encoding is told with its place."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from itertools import chain

from modernbert.corpus.inputs import COMPRESSED
from modernbert.corpus.raw_files import read_blocks
from modernbert.errors import CorpusError

_BYTE_ORDER_MARK = "\ufeff"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def text_blocks(path: str, encoding: str = "utf-8") -> Iterator[str]:
    """The text of a file, decompressed, without a byte order mark.

    CorpusError where the file cannot be read, or names the line of a byte that is not of that encoding.
    """
    decoder = _decoder(encoding)
    num_lines = num_open = 0  # lines that have ended, and characters of the one that has not
    blocks = (block for block, _ in read_blocks(path))
    is_first = True
    for block in _with_end(blocks):
        try:
            text = decoder.decode(block or b"", final=block is None)
        except UnicodeDecodeError as error:
            raise _undecodable(error, path, encoding, num_lines, num_open, is_first) from None
        if not text:
            continue
        text = text.removeprefix(_BYTE_ORDER_MARK) if is_first else text
        is_first = False
        num_lines += text.count("\n")
        num_open = len(text) - text.rfind("\n") - 1 if "\n" in text else num_open + len(text)
        yield text


def lines_of(blocks: Iterable[str]) -> Iterator[str]:
    """Lines with their ends; only line feeds end them, as str.splitlines would find more in many texts."""
    return chain.from_iterable(io.StringIO(text, newline="\n") for text in _whole_lines(blocks))


def text_lines(path: str, encoding: str = "utf-8") -> Iterator[str]:
    """The lines of a file with their ends; errors as `text_blocks`."""
    return lines_of(text_blocks(path, encoding))


def file_ending(path: str) -> str:
    """What tells the kind of a file, such as ".csv", without the ending of a compression; "" for none."""
    name = path.lower().replace("\\", "/").rsplit("/", 1)[-1]
    for compressed in COMPRESSED:
        name = name.removesuffix(compressed)
    return f".{name.rsplit('.', 1)[-1]}" if "." in name else ""


def _whole_lines(blocks: Iterable[str]) -> Iterator[str]:
    left: list[str] = []  # a line over many blocks is joined once, at its end
    for text in blocks:
        end = text.rfind("\n") + 1
        if end:
            yield "".join([*left, text[:end]])
            left = []
        left.append(text[end:])
    if last := "".join(left):
        yield last


def mended(text: str) -> str:
    """U+FFFD for each half of a character, which JSON can name and UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        return codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise CorpusError(
            f"unknown encoding {encoding!r}; there are utf-8, cp1251, latin-1 and many more"
        ) from None


def _with_end(blocks: Iterator[bytes]) -> Iterator[bytes | None]:
    yield from blocks
    yield None


def _undecodable(
    error: UnicodeDecodeError, path: str, encoding: str, num_lines: int, num_open: int, is_first: bool
) -> CorpusError:
    before = error.object[: error.start].decode(encoding, "replace")
    line = num_lines + before.count("\n") + 1
    place = len(before) - before.rfind("\n") + (0 if "\n" in before else num_open)
    hint = "name the encoding, such as --encoding cp1251"
    if is_first and error.object.startswith(_UTF16):
        hint = "it looks like UTF-16: --encoding utf-16"
    return CorpusError(
        f"{path}, line {line}: byte {error.object[error.start]:#04x} at character {place} is no {encoding}\n"
        f"hint: {hint}"
    )
