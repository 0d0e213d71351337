"""Objects come out of lists of JSON as they come out of lines, and lists are never held whole."""

import json
import tracemalloc

import pytest

from modernbert.corpus.faults import Faults
from modernbert.corpus.json_files import json_lines, json_objects
from modernbert.errors import CorpusError

OBJECTS = [
    {"a": [1, {"b": "}], [{"}], "c": "\u0444\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")},
    {},
    {"d": -1.5e3},
]


def read(path, text):
    path.write_text(text)
    faults = Faults(source=str(path))
    found = list(json_objects(str(path), "utf-8", faults))
    faults.require_none()
    return found


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(OBJECTS),
        json.dumps(OBJECTS, indent=4),
        json.dumps({"version": "v2.0", "data": OBJECTS}, indent=1),
        "\n" + json.dumps({"data": OBJECTS, "version": "1"}, ensure_ascii=False),
    ],
    ids=["one line", "many lines", "under data", "data first"],
)
def test_a_list_gives_its_objects_by_number(tmp_path, text):
    assert read(tmp_path / "x.json", text) == list(enumerate(OBJECTS, start=1))


def test_a_file_of_lines_may_be_named_json(tmp_path):
    text = "\n\n".join(json.dumps(each) for each in OBJECTS)
    assert [found for _, found in read(tmp_path / "x.json", text)] == OBJECTS


def test_objects_longer_than_a_block_and_many_short_ones_are_whole(tmp_path):
    objects = [{"text": "\u0444" * 700_000}, {"text": '\\"' * 900_000}] + [{"n": n} for n in range(200_000)]
    found = read(tmp_path / "x.json", json.dumps(objects, ensure_ascii=False))
    assert [each for _, each in found] == objects


def test_a_list_is_never_held_whole(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"n": n, "text": "word " * 100} for n in range(40_000)]))
    assert path.stat().st_size > 20_000_000
    tracemalloc.start()
    num_objects = sum(1 for _ in json_objects(str(path), "utf-8", Faults(source="")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_objects == 40_000
    assert peak < 10_000_000, "a few blocks of 1 MiB"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n {"a": }]', "line 2: broken JSON: Expecting value"),
        ('[{"a": 1}\n\n {"a": 2}]', r"line 3: broken JSON: expected ',' or '\]', found '\{"),
        ('[{"a": 1}, 7]', "line 1: broken JSON: expected an object, found '7"),
        ('[{"a": 1}, {"a": "never ends', "line 1: broken JSON: Unterminated string"),
        ('[{"a": 1}', r"line 1: broken JSON: expected ',' or '\]', found ''"),
        ("", "must hold a list of objects"),
        ("17", "must hold a list of objects.*begins with '17'"),
    ],
)
def test_a_broken_list_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(CorpusError, match=message):
        read(tmp_path / "x.json", text)


def test_deep_nesting_is_a_fault_and_no_crash(tmp_path):
    deep = "[" * 100_000
    path = tmp_path / "x.jsonl"
    path.write_text(f'{{"a": {deep}\n')
    faults = Faults(source="x")
    assert not list(json_lines(str(path), "utf-8", faults))
    assert faults.counts["broken JSON"] == 1
    with pytest.raises(CorpusError, match="broken JSON"):
        read(tmp_path / "x.json", f'[{{"a": {deep}')
