"""The verbs finetune and distill: from a table to a folder that other verbs take; wrong calls."""

import json

import pytest

from modernbert.cli.finetune import OPTIMIZERS, TRAINING
from modernbert.training.finetuning import Finetuning


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "reviews.csv"
    rows = [
        (f"the {word} {name} sat in london .", word)
        for word in ("good", "bad")
        for name in ("cat", "dog", "rain")
    ]
    lines = [f"{text} {'a ' * number},{label}" for number in range(8) for text, label in rows]
    path.write_text("review,stars\n" + "\n".join(lines) + "\n")
    return path


def finetune(run, table, out, *options):
    words = ("--text", "review", "--label", "stars", "--out", str(out), "--device", "cpu", "--epochs", "1")
    return run("finetune", "classify", str(table), *words, *options, kind="mlm")


def test_a_table_becomes_a_model_that_the_other_verbs_take(run, table, tmp_path):
    done = finetune(run, table, tmp_path / "stars", "--lr", "1e-3")
    assert done.exit_code == 0, done.stderr
    assert f"{tmp_path / 'stars'} is a model folder; read {tmp_path / 'stars' / 'report.md'}" in done.stderr
    asked = run("classify", "--model", str(tmp_path / "stars"), "--json", "a good cat")
    assert json.loads(asked.stdout)["label"] in ("good", "bad")


@pytest.mark.filterwarnings("default:.*texts are longer", "default:learning brought nothing better")
def test_options_reach_the_recipe_and_what_is_cut_is_said_at_once(run, table, tmp_path):
    options = (
        *(
            "--optimizer",
            "adopt",
            "--weight-decay",
            "0.5",
            "--layer-decay",
            "0.9",
            "--freeze",
            "1",
            "--seed",
            "3",
        ),
        *(
            "--batch-size",
            "4",
            "--warmup",
            "0.2",
            "--max-length",
            "12",
            "--pack-tokens",
            "64",
            "--patience",
            "0",
        ),
        *("--balanced", "--label-smoothing", "0.1", "--dev-share", "0.2", "--test-share", "0"),
    )
    done = finetune(run, table, tmp_path / "out", *options)
    assert done.exit_code == 0
    assert "warning: train: 18 texts are longer than 12 tokens; 43 tokens at their ends were" in done.stderr
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    settings = recipe["settings"]
    assert settings["optimizer"] == {**settings["optimizer"], "is": "AdoptConfig", "weight_decay": 0.5}
    wanted = {"layer_decay": 0.9, "num_frozen_layers": 1, "seed": 3, "batch_size": 4, "warmup_share": 0.2}
    wanted |= {"max_length": 12, "pack_tokens": 64, "patience": None, "epochs": 1}
    assert wanted.items() <= settings.items()
    assert recipe["task"]["class_weights"] == "balanced"
    assert recipe["task"]["label_smoothing"] == 0.1
    assert (recipe["data"]["dev_share"], recipe["data"]["test_share"]) == (0.2, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--multi-label", "--regression"), "exclude each other"),
        (("--sweep", "speed=1,2"), "is not NAME=VALUE,VALUE with a name of lr, epochs"),
        (("--epochs", "0"), "--epochs 0 cannot be: it must be 1 or more"),
        (("--lr", "0"), "--lr 0.0 cannot be: it must be above 0"),
        (("--lr", "-1"), "--lr -1.0 cannot be"),
        (("--lr", "nan"), "--lr nan cannot be"),
        (("--warmup", "1"), "--warmup 1.0 cannot be: it must be 0 or more and below 1"),
        (("--max-length", "0"), "--max-length 0 cannot be"),
        (("--max-length", "9999"), "--max-length 9999 is more than the 64 tokens"),
        (("--freeze", "-1"), "--freeze -1 cannot be"),
        (("--freeze", "9"), "--freeze 9 is more than the 2 layers"),
        (("--patience", "-1"), "--patience -1 cannot be"),
        (("--seed", "-1"), "--seed -1 cannot be"),
        (("--adapt", "-1"), "--adapt -1 cannot be"),
        (("--weight-decay", "nan"), "--weight-decay nan cannot be"),
        (("--label-smoothing", "2"), "--label-smoothing 2.0 cannot be"),
        (("--dev-share", "1"), "--dev-share and --test-share are shares of the rows"),
        (("--sweep", "freeze=0,-1"), "--freeze -1 cannot be"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(run, table, tmp_path, options, message):
    result = finetune(run, table, tmp_path / "out", *options)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_options_are_those_of_the_settings():
    known = set(Finetuning.__dataclass_fields__)
    silent = {"precision", "save_every_tokens", "max_grad_norm"}
    assert TRAINING & known == known - silent
    assert len(set(OPTIMIZERS)) == 4


def test_distill_makes_a_model_with_vectors_of_the_teachers_size(run, table, folders, tmp_path):
    done = run(
        *(
            "distill",
            str(folders["embed"]),
            "--to",
            str(folders["mlm"]),
            "--texts",
            str(table),
            "--text",
            "review",
        ),
        *("--out", str(tmp_path / "out"), "--epochs", "1", "--device", "cpu"),
    )
    assert done.exit_code == 0, done.stderr
    asked = run("embed", "--model", str(tmp_path / "out"), "--json", "a good cat")
    assert len(json.loads(asked.stdout)["embedding"]) == 16
