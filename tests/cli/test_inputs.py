"""Where texts come from, and what is said of those that cannot be read."""

import json

import pytest

from tests.cli.conftest import assert_fails, json_lines


def texts(result):
    return [row["text"] for row in json_lines(result)]


def test_texts_come_from_arguments_files_and_stdin(run, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("the cat\na dog\n")
    from_file = run("embed", "--file", str(file), "--json", kind="embed")
    assert texts(from_file) == ["the cat", "a dog"]
    assert texts(run("embed", "rain", "--file", str(file), "--json", kind="embed"))[0] == "rain"
    for arguments in ((), ("-",), ("--file", "-")):
        assert texts(run("embed", *arguments, "--json", kind="embed", input="rain\nwet")) == ["rain", "wet"]
    assert texts(run("embed", "a", "-", "the", "--json", kind="embed", input="rain\n")) == [
        "a",
        "rain",
        "the",
    ]


def test_many_texts_go_through_in_order(run):
    lines = ["rain", "the cat", "a dog", "wet", "london"] * 60
    assert texts(run("embed", "--json", kind="embed", input="\n".join(lines))) == lines


def test_json_lines_are_read_by_field(run, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "the cat", "body": "rain"}\n\n{"text": "a\\ndog", "body": "wet"}\n')
    plain = run("embed", "--file", str(file), "--json", kind="embed")
    assert texts(plain) == ["the cat", "a\ndog"]
    assert "blank lines skipped: 1 (line 2)" in plain.stderr
    assert texts(run("embed", "--file", str(file), "--field", "body", "--json", kind="embed")) == [
        "rain",
        "wet",
    ]
    piped = run("embed", "-", "--field", "body", "--json", kind="embed", input=file.read_text())
    assert texts(piped) == ["rain", "wet"]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"text": "a"', ("line 2", "not JSON")),
        ('["a"]', ("line 2", "no field 'text'", "list")),
        ('{"body": "a"}', ("line 2", "no field 'text'", "body", "--field")),
        ('{"text": 5}', ("line 2", "must be a text", "5")),
        ('{"text": ""}', ("line 2", "not empty")),
    ],
)
def test_a_wrong_json_line_is_named(run, tmp_path, line, parts):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n' + line + "\n")
    result = run("embed", "--file", str(file), "--json", kind="embed")
    assert_fails(result, *parts, num_lines_done=1)  # what was done is kept


def test_blank_lines_are_skipped_with_a_note(run):
    result = run("embed", "--json", kind="embed", input="\nrain\n  \n\nwet\r\n")
    assert texts(result) == ["rain", "wet"]
    assert result.stderr == "modernbert: stdin: blank lines skipped: 3 (line 1, 3, 4)\n"


def test_a_byte_order_mark_is_no_text(run):
    assert texts(run("embed", "--json", kind="embed", input="\ufeffrain\n".encode())) == ["rain"]


def test_bytes_that_are_not_utf8_are_named_by_line_and_byte(run, tmp_path):
    content = b"rain\ncaf" + b"\xe9\n"
    parts = ("line 2: byte 4", "0xe9", "not UTF-8", "iconv")
    assert_fails(run("embed", "--json", kind="embed", input=content), "stdin", *parts, num_lines_done=1)
    file = tmp_path / "latin1.txt"
    file.write_bytes(content)
    result = run("embed", "--file", str(file), "--json", kind="embed")
    assert_fails(result, str(file), *parts, num_lines_done=1)
    assert_fails(run("answer", "who", "--context-file", str(file), kind="span"), str(file), *parts)


def test_a_lone_surrogate_is_an_error(run):
    line = json.dumps({"text": "half \ud83d"})
    assert_fails(run("embed", "--field", "text", kind="embed", input=line), "lone surrogate", "\\ud83d")
    assert_fails(run("embed", "half \udcff", kind="embed"), "lone surrogate", "\\udcff")


def test_empty_texts_and_empty_lists_are_errors(run, tmp_path):
    assert_fails(run("embed", "", kind="embed"), "text 1 is empty", "not set")
    assert_fails(run("embed", "rain", "  ", kind="embed"), "text 2 is empty")
    assert_fails(run("embed", kind="embed", input=""), "no texts: stdin held none")
    assert_fails(run("rerank", "who", kind="rerank", input=""), "no texts: stdin held none")
    file = tmp_path / "empty.txt"
    file.write_text("\n\n")
    assert_fails(run("embed", "--file", str(file), kind="embed"), f"no texts: {file} held none")
    assert_fails(run("answer", "who", "--context", "", kind="span"), "context")


def test_a_file_that_is_not_there_or_of_another_kind(run, tmp_path):
    assert_fails(run("embed", "--file", "nowhere.txt", kind="embed"), "nowhere.txt", "does not exist", code=2)
    table = tmp_path / "table.csv"
    table.write_text("text\nrain\n")
    assert_fails(run("embed", "--file", str(table), kind="embed"), "table.csv is not read here", ".jsonl")
    columns = tmp_path / "pairs.tsv"
    columns.write_text("rain\twet\n")
    for verb in ("embed", "classify"):
        assert_fails(run(verb, "--file", str(columns), kind=verb), "pairs.tsv is not read here", "--tabs")


def test_the_texts_are_looked_at_before_a_model_is_loaded(run):
    assert_fails(run("embed", "--model", "no/such/folder", input=b"\xff"), "not UTF-8")
