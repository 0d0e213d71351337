"""Tagged words and marked spans, of every form that people have them in, become one of two rows."""

import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.corpus.tag_schemes import TagsSeen, first_fault, to_iob2
from modernbert.corpus.tagged_files import TagColumns, TagSummary, read_tagged
from modernbert.errors import CorpusError

LETTERS = {  # of an entity's only, first, inner and last word
    "IOB2": "BBII",
    "BILOU": "UBIL",
    "BIOES": "SBIE",
}


def read(path, content, **options):
    path.write_text(content if isinstance(content, str) else "\n".join(map(json.dumps, content)))
    summary = TagSummary()
    rows = list(read_tagged(path, summary=summary, **options))
    return rows, summary


def write_tags(entities, num_words, scheme):
    """The tags of entities (start, end, label) that do not overlap."""
    tags = ["O"] * num_words
    for start, end, label in entities:
        for word in range(start, end):
            is_first, is_last = word == start, word == end - 1
            if scheme == "plain":
                tags[word] = label
            elif scheme == "IOB1":
                follows = any(other[1] == start and other[2] == label for other in entities)
                tags[word] = f"{'B' if is_first and follows else 'I'}-{label}"
            else:
                only, first, inner, last = LETTERS[scheme]
                letter = only if end - start == 1 else first if is_first else last if is_last else inner
                tags[word] = f"{letter}-{label}"
    return tags


@st.composite
def sentences(draw):
    num_words = draw(st.integers(1, 12))
    cuts = sorted(draw(st.sets(st.integers(0, num_words), max_size=8)))
    labels = st.sampled_from(["PER", "creative-work", "B-side"])
    return num_words, [(start, end, draw(labels)) for start, end in pairwise(cuts) if draw(st.booleans())]


@pytest.mark.parametrize("scheme", ["IOB1", "BILOU", "BIOES"])
@given(sentence=sentences())
def test_every_scheme_becomes_iob2_without_a_repair(scheme, sentence):
    num_words, entities = sentence
    seen = TagsSeen()
    tags = write_tags(entities, num_words, scheme)
    assert first_fault(tags, seen) is None
    assert to_iob2(tags, seen) == write_tags(entities, num_words, "IOB2")
    assert seen.num_repaired == 0
    assert seen.labels.total() == len(entities)


@given(sentence=sentences())
def test_iob2_stays_as_it_is(sentence):
    num_words, entities = sentence
    tags = write_tags(entities, num_words, "IOB2")
    assert to_iob2(tags, TagsSeen()) == tags


def test_tags_without_letters_are_joined_by_label():
    seen = TagsSeen()
    assert to_iob2(["PER", "PER", "O", "PER", "LOC"], seen) == ["B-PER", "I-PER", "O", "B-PER", "B-LOC"]
    assert seen.scheme == "plain"
    assert seen.num_repaired == 0


@pytest.mark.parametrize(
    ("sentences", "scheme", "num_repaired"),
    [
        ([["I-PER", "I-PER", "O"], ["I-LOC", "B-LOC"]], "IOB1", 0),
        ([["B-PER", "I-PER"], ["B-PER", "O", "I-PER"], ["B-LOC", "I-PER"]], "IOB2", 2),
        ([["U-PER", "I-PER"], ["B-LOC", "O"], ["B-LOC", "L-LOC"]], "BILOU", 3),
        ([["S-PER", "O"], ["E-PER", "O"]], "BIOES", 1),
        ([["O", "O"]], "none", 0),
    ],
)
def test_a_scheme_is_known_from_its_tags_and_repairs_are_counted(sentences, scheme, num_repaired):
    seen = TagsSeen()
    for tags in sentences:
        to_iob2(tags, seen)
    assert seen.scheme == scheme
    assert seen.num_repaired == num_repaired


def test_words_and_tags_of_json_lines(tmp_path):
    records = [{"tokens": ["Anna", "Bo", "left"], "tags": ["B-PER", "I-PER", "O"], "id": 3}]
    rows, summary = read(tmp_path / "x.jsonl", records)
    assert rows == [{"words": ["Anna", "Bo", "left"], "tags": ["B-PER", "I-PER", "O"], "line": 1}]
    assert (summary.num_rows, summary.num_words, summary.seen.scheme) == (1, 3, "IOB2")
    assert summary.lines() == []
    renamed = [{"w": ["Anna"], "ner": ["I-PER"], "text": "Anna"}]
    rows, _ = read(tmp_path / "y.jsonl", renamed, columns=TagColumns(words=("w",), tags=("ner",)))
    assert rows == [{"words": ["Anna"], "tags": ["B-PER"], "line": 1}]


def test_conll_columns_with_documents_comments_and_words_that_look_like_comments(tmp_path):
    content = (
        "-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\n\n"
        "# text = Vitamin O\nGerman JJ I-NP I-MISC\n# NN I-NP O\n \t \n# NN I-NP O\nend NN I-NP O"
    )
    rows, summary = read(tmp_path / "x.conll", content)
    assert rows == [
        {"words": ["EU", "rejects"], "tags": ["B-ORG", "O"], "line": 3},
        {"words": ["German", "#"], "tags": ["B-MISC", "O"], "line": 8},
        {"words": ["#", "end"], "tags": ["O", "O"], "line": 11},
    ]
    assert summary.seen.scheme == "IOB1"
    assert summary.lines() == []


def test_columns_by_tabs_keep_blanks_in_words_and_conllu_its_words_alone(tmp_path):
    rows, _ = read(tmp_path / "x.conll", "10\xa0000 O\r\n")
    assert rows[0]["words"] == ["10\xa0000"]
    rows, _ = read(tmp_path / "x.tsv", "New York\tB-LOC\n#\tO\n\nBo\tO\n")
    assert [row["words"] for row in rows] == [["New York", "#"], ["Bo"]]
    columns = TagColumns(word_column=1, tag_column=2)
    content = "# sent_id = 1\n1-2\tvamonos\t_\n1\tvamos\tO\n2\tnos\tO\n2.1\tx\t_\n"
    rows, _ = read(tmp_path / "y.conllu", content, columns=columns)
    assert rows == [{"words": ["vamos", "nos"], "tags": ["O", "O"], "line": 3}]
    with pytest.raises(CorpusError, match="line 1: there is no column 5; columns are 0 to 1"):
        read(tmp_path / "x.conll", "Bo O\n", columns=TagColumns(tag_column=5))


def test_spans_come_in_order_and_without_blanks_at_their_ends(tmp_path):
    records = [
        {"text": "Anna saw Bo .", "spans": [[8, 11, "PER"], {"start": 0, "end": 4, "label": "PER"}]},
        {"text": "nobody", "spans": []},
        {"text": "Bo", "spans": [{"start": 0, "end": 2, "type": "PER", "text": "Bo"}]},
    ]
    rows, summary = read(tmp_path / "x.jsonl", records)
    anna, bo = {"start": 0, "end": 4, "label": "PER"}, {"start": 9, "end": 11, "label": "PER"}
    assert rows == [
        {"text": "Anna saw Bo .", "spans": [anna, bo], "line": 1},
        {"text": "nobody", "spans": [], "line": 2},
        {"text": "Bo", "spans": [{"start": 0, "end": 2, "label": "PER"}], "line": 3},
    ]
    assert summary.seen.labels == {"PER": 3}
    assert summary.lines() == ["1 spans began or ended with blanks, which were left out"]
    rows, _ = read(tmp_path / "y.jsonl", [{"text": "Bo", "entities": [[0, 2, "PER"]]}])
    assert rows == [{"text": "Bo", "spans": [{"start": 0, "end": 2, "label": "PER"}], "line": 1}]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"tokens": ["a", "b"], "tags": ["O"]}], r"another number of tags than words: line 1 \(1 for 2\)"),
        ([{"tokens": ["a"], "tags": [3]}], r"'tags' must be a list of texts: line 1 \(found \[3\]\)"),
        ([{"tokens": "a b", "tags": ["O"]}], r"'tokens' must be a list of texts: line 1 \(found 'a b'\)"),
        ([{"tokens": [], "tags": []}], "no words: line 1"),
        ([{"tokens": ["a", ""], "tags": ["O", "O"]}], r"an empty word: line 1 \(word 2\)"),
        (
            [{"tokens": ["a"], "tags": ["B-"]}],
            r"a tag of no scheme: line 1 \(word 1, 'a': 'B-' names no label",
        ),
        (
            [{"tokens": ["a", "b"], "tags": ["B-PER", "O"]}, {"tokens": ["Bo"], "tags": ["PER"]}],
            r"a tag of no scheme: line 2 \(word 1, 'Bo': 'PER' has no letter",
        ),
        ([{"tokens": ["a", "b"], "tags": ["PER", "B-PER"]}], r"word 2, 'b': 'B-PER' has a letter"),
        ([{"tokens": ["a"], "spans": []}], "has no column 'tags'; it has 'tokens', 'spans'"),
        ([{"words_": ["a"]}], r"has neither words \(tokens or words\) nor texts \(text\); it has 'words_'"),
        ([{"text": "Bo", "spans": [[0, 3, "PER"]]}], r"line 1 \(PER \[0, 3\) in a text of 2 characters\)"),
        ([{"text": "Bo  a", "spans": [[2, 4, "PER"]]}], r"PER \[2, 4\) holds nothing but blanks"),
        ([{"text": "Bo", "spans": [["0", 2, "PER"]]}], "must have start and end, whole numbers"),
        ([{"text": "Bo", "spans": ["Bo"]}], "'Bo' is neither an object nor"),
        ([{"text": "Bo", "spans": None}], "'spans' must be a list of spans: line 1"),
        ([{"text": " ", "spans": []}], "'text' must be a text: line 1"),
        (
            [{"text": "A Bo", "spans": [{"start": 0, "end": 2, "label": "PER", "text": "Bo"}]}],
            r"PER \[0, 2\) is 'A ', and not 'Bo'",
        ),
        (
            [{"text": "Anna Bo", "spans": [[0, 7, "PER"], [5, 7, "ORG"]]}],
            r"spans that overlap: line 1 \(PER \[0, 7\) 'Anna Bo' and ORG \[5, 7\) 'Bo'\)",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_its_line(tmp_path, records, message):
    with pytest.raises(CorpusError, match=message):
        read(tmp_path / "x.jsonl", records)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a O\nb\n", r"another number of columns: line 2 \(1 instead of 2 as above\)"),
        ("a\nb\n", r"line 1 \(1 instead of a word and its tag\)"),
        ("a X O\nb O\n", r"line 2 \(2 instead of 3 as above\)"),
        ("a B-PER\nBo PER\n", r"a tag of no scheme: line 2 \(word 2, 'Bo': 'PER' has no letter"),
        ("a\tO\n\tO\n", r"an empty word: line 2 \(word 2\)"),
    ],
)
def test_what_does_not_fit_in_columns_is_named_with_its_line(tmp_path, content, message):
    with pytest.raises(CorpusError, match=message):
        read(tmp_path / "x.conll", content)


def test_repairs_are_told_with_the_first_of_them(tmp_path):
    _, summary = read(tmp_path / "x.conll", "Anna B-PER\n\nthe O\nBo I-PER\n\nUN B-ORG\n")
    (line,) = summary.lines()
    assert line.startswith("1 tags are against the scheme, which is IOB2")
    assert "line 4: 'Bo' with I-PER" in line


def test_a_csv_file_of_words_is_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"tagged words are read from \.jsonl, or from columns"):
        read(tmp_path / "x.csv", "word,tag\n")


def test_the_real_sets_hold_as_many_entities_as_their_pages_say(data_root):
    counts = {"conll2003/train": 6114, "wnut17/test": 1079, "ner_bg_bsnlp/train": 3019}
    for name, num_entities in counts.items():
        summary = TagSummary()
        for row in read_tagged(data_root / "tokens" / f"{name}.jsonl", summary=summary):
            assert len(row["words"]) == len(row["tags"])
        assert summary.seen.labels.total() == num_entities
        assert summary.lines() == []


def test_columns_and_json_of_a_real_set_give_the_same_rows(data_root, tmp_path):
    given_rows = list(read_tagged(data_root / "tokens/wnut17/dev.jsonl"))
    random.Random(0).shuffle(given_rows)
    lines = ["".join(f"{w}\t{t}\n" for w, t in zip(r["words"], r["tags"], strict=True)) for r in given_rows]
    rows, _ = read(tmp_path / "x.conll", "\n".join(lines))
    assert [(r["words"], r["tags"]) for r in rows] == [(r["words"], r["tags"]) for r in given_rows]
