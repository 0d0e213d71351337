"""Real results: one model on every labelled set of the data root, over seeds: docs/results.md.

Runs are kept in --out and go on where they were stopped; those in results/task_results.json are done. That
file and the table are written anew after each run. Scores do not depend on the processor but by rounding:
rows of several stand side by side, each with its own.

    python benchmarks/task_results.py --model MODEL --name minilm --data DATA/data
    python benchmarks/task_results.py --list                    the sets, and what each run is asked to do
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import RESULTS, processor_name

from modernbert.files import write_atomic
from modernbert.training.finetune_run import Sources, finetune
from modernbert.training.finetuning import Finetuning
from modernbert.training.tasks.answer import FindAnswers
from modernbert.training.tasks.classify import Classify
from modernbert.training.tasks.tag import Tag
from modernbert.training.tasks.task import TaskConfig

PAGE = Path(__file__).parent.parent / "docs" / "results.md"
PATH = RESULTS / "task_results.json"
BASELINE = "TF-IDF and a linear model"
PAIRS = {"text": "text_a", "second": "text_b"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Set:
    """A data set: its folder, the task, the figures that count, and how it is learned."""

    folder: str
    task: TaskConfig
    figures: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    also: Callable[[list[dict[str, Any]]], dict[str, float]] | None = None  # figures of the predictions


def in_and_out_of_scope(rows: list[dict[str, Any]]) -> dict[str, float]:
    """CLINC150: accuracy on questions of an intent, and how many of the others are told from them."""
    is_right = [(row["label"] == "oos", row["predicted"] == row["label"]) for row in rows]
    parts = {
        name: [right for is_out, right in is_right if is_out == wanted]
        for name, wanted in (("in-scope accuracy", False), ("out-of-scope recall", True))
    }
    return {name: sum(found) / max(len(found), 1) for name, found in parts.items()}


def f1_of(label: str) -> Callable[[list[dict[str, Any]]], dict[str, float]]:
    """F1 of one class."""

    def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
        right = sum(row["label"] == row["predicted"] == label for row in rows)
        total = sum((row["label"] == label) + (row["predicted"] == label) for row in rows)
        return {f"F1 of {label}": 2 * right / max(total, 1)}

    return figures


SETS: Mapping[str, Set] = {
    "sst2": Set(folder="classification/sst2", task=Classify(), figures=("accuracy",)),
    "trec": Set(folder="classification/trec", task=Classify(), figures=("accuracy",), settings={"epochs": 5}),
    "sms_spam": Set(
        folder="classification/sms_spam", task=Classify(), figures=("macro_f1",), also=f1_of("spam")
    ),
    "clinc150": Set(
        folder="classification/clinc150",
        task=Classify(),
        figures=("accuracy",),
        settings={"epochs": 5},
        also=in_and_out_of_scope,
    ),
    "cinexio_bg": Set(folder="classification/cinexio_bg", task=Classify(), figures=("macro_f1", "accuracy")),
    "movies, 512": Set(
        folder="classification/movie_reviews_long",
        task=Classify(),
        figures=("accuracy",),
        settings={"epochs": 6, "batch_size": 8, "max_length": 512},
    ),
    "movies, 2048": Set(
        folder="classification/movie_reviews_long",
        task=Classify(),
        figures=("accuracy",),
        settings={"epochs": 6, "batch_size": 8, "max_length": 2048},
    ),
    "stsb": Set(
        folder="pairs/stsb",
        task=Classify(**PAIRS, label="score", problem="regression"),
        figures=("spearman", "pearson"),
    ),
    "rte": Set(folder="pairs/rte", task=Classify(**PAIRS), figures=("accuracy",), settings={"epochs": 5}),
    "mrpc": Set(folder="pairs/mrpc", task=Classify(**PAIRS), figures=("accuracy",), also=f1_of("equivalent")),
    "conll2003": Set(folder="tokens/conll2003", task=Tag(), figures=("f1",), settings={"epochs": 5}),
    "wnut17": Set(folder="tokens/wnut17", task=Tag(), figures=("f1",), settings={"epochs": 5}),
    "ner_bg": Set(folder="tokens/ner_bg_bsnlp", task=Tag(), figures=("f1",), settings={"epochs": 5}),
    "squad2_half": Set(
        folder="answers/squad2_half", task=FindAnswers(), figures=("f1", "exact"), settings={"batch_size": 16}
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="the model to begin with")
    parser.add_argument("--name", help="what the table calls it")
    parser.add_argument(
        "--data", type=Path, help="the folder with classification/, pairs/, tokens/, answers/"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list:
        for name, each in SETS.items():
            print(f"{name:<14}{each.folder:<36}{dict(each.settings)}")
        return
    if None in (arguments.model, arguments.name, arguments.data):
        parser.error("--model, --name and --data are needed")
    for seed in range(arguments.seeds):
        for name in arguments.only:
            run(arguments, name, seed)
            write_page()


def run(arguments: argparse.Namespace, name: str, seed: int) -> None:
    """One fine-tuning, and its figures among the results."""
    key = {"model": arguments.name, "set": name, "seed": seed}
    rows = known_rows()
    if any(key.items() <= row.items() for row in rows):
        return
    each = SETS[name]
    folder = arguments.data / each.folder
    out = arguments.out / arguments.name / name.replace(", ", "-") / str(seed)
    files = {part: path for part in ("train", "dev", "test") if (path := find(folder, part))}
    print(f"{arguments.name} {name} seed {seed}", file=sys.stderr, flush=True)
    done = finetune(
        each.task,
        Sources(train=str(files["train"]), dev=str(files["dev"]), test=str(files["test"])),
        model=arguments.model,
        out=out,
        settings=Finetuning(seed=seed, **each.settings),
    )
    if done is None:
        sys.exit("stopped; the same command goes on")
    found = json.loads((out / "results.json").read_text())
    also: dict[str, float] = {}
    if each.also is not None:
        also = each.also([json.loads(line) for line in (out / "predictions.jsonl").open(encoding="utf-8")])
    beside = next((each for name, each in found["beside"].items() if name.startswith(BASELINE)), {})
    rows.append(
        key
        | {
            "test": {figure: found["test"][figure] for figure in each.figures} | also,
            "baseline": {figure: beside[figure] for figure in each.figures if figure in beside},
            "processor": processor_name(),
        }
    )
    rows.sort(key=lambda row: (row["model"], row["set"], row["seed"]))
    write_atomic(PATH, json.dumps({"rows": rows}, indent=2) + "\n")


def known_rows() -> list[dict[str, Any]]:
    """Those of earlier runs."""
    return json.loads(PATH.read_text())["rows"] if PATH.exists() else []


def find(folder: Path, part: str) -> Path | None:
    """The file of a part, by either ending."""
    return next(
        (path for ending in ("jsonl", "json") if (path := folder / f"{part}.{ending}").exists()), None
    )


def write_page() -> None:
    """docs/results.md: mean and spread on the test rows, a column for each model."""
    rows = known_rows()
    models = sorted({row["model"] for row in rows})
    lines = [
        "# Results",
        "",
        "Each model fine-tuned on each set as `benchmarks/task_results.py` says: the best weights on the dev",
        "rows, tested once on the test rows. Mean and standard deviation over seeds; in brackets how many.",
        "[Data](data.md) tells what the sets are and where they come from.",
        "",
        "| set | figure | TF-IDF | " + " | ".join(models) + " |",
        "|---|---|---:|" + "---:|" * len(models),
    ]
    for name in SETS:
        of_set = [row for row in rows if row["set"] == name]
        for figure in of_set[0]["test"] if of_set else ():
            floors = [row["baseline"][figure] for row in of_set if figure in row["baseline"]]
            cells = [
                _cell([row["test"][figure] for row in of_set if row["model"] == model]) for model in models
            ]
            floor = f"{statistics.mean(floors):.3f}" if floors else ""
            lines.append(f"| {name} | {figure} | {floor} | " + " | ".join(cells) + " |")
    processors = ", ".join(sorted({row["processor"] for row in rows}))
    write_atomic(PAGE, "\n".join([*lines, "", f"Measured on {processors}.", ""]))


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" +- {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread} ({len(values)})"


if __name__ == "__main__":
    main()
