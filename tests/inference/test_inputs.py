import numpy as np
import pytest

import modernbert
from modernbert.errors import InputError
from modernbert.inference.inputs import as_text, as_texts, as_texts_or_pairs, as_texts_or_words


@pytest.mark.parametrize(
    "texts",
    ["one", ["one"], ("one",), np.array(["one"]), np.array("one")],
    ids=["str", "list", "tuple", "array", "array without a dimension"],
)
def test_one_text_comes_in_many_forms(texts):
    found = as_texts(texts)
    assert found == ["one"]
    assert type(found[0]) is str


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        ((text for text in ["one"]), "generator"),
        (b"one", "bytes"),
        ({"one": 1}, "dict"),
        ({"one"}, "set"),
        (None, "NoneType"),
        (7, "int"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_list_is_refused_by_its_type(texts, named):
    with pytest.raises(InputError, match=f"a list of strings, not as {named}"):
        as_texts(texts)


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["a", None], "text 1 is of type NoneType, not str"),
        (["a", float("nan")], "text 1 is of type float, not str"),
        (np.array([1.0, float("nan")]), "text 0 is of type float, not str"),
        ([b"a"], "text 0 is of type bytes, not str"),
        ([["a"]], "text 0 is of type list, not str"),
    ],
    ids=["None", "NaN", "numbers", "bytes", "nested"],
)
def test_what_is_no_text_is_named_with_its_place(texts, named):
    with pytest.raises(InputError, match=named):
        as_texts(texts)


def test_pairs_come_as_tuples_or_lists():
    assert as_texts_or_pairs([("a", "b"), ["c", "d"]]) == [("a", "b"), ("c", "d")]
    assert as_texts_or_pairs(np.array([["a", "b"], ["c", "d"]])) == [("a", "b"), ("c", "d")]
    assert as_texts_or_pairs(["a", "b"]) == ["a", "b"]
    assert as_texts_or_pairs([]) == []


def test_a_lone_tuple_of_two_strings_could_be_either():
    with pytest.raises(InputError, match=r"write \[\(a, b\)\] or \[a, b\]"):
        as_texts_or_pairs(("a", "b"))


def test_texts_and_pairs_are_not_mixed():
    with pytest.raises(InputError, match="2 of 3 inputs are single texts; texts and pairs go apart"):
        as_texts_or_pairs(["a", ("b", "c"), "d"])


@pytest.mark.parametrize(
    ("pairs", "named"),
    [
        ([("a", "b", "c")], "input 0 has 3 texts; a pair has two"),
        ([("a", "b"), ("c", None)], "text 1 of pair 1 is of type NoneType"),
        ([None], "not as NoneType"),
        (["a", None], "text 1 is of type NoneType"),
    ],
    ids=["three", "None inside", "None alone", "None among texts"],
)
def test_a_wrong_pair_is_named(pairs, named):
    with pytest.raises(InputError, match=named):
        as_texts_or_pairs(pairs)


def test_words_come_inside_a_list():
    assert as_texts_or_words(["a text", ["a", "text"], ("b",)]) == ["a text", ["a", "text"], ["b"]]
    with pytest.raises(InputError, match="text 0: word 1 is of type int"):
        as_texts_or_words([["a", 1]])


@pytest.mark.parametrize(
    ("head", "ask", "named"),
    [
        (
            "mlm",
            lambda model: model.fill_mask("a [MASK]", top_k=2.5),
            "top_k must be a whole number, found 2.5",
        ),
        (
            "mlm",
            lambda model: model.fill_mask("a [MASK]", top_k=None),
            "top_k must be a whole number, found None",
        ),
        ("span", lambda model: model.answers("a", "b", top_k="3"), "top_k must be a whole number, found '3'"),
        ("rerank", lambda model: model.rerank("a", ["b"], top_k=True), "top_k must be a whole number"),
        (
            "embed",
            lambda model: model.embed(["a"], dimensions=4.0),
            "dimensions must be a whole number, found 4.0",
        ),
        ("embed", lambda model: model.embed(["a"], max_length="12"), "max_length must be a whole number"),
        (
            "tag",
            lambda model: model.tag(["a"], max_length=12.0),
            "max_length must be a whole number, found 12.0",
        ),
    ],
)
def test_what_is_no_whole_number_is_an_input_error(model_of, head, ask, named):
    with pytest.raises(InputError, match=named):
        ask(model_of(head))


def test_whole_numbers_of_numpy_will_do(model_of):
    assert model_of("embed").embed(["a"], dimensions=np.int64(4), max_length=np.int32(12)).shape == (1, 4)


@pytest.mark.parametrize("name", [None, 3, ["folder"]])
def test_a_model_is_named_by_a_string_or_a_path(name):
    with pytest.raises(InputError, match=f"a string or a Path, not by {type(name).__name__}"):
        modernbert.load(name)


def test_one_text_is_asked_for_by_its_name():
    assert as_text("a", "the query") == "a"
    with pytest.raises(InputError, match="the query is one string, not of type list"):
        as_text(["a"], "the query")
