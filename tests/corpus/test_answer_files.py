"""Questions of every form become a row each; offsets that do not match are mended, counted and shown."""

import json

import pytest

from modernbert.corpus.answer_files import AnswerSummary, read_answers
from modernbert.errors import CorpusError

CONTEXT = "The Seine flows through Paris. Paris is old."
PARIS = {"text": "Paris", "start": 24}


def read(path, content):
    if isinstance(content, list):
        content = "\n".join(map(json.dumps, content))
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    summary = AnswerSummary()
    return list(read_answers(path, summary=summary)), summary


def question(answers, context=CONTEXT, **others):
    return {"id": "q", "question": "Where?", "context": context, "answers": answers, **others}


def squad(*questions):
    paragraph = {"context": CONTEXT, "qas": list(questions)}
    return {"version": "v2.0", "data": [{"title": "Seine", "paragraphs": [paragraph, paragraph]}]}


def test_squad_files_give_a_row_a_question_and_share_the_context(tmp_path):
    possible = {"id": "1", "question": "Where?", "answers": [{"text": "Paris", "answer_start": 24}] * 3}
    impossible = {
        "id": "2",
        "question": "Why?",
        "is_impossible": True,
        "answers": [],
        "plausible_answers": [{"text": "Paris", "answer_start": 24}],
    }
    rows, summary = read(tmp_path / "x.json", squad(possible, impossible))
    assert [(row["id"], row["answers"], row["is_impossible"], row["line"]) for row in rows] == [
        ("1", [PARIS], False, 1),
        ("2", [], True, 2),
        ("1", [PARIS], False, 3),
        ("2", [], True, 4),
    ]
    assert len({row["context_id"] for row in rows}) == 1
    assert rows[0]["context"] is rows[1]["context"], "held once for all questions of a paragraph"
    assert (summary.num_questions, summary.num_unanswerable, summary.num_answers) == (4, 2, 2)
    assert summary.lines() == []


@pytest.mark.parametrize(
    "answers",
    [
        [PARIS],
        [{"text": "Paris", "answer_start": 24}],
        {"text": ["Paris", "Paris"], "answer_start": [24, 24]},
        [{"text": " Paris", "start": 23}],
    ],
    ids=["ours", "squad", "columns", "blanks"],
)
def test_answers_of_every_form_are_the_same(tmp_path, answers):
    rows, _ = read(tmp_path / "x.jsonl", [question(answers)])
    assert rows[0]["answers"] == [PARIS]
    assert rows[0]["line"] == 1


def test_parquet_as_hubs_have_it_is_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    records = [
        question({"text": ["Paris"], "answer_start": [24]}),
        question({"text": [], "answer_start": []}),
    ]
    parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "x.parquet")
    rows = list(read_answers(tmp_path / "x.parquet"))
    assert [row["answers"] for row in rows] == [[PARIS], []]
    assert [row["is_impossible"] for row in rows] == [False, True]


def test_no_answers_or_empty_ones_make_a_question_impossible(tmp_path):
    given = [question([]), question(None), question([{"text": "", "start": 0}]), question([PARIS])]
    rows, summary = read(tmp_path / "x.jsonl", given)
    assert [row["is_impossible"] for row in rows] == [True, True, True, False]
    assert summary.num_unanswerable == 3


@pytest.mark.parametrize(
    ("start", "place"),
    [
        (24, 24),
        (25, None),  # 24 and 31 are both near
        (None, None),  # it stands twice
        (4000, None),
        (-1, None),
    ],
)
def test_an_answer_that_stands_twice_nearby_is_not_guessed(tmp_path, start, place):
    given = [question([{"text": "Paris", "start": start}]), question([PARIS])]
    rows, summary = read(tmp_path / "x.jsonl", given)
    assert len(rows) == (2 if place else 1)
    assert summary.num_lost == summary.num_questions_lost == (0 if place else 1)


def test_an_answer_that_stands_once_nearby_is_moved_and_told(tmp_path):
    context = "Paris " + "x" * 100 + " Seine, Seine " + "y" * 100 + " Rhine"
    near, far = context.index("Paris") + 50, context.index("Paris") + 51
    given = [
        question([{"text": "Paris", "start": near}], context),
        question(
            [{"text": "Paris", "start": far}, {"text": "Rhine", "start": context.index("Rhine")}], context
        ),
        question([{"text": "Rhine"}], context),
        question([{"text": "rhine", "start": context.index("Rhine")}], context),
    ]
    rows, summary = read(tmp_path / "x.jsonl", given)
    assert rows[0]["answers"] == [{"text": "Paris", "start": 0}]
    assert [answer["text"] for answer in rows[1]["answers"]] == ["Rhine"]
    assert rows[2]["answers"] == [{"text": "Rhine", "start": context.index("Rhine")}]
    assert len(rows) == 3, "case is not guessed"
    assert (summary.num_moved, summary.num_lost, summary.num_questions_lost) == (1, 2, 1)
    moved, lost = summary.lines()
    assert moved.startswith("1 answers did not stand at their offsets")
    assert f"question q, 'Paris': offset {near}, where 'x" in moved
    assert moved.endswith("moved to 0")
    assert "2 answers stand nowhere near" in lost
    assert "with 1 questions" in lost


def test_offsets_that_match_nowhere_are_refused(tmp_path):
    wrong = [question([{"text": "Paris", "start": 400}]) for _ in range(3)]
    with pytest.raises(
        CorpusError, match=r"3 questions have no answer that stands at its offset(.|\n)*hint: "
    ):
        read(tmp_path / "x.jsonl", [*wrong, question([PARIS]), question([])])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"question": "Q", "answers": []}, "has no column 'context'; it has 'question', 'answers'"),
        (question([], question=" "), r"'question' must be a text: line 1 \(found ' '\)"),
        (question([], context=None), r"'context' must be a text: line 1 \(found None\)"),
        (question("Paris"), "'answers' must be a list of objects with text and start: line 1"),
        (question([{"text": "Paris", "start": "24"}]), "'answers' must be a list of objects"),
        (question([], is_impossible=False), "no answers, and 'is_impossible' is false: line 1"),
    ],
)
def test_what_is_no_question_is_named_with_its_line(tmp_path, record, message):
    with pytest.raises(CorpusError, match=message):
        read(tmp_path / "x.jsonl", [record])


def test_a_table_is_no_file_of_questions(tmp_path):
    with pytest.raises(CorpusError, match=r"questions are read from \.json"):
        read(tmp_path / "x.csv", "question,context\n")


def test_the_real_sets_are_whole(data_root):
    counts = {"squad2_half/dev": (368, 184), "subjqa_electronics/test": (358, 128), "xquad_en/test": (838, 0)}
    for name, expected in counts.items():
        summary = AnswerSummary()
        for row in read_answers(data_root / "answers" / f"{name}.jsonl", summary=summary):
            for answer in row["answers"]:
                assert row["context"].startswith(answer["text"], answer["start"])
        assert (summary.num_questions, summary.num_unanswerable) == expected
        assert summary.lines() == []
