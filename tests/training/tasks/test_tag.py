"""Tagging: tags at first tokens, long texts in windows, figures as seqeval's, folders that others load."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report
from torch.nn import functional
from transformers import AutoModelForTokenClassification

from modernbert.errors import CorpusError
from modernbert.heads.tokens import TagHeadConfig
from modernbert.inference.loading import load
from modernbert.inference.words import split_words, word_spans
from modernbert.metrics.entities import count, figures
from modernbert.pretrained.folder import read_folder, write_folder
from modernbert.training.tasks import tag_scores
from modernbert.training.tasks.packs import pack_examples
from modernbert.training.tasks.tag import Tag, TagTask
from modernbert.training.tasks.tag_words import spans_of, tags_of_spans
from modernbert.training.tasks.task import Notes, Parts
from tests.training.small_task import BAD, FILLING, GOOD
from tests.training.token_tasks import SHORT, finetuned, learn, model_with_head, rows_of

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
# Two programs, or two packs, add up in another order.
TOLERANCE = 1e-5
TAGGED = [
    {"words": ["Anna", "Meier", "left", "New", "York"], "tags": ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"]},
    {"words": ["Incomprehensibilities", "in", "Paris"], "tags": ["O", "O", "B-LOC"]},
]


def model_with(base, labels=LABELS):
    return model_with_head(base, lambda transform, pooling: TagHeadConfig(labels=labels, transform=transform))


def task_of(labels=LABELS, **words):
    return TagTask(config=Tag(**words), labels=labels)


def learned(example, labels=LABELS):
    """Token ids and tags of what an example teaches."""
    (sequence,) = example.sequences
    return [
        (sequence.token_ids[place], labels[int(number)])
        for place, number in enumerate(example.targets)
        if number >= 0
    ]


def test_labels_have_both_positions_and_come_after_outside(tmp_path):
    rows = rows_of(tmp_path, [*TAGGED, {"words": ["x"], "tags": ["O"]}])
    task = Tag().prepare(Parts(train=rows, dev=None, test=None), Notes())
    assert task.labels == LABELS


def test_rows_without_anything_to_find_are_refused(tmp_path):
    rows = rows_of(tmp_path, [{"words": ["a"], "tags": ["O"]}])
    with pytest.raises(CorpusError, match="none of the 1 rows to learn from has a tag other than 'O'"):
        Tag().prepare(Parts(train=rows, dev=None, test=None), Notes())


def test_labels_that_training_never_saw_are_told_and_not_learned(tmp_path, bases):
    rows = rows_of(tmp_path, TAGGED)
    dev = rows_of(tmp_path, [{"words": ["a", "b"], "tags": ["B-EVT", "O"]}], "dev.jsonl")
    notes = Notes()
    Tag().prepare(Parts(train=rows, dev=dev, test=None), notes)
    assert notes.lines == [
        "1 rows of the dev part have labels that training never saw (EVT); their entities count as missed"
    ]
    (example,) = task_of().examples(dev, model_with(bases["modernbert"]), 64, Notes())
    assert [tag for _, tag in learned(example)] == ["O"]


def test_rare_labels_decide_the_stratum_of_their_rows(tmp_path):
    rare = {"words": ["x", "y"], "tags": ["B-PER", "B-EVT"]}
    rows = rows_of(tmp_path, [*TAGGED, rare, {"words": ["a"], "tags": ["O"]}])
    assert Tag().strata(rows) == ["LOC", "LOC", "EVT", ""]


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_a_word_is_learned_at_its_first_token_alone(tmp_path, bases, family):
    model = model_with(bases[family])
    examples = list(task_of().examples(rows_of(tmp_path, TAGGED), model, 64, Notes()))
    for row, example in zip(TAGGED, examples, strict=True):
        (encoding,) = model.tokenizer.encode_words([row["words"]])
        assert example.sequences[0].token_ids == encoding.token_ids
        first = [encoding.word_ids.index(word) for word in range(len(row["words"]))]
        wanted = [(encoding.token_ids[t], tag) for t, tag in zip(first, row["tags"], strict=True)]
        assert learned(example) == wanted
        assert example.weight == len(row["words"])
        assert len(encoding.token_ids) > len(row["words"]) + 2, "words of several tokens are in the test"


@pytest.mark.parametrize("limit", [8, 20, 64])
def test_every_word_of_a_long_text_is_learned_once_where_inference_reads_it(tmp_path, bases, limit):
    model = model_with(bases["modernbert"])
    draw = random.Random(0)
    words = [draw.choice([*FILLING, "Zwetschgenbaum", "Paris"]) for _ in range(120)]
    row = {"words": words, "tags": [draw.choice(LABELS) for _ in words]}
    notes = Notes()
    examples = list(task_of().examples(rows_of(tmp_path, [row]), model, limit, notes))
    assert all(len(each.sequences[0].token_ids) <= limit for each in examples)
    (encoding,) = model.tokenizer.encode_words([words], add_special_tokens=False)
    first = [encoding.word_ids.index(word) for word in range(len(words))]
    wanted = [(encoding.token_ids[t], tag) for t, tag in zip(first, row["tags"], strict=True)]
    assert [each for example in examples for each in learned(example)] == wanted
    assert sum(example.weight for example in examples) == len(words)
    assert notes.lines == [
        f"1 texts are longer than {limit} tokens and were read in overlapping windows, nothing was cut"
    ]


def test_a_word_without_a_token_is_counted(tmp_path, bases):
    """WordPiece gives invisible characters no token."""
    row = {"words": ["Anna", "\u200b", "Meier"], "tags": ["B-PER", "I-PER", "I-PER"]}
    notes = Notes()
    (example,) = task_of().examples(rows_of(tmp_path, [row]), model_with(bases["bert"]), 40, notes)
    assert [tag for _, tag in learned(example)] == ["B-PER", "I-PER"]
    assert notes.lines[0].startswith("1 words have no token of their own")


def test_spans_that_cut_words_take_the_whole_words_and_are_counted():
    text = "COVID19 reached NewYork-Paris ."
    words = split_words(text, ())
    spans = [
        {"start": 0, "end": 5, "label": "A"},
        {"start": 5, "end": 7, "label": "B"},
        {"start": 16, "end": 29, "label": "C"},
    ]
    tags, num_cut = tags_of_spans(words, spans)
    assert [text[start:end] for start, end in words] == ["COVID19", "reached", "NewYork", "-", "Paris", "."]
    assert tags == ["B-A", "O", "B-C", "I-C", "I-C", "O"]
    assert num_cut == 2


def test_texts_with_spans_teach_what_words_with_tags_do(tmp_path, bases):
    model = model_with(bases["modernbert"])
    given = [{"text": spans_of(row)[0], "spans": spans_of(row)[1]} for row in TAGGED]
    found = [
        list(task_of().examples(rows_of(tmp_path, rows), model, 64, Notes())) for rows in (TAGGED, given)
    ]
    for one, other in zip(*found, strict=True):
        assert one.sequences == other.sequences
        assert np.array_equal(one.targets, other.targets)


@given(st.lists(st.sampled_from(LABELS), min_size=1, max_size=12))
def test_spans_and_tags_are_the_same_thing(tags):
    """But for an I- that opens an entity, which becomes its B-."""
    words = ["w"] * len(tags)
    _, spans = spans_of({"words": words, "tags": tags})
    again, num_cut = tags_of_spans(word_spans(words), spans)
    assert num_cut == 0
    assert spans_of({"words": words, "tags": again})[1] == spans
    assert all(one.lstrip("BI") == other.lstrip("BI") for one, other in zip(tags, again, strict=True))


@settings(deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=9))
)
def test_figures_are_those_of_seqeval(sentences):
    """Also where tags are against IOB2."""
    gold, given_ = [[[pair[side] for pair in each] for each in sentences] for side in (0, 1)]
    pairs = [
        tuple(
            {
                (s["label"], s["start"], s["end"])
                for s in spans_of({"words": ["w"] * len(tags), "tags": tags})[1]
            }
            for tags in both
        )
        for both in zip(gold, given_, strict=True)
    ]
    whole, each = count(pairs)
    if not any(tag != "O" for side in (gold, given_) for tags in side for tag in tags):
        assert each == {}
        assert whole.f1 == 0.0
        return
    wanted = classification_report(gold, given_, output_dict=True, zero_division=0)
    assert each.keys() == wanted.keys() - {"micro avg", "macro avg", "weighted avg"}
    for name, found in (*each.items(), ("micro avg", whole)):
        numbers = (found.precision, found.recall, found.f1, found.support)
        names = ("precision", "recall", "f1-score", "support")
        assert numbers == pytest.approx([wanted[name][key] for key in names])
    assert figures(whole, each)["macro_f1"] == pytest.approx(wanted["macro avg"]["f1-score"])


def test_the_loss_is_a_sum_over_words_and_packing_changes_nothing(tmp_path, bases):
    model = model_with(bases["modernbert"])
    task = task_of(label_smoothing=0.1)
    examples = list(task.examples(rows_of(tmp_path, TAGGED), model, 64, Notes()))
    module = model.module.eval().requires_grad_(False)
    whole = task.loss(module, *task.inputs(examples), backend="auto")
    alone = [float(task.loss(module, *task.inputs([each]), backend="auto")) for each in examples]
    assert float(whole) == pytest.approx(sum(alone), abs=TOLERANCE)
    logits = module(pack_examples(examples))
    targets = np.concatenate([each.targets for each in examples])
    places = np.flatnonzero(targets >= 0)
    wanted = functional.cross_entropy(
        logits[places], torch.tensor(targets[places]), reduction="sum", label_smoothing=0.1
    )
    assert float(whole) == pytest.approx(float(wanted), abs=TOLERANCE)
    assert sum(each.weight for each in examples) == len(places)


def test_mistakes_are_told_apart():
    wanted = {("PER", 0, 4), ("LOC", 10, 14), ("LOC", 20, 28), ("ORG", 30, 34), ("PER", 40, 44)}
    given_ = {("PER", 0, 4), ("ORG", 10, 14), ("LOC", 20, 24), ("PER", 32, 38), ("LOC", 50, 54)}
    assert [(kind, one, other) for kind, one, other in tag_scores.mistakes(wanted, given_)] == [
        ("another label", ("LOC", 10, 14), ("ORG", 10, 14)),
        ("other bounds", ("LOC", 20, 28), ("LOC", 20, 24)),
        ("another label and other bounds", ("ORG", 30, 34), ("PER", 32, 38)),
        ("missed", ("PER", 40, 44), None),
        ("found where there is none", None, ("LOC", 50, 54)),
    ]


def test_known_names_are_looked_up_longest_first_and_only_with_one_label(tmp_path):
    train = rows_of(
        tmp_path,
        [
            {"words": ["New", "York"], "tags": ["B-LOC", "I-LOC"]},
            {"words": ["York", "Paris", "Paris"], "tags": ["B-LOC", "B-PER", "B-LOC"]},
        ],
    )
    held = rows_of(tmp_path, [{"text": "New York, York and Paris", "spans": []}], "held.jsonl")
    ((wanted, found),) = tag_scores.known_names(train, held)
    assert wanted == set()
    assert found == {("LOC", 0, 8), ("LOC", 10, 14)}


def sentences(num, seed=0):
    """Words of praise and blame are names here; two in a row are one entity."""
    draw = random.Random(seed)
    rows = []
    for _ in range(num):
        words, tags = [], []
        for _ in range(draw.randint(3, 8)):
            if draw.random() < 0.35:
                label, names = draw.choice((("GOOD", GOOD), ("BAD", BAD)))
                size = draw.randint(1, 2)
                words += draw.sample(names, size)
                tags += [f"B-{label}", f"I-{label}"][:size]
                words.append(draw.choice(FILLING))
                tags.append("O")
            else:
                words.append(draw.choice(FILLING))
                tags.append("O")
        rows.append({"tokens": words, "tags": tags})
    return rows


def test_a_tiny_model_learns_to_find_names(tmp_path, bases):
    rows = [{"words": row["tokens"], "tags": row["tags"]} for row in sentences(250)]
    train, held = rows_of(tmp_path, rows[:200]), rows_of(tmp_path, rows[200:], "held.jsonl")
    task = Tag().prepare(Parts(train=train, dev=None, test=None), Notes())
    model = model_with(bases["modernbert"], task.labels)
    assert task.evaluate(model, held).figures["f1"] < 0.3
    examples = list(task.examples(train, model, 64, Notes()))
    learn(task, model, examples)
    assert task.evaluate(model, held).figures["f1"] > 0.8


@pytest.fixture(scope="session")
def finished(tmp_path_factory, bases):
    return finetuned(Tag(), tmp_path_factory.mktemp("tagging"), bases["modernbert"], sentences)


def test_a_file_of_tagged_words_becomes_a_folder_with_predictions_and_a_report(finished):
    rows = [json.loads(line) for line in (finished / "predictions.jsonl").read_text().splitlines()]
    model = load(finished, dtype="float32", device="cpu")
    for row, entities in zip(rows, model.tag([row["words"] for row in rows]), strict=True):
        assert [(each["label"], each["start"], each["end"]) for each in row["predicted"]] == [
            (each.label, each.start, each.end) for each in entities
        ]
        assert all(row["text"][each["start"] : each["end"]] == each["text"] for each in row["predicted"])
        assert tags_of_spans(word_spans(row["words"]), row["wanted"])[0] == row["tags"]
    report = (finished / "report.md").read_text()
    for words in ("this model, test", "names known from training, test", "## Label by label", "## What went"):
        assert words in report
    assert (finished / "labels.png").exists()
    first = json.loads((finished / "evaluations.jsonl").read_text().splitlines()[0])
    assert first["step"] == 0
    assert first["loss_per"] == "word"
    assert "f1" in first["sources"]["dev"]


@pytest.mark.filterwarnings("ignore:learning brought nothing better")
@pytest.mark.parametrize("limit", [None, 24])
def test_the_folder_keeps_the_length_that_was_learned_with(tmp_path, bases, limit):
    """Of a limit that the base has, and of one that the user names."""
    base = read_folder(bases["modernbert"])
    base.settings = replace(base.settings, max_seq_length=40)
    write_folder(tmp_path / "base", base)
    settings = replace(SHORT, max_length=limit)
    made = finetuned(Tag(), tmp_path, tmp_path / "base", sentences, settings)
    assert load(made).max_length == (limit or 40)


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_transformers_gives_the_same_scores(tmp_path, bases, family):
    model = model_with(bases[family])
    model.save(tmp_path / "tagger")
    theirs = AutoModelForTokenClassification.from_pretrained(tmp_path / "tagger").eval()
    assert [theirs.config.id2label[number] for number in range(5)] == list(LABELS)
    examples = list(task_of().examples(rows_of(tmp_path, TAGGED), model, 64, Notes()))
    with torch.no_grad():
        ours = model.module.eval()(pack_examples(examples))
        wanted = torch.cat(
            [
                theirs(
                    input_ids=torch.tensor([sequence.token_ids]),
                    **({"token_type_ids": torch.tensor([sequence.token_types])} if family == "bert" else {}),
                ).logits[0]
                for each in examples
                for sequence in each.sequences
            ]
        )
    assert float((ours - wanted).abs().max()) < TOLERANCE
