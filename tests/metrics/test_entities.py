"""Entities are counted as seqeval counts them, whatever the tags say."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Tokens

from modernbert.metrics import entities

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "I-ORG")
SENTENCES = st.lists(
    st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1, max_size=9),
    min_size=1,
    max_size=5,
)


def test_tags_become_places():
    tags = ["B-PER", "I-PER", "B-PER", "O", "I-LOC", "I-PER"]
    assert entities.entities(tags) == {("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 5), ("PER", 5, 6)}
    assert entities.entities(tags, is_strict=True) == {("PER", 0, 2), ("PER", 2, 3)}
    assert entities.entities([]) == set()


def test_a_label_may_hold_dashes():
    assert entities.entities(["B-geo-loc", "I-geo-loc"]) == {("geo-loc", 0, 2)}


@given(st.lists(st.sampled_from(TAGS), min_size=1, max_size=12))
def test_places_are_those_of_seqeval_in_both_modes(tags):
    assert entities.entities(tags) == {(label, start, end + 1) for label, start, end in get_entities(tags)}
    strict = {(each.tag, each.start, each.end) for each in Tokens(tags, IOB2).entities}
    assert entities.entities(tags, is_strict=True) == strict


@pytest.mark.parametrize("is_strict", [False, True], ids=["conlleval", "strict"])
@settings(deadline=None, max_examples=30)
@given(sentences=SENTENCES)
def test_figures_are_those_of_seqeval(is_strict, sentences):
    gold, guessed = [[[pair[side] for pair in each] for each in sentences] for side in (0, 1)]
    whole, each = entities.count(
        (entities.entities(one, is_strict=is_strict), entities.entities(other, is_strict=is_strict))
        for one, other in zip(gold, guessed, strict=True)
    )
    found = entities.figures(whole, each)
    if not each:  # seqeval has no report of nothing
        assert set(found.values()) == {0.0}
        return
    mode = {"mode": "strict", "scheme": IOB2} if is_strict else {}
    wanted = classification_report(gold, guessed, output_dict=True, zero_division=0, **mode)
    assert each.keys() == wanted.keys() - {"micro avg", "macro avg", "weighted avg"}
    for name, one in (*each.items(), ("micro avg", whole)):
        numbers = (one.precision, one.recall, one.f1, one.support)
        assert numbers == pytest.approx(
            [wanted[name][key] for key in ("precision", "recall", "f1-score", "support")]
        )
    assert found["macro_f1"] == pytest.approx(wanted["macro avg"]["f1-score"])
    assert found["f1"] == whole.f1


def test_the_same_place_in_two_texts_is_two_entities():
    place = {("PER", 0, 1)}
    whole, _ = entities.count([(place, place), (place, set())])
    assert (whole.precision, whole.recall, whole.support) == (1.0, 0.5, 2)
