"""From label scores to entities, in texts of any length."""

import numpy as np
import pytest

import modernbert
from modernbert.errors import InputError
from modernbert.heads.tokens import TagHeadConfig
from modernbert.inference.entities import TaggedWord, merge_entities
from modernbert.inference.tagging import read_to_tag
from modernbert.text.batch import PackedBatch
from tests.inference.tiny import TAGS, byte_level, near_sighted, word_piece, write_tiny

TOLERANCE = 1e-5
LONG = "Anna Meier from New York walked to the store and bought some bread for Paris. " * 6


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-PER I-PER O", ["PER 1-2"]),
        ("B-PER B-PER", ["PER 0-0", "PER 1-1"]),
        ("B-PER I-LOC", ["PER 0-0", "LOC 1-1"]),
        ("I-PER I-PER O I-PER", ["PER 0-1", "PER 3-3"]),
        ("I-PER B-PER I-PER", ["PER 0-0", "PER 1-2"]),
        ("B-PER I-PER L-PER U-PER", ["PER 0-2", "PER 3-3"]),
        ("L-PER I-PER", ["PER 0-0", "PER 1-1"]),
        ("U-PER I-PER", ["PER 0-0", "PER 1-1"]),
        ("B-PER I-PER E-PER S-LOC", ["PER 0-2", "LOC 3-3"]),
        ("S-PER S-PER", ["PER 0-0", "PER 1-1"]),
        ("B-PER E-PER E-PER", ["PER 0-1", "PER 2-2"]),
        ("PER PER O LOC PER", ["PER 0-1", "LOC 3-3", "PER 4-4"]),
        ("B-work-of-art I-work-of-art", ["work-of-art 0-1"]),
        ("O O", []),
        ("", []),
    ],
)
def test_tags_become_entities_by_any_scheme(tags, expected):
    """BIO, IOB, BILOU, BIOES and labels without a scheme, well formed and not."""
    listed = tags.split()
    words = [TaggedWord(start=i, end=i + 1, tag=tag, score=0.5) for i, tag in enumerate(listed)]
    found = merge_entities("x" * len(listed), words)
    assert [f"{entity.label} {entity.start}-{entity.end - 1}" for entity in found] == expected


def test_an_entity_has_its_text_and_the_mean_score():
    words = [
        TaggedWord(start=0, end=3, tag="B-LOC", score=0.9),
        TaggedWord(start=4, end=8, tag="I-LOC", score=0.7),
    ]
    (found,) = merge_entities("New York!", words)
    assert (found.text, found.start, found.end, found.label) == ("New York", 0, 8, "LOC")
    assert found.score == pytest.approx(0.8)


def planted(tokenizer, text, entities, limit=48):
    """Tag with a model that knows each token: `entities` are the label and the words of those it finds."""
    joined = text if isinstance(text, str) else " ".join(text)
    (encoding,) = tokenizer.encode([joined], add_special_tokens=False)
    label_of = {}
    for label, words in entities:
        start = joined.index(words)
        inside = [t for t, (s, e) in enumerate(encoding.offsets) if s < start + len(words) and e > start]
        label_of |= {inside[0]: f"B-{label}"} | {token: f"I-{label}" for token in inside[1:]}
    rows = np.full((len(encoding.token_ids), len(TAGS)), 0.05)
    for token in range(len(rows)):
        rows[token, TAGS.index(label_of.get(token, "O"))] = 0.8
    done = [0]  # tokens of the text before the next window

    def score_tokens(sequences):
        scored = []
        for sequence in sequences:
            body = sequence.token_ids[1:-1]
            start = next(
                i for i in range(done[0], len(rows)) if encoding.token_ids[i : i + len(body)] == body
            )
            done[0] = start + 1
            scored.append(np.vstack([rows[:1] * 0, rows[start : start + len(body)], rows[:1] * 0]))
        return scored

    reading = read_to_tag([text], tokenizer=tokenizer, labels=TAGS, limit=limit)
    return reading.finish(score_tokens(reading.sequences))[0]


@pytest.mark.parametrize("tokenizer", [byte_level(), word_piece()], ids=["bytes", "pieces"])
@pytest.mark.parametrize("limit", [48, 12, 7])
def test_entities_are_found_where_they_stand(tokenizer, limit):
    text = "Anna Meier-Zwetschgenbaum, of  New York,\nsaw \u0421\u043e\u0444\u0438\u044f \U0001f600."
    entities = [
        ("PER", "Anna Meier-Zwetschgenbaum"),
        ("LOC", "New York"),
        ("LOC", "\u0421\u043e\u0444\u0438\u044f"),
    ]
    found = planted(tokenizer, text, entities, limit)
    assert [(each.label, each.text) for each in found] == entities
    assert all(text[each.start : each.end] == each.text for each in found)
    assert [each.score for each in found] == pytest.approx([0.8] * 3)


def test_chinese_is_tagged_token_by_token():
    text = "\u6211\u5728\u5317\u4eac\u5de5\u4f5c"
    (found,) = planted(byte_level(), text, [("LOC", "\u5317\u4eac")])
    assert (found.text, found.start, found.end) == ("\u5317\u4eac", 2, 4)


def test_words_that_are_given_are_not_split_again():
    words = ["Anna", "saw", "New York", "", "today"]
    (found,) = planted(byte_level(), words, [("LOC", "New York")])
    assert (found.text, found.start, found.end) == ("New York", 9, 17)


def test_a_long_text_has_the_entities_of_a_model_without_a_limit(tmp_path):
    """What two layers of one token each side cannot see cannot matter: windows must not either."""
    encoder = near_sighted(byte_level().vocab_size)
    write_tiny(tmp_path / "model", TagHeadConfig(labels=TAGS), encoder=encoder)
    model = modernbert.load(tmp_path / "model", dtype="float32", device="cpu")
    whole = model.tag([LONG], max_length=10_000)
    assert len(whole[0]) > 10
    for max_length in (48, 40, 26):
        (found,) = model.tag([LONG], max_length=max_length)
        assert [(e.label, e.start, e.end) for e in found] == [(e.label, e.start, e.end) for e in whole[0]]
        assert [e.score for e in found] == pytest.approx([e.score for e in whole[0]], abs=TOLERANCE)


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_words_have_the_label_and_score_of_their_first_token(model_of, family):
    model = model_of("tag", family)
    words = ["Anna", "walked", "to", "the", "bookstore"]
    (encoding,) = model.tokenizer.encode_words([words])
    batch = PackedBatch.from_sequences([encoding.token_ids])
    scores = model.module(batch).softmax(dim=-1).detach().numpy()
    first = [encoding.word_ids.index(word) for word in range(len(words))]
    spans = [(0, 4), (5, 11), (12, 14), (15, 18), (19, 28)]
    tagged = [
        TaggedWord(start=s, end=e, tag=TAGS[scores[t].argmax()], score=float(scores[t].max()))
        for (s, e), t in zip(spans, first, strict=True)
    ]
    expected = merge_entities(" ".join(words), tagged)
    for text in (words, " ".join(words)):
        (found,) = model.tag([text])
        assert [(e.label, e.text) for e in found] == [(e.label, e.text) for e in expected]
        assert [e.score for e in found] == pytest.approx([e.score for e in expected], abs=TOLERANCE)


def test_texts_without_words_have_no_entities(model_of):
    assert model_of("tag").tag(["", "  \n", [], [""]]) == [[], [], [], []]
    assert model_of("tag", "bert").tag(["", "  \n", [], [""]]) == [[], [], [], []]


def test_words_that_are_no_strings_are_named(model_of):
    with pytest.raises(InputError, match="text 1: word 0 is of type NoneType"):
        model_of("tag").tag(["a", [None]])
