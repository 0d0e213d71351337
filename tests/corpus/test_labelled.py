"""Reading tables: every kind of file gives the same rows, and each fault is named with its line."""

import gzip
import json
import pickle
import re
import subprocess
import sys
import tracemalloc

import pytest

from modernbert.corpus.labelled import Column, Rows, read_table
from modernbert.errors import CorpusError

COLUMNS = (Column(name="review", role="text"), Column(name="stars", role="label"))
ROWS = [('Fine, and "cheap".', "5"), ("two\nlines; one text", "1"), ("Страхотен филм!", "5")]


def read(path, columns=COLUMNS, **options):
    return list(read_table(path, columns, **options))


def pairs(rows):
    return [(row["text"], row["label"]) for row in rows]


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


def write_csv(path, separator=",", rows=ROWS, encoding="utf-8"):
    lines = [separator.join(["stars", "review", "id"])]
    lines += [separator.join([label, quoted(text), "7"]) for text, label in rows]
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_csv_file_with_either_separator_gives_its_rows(tmp_path, separator):
    rows = read(write_csv(tmp_path / "x.csv", separator))
    assert pairs(rows) == ROWS
    assert [row["line"] for row in rows] == [2, 3, 5], "the second row is two lines long"


@pytest.mark.parametrize(("name", "separator"), [("x.csv", "|"), ("x.csv", "\t"), ("x.tsv", ",")])
def test_a_separator_that_the_ending_does_not_lead_to_expect_is_told(tmp_path, name, separator):
    path = write_csv(tmp_path / name, separator, rows=[("good", "5")])
    with pytest.warns(UserWarning, match=re.escape(f"its fields are cut by {separator!r}")):
        assert pairs(read(path)) == [("good", "5")]


def test_a_header_may_hold_separators_and_line_ends_in_quotation_marks(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('"a;b;c;d","the\ntext",stars\n1,good,5\n')
    columns = [Column(name="the\ntext", role="text"), Column(name="stars", role="label")]
    assert read(path, columns) == [{"text": "good", "label": "5", "line": 3}]


def test_a_tsv_file_keeps_stray_quotation_marks(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text('review\tstars\n"a 5" disk\t1\n"""all"" of it"\t5\n')
    assert pairs(read(path)) == [('"a 5" disk', "1"), ('"all" of it', "5")]


def test_windows_line_ends_and_a_byte_order_mark_do_not_show(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfreview,stars\r\ngood,5\r\n\r\nbad,1\r\n")
    assert pairs(read(path)) == [("good", "5"), ("bad", "1")]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst", "json", "parquet"])
def test_json_and_parquet_give_the_same_rows(tmp_path, kind):
    records = [{"review": text, "stars": int(label), "id": 7} for text, label in ROWS]
    path = tmp_path / f"x.{kind}"
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(records), path)
    elif kind == "json":
        path.write_text(json.dumps(records))
    else:
        content = "".join(json.dumps(record) + "\n" for record in records).encode()
        if kind.endswith("gz"):
            content = gzip.compress(content)
        if kind.endswith("zst"):
            content = pytest.importorskip("zstandard").compress(content)
        path.write_bytes(content)
    rows = read(path)
    assert pairs(rows) == ROWS
    assert [row["line"] for row in rows] == [1, 2, 3]


def test_a_file_at_an_address_is_read_like_one_here(tmp_path):
    import fsspec

    content = write_csv(tmp_path / "x.csv").read_bytes()
    fsspec.filesystem("memory").pipe("/labelled/x.csv", content)
    assert pairs(read("memory://labelled/x.csv")) == ROWS
    with pytest.raises(CorpusError, match=r"memory://labelled/y\.csv is not there"):
        read("memory://labelled/y.csv")


def test_a_carriage_return_alone_ends_no_line(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"review,stars\rgood,5\r")
    with pytest.raises(CorpusError, match="ends its lines by a bare carriage return"):
        read(path)
    path.write_bytes(b"review,stars\ngo\rod,5\n")
    with pytest.raises(CorpusError, match="line 2: a carriage return stands inside a field"):
        read(path)
    path.write_bytes('review,stars\n"go\rod\u2028\x85",5\n'.encode())
    assert pairs(read(path)) == [("go\rod\u2028\x85", "5")]


def test_rows_of_separators_alone_are_passed_over_as_blank_lines_are(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("review,stars\ngood,5\n\n,\n,,,,\nbad,1\n")
    assert [(row["text"], row["line"]) for row in read(path)] == [("good", 2), ("bad", 6)]


def test_a_column_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("review,stars,review\na,5,b\n")
    with pytest.raises(CorpusError, match="has 2 columns 'review'"):
        read(path)


def test_a_wrong_file_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("review,stars\n" + "good\n" * 5000)
    with pytest.raises(CorpusError, match=r"reading stopped at the 1,000th:\n  1,000 x another number"):
        read(path)


def test_dates_of_parquet_become_text_and_missing_numbers_are_missing(tmp_path):
    import datetime

    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    day = datetime.date(2026, 1, 2)
    table = pyarrow.table({"review": [day, day], "stars": pyarrow.array([5.0, float("nan")])})
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(CorpusError, match="1 x nothing in column 'stars': row 2"):
        read(tmp_path / "x.parquet")
    parquet.write_table(table.slice(0, 1), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == [{"text": "2026-01-02", "label": "5.0", "line": 1}]


def test_half_characters_of_json_become_replacements(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"review": "a\\ud83d b \\ud83d\\ude00", "stars": ["\\udc00"]}\n')
    rows = Rows.write(tmp_path / "rows.jsonl", read_table(path, COLUMNS))
    assert rows[0]["text"] == "a\ufffd b \U0001f600"
    assert rows[0]["label"] == ["\ufffd"]


def test_json_values_keep_their_meaning(tmp_path):
    path = tmp_path / "x.jsonl"
    values = [True, 1.5, ["a", "b"], "0"]
    path.write_text("".join(json.dumps({"review": "r", "stars": value}) + "\n" for value in values))
    assert [row["label"] for row in read(path)] == ["true", "1.5", ["a", "b"], "0"]


def test_a_missing_column_names_those_there_are_and_the_nearest(tmp_path):
    path = write_csv(tmp_path / "x.csv")
    with pytest.raises(
        CorpusError,
        match=r"no column 'star'; it has 'stars', 'review', 'id' \(cut by ','\)\nhint: did you mean 'stars'",
    ):
        read(path, (Column(name="star", role="label"),))


def test_an_optional_column_may_be_missing_and_empty(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,\n2,3\n")
    columns = [
        Column(name="a", role="text"),
        Column(name="b", role="second", is_optional=True),
        Column(name="c", role="third", is_optional=True),
    ]
    assert read(path, columns) == [{"text": "1", "line": 2}, {"text": "2", "second": "3", "line": 3}]


def test_a_wrong_encoding_says_where_and_which_to_try(tmp_path):
    path = write_csv(tmp_path / "x.csv", encoding="cp1251")
    with pytest.raises(
        CorpusError, match=r"line 5: byte 0xd1 at character 4 is no utf-8\nhint: .*--encoding cp1251"
    ):
        read(path)
    assert pairs(read(path, encoding="cp1251")) == ROWS
    with pytest.raises(CorpusError, match="unknown encoding 'utf-9'"):
        read(path, encoding="utf-9")


def test_utf16_is_read_where_it_is_named_and_known_where_it_is_not(tmp_path):
    path = write_csv(tmp_path / "x.csv", encoding="utf-16")
    assert pairs(read(path, encoding="utf-16")) == ROWS
    with pytest.raises(CorpusError, match="it looks like UTF-16: --encoding utf-16"):
        read(path)


def test_all_faults_of_a_table_come_in_one_message(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("review,stars\n" + "good;5\n" * 7 + "   ,5\nfine,\nfine,4\n")
    with pytest.raises(CorpusError) as caught:
        read(path)
    message = str(caught.value)
    assert (
        "7 x another number of fields than the header, cut by ',': "
        "line 2 (1 instead of 2; ';' would cut it), line 3" in message
    )
    assert "line 7" not in message, "five of a kind are enough"
    assert "1 x nothing in column 'review': line 9" in message
    assert "1 x nothing in column 'stars': line 10" in message


def test_an_unfinished_quotation_names_its_line(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('review,stars\ngood,5\n"never ends,5\n')
    with pytest.raises(CorpusError, match=r"line 3: unexpected end of data\nhint: a field that begins with"):
        read(path)


def test_broken_json_lines_are_counted(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"review": "a", "stars": "1"}\n{"review": \n[1]\n')
    with pytest.raises(CorpusError, match=r"1 x broken JSON: line 2 .*\n.*1 x no JSON object: line 3"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "", "is empty, or has no header"),
        ("x.xlsx", "PK", "is of no kind that is read here"),
        ("x.json", '"a"', "must hold a list of objects"),
        ("x.json", "[{", "broken JSON"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(CorpusError, match=message):
        read(tmp_path / name)


def test_rows_come_back_by_number_and_in_order(tmp_path):
    given = [{"text": text, "label": label, "line": i} for i, (text, label) in enumerate(ROWS)]
    rows = pickle.loads(pickle.dumps(Rows.write(tmp_path / "rows.jsonl", given)))
    assert len(rows) == 3
    assert [rows[i] for i in range(3)] == list(rows) == given
    assert rows[-1] == given[-1]
    assert rows[1:] == given[1:]
    assert rows.column("label") == ["5", "1", "5"]
    with pytest.raises(IndexError):
        rows[3]


def test_rows_that_fail_leave_no_file(tmp_path):
    path = write_csv(tmp_path / "x.csv", rows=[("", "1")])
    with pytest.raises(CorpusError):
        Rows.write(tmp_path / "rows.jsonl", read_table(path, COLUMNS))
    assert [each.name for each in tmp_path.iterdir()] == ["x.csv"]


def test_equal_texts_of_a_column_are_held_once(tmp_path):
    rows = Rows.write(tmp_path / "rows.jsonl", [{"label": "a label"}, {"label": "a label"}])
    one, other = rows.column("label")
    assert one is other


def test_memory_does_not_grow_with_the_texts(tmp_path):
    path, rows_path = write_large_csv(tmp_path, num_rows=20_000), tmp_path / "rows.jsonl"
    assert path.stat().st_size > 20_000_000
    tracemalloc.start()
    rows = Rows.write(rows_path, read_table(path, COLUMNS))
    assert len(rows[19_999]["text"]) > 1000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12_000_000, "a few blocks of the file, and a number a row"


@pytest.mark.slow
def test_a_file_of_200_mb_costs_a_process_less_than_40_mb(tmp_path):
    # The highest resident size of a child, before and after; blocks are 1 MiB and held a few times over.
    path, rows_path = write_large_csv(tmp_path, num_rows=220_000), tmp_path / "rows.jsonl"
    assert path.stat().st_size > 200_000_000
    child = f"""
import resource
from pathlib import Path
from modernbert.corpus.labelled import Column, Rows, read_table
columns = [Column(name="review", role="text"), Column(name="stars", role="label")]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = Rows.write(Path({str(rows_path)!r}), read_table({str(path)!r}, columns))
assert len(rows) == 220_000
labels = rows.column("label")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40 * 1024, "kilobytes"


def write_large_csv(folder, num_rows):
    path = folder / "x.csv"
    with path.open("w") as file:
        file.write("review,stars\n")
        for number in range(num_rows):
            file.write(f'"{number} {"word " * 200}",{number % 5}\n')
    return path
