"""What a user can get wrong: one clear message on stderr, the exit code, and no traceback."""

import json

import pytest
import torch

from modernbert import bundled
from modernbert.cli import ask, models, verbs
from modernbert.cli.finetune import finetune
from modernbert.cli.output import in_options
from modernbert.errors import InputError
from tests.cli.conftest import assert_fails


def test_without_a_bundled_model_one_must_be_named(run, monkeypatch):
    monkeypatch.setattr(bundled, "names", lambda: ())
    assert_fails(run("embed", "rain"), "no model is named", "--model", "answerdotai/ModernBERT-base", code=2)
    assert_fails(run("info"), "no model is named", code=2)


def test_the_bundled_model_is_the_default(run, monkeypatch, folders):
    monkeypatch.setattr(bundled, "names", lambda: ("small",))
    monkeypatch.setattr(bundled, "path", lambda name: folders["embed"])
    assert run("embed", "rain").exit_code == 0
    assert "embed, similarity" in run("info").stdout


def test_an_unknown_model_says_so(run, tmp_path):
    assert_fails(run("embed", "rain", "--model", str(tmp_path / "no")), "there is no folder")
    assert_fails(run("embed", "rain", "--model", "./no/such"), "there is no folder './no/such'")
    assert_fails(run("embed", "rain", "--model", str(tmp_path)), "config.json")
    assert_fails(run("embed", "rain", "--model", "some/model", "--offline"), "not in the cache")


@pytest.mark.parametrize(
    ("verb", "arguments", "kind", "instead"),
    [
        ("fill-mask", ["a [MASK]"], "classify", "a classifier of bad, fair, good. It can: classify"),
        ("embed", ["a"], "tag", "a tagger of O, B-PER, I-PER. It can: tag"),
        ("classify", ["a"], "mlm", "a masked language model. It can: fill-mask, embed, similarity"),
        ("rerank", ["a", "b"], "classify", "It can: classify"),
        ("tag", ["a"], "span", "a finder of answers. It can: answer"),
        ("answer", ["a", "--context", "b"], "embed", "It can: embed, similarity"),
        ("similarity", ["a", "b"], "rerank", "It can: rerank, classify"),
    ],
)
def test_a_wrong_verb_says_what_the_folder_can_do(run, verb, arguments, kind, instead):
    assert_fails(run(verb, *arguments, kind=kind), f"cannot {verb}", instead)


def test_a_text_without_a_mask(run):
    assert_fails(run("fill-mask", "the cat sat", kind="mlm"), "no [MASK]", "the cat sat")


def test_unknown_dtype_device_and_backend(run):
    assert_fails(run("embed", "a", "--dtype", "int3", kind="embed"), "int3", "bfloat16", code=2)
    assert_fails(run("embed", "a", "--device", "toaster", kind="embed"), "toaster", "cpu")
    assert_fails(run("embed", "a", "--backend", "magic", kind="embed"), "magic", "sdpa")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(run):
    assert_fails(run("embed", "a", "--device", "cuda", kind="embed"), "0 CUDA device(s)", "--device cpu")


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["fill-mask", "a [MASK]", "--top-k", "0"], "mlm"),
        (["embed", "a", "--dimensions", "99"], "embed"),
        (["embed", "a", "--max-length", "0"], "embed"),
        (["embed", "a", "--prompt", "nonsense"], "embed"),
        (["answer", "a", "--context", "b", "--top-k", "0"], "span"),
    ],
)
def test_numbers_and_names_that_make_no_sense(run, arguments, kind):
    assert_fails(run(*arguments, kind=kind), "modernbert: error: ", arguments[-1])


def test_a_long_text_follows_overflow(run):
    text = " ".join(["rain"] * 100)
    assert run("embed", text, kind="embed").exit_code == 0
    assert_fails(run("embed", text, "--overflow", "error", kind="embed"), "longer than 64 tokens")
    assert_fails(run("embed", text, "--overflow", "fold", kind="embed"), "fold", "windows", code=2)


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_on_stderr(run):
    result = run("embed", " ".join(["rain"] * 100), "--overflow", "truncate", "--json", kind="embed")
    assert len(json.loads(result.stdout)["embedding"]) == 16
    said = "modernbert: warning: texts cut to 64 tokens: 1; 38 tokens were left out\n"
    assert result.stderr == said


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("verb", "kind"), [("embed", "embed"), ("classify", "classify")])
def test_a_run_of_many_windows_tells_once_how_many_texts_were_cut(run, verb, kind):
    lines = "\n".join([" ".join(["rain"] * 100)] * 90 + ["wet"] * 40)
    result = run(verb, "--overflow", "truncate", "--json", kind=kind, input=lines)
    assert len(result.stdout.splitlines()) == 130
    said = f"modernbert: warning: texts cut to 64 tokens: 90; {90 * 38} tokens were left out\n"
    assert result.stderr == said


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("use device='cpu'", "use --device cpu"),
        ("load it with dtype='float32', or", "load it with --dtype float32, or"),
        ("overflow='truncate' cuts; max_length=500 is", "--overflow truncate cuts; --max-length 500 is"),
        ("max_length=-1 cannot be", "--max-length -1 cannot be"),
        ("raise max_length. It is", "raise --max-length. It is"),
        ("no column 'max_length' in a/max_length.csv", "no column 'max_length' in a/max_length.csv"),
        ("special_tokens='parse' and max_seqlen=5 stay", "special_tokens='parse' and max_seqlen=5 stay"),
    ],
)
def test_messages_speak_in_the_options_of_the_verb(message, said):
    assert in_options(message, verbs.commands["embed"]) == said
    assert in_options(message, None) == message


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("learning_rate=-0.1 cannot be", "--lr -0.1 cannot be"),
        ("warmup_share=1e-05 and num_frozen_layers=2.", "--warmup 1e-05 and --freeze 2."),
        ("learning_rate=nan", "--lr nan"),
        ("dev_share and test_share are", "--dev-share and --test-share are"),
    ],
)
def test_options_of_other_names_than_their_arguments_are_said_too(message, said):
    assert in_options(message, finetune.commands["classify"]) == said


def test_names_to_allow_are_said_as_options():
    said = in_options("allow=['numpy.dtype', 'a b'] puts", verbs.commands["convert"])
    assert said == "--allow numpy.dtype --allow 'a b' puts"
    assert in_options("with to='parts': no", verbs.commands["convert"]) == "with --to parts: no"


def test_a_revision_of_a_folder_has_no_effect_and_says_so(run):
    assert "--revision v1 has no effect" in run("embed", "a", "--revision", "v1", kind="embed").stderr


def test_ctrl_c_is_quiet_and_exits_130(run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ask, "load_for", interrupted)
    result = run("tag", "a", kind="tag")
    assert (result.exit_code, result.output) == (130, "")


def test_debug_shows_the_traceback(run, folders):
    call = ("tag", "", "--model", str(folders["tag"]))
    assert isinstance(run("--debug", *call).exception, InputError)
    assert isinstance(run(*call, env={"MODERNBERT_DEBUG": "1"}).exception, InputError)


def test_an_error_of_the_package_is_no_message(run, monkeypatch):
    monkeypatch.setattr(ask, "load_for", lambda *_: 1 / 0)
    assert isinstance(run("tag", "a", kind="tag").exception, ZeroDivisionError)


def test_colour_is_for_terminals_and_follows_no_color(run):
    coloured = run("embed", "rain", kind="embed", color=True)
    assert "\x1b[" in coloured.stdout
    assert "\x1b[" not in run("embed", "rain", kind="embed", color=True, env={"NO_COLOR": "1"}).stdout
    assert "\x1b[" not in run("embed", "rain", kind="embed").stdout


@pytest.mark.parametrize("verb", sorted(verbs.commands))
def test_every_verb_has_help(run, verb):
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert f"Usage: modernbert {verb}" in result.stdout
    assert f"modernbert {verb} " in result.stdout.split("Options:")[0].partition("\n")[2], "an example"
    for option in verbs.commands[verb].params:
        assert option.param_type_name == "argument" or option.help, f"{verb}: {option.name} says nothing"


def test_unknown_verbs_and_options_are_wrong_calls(run):
    assert_fails(run("dance"), "No such command 'dance'", code=2)
    assert_fails(run("embed", "--louder"), "No such option", code=2)


def test_the_choices_here_are_those_of_the_package():
    from typing import get_args

    from modernbert.cli import folders
    from modernbert.inference.long_texts import Overflow
    from modernbert.kernels.hardware import DTYPES
    from modernbert.pretrained.convert import FORMS

    assert ("auto", *DTYPES, "int8") == models.DTYPES
    assert get_args(Overflow) == models.OVERFLOWS
    assert folders.FORMS == FORMS


@pytest.mark.parametrize("task", sorted(finetune.commands))
def test_the_examples_of_a_task_name_a_model(task):
    """Without a bundled model they would fail as they stand."""
    examples = [line for line in finetune.commands[task].help.splitlines() if "modernbert finetune" in line]
    assert examples
    assert all("--model " in line for line in examples)
