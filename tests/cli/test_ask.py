"""Each verb that asks a model: what a person sees and what --json gives are the model's own numbers."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import modernbert
from modernbert.pretrained.folder import write_folder
from tests.cli.conftest import assert_fails, json_lines


@pytest.fixture(scope="module")
def model(folders):
    return {kind: modernbert.load(folder, dtype="float32") for kind, folder in folders.items()}


def test_fill_mask_prints_the_candidates_of_each_text(run, model):
    result = run("fill-mask", "the [MASK] sat .", "[MASK] is [MASK]", "--top-k", "2", kind="mlm")
    lines = result.stdout.splitlines()
    assert lines[0] == "the [MASK] sat ."
    assert lines[1].split()[:2] == [
        f"{model['mlm'].fill_mask('the [MASK] sat .')[0].score:.3f}",
        model["mlm"].fill_mask("the [MASK] sat .")[0].token,
    ]
    assert lines[4].startswith("  mask 1")
    assert len(lines) == 1 + 2 + 1 + 4


def test_fill_mask_gives_json_lines(run, model):
    row, other = json_lines(
        run("fill-mask", "the [MASK] sat", "a [MASK]", "--json", "--dtype", "float32", kind="mlm")
    )
    expected = model["mlm"].fill_mask("the [MASK] sat")
    assert [fill["token"] for fill in row["fills"]] == [fill.token for fill in expected]
    assert row["fills"][0]["score"] == pytest.approx(expected[0].score)
    assert other["text"] == "a [MASK]"


def test_embed_prints_the_first_numbers(run):
    result = run("embed", "the cat", "a dog", kind="embed")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "the cat"
    assert "16 numbers, length 1.000:" in result.stdout.splitlines()[1]
    assert result.stderr == ""


def test_embed_gives_the_numbers_of_the_model_as_json(run, model):
    rows = json_lines(
        run("embed", "the cat", "--prompt", "query", "--json", "--dtype", "float32", kind="embed")
    )
    expected = model["embed"].embed(["the cat"], prompt="query")[0]
    np.testing.assert_allclose(rows[0]["embedding"], expected, atol=1e-6)


def test_embed_writes_an_array(run, model, tmp_path):
    out = tmp_path / "vectors.npy"
    result = run("embed", "the cat", "a dog", "--out", str(out), "--dtype", "float32", kind="embed")
    assert result.stdout == ""
    assert "2 vectors of 16 numbers, float32" in result.stderr
    np.testing.assert_allclose(np.load(out), model["embed"].embed(["the cat", "a dog"]), atol=1e-6)
    assert list(tmp_path.iterdir()) == [out]


def test_embed_keeps_the_first_dimensions(run):
    row = json_lines(run("embed", "the cat", "--dimensions", "4", "--json", kind="embed"))[0]
    assert len(row["embedding"]) == 4


def test_embed_refuses_an_out_it_does_not_write(run, tmp_path):
    assert_fails(run("embed", "a", "--out", "v.csv", kind="embed"), "*.npy", "v.csv", code=2)
    assert_fails(run("embed", "a", "--out", "v.npy", "--json", kind="embed"), "choose one", code=2)


def test_a_place_that_cannot_be_written_is_named_before_a_model_is_loaded(run, tmp_path):
    nowhere = ("--model", "no/such/folder")
    out, plot, checkpoint = (str(tmp_path / "no" / name) for name in ("v.npy", "map.png", "r.pt"))
    for call in (("embed", "a", "--out", out), ("similarity", "a", "b", "--plot", plot)):
        assert_fails(run(*call, *nowhere), call[-1], f"there is no folder {tmp_path / 'no'}; make it first")
    converted = run("convert", "no/such/folder", checkpoint, "--to", "research")
    assert_fails(converted, checkpoint, "there is no folder", "make it first")


def test_two_texts_have_one_similarity(run, model):
    result = run("similarity", "the cat", "a dog", "--dtype", "float32", kind="embed")
    assert result.stdout == f"{model['embed'].similarity(['the cat'], ['a dog'])[0, 0]:.3f}\n"


def test_similarities_of_all_with_all_are_a_table_and_json_has_each_pair_once(run):
    table = run("similarity", "the cat", "a dog", "rain", kind="embed").stdout.splitlines()
    assert len(table) == 4
    assert table[1].split()[:2] == ["1", "1.000"]
    assert table[1].endswith("the cat")
    rows = json_lines(run("similarity", "the cat", "a dog", "rain", "--json", kind="embed"))
    assert [(row["text_a"], row["text_b"]) for row in rows] == [
        ("the cat", "a dog"),
        ("the cat", "rain"),
        ("a dog", "rain"),
    ]


def test_similarity_against_a_file(run, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("a dog\nrain\n")
    rows = json_lines(run("similarity", "the cat", "--against", str(other), "--json", kind="embed"))
    assert [row["text_b"] for row in rows] == ["a dog", "rain"]
    assert "columns" in run("similarity", "the cat", "--against", str(other), kind="embed").stdout
    assert_fails(run("similarity", "the cat", kind="embed"), "nothing to compare it with")


def test_field_is_for_the_texts_and_for_the_file_they_are_compared_with(run, tmp_path):
    texts, other = tmp_path / "texts.jsonl", tmp_path / "other.jsonl"
    texts.write_text('{"body": "the cat"}\n')
    other.write_text('{"body": "a dog"}\n{"body": "rain"}\n')
    call = ("similarity", "--file", str(texts), "--against", str(other), "--field", "body", "--json")
    rows = json_lines(run(*call, kind="embed"))
    assert [(row["text_a"], row["text_b"]) for row in rows] == [("the cat", "a dog"), ("the cat", "rain")]


def test_similarity_draws_a_heat_map(run, tmp_path):
    plot = tmp_path / "map.png"
    assert run("similarity", "the cat", "a dog", "--plot", str(plot), kind="embed").exit_code == 0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_rerank_orders_the_documents(run, model):
    documents = ["the dog", "ada lives in london", "rain"]
    rows = json_lines(run("rerank", "where", *documents, "--json", "--dtype", "float32", kind="rerank"))
    expected = model["rerank"].rerank("where", documents)
    assert [row["index"] for row in rows] == [each.index for each in expected]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    best = run("rerank", "where", *documents, "--top-k", "1", kind="rerank").stdout.splitlines()
    assert len(best) == 1
    assert best[0].endswith(expected[0].document)


def test_classify_texts_and_pairs(run, model):
    row = json_lines(run("classify", "good cat", "--json", "--dtype", "float32", kind="classify"))[0]
    expected = model["classify"].classify(["good cat"])[0]
    assert row["label"] == expected.label
    assert row["scores"] == pytest.approx(expected.scores)
    pair = json_lines(run("classify", "--pair", "rain", "wet", "--json", kind="classify"))[0]
    assert (pair["text_a"], pair["text_b"]) == ("rain", "wet")
    shown = run("classify", "--pair", "rain", "wet", "--top-k", "1", kind="classify").stdout.splitlines()
    assert shown[0] == "rain | wet"
    assert len(shown) == 2


def test_classify_reads_pairs_from_json_lines_and_from_columns(run, tmp_path):
    rows, columns = tmp_path / "pairs.jsonl", tmp_path / "pairs.tsv"
    rows.write_text(json.dumps({"premise": "rain", "guess": "wet"}) + "\n")
    columns.write_text("rain\twet\n")
    fields = ("--field", "premise", "--pair-field", "guess")
    by_field = run("classify", "--file", str(rows), *fields, "--json", kind="classify")
    by_tab = run("classify", "--file", str(columns), "--tabs", "--json", kind="classify")
    assert json_lines(by_field) == json_lines(by_tab)
    assert_fails(
        run("classify", "a", "--pair", "b", "c", kind="classify"), "texts and pairs go apart", code=2
    )
    assert_fails(run("classify", "a", "--tabs", kind="classify"), "texts and pairs go apart")
    columns.write_text("rain and no tab\n")
    assert_fails(run("classify", "--file", str(columns), "--tabs", kind="classify"), "line 1", "one tab")


@pytest.fixture(scope="module")
def with_prompts(folders, tmp_path_factory):
    """A cross-encoder and a classifier with a prompt, each as a folder."""
    found = {}
    for kind in ("rerank", "classify"):
        pretrained = modernbert.load(folders[kind]).pretrained
        found[kind] = tmp_path_factory.mktemp("prompts") / kind
        settings = replace(pretrained.settings, prompts={"ask": "who lives "})
        write_folder(found[kind], replace(pretrained, settings=settings))
    return found


def test_rerank_and_classify_put_a_prompt_before_the_text(run, with_prompts):
    exactly = ("--dtype", "float32", "--json", "--model")
    asked = ("in london", "ada is good", "the cat sat")
    found, plain, written = (
        json_lines(run("rerank", query, *asked[1:], *prompt, *exactly, str(with_prompts["rerank"])))
        for query, prompt in (
            ("in london", ("--prompt", "ask")),
            ("in london", ()),
            ("who lives in london", ()),
        )
    )
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in written])
    assert [row["score"] for row in found] != pytest.approx([row["score"] for row in plain])
    folder = str(with_prompts["classify"])
    labels = json_lines(run("classify", "in london", "--prompt", "ask", *exactly, folder))[0]["scores"]
    assert labels == pytest.approx(
        json_lines(run("classify", "who lives in london", *exactly, folder))[0]["scores"]
    )


@pytest.mark.parametrize("call", [("rerank", "a", "b"), ("classify", "a")])
def test_a_prompt_that_a_folder_lacks_names_those_it_has(run, with_prompts, call):
    result = run(*call, "--prompt", "nonsense", "--model", str(with_prompts[call[0]]))
    assert_fails(result, "no prompt 'nonsense'; its prompts are: 'ask'")


def test_tag_prints_entities_with_their_places(run, model):
    text = "Ada lives in London , who sat ?"
    row = json_lines(run("tag", text, "--json", "--dtype", "float32", kind="tag"))[0]
    expected = model["tag"].tag([text])[0]
    assert [each["text"] for each in row["entities"]] == [each.text for each in expected]
    assert all(text[each["start"] : each["end"]] == each["text"] for each in row["entities"])
    shown = run("tag", text, kind="tag").stdout.splitlines()
    assert shown[0] == text
    assert len(shown) == 1 + max(1, len(expected))


def test_tag_takes_words(run):
    row = json_lines(run("tag", "Ada  lives   in", "--words", "--json", kind="tag"))[0]
    assert row["text"] == "Ada lives in"


def test_answer_finds_a_stretch_of_the_context(run, model, tmp_path):
    context = "ada lives in london , the cat sat"
    row = json_lines(run("answer", "who", "--context", context, "--json", "--dtype", "float32", kind="span"))[
        0
    ]
    assert row["text"] == model["span"].answer("who", context).text
    assert context[row["start"] : row["end"]] == row["text"]
    file = tmp_path / "context.txt"
    file.write_text(context)
    for source in (("--context-file", str(file)), ("--context-file", "-"), ()):
        result = run("answer", "who", *source, "--top-k", "3", kind="span", input=context)
        assert len(result.stdout.splitlines()) == 3
        assert row["text"] in result.stdout.splitlines()[0]
    both = run("answer", "who", "--context", context, "--context-file", str(file), kind="span")
    assert_fails(both, "choose one", code=2)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_places_of_answers_are_those_of_the_files_characters(run, tmp_path, line_end, mark):
    content = mark + line_end.join(["", "ada lives", "in london ,", "", "the cat", "sat"]) + line_end
    file = tmp_path / "context.txt"
    file.write_bytes(content.encode())
    rows = json_lines(
        run("answer", "who", "--context-file", str(file), "--top-k", "99", "--json", kind="span")
    )
    assert len(rows) > 20
    for row in rows:
        assert content[row["start"] : row["end"]] == row["text"]
        assert "\ufeff" not in row["text"]


def test_numbers_that_are_none_are_an_error_and_not_json(run, folders, tmp_path):
    folder = shutil.copytree(folders["embed"], tmp_path / "nan")
    tensors = load_file(folder / "model.safetensors")
    tensors["final_norm.weight"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    result = run("embed", "rain", "--json", "--model", str(folder))
    assert_fails(result, "for text 0 the model gives NaN", "info --check", "--dtype float32")
