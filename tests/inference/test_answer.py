"""Answers in contexts of any length, by planted scores whose best span is known."""

from itertools import pairwise

import numpy as np
import pytest

from modernbert.errors import InputError, TooLongError
from modernbert.inference.answering import find_answers
from tests.inference.tiny import byte_level, word_piece

QUESTION = "Who walked to the store?"
# No stretch of it comes twice, so that a window says where it stands.
FILL = [f"some bread {i} and " for i in range(1500)]
UNICODE = "\u0421\u043e\u0444\u0438\u044f, cafe\u0301 \U0001f600\u4f60\u597d"


def planted(tokenizer, context, wanted, *, limit=48, no_answer=0.0, **arguments):
    """Ask a model that scores 5 on the tokens where the `wanted` stretches (text: weight) start and end."""
    (encoding,) = tokenizer.encode([context], add_special_tokens=False)
    scores = np.zeros((len(encoding.token_ids), 2))
    for text, weight in wanted.items():
        start = context.index(text)
        inside = [t for t, (s, e) in enumerate(encoding.offsets) if s < start + len(text) and e > start]
        scores[inside[0], 0] += weight
        scores[inside[-1], 1] += weight
    seen = []

    def score_tokens(sequences):
        scored, start = [], 0
        for sequence in sequences:
            num_question = len(tokenizer.encode_ids([QUESTION])[0])
            body = sequence.token_ids[num_question:-1]
            start = next(
                i for i in range(start, len(scores)) if encoding.token_ids[i : i + len(body)] == body
            )
            rows = np.full((len(sequence.token_ids), 2), 9.0)  # the question is never an answer
            rows[0] = no_answer / 2
            rows[num_question:-1] = scores[start : start + len(body)]
            scored.append(rows)
            seen.append((start, start + len(body)))
            start += 1
        return scored

    found = find_answers(
        QUESTION, context, tokenizer=tokenizer, limit=limit, score_tokens=score_tokens, **arguments
    )
    return found, seen


@pytest.mark.parametrize("tokenizer", [byte_level(), word_piece()], ids=["bytes", "pieces"])
@pytest.mark.parametrize("answer", ["Anna Meier", UNICODE], ids=["ascii", "unicode"])
@pytest.mark.parametrize("place", [0, 1, 8, 14, 29, 30], ids=lambda place: f"after {place}")
def test_the_planted_span_is_found_wherever_it_stands(tokenizer, answer, place):
    context = "".join([*FILL[:place], answer, "; ", *FILL[place:30]])
    (found,), windows = planted(tokenizer, context, {answer: 9.0}, limit=80)
    assert len(windows) > 2
    assert found.text == answer
    assert (found.start, found.end) == (context.index(answer), context.index(answer) + len(answer))
    assert context[found.start : found.end] == found.text


@pytest.mark.parametrize("limit", [40, 64, 200])
def test_windows_cover_the_context_and_overlap(limit):
    _, windows = planted(byte_level(), "".join(FILL[:40]), {"bread": 1.0}, limit=limit)
    assert windows[0][0] == 0
    assert all(start < before_end for (_, before_end), (start, _) in pairwise(windows))


def test_answers_come_best_first_each_once():
    wanted = {"Anna Meier": 9.0, "New York": 8.0, "Paris": 7.0}
    context = "".join(["Anna Meier ", *FILL[:9], "New York ", *FILL[9:18], "Paris ", *FILL[18:27]])
    found, windows = planted(byte_level(), context, wanted, limit=64, top_k=3, most_tokens=8)
    assert len(windows) > 1
    assert [answer.text for answer in found] == list(wanted)
    assert found[0].score > found[1].score > found[2].score
    assert sum(answer.score for answer in found) <= 1


def test_the_score_is_a_share_of_all_spans_and_of_no_answer():
    tokenizer = byte_level()
    context = "some bread"
    num_tokens = len(tokenizer.encode_ids([context], add_special_tokens=False)[0])
    num_spans = num_tokens * (num_tokens + 1) // 2
    found, _ = planted(tokenizer, context, {}, top_k=1000)
    assert len(found) == num_spans
    assert [answer.score for answer in found] == pytest.approx([1 / (num_spans + 1)] * num_spans)
    (sure,), _ = planted(tokenizer, context, {}, no_answer=50.0)
    assert sure.score < 1e-20


def test_an_answer_has_at_most_so_many_tokens():
    tokenizer = byte_level()
    context = "".join(FILL[:8])
    (encoding,) = tokenizer.encode([context], add_special_tokens=False)
    for most in (1, 3):
        spans = {
            context[start:end].strip()
            and (end - len(context[start:end].lstrip()), start + len(context[start:end].rstrip()))
            for first, (start, _) in enumerate(encoding.offsets)
            for _, end in encoding.offsets[first : first + most]
        } - {""}
        found, _ = planted(tokenizer, context, {}, limit=500, top_k=10**6, most_tokens=most)
        assert {(answer.start, answer.end) for answer in found} == spans
        assert len(found) == len(spans)


def test_a_long_window_needs_little_memory():
    """Spans are starts by lengths, not every start by every end: 8,000 by 64, not by 8,000."""
    (found,), windows = planted(byte_level(), "".join(FILL) + "Anna", {"Anna": 9.0}, limit=20_000)
    assert len(windows) == 1
    assert found.text == "Anna"


def test_blanks_around_an_answer_are_cut():
    (found,), _ = planted(byte_level(), "for  Anna  and", {"  Anna ": 9.0})
    assert (found.text, found.start, found.end) == ("Anna", 5, 9)


def test_spans_that_differ_by_blanks_alone_are_one_answer_with_the_sum_of_their_scores(model_of):
    model, context = model_of("span"), "x\ny"
    found = model.answers("Who?", context, top_k=99)
    assert sorted((answer.text, answer.start, answer.end) for answer in found) == [
        ("x", 0, 1),
        ("x\ny", 0, 3),
        ("y", 2, 3),
    ]
    tokenizer = byte_level()
    (encoding,) = tokenizer.encode(["x\ny"], add_special_tokens=False)
    assert len(encoding.token_ids) == 3
    found, _ = planted(tokenizer, "x\ny", {}, top_k=99)
    # of six spans with equal scores one is a blank; "x" and "x\n", "y" and "\ny" are one each
    assert [(answer.text, answer.score) for answer in found] == [
        ("x", pytest.approx(2 / 6)),
        ("y", pytest.approx(2 / 6)),
        ("x\ny", pytest.approx(1 / 6)),
    ]


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_a_model_answers_from_contexts_of_any_length(model_of, family):
    model = model_of("span", family)
    context = "Anna Meier walked to the store. " * 12
    found = model.answers("Who walked?", context, top_k=5)
    assert len(found) == 5
    assert model.answer("Who walked?", context) == found[0]
    for answer in found:
        assert context[answer.start : answer.end] == answer.text
        assert 0 < answer.score < 1


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_a_context_without_text_is_refused(model_of, family):
    for context in ("", "   ", " \n\t "):
        with pytest.raises(InputError, match="the context has no text"):
            model_of("span", family).answer("Who?", context)


def test_a_question_that_fills_the_model_is_refused(model_of):
    with pytest.raises(
        TooLongError, match=r"question has \d+ tokens, which leaves no room .* of 48; shorten"
    ):
        model_of("span").answer("Who walked to the store? " * 20, "Anna")


def test_wrong_arguments_say_so(model_of):
    with pytest.raises(InputError, match="the question is one string"):
        model_of("span").answer(["Who?"], "Anna")
    with pytest.raises(InputError, match="the context is one string"):
        model_of("span").answer("Who?", None)
    with pytest.raises(InputError, match="top_k must be 1 or more"):
        model_of("span").answers("Who?", "Anna", top_k=0)
