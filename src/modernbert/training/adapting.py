"""Further masked-language modelling on a task's own texts, before fine-tuning begins.

    texts of the training rows -> shards -> PASSES over them, masks from 30 % to 15 % -> an adapted encoder

Gururangan et al. 2020 (arXiv 2004.10964) call it task-adaptive pretraining. It is worth most where a task
has many texts and the model has seen few like them. The mask rate falls as it goes on (a curriculum): the
model meets the texts as it will meet them in the task, nearly whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch

from modernbert.corpus.shard_writing import write_shards
from modernbert.corpus.shards import Shards
from modernbert.errors import TrainingError
from modernbert.files import file_being_written
from modernbert.heads.mlm import MlmHeadConfig
from modernbert.pretrained.bert import mlm_head
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from modernbert.pretrained.heads import with_head
from modernbert.training.recipe import Phase, Recipe
from modernbert.training.run import Switches, pretrain
from modernbert.training.schedule import LinearRate, OneMinusSqrt

FIRST_RATE, LAST_RATE = 0.30, 0.15
_MOST_TOKENS = 1024  # of a sequence: longer texts are learned in pieces
# Of a step: few texts make smaller ones, or the rate would rise and fall within a step or two.
_MOST_ROW_TOKENS, _FEWEST_STEPS = 8192, 50


def adapt(
    base: Path,
    texts: Iterable[str],
    work: Path,
    *,
    passes: int,
    learning_rate: float,
    seed: int,
    switches: Switches,
) -> Path | None:
    """The folder of the adapted encoder, inside `work`; None where a signal stopped it, which is saved.

    Goes on where a kill stopped it. A model without a masked-language-model head gets a fresh one. Raises
    TrainingError without a tokenizer.
    """
    start, shards, run = work / "start", work / "shards", work / "run"
    if not start.exists():
        write_folder(start, _with_mlm_head(read_folder(base, dtype=torch.float32), seed))
    tokenizer = read_folder(start).tokenizer
    if tokenizer is None:
        raise TrainingError(f"{base} has no tokenizer, so it cannot be adapted to texts")
    if not shards.exists():
        listed = work / "texts.jsonl"
        with file_being_written(listed) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        shutil.rmtree(shards.with_name("shards.unfinished"), ignore_errors=True)
        write_shards([str(listed)], shards, tokenizer=tokenizer, num_workers=1)
    opened = Shards.open(shards)
    lengths = [opened.lengths(source) for source in opened.sources]
    num_tokens = sum(int(each.sum()) for each in lengths)
    longest = max(int(each.max()) for each in lengths) + tokenizer.template.single.num_specials
    limit = min(read_folder(start).config.encoder.max_positions, longest)
    recipe = _recipe(str(start), passes * num_tokens, min(limit, _MOST_TOKENS), learning_rate, seed)
    return pretrain(recipe, shards, run, switches=switches, held_share=0.02)


def _recipe(start: str, num_tokens: int, seq_len: int, learning_rate: float, seed: int) -> Recipe:
    phase = Phase(
        name="adapt",
        tokens=num_tokens,
        seq_len=seq_len,
        row_tokens=max(seq_len, min(_MOST_ROW_TOKENS, num_tokens // _FEWEST_STEPS)),
        rows=1,
        learning_rate=learning_rate,
        schedule=OneMinusSqrt(
            total_tokens=num_tokens, decay_tokens=num_tokens // 2, warmup_tokens=num_tokens // 20
        ),
        mask_rate=LinearRate(first=FIRST_RATE, last=LAST_RATE),
    )
    return Recipe(
        name="adapt",
        encoder=None,
        start_from=start,
        phases=(phase,),
        seed=seed,
        evaluate_every_tokens=max(1, num_tokens // 4),
        save_every_tokens=500_000,
    )


def _with_mlm_head(model: Pretrained, seed: int) -> Pretrained:
    """The model itself where it guesses tokens; else with a head of its family's kind on it."""
    if isinstance(model.config.head, MlmHeadConfig):
        return model
    style = str(model.foreign.get("model_type", "modernbert"))
    if style in ("bert", "roberta", "xlm-roberta"):
        head = mlm_head("roberta" if "roberta" in style else "bert")
        return with_head(model, lambda transform, pooling: head, seed=seed)
    return with_head(model, lambda transform, pooling: MlmHeadConfig(transform=transform), seed=seed)
