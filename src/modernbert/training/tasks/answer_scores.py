"""How well answers are found: SQuAD's figures, the best stretches, and the threshold for "no answer"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from modernbert.inference.answering import Candidates, find_candidates, room_for_context
from modernbert.inference.engine import Engine, SequenceIds
from modernbert.inference.outside_training import outside_training
from modernbert.inference.pipeline import Model
from modernbert.metrics import spans
from modernbert.text.tokenizer import Tokenizer
from modernbert.training.tasks.sequences import batches
from modernbert.training.tasks.task import Evaluation

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from modernbert.corpus.labelled import Row, Rows

NUM_BEST = 5
# Of each kind, answerable or not: fewer on the dev part say too little to fit a threshold by.
FEWEST_QUESTIONS = 25
_NOT_KEPT = ("context", "context_id")


def evaluate(model: Model, rows: Rows, *, may_have_none: bool) -> Evaluation:
    """Figures of a part and a prediction a question, at the threshold of the model's folder."""
    threshold = model.pretrained.settings.no_answer_threshold
    predictions: list[Mapping[str, Any]] = []
    for batch in batches(rows):
        found = find(model, batch)
        predictions += [_prediction(row, each, threshold) for row, each in zip(batch, found, strict=True)]
    return Evaluation(
        figures=figures(predictions, threshold, may_have_none=may_have_none), predictions=predictions
    )


def find(model: Model, rows: Sequence[Row]) -> list[Candidates | None]:
    """The best stretches of each question, as `Model.answers` finds them; None for one that is too long."""
    engine = Engine(device=model.device, backend=model.backend)
    module = outside_training(model.module)

    def score_tokens(sequences: list[SequenceIds]) -> list[np.ndarray]:
        rows = engine.run(sequences, engine.tokens_of_each(module), label="answer")
        return [logits.float().numpy() for logits in rows]

    fits = leave_room([row["question"] for row in rows], model.tokenizer, model.max_length)
    asked = [row for row, fit in zip(rows, fits, strict=True) if fit]
    if not asked:
        return [None] * len(rows)
    found = iter(
        find_candidates(
            [row["question"] for row in asked],
            [row["context"] for row in asked],
            tokenizer=model.tokenizer,
            limit=model.max_length,
            score_tokens=score_tokens,
            top_k=NUM_BEST,
        )
    )
    return [next(found) if fit else None for fit in fits]


def leave_room(questions: Sequence[str], tokenizer: Tokenizer, limit: int) -> list[bool]:
    """Whether each question leaves room for its context in a sequence of at most `limit` tokens."""
    ids = tokenizer.encode_ids(questions, add_special_tokens=False)
    return [room_for_context(len(each), tokenizer.template, limit) > 0 for each in ids]


def figures(
    predictions: Sequence[Mapping[str, Any]], threshold: float | None, *, may_have_none: bool
) -> dict[str, float]:
    """F1 and exact match, also by whether there is an answer, and the best that any threshold would give."""
    has_answer, advantages = answerable(predictions), column(predictions, "advantage")
    scores = {name: column(predictions, f"{name}_if_given") for name in ("f1", "exact")}
    at = {name: spans.at_threshold(each, has_answer, advantages, threshold) for name, each in scores.items()}
    found = spans.answer_figures(at["f1"], at["exact"], has_answer)
    for name, each in scores.items() if may_have_none else ():
        best = spans.best_threshold(each, has_answer, advantages)
        found[f"best_{name}"] = float(spans.at_threshold(each, has_answer, advantages, best).mean())
    return found


def settle(model: Model, dev: Rows, *, may_have_none: bool) -> dict[str, Any]:
    """Give the model the threshold that has the best F1 on the dev part; 0 where that is too small to say."""
    threshold: float | None = 0.0 if may_have_none else None
    settled: dict[str, Any] = {}
    if may_have_none:
        predictions = evaluate(model, dev, may_have_none=True).predictions
        has_answer, advantages = answerable(predictions), column(predictions, "advantage")
        num_with = int(has_answer.sum())
        if min(num_with, len(has_answer) - num_with) >= FEWEST_QUESTIONS:
            scores = column(predictions, "f1_if_given")
            threshold = spans.best_threshold(scores, has_answer, advantages)
            before, after = (
                float(spans.at_threshold(scores, has_answer, advantages, cut).mean())
                for cut in (0.0, threshold)
            )
            settled = {"f1 on dev at 0": before, "f1 on dev at the threshold": after}
        settled = {"threshold for no answer": threshold, **settled}
    model.pretrained.settings = replace(model.pretrained.settings, no_answer_threshold=threshold)
    return settled


def answerable(predictions: Sequence[Mapping[str, Any]]) -> Bool[np.ndarray, "N"]:
    """Which questions have an answer."""
    return np.array([bool(row["answers"]) for row in predictions], bool)


def column(predictions: Sequence[Mapping[str, Any]], name: str) -> Float[np.ndarray, "N"]:
    """A number of each prediction."""
    return np.array([row[name] for row in predictions], float)


def _prediction(row: Row, found: Candidates | None, threshold: float | None) -> dict[str, Any]:
    """What was given with its scores; those of the best stretch, "if given", serve to try thresholds."""
    kept = {name: value for name, value in row.items() if name not in _NOT_KEPT}
    wanted = [answer["text"] for answer in row["answers"]]
    given = [] if found is None else found.ranked(threshold)
    predicted, stretch = (given[0].text, found.answers[0].text) if found else ("", "")
    return kept | {
        "predicted": predicted,
        "f1": spans.f1(predicted, wanted),
        "exact": spans.exact_match(predicted, wanted),
        "advantage": found.advantage if found else 0.0,
        "f1_if_given": spans.f1(stretch, wanted),
        "exact_if_given": spans.exact_match(stretch, wanted),
        "best": [asdict(each) for each in given[:NUM_BEST]],
    }
