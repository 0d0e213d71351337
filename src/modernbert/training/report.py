"""What a fine-tuning run leaves for people: report.md with pictures, predictions, and the model's card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert.files import file_being_written, write_atomic
from modernbert.inference.pipeline import Model
from modernbert.plots import Panel, curves
from modernbert.report_plots import sweep_picture, trials_picture
from modernbert.training import journal
from modernbert.training.curves import smoothed
from modernbert.training.sweep import FACTORS, by_value
from modernbert.training.tables import has_pictures, table
from modernbert.training.tasks.task import Notes, Parts, ReportContext, Section, Task

REPORT, CARD, PREDICTIONS, CURVES, SWEEP, RESULTS = (
    "report.md",
    "README.md",
    "predictions.jsonl",
    "curves.png",
    "sweep.png",
    "results.json",
)
_MOST_LINES = 8  # as many as there are colours


def write_report(
    folder: Path,
    name: str,
    *,
    task: Task,
    model: Model,
    parts: Parts,
    notes: Notes,
    settled: Mapping[str, Any],
    recipe: Mapping[str, Any],
    tried: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Measure the dev part once more, and the test part for the first time, and write all of it down."""
    dev = None if parts.dev is None else task.evaluate(model, parts.dev)
    test = None if parts.test is None else task.evaluate(model, parts.test)
    measured = test or dev
    if measured is not None:
        with file_being_written(folder / PREDICTIONS) as temporary:
            temporary.write_text(
                "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in measured.predictions)
            )
    parts_measured = {name: each.figures for name, each in (("dev", dev), ("test", test)) if each is not None}
    context = ReportContext(folder=folder, parts=parts, dev=dev, test=test, settled=settled)
    sections = [
        *task.report(context),
        *_about_sweep(folder, tried, task.metric),
        *_about_the_run(folder, notes, settled, task.metric),
    ]
    draw_progress(folder, name, unit=task.unit)
    others = {title: found for section in sections for title, found in section.figures.items()}
    write_atomic(
        folder / RESULTS, json.dumps({**parts_measured, "beside": others, "fitted": settled}, indent=1) + "\n"
    )
    title = f"# {recipe['name']}: {Path(str(recipe['data']['train'])).name}"
    write_atomic(
        folder / REPORT, "\n\n".join([title, *map(_markdown, sections), _recipe_text(recipe)]) + "\n"
    )
    write_atomic(folder / CARD, _card(name, recipe, sections[0], model))


def draw_progress(folder: Path, name: str | None = None, *, unit: str = "example") -> None:
    """Draw the loss of training and the figures of the dev part, by tokens, where there are some.

    `unit` is what a loss is a mean over.
    """
    steps, evaluations = journal.read(folder / journal.STEPS), journal.read(folder / journal.EVALUATIONS)
    losses = [(row["tokens"], row["loss"]) for row in steps if row["loss"] is not None]
    if not losses or not has_pictures():
        return
    figures = [(row["tokens"], row["sources"].get("dev", {})) for row in evaluations]
    names = [each for each in dict.fromkeys(each for _, found in figures for each in found) if each != "loss"]
    rates = [(row["tokens"], row["learning_rate"]) for row in steps]
    norms = [(row["tokens"], row["gradient_norm"]) for row in steps if row["gradient_norm"]]
    panels = [
        Panel(
            title=f"loss per {unit}",
            lines={"training": smoothed(losses), "dev": _of(figures, "loss")},
            faint=losses,
        ),
        Panel(
            title="figures on the dev part",
            lines={each.replace("_", " "): _of(figures, each) for each in names[:_MOST_LINES]},
        ),
        Panel(title="gradient norm", lines={"norm": norms}, is_logarithmic=True),
        Panel(title="learning rate", lines={"rate": rates}),
    ]
    title = name or folder.name.removesuffix(".unfinished")
    curves(panels, folder / CURVES, title=title, x_label="tokens")


def _markdown(section: Section) -> str:
    pictures = [f"![{section.title}]({name})" for name in section.pictures]
    return "\n\n".join([f"## {section.title}", section.text, *pictures])


def _about_the_run(folder: Path, notes: Notes, settled: Mapping[str, Any], metric: str) -> list[Section]:
    steps = journal.read(folder / journal.STEPS)
    sections: list[Section] = []
    if settled:
        rows = [
            (name, value if isinstance(value, float) else json.dumps(value))
            for name, value in settled.items()
        ]
        sections.append(Section(title="Fitted on the dev part", text=table(("what", "value"), rows)))
    seconds = sum(row["tokens_per_step"] / row["tokens_per_second"] for row in _with_sizes(steps))
    last = steps[-1] if steps else {"step": 0, "tokens": 0}
    text = (
        f"{last['step']:,} updates, {last['tokens']:,} tokens, {seconds:,.0f} seconds in training steps "
        f"({last['tokens'] / max(seconds, 1e-9):,.0f} tokens a second).{_course(folder, metric)}"
    )
    pictures = [CURVES] if has_pictures() else []
    sections.append(Section(title="Training", text=text, pictures=pictures))
    if notes.lines:
        sections.append(Section(title="To know", text="\n".join(f"- {line}" for line in notes.lines)))
    return sections


def _course(folder: Path, metric: str) -> str:
    """From where to where the figure went that chose the weights."""
    rows = journal.read(folder / journal.EVALUATIONS)
    found = {row["step"]: row["sources"].get("dev", {}).get(metric) for row in rows}
    start = found.pop(0, None)
    later = {step: value for step, value in found.items() if value is not None}
    if start is None or not later:
        return ""
    best = max(later, key=lambda step: later[step])
    return (
        f" On the dev part, {metric.replace('_', ' ')} was {start:.4f} before the first update, and at best "
        f"{later[best]:.4f}, after update {best:,}."
    )


def _about_sweep(folder: Path, tried: Sequence[Mapping[str, Any]], metric: str) -> list[Section]:
    if not tried:
        return []
    rows = [(each["trial"], each["best"]) for each in sorted(tried, key=lambda each: -each["best"])]
    text = f"The best of {len(tried)} was kept, by {metric} on the dev part.\n\n"
    pictures: list[str] = []
    if has_pictures():
        scores = {each["trial"]: each["best"] for each in tried}
        setting, lines = by_value(scores)
        if setting in FACTORS:
            sweep_picture(lines, folder / SWEEP, setting=setting, metric=metric)
        else:
            trials_picture(scores, folder / SWEEP, metric=metric)
        pictures.append(SWEEP)
    return [
        Section(
            title="What was tried", text=text + table(("trial", f"best {metric}"), rows), pictures=pictures
        )
    ]


def _with_sizes(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    before = [0, *(row["tokens"] for row in steps)]
    return [
        row | {"tokens_per_step": row["tokens"] - start} for row, start in zip(steps, before, strict=False)
    ]


def _recipe_text(recipe: Mapping[str, Any]) -> str:
    content = json.dumps(recipe, indent=2, ensure_ascii=False)
    return f"## Recipe\n\nThe same words, data and versions give this model again.\n\n```json\n{content}\n```"


def _card(name: str, recipe: Mapping[str, Any], results: Section, model: Model) -> str:
    """A README.md as model hubs read it."""
    base = recipe["model"]["name"]
    verb = {"classify": "classify", "tag": "tag", "answer": "answer"}.get(recipe["name"], "info")
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            f"base_model: {json.dumps(base)}",
            "tags: [modernbert]",
            "---",
            "",
            f"# {name}",
            "",
            f"Fine-tuned from {base} for the task {recipe['name']!r}; see [the report]({REPORT}).",
            "",
            f"## {results.title}",
            "",
            results.text,
            "",
            "## Use",
            "",
            "```python",
            "import modernbert",
            "",
            'model = modernbert.load("this-folder")',
            f"print(model.{model.tasks[0]}({_example_call(verb)}))",
            "```",
            "",
        ]
    )


def _example_call(verb: str) -> str:
    return '"a question", "a text that holds its answer"' if verb == "answer" else '["a text"]'


def _of(figures: Sequence[tuple[float, Mapping[str, float]]], name: str) -> list[tuple[float, float]]:
    return [(x, found[name]) for x, found in figures if found.get(name) is not None]
