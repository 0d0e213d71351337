"""The bytes of files wherever they lie, decompressed, and the rows of Parquet files.

A file that ends too early, or was changed on the way, is an error: half of a file is never taken for the
whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

import fsspec.core

from modernbert.corpus.inputs import is_remote, unreadable
from modernbert.errors import CorpusError, ModernBertError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_READ_BYTES = 2**20
# A little of a compressed file may be much text, all of which lies in memory at once.
_READ_COMPRESSED = 2**14
_ROWS_AT_ONCE = 256
_LARGEST_WINDOW = 2**31  # zstd --ultra --long=31


class _Decompressor(Protocol):
    """What zlib and zstandard have in common: `eof` at the end of a frame; `unused_data` is what follows."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def read_blocks(path: str) -> Iterator[tuple[bytes, int]]:
    """The content of a file in blocks, each with the number of bytes of the file that gave it.

    Files that end in .gz or .zst are decompressed; they may consist of several frames. CorpusError where a
    file cannot be read, is cut, or is not what its ending says.
    """
    with _opened(path) as file:
        if path.lower().endswith(".gz"):
            yield from _decompressed(file, path, "gzip")
        elif path.lower().endswith(".zst"):
            yield from _decompressed(file, path, "zstd")
        else:
            while block := file.read(_READ_BYTES):
                yield block, len(block)


def parquet_groups(path: str) -> list[tuple[int, int]]:
    """Rows and bytes (decompressed) of each row group of a Parquet file."""
    with _parquet(path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        return [(group.num_rows, group.total_byte_size) for group in groups]


def parquet_columns(path: str) -> list[str]:
    """The names of its columns, in their order."""
    with _parquet(path) as file:
        return list(file.schema_arrow.names)


def parquet_rows(path: str, groups: Sequence[int], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of some row groups as dicts with those columns."""
    with _parquet(path) as file:
        names = file.schema_arrow.names
        if missing := [column for column in columns if column not in names]:
            raise CorpusError(
                f"{path} has no column {missing[0]!r}; it has {', '.join(map(repr, names))}\n"
                "hint: --field names the column that holds the text"
            )
        for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=list(groups), columns=list(columns)):
            yield from batch.to_pylist()


@contextmanager
def _opened(path: str) -> Generator[IO[bytes]]:
    try:
        with _open(path) as file:
            yield file
    except ModernBertError:
        raise
    except Exception as error:
        # of a file at an address, each client's transport has errors of its own
        if not is_remote(path) and not isinstance(error, OSError | ImportError):
            raise
        raise unreadable(path, error) from error


def _open(path: str) -> IO[bytes]:
    if not is_remote(path):
        return open(path, "rb")
    system, inner = cast("tuple[Any, str]", fsspec.core.url_to_fs(path))
    return system.open(inner, "rb")


@contextmanager
def _parquet(path: str) -> Generator[ParquetFile]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise CorpusError(
            f"{path}: reading Parquet needs pyarrow: pip install 'modernbert[train]'"
        ) from error
    with _opened(path) as file:
        try:
            yield ParquetFile(file, page_checksum_verification=True)
        except ArrowException as error:
            raise CorpusError(f"{path} is no Parquet file, or a broken one: {error}") from error


def _decompressed(file: IO[bytes], path: str, form: str) -> Iterator[tuple[bytes, int]]:
    decompressor = _new_decompressor(form, path)
    is_inside = False  # of a frame
    while block := file.read(_READ_COMPRESSED):
        num_read = len(block)
        while block:
            if decompressor.eof:
                if form == "gzip" and not block.strip(b"\0"):  # allowed behind the last frame
                    break
                decompressor = _new_decompressor(form, path)
            try:
                content = decompressor.decompress(block)
            except (zlib.error, *_zstd_errors()) as error:
                raise CorpusError(f"{path} is no {form} file, or a broken one: {error}") from error
            yield content, num_read
            num_read = 0
            is_inside = not decompressor.eof
            block = b"" if is_inside else decompressor.unused_data
    if is_inside:
        raise CorpusError(f"{path} is cut: it ends inside its compressed data\nhint: fetch it again")


def _new_decompressor(form: str, path: str) -> _Decompressor:
    if form == "gzip":
        return zlib.decompressobj(wbits=31)  # 16 + 15: a header of gzip, and any window
    try:
        import zstandard
    except ImportError as error:
        raise CorpusError(f"{path}: reading .zst needs zstandard: pip install 'modernbert[train]'") from error
    return cast("_Decompressor", zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).decompressobj())


def _zstd_errors() -> tuple[type[Exception], ...]:
    try:
        import zstandard
    except ImportError:
        return ()
    return (zstandard.ZstdError,)
