"""From a recipe and shards to a model folder: what `modernbert pretrain` calls."""

from __future__ import annotations

import json
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch

from modernbert import bundled
from modernbert.corpus.shards import Shards
from modernbert.corpus.split import Documents, hold_back
from modernbert.encoder.encoder import Encoder, EncoderConfig
from modernbert.encoder.mlp import Glu, Mlp
from modernbert.errors import CorpusError, TrainingError
from modernbert.files import held, write_atomic
from modernbert.heads.mlm import MaskedLanguageModel, MlmHeadConfig
from modernbert.heads.model import ModelConfig
from modernbert.kernels.hardware import resolve_dtype
from modernbert.pretrained.folder import Pretrained, read_folder, write_folder
from modernbert.pretrained.surgery import VOCABULARY_MULTIPLE
from modernbert.text.tokenizer import Tokenizer
from modernbert.training import checkpoint, loop
from modernbert.training.curves import draw
from modernbert.training.parallel import Group, Spread, joined, spread
from modernbert.training.pretraining import MaskedLoss, MaskedRows, PretrainingJob
from modernbert.training.probes import ProbeConfig, Probes
from modernbert.training.recipe import Recipe, as_data, require_same
from modernbert.training.throughput import matrix_rate
from modernbert.training.validation import Validation

RECIPE, FINAL = "recipe.json", "final"


@dataclass(frozen=True, kw_only=True, slots=True)
class Switches:
    """How a run computes; none of it changes what is learned, but for rounding.

    `recomputes_layers` saves memory (gradient checkpointing); `compiles` tries torch.compile, and goes on
    without where it fails; `spread` is by copies or by shares of every parameter (FSDP2).
    """

    device: str = "auto"
    backend: str = "auto"
    spread: Spread = "replicate"
    recomputes_layers: bool = False
    compiles: bool = False


def pretrain(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    valid: Path | None = None,
    held_share: float = 0.01,
    probes: ProbeConfig | None = None,
    switches: Switches = Switches(),
) -> Path | None:
    """Train by the recipe on the shards in `data`; returns the folder of the finished model.

    Called again on the same `out`, it goes on from the last checkpoint; None means that a signal stopped it,
    after it was saved. Held-out figures come from the shards in `valid`, or from `held_share` of the
    documents of `data`, which are then not learned from. `probes` adds scores of the vectors to them, and may
    differ when a run goes on. Under torchrun all processes call it.

    Raises TrainingError and CorpusError.
    """
    stop = loop.Stop()
    with loop.signals_noted(stop), joined(switches.device) as group, ExitStack() as stack:
        if out.exists() and not out.is_dir():
            raise TrainingError(f"{out} is a file; --out names the folder of the run")
        if group.is_main and not stack.enter_context(held(out)):
            raise TrainingError(f"another process is training in {out}; wait for it, or name another --out")
        shards = Shards.open(data)
        tokenizer = shards.tokenizer()
        held_shards = None if valid is None else Shards.open(valid)
        learned, held_out = _documents(shards, held_shards, held_share, group)
        _require_same_recipe({**as_data(recipe), "corpus": _facts(learned, shards, held_shards)}, out, group)
        started = _start(recipe, tokenizer, shards)
        validation = _validation(recipe, held_out, tokenizer, started, group, probes)
        run = _build(recipe, started, learned, validation, tokenizer, out, group, switches)
        run.stop = stop
        loop.resume(run)
        if not loop.train(run):
            return None
        return _finish(run, started, tokenizer, out)


def _start(recipe: Recipe, tokenizer: Tokenizer, shards: Shards) -> Pretrained:
    """The model before its first step: fresh weights by the recipe's seed, or those of a folder."""
    if recipe.start_from is not None:
        name = recipe.start_from
        folder = bundled.path(name) if name in bundled.names() else Path(name)
        started = _from_folder(folder, shards)
        _require_room(recipe, started.config.encoder)
        return started
    assert recipe.encoder is not None
    rows = -(-tokenizer.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    encoder = replace(recipe.encoder, vocab_size=rows, pad_token_id=tokenizer.pad_id)
    _require_room(recipe, encoder)
    config = ModelConfig(encoder=encoder, head=recipe.head)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        module = config.build()
    return Pretrained(config=config, module=module, tokenizer=tokenizer)


def _require_room(recipe: Recipe, encoder: EncoderConfig) -> None:
    longest = max(phase.seq_len for phase in recipe.phases)
    if longest > encoder.max_positions:
        where = "its encoder" if recipe.start_from is None else recipe.start_from
        raise TrainingError(
            f"recipe {recipe.name!r} has sequences of {longest} tokens, but {where} is made for "
            f"{encoder.max_positions} (max_positions); shorten seq_len or raise max_positions"
        )


def _from_folder(folder: Path, shards: Shards) -> Pretrained:
    pretrained = read_folder(folder, dtype=torch.float32)
    if not isinstance(pretrained.config.head, MlmHeadConfig):
        raise TrainingError(
            f"{folder} has no masked-language-model head to go on with; start from the pretrained model, not "
            "from one that was fine-tuned"
        )
    try:
        if pretrained.tokenizer is None:
            raise TrainingError(f"{folder} has no tokenizer")
        shards.require_tokenizer(pretrained.tokenizer)
    except (CorpusError, TrainingError) as error:
        raise TrainingError(
            f"the shards were made with another tokenizer than that of {folder}: {error}\n"
            f"hint: write them anew with `modernbert shard ... --tokenizer {folder}`, or give the model the "
            "new vocabulary with `modernbert resize`"
        ) from error
    return pretrained


def _documents(
    shards: Shards, held_out: Shards | None, share: float, group: Group
) -> tuple[Documents, Documents | None]:
    """What is learned from, and what is held out."""
    if held_out is None:
        learned, part = hold_back(shards, share)
        missing = [] if part is None else sorted(set(shards.sources) - set(part.sources))
        if missing and group.is_main:
            warnings.warn(
                f"nothing is held out of {', '.join(missing)}, which have too few documents for a share of "
                f"{share:g}; name shards of their own with --valid to measure them",
                stacklevel=3,
            )
        return learned, part
    if held_out.tokenizer_sha256 != shards.tokenizer_sha256:
        raise TrainingError(
            f"{held_out.folder} and {shards.folder} were made with different tokenizers; make both with one"
        )
    return shards, held_out


def _build(
    recipe: Recipe,
    started: Pretrained,
    learned: Documents,
    validation: Validation | None,
    tokenizer: Tokenizer,
    out: Path,
    group: Group,
    switches: Switches,
) -> loop.Run:
    model = cast(MaskedLanguageModel, started.module)
    encoder = model.model
    encoder.recomputes_layers = switches.recomputes_layers
    precision = resolve_dtype(recipe.precision, group.device)
    loss = MaskedLoss(
        model.to(group.device, torch.float32),
        label_smoothing=recipe.label_smoothing,
        z_loss=recipe.z_loss,
        backend=switches.backend,
    ).train()
    if switches.compiles:
        compile_or_say(encoder, group)
    most_rows = max(phase.most_rows for phase in recipe.phases)
    if group.is_main and group.world_size > most_rows:
        warnings.warn(
            f"{group.world_size} processes share steps of at most {most_rows} rows, so some have nothing to "
            "do; give the recipe more rows a step, or start fewer processes",
            stacklevel=3,
        )
    module = spread(loss, encoder.layers, group, switches.spread)
    return loop.Run(
        job=PretrainingJob(recipe, learned, tokenizer, model, group, validation),
        module=module,
        optimizer=recipe.optimizer.build(module),
        group=group,
        settings=_settings(recipe, model, group, precision),
        folder=out,
    )


def compile_or_say(encoder: Encoder, group: Group) -> None:
    """Compile each layer; where there is no compiler the first step would fail, so one is tried now."""
    try:
        torch.compile(torch.sin)(torch.ones(2))
    except Exception as error:  # whatever the compiler, or its absence, raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if group.is_main:
            warnings.warn(
                f"torch.compile does not work here ({reason}); training goes on without", stacklevel=2
            )
        return
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a .functools.lru_cache")
    for layer in encoder.layers:
        layer.compile(dynamic=True)


def _validation(
    recipe: Recipe,
    held_out: Documents | None,
    tokenizer: Tokenizer,
    started: Pretrained,
    group: Group,
    probes: ProbeConfig | None,
) -> Validation | None:
    """What is measured at evaluations; None where there is no held-out text."""
    if held_out is None:
        if probes is not None and group.is_main:
            warnings.warn(
                "no text is held out, so there is nothing to probe; name shards as valid", stacklevel=3
            )
        return None
    around, last = tokenizer.template.single, recipe.phases[-1]
    seq_len, precision = recipe.phases[0].seq_len, resolve_dtype(recipe.precision, group.device)
    chosen = None
    if probes is not None:
        encoder = cast(Encoder, started.module.model)
        chosen = Probes.choose(
            probes,
            held_out,
            tokenizer,
            encoder,
            seq_len=seq_len,
            row_tokens=last.row_tokens,
            precision=precision,
        )
        for reason in chosen.left_out if group.is_main else ():
            warnings.warn(reason, stacklevel=3)
    return Validation(
        documents=held_out,
        rows=MaskedRows.of(recipe, tokenizer),
        prefix=tuple(around.prefix.token_ids),
        suffix=tuple(around.suffix.token_ids),
        seq_len=seq_len,
        row_tokens=last.row_tokens,
        mask_rate=recipe.valid_mask_rate,
        num_tokens=recipe.evaluation_tokens,
        precision=precision,
        probes=chosen,
    )


def _settings(
    recipe: Recipe, model: MaskedLanguageModel, group: Group, precision: torch.dtype
) -> loop.LoopSettings:
    inner = next(each.Wo.in_features for each in model.modules() if isinstance(each, Glu | Mlp))
    return loop.LoopSettings(
        seed=recipe.seed,
        precision=precision,
        max_grad_norm=recipe.max_grad_norm,
        spike_ratio=recipe.spike_ratio,
        max_skipped_steps=recipe.max_skipped_steps,
        save_every_tokens=recipe.save_every_tokens,
        evaluate_every_tokens=recipe.evaluate_every_tokens,
        num_kept=recipe.num_kept,
        draw=draw if find_spec("matplotlib") is not None else None,
        peak_flops=group.world_size
        * matrix_rate(model.model.config.hidden_size, inner, group.device, precision),
    )


def _facts(documents: Documents, shards: Shards, held_out: Shards | None) -> dict[str, Any]:
    """What tells one corpus from another, for a person too."""
    lengths = {source: documents.lengths(source) for source in documents.sources}
    sources = {name: {"documents": len(each), "tokens": int(each.sum())} for name, each in lengths.items()}
    return {
        "tokenizer_sha256": shards.tokenizer_sha256,
        "shards_sha256": shards.manifest["sha256"],
        "held_out_sha256": None if held_out is None else held_out.manifest["sha256"],
        "sources": sources,
    }


def _require_same_recipe(data: dict[str, Any], out: Path, group: Group) -> None:
    """TrainingError where the run that stands in `out` was begun with another recipe or corpus; write them
    down. Comes before anything is built: weights of another shape could not be read.
    """
    path = out / RECIPE
    place = loop.begun(out, group)
    if place is not None:
        state: dict[str, Any] = place.job or {}
        require_same(json.loads(path.read_text()), data, phase=int(state.get("phase", 0)), where=str(out))
    if group.is_main:
        write_atomic(path, json.dumps(data, indent=2) + "\n")
    group.wait()


def _finish(run: loop.Run, started: Pretrained, tokenizer: Tokenizer, out: Path) -> Path:
    """Put the parameters together, wherever they are, and write the model folder."""
    weights = checkpoint.whole_weights(run.module)
    target = out / FINAL
    if run.group.is_main:
        encoder = cast(Encoder, started.module.model).config
        config = replace(started.config, encoder=encoder)
        module = config.build()
        module.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
        write_folder(target, replace(started, config=config, module=module, tokenizer=tokenizer))
    run.group.wait()
    return target
