"""Text in any encoding, whole and by lines, however the blocks of its file fall."""

import codecs

import pytest

from modernbert.corpus import raw_files
from modernbert.corpus.text_files import file_ending, text_blocks, text_lines
from modernbert.errors import CorpusError

TEXT = "one\r\n\u0434\u0432\u0435 \u20ac\n\nlong " + "x" * 50 + "\u2028\x85\nlast"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-8-sig"])
@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 1000])
def test_blocks_of_any_size_give_the_same_lines(tmp_path, monkeypatch, encoding, block_bytes):
    monkeypatch.setattr(raw_files, "_READ_BYTES", block_bytes)
    path = tmp_path / "x"
    path.write_bytes(TEXT.encode(encoding))
    assert "".join(text_blocks(str(path), encoding)) == TEXT
    expected = [line + "\n" for line in TEXT.split("\n")]
    assert list(text_lines(str(path), encoding)) == [*expected[:-1], "last"]


@pytest.mark.parametrize("block_bytes", [1, 5, 1000])
def test_a_wrong_byte_is_placed_whatever_block_it_is_in(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(raw_files, "_READ_BYTES", block_bytes)
    path = tmp_path / "x"
    path.write_bytes("one\n\u0434\u0432\u0435".encode() + b"\xff" + b"\nlast")
    with pytest.raises(CorpusError, match="line 2: byte 0xff at character 4 is no utf-8"):
        list(text_lines(str(path)))
    path.write_bytes("one\n\u0434".encode()[:-1])
    with pytest.raises(CorpusError, match="line 2: byte 0xd0 at character 1 is no utf-8"):
        list(text_lines(str(path)))


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(codecs.BOM_UTF8 + b"a\xef\xbb\xbf")
    assert list(text_lines(str(path))) == ["a\ufeff"], "inside of a text it is one"


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        ("a.CSV", ".csv"),
        ("a.b/c", ""),
        ("s3://x/y.jsonl.GZ", ".jsonl"),
        ("a.zst", ""),
        ("C:\\x\\y.tsv", ".tsv"),
    ],
)
def test_the_ending_of_a_compression_does_not_count(path, ending):
    assert file_ending(path) == ending
