"""The one training loop: pretraining, and every task, is a Job that it runs.

A job gives steps, each with the state that follows it; the loop takes them through the model, exchanges
gradients, moves the weights, and writes down what happened. After any kill it goes on from the last
checkpoint, and what it then computes is bit for bit what it would have computed.

    step -> micro-batches -> sums of losses -> gradients -> weights      journal, evaluations, checkpoints
"""

from __future__ import annotations

import errno
import math
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from modernbert.errors import TrainingError
from modernbert.progress import Bar
from modernbert.training import checkpoint, journal
from modernbert.training.journal import Journal
from modernbert.training.optim import set_learning_rate
from modernbert.training.parallel import Group, accumulating, whole

CHECKPOINTS = "checkpoints"
# Steps before which nothing is compared with a mean, and how fast the means follow.
NUM_CALM_STEPS, MEAN_DECAY = 20, 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Micro:
    """What goes through the model at once: `module(*inputs)` gives the sums of its losses.

    `weight` is what it counts for, in masked tokens or examples; 0 makes it a filler for a process that has
    nothing to do. `number` seeds its dropout, so that a row is dropped in the same way on any process.
    """

    inputs: tuple[Any, ...]
    weight: int
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingStep:
    """One update: this process's micro-batches (as many on each process) and what holds for all of them.

    `num_tokens` are the real tokens of all processes. `facts` go into the journal; `documents` says what is
    in the step, for reports.
    """

    micros: Sequence[Micro]
    num_tokens: int
    peak_learning_rate: float
    learning_rate_share: float
    stage: str
    is_last_of_stage: bool
    facts: Mapping[str, float]
    documents: Callable[[], list[str]]
    flops: float = 0.0


class Job(Protocol):
    """What is learned: the data, and how its losses are counted.

    Of the `sums` the first is minimised, and each is divided by the weight of the step.
    """

    @property
    def sums(self) -> tuple[str, ...]:
        """Names of what the module gives."""
        ...

    @property
    def num_tokens(self) -> int:
        """Of the whole run."""
        ...

    def steps(self, state: dict[str, Any] | None) -> Iterator[tuple[TrainingStep, dict[str, Any]]]:
        """The steps that follow `state`, each with the state after it; all of them for None."""
        ...

    def enter(self, stage: str) -> None:
        """Make the model ready for a stage, before its first step and when a run goes on inside it."""
        ...

    def evaluate(self, module: nn.Module) -> dict[str, Any] | None:
        """Figures on held-out data by source, and over all; None where there is none."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSettings:
    """How a run is watched and kept; none of it changes what is learned but `max_grad_norm` and `seed`.

    `keeps_ends` keeps the checkpoint at the end of every stage beside the newest `num_kept`. `draw` is called
    with the run's folder after every evaluation.
    """

    seed: int
    precision: torch.dtype
    max_grad_norm: float | None
    spike_ratio: float
    max_skipped_steps: int
    save_every_tokens: int
    evaluate_every_tokens: int
    num_kept: int
    keeps_ends: bool = True
    draw: Callable[[Path], object] | None = None
    peak_flops: float = 0.0


@dataclass(kw_only=True)
class Place:
    """Where a run stands, as it is written into checkpoints."""

    step: int = 0
    tokens: int = 0
    stage: str = ""
    mean_loss: float | None = None
    mean_norm: float | None = None
    num_calm: int = 0
    num_skipped: int = 0
    tokens_at_save: int = 0
    tokens_at_evaluation: int = 0
    job: dict[str, Any] | None = None


@dataclass(kw_only=True)
class Stop:
    """The signal that asks a run to end, if any came."""

    signal: int | None = None


@dataclass(kw_only=True)
class Run:
    """Everything that the loop holds: the job and its module, spread over the group, and the run's folder."""

    job: Job
    module: nn.Module
    optimizer: Optimizer
    group: Group
    settings: LoopSettings
    folder: Path
    place: Place = field(default_factory=Place)
    stop: Stop = field(default_factory=Stop)


def resume(run: Run) -> bool:
    """Take up the newest checkpoint of the run's folder; False where there is none."""
    if run.group.is_main:
        checkpoint.remove_unfinished(run.folder / CHECKPOINTS)
    found = run.group.from_main(checkpoint.newest(run.folder / CHECKPOINTS))
    if found is None:
        return False
    run.place = Place(**checkpoint.load(found, run.module, run.optimizer, run.group))
    return True


def begun(folder: Path, group: Group) -> Place | None:
    """Where the run in this folder stands, without its weights; None where it has no checkpoint yet."""
    found = group.from_main(checkpoint.newest(folder / CHECKPOINTS))
    return None if found is None else Place(**checkpoint.state_of(found))


def train(run: Run) -> bool:
    """Run the job from its place to its end; False where a signal stopped it, which is saved by then.

    Raises TrainingError where too many steps had to be left out, and OSError's message as one where the disk
    is full: the last checkpoint is whole, and the same call goes on from it.
    """
    place, stage = run.place, ""
    log = Journal(run.folder, cut_after=place.step) if run.group.is_main else None
    bar = Bar(label="train", total=run.job.num_tokens, unit=" tokens", done=place.tokens)
    try:
        with signals_noted(run.stop), _full_disk_named(run):
            for step, state in run.job.steps(place.job):
                if step.stage != stage:
                    run.job.enter(step.stage)
                    stage = step.stage
                row = _take(run, step)
                place.job = state
                if log is not None:
                    _write(log, row, step)
                bar.advance(step.num_tokens, _facts_for_bar(row))
                _require_budget(run, row)
                _evaluate_and_save(run, log, step, is_stopped=row["stop"], is_skipped=bool(row["skipped"]))
                if row["stop"]:
                    return False
    finally:
        bar.close()
        if log is not None:
            log.close()
    return True


def _take(run: Run, step: TrainingStep) -> dict[str, Any]:
    """One step: losses, gradients, and the update unless something is wrong with them."""
    start = time.perf_counter()
    run.optimizer.zero_grad(set_to_none=True)
    sums, weight, is_stopped = _backward(run, step)
    norm = _gradient_norm(run)
    means = {name: value / weight for name, value in zip(run.job.sums, sums, strict=True)}
    place, loss = run.place, means["loss"]
    if step.stage != place.stage:  # other text, other lengths: other losses
        place.stage, place.mean_loss, place.mean_norm, place.num_calm = step.stage, None, None, 0
    wrong = _what_is_wrong(run, loss, norm)
    if wrong is None:
        set_learning_rate(run.optimizer, step.peak_learning_rate, step.learning_rate_share)
        run.optimizer.step()
        place.mean_loss = _followed(place.mean_loss, loss)
        place.mean_norm = _followed(place.mean_norm, norm)
        place.num_calm += 1
    else:
        place.num_skipped += 1
    place.step += 1
    place.tokens += step.num_tokens
    seconds = time.perf_counter() - start
    rate = step.num_tokens / seconds
    settings = run.settings
    share = step.flops / seconds / settings.peak_flops if step.flops and settings.peak_flops else None
    return {
        "step": place.step,
        "tokens": place.tokens,
        "phase": step.stage,
        **{name: _finite(value) for name, value in means.items()},
        "learning_rate": step.peak_learning_rate * step.learning_rate_share,
        "gradient_norm": _finite(norm),
        **step.facts,
        "tokens_per_second": round(rate, 1),
        "share_of_roofline": None if share is None else round(share, 4),
        "skipped": wrong,
        "stop": is_stopped,
    }


def _backward(run: Run, step: TrainingStep) -> tuple[list[float], float, bool]:
    """The summed losses of the step, its weight, and whether any process was told to stop.

    Each loss is divided by the weight of the whole step before its backward pass, so that many small
    micro-batches give the gradient of one large one, token for token.
    """
    group, device = run.group, run.group.device
    here = [float(sum(micro.weight for micro in step.micros)), float(run.stop.signal is not None)]
    weight, num_stopped = group.sum(torch.tensor(here, dtype=torch.float64, device=device)).tolist()
    if weight == 0:
        raise TrainingError(f"step {run.place.step + 1} has nothing to learn from: {step.documents()[:5]}")
    sums = torch.zeros(len(run.job.sums), dtype=torch.float64, device=device)
    for index, micro in enumerate(step.micros):
        torch.manual_seed((run.settings.seed << 32) ^ micro.number)
        with accumulating(run.module, is_last=index == len(step.micros) - 1):
            with torch.autocast(device.type, run.settings.precision, run.settings.precision != torch.float32):
                found: Tensor = run.module(*_on(device, micro.inputs))
            # processes average their gradients, so each gives its own as many times as there are processes
            (found[0] * (group.world_size / weight if micro.weight else 0.0)).backward()
        if micro.weight:
            sums += found.detach().double()
    return group.sum(sums).tolist(), weight, num_stopped > 0


def _gradient_norm(run: Run) -> float:
    """Over all parameters and processes, before clipping."""
    parameters = [each for each in run.module.parameters() if each.grad is not None]
    gradients = [each.grad for each in parameters if each.grad is not None]
    norm = whole(nn.utils.get_total_norm(gradients))
    most = run.settings.max_grad_norm
    if most is not None and float(norm) > most:
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return float(norm)


def _followed(mean: float | None, value: float) -> float:
    return value if mean is None else MEAN_DECAY * mean + (1 - MEAN_DECAY) * value


def _what_is_wrong(run: Run, loss: float, norm: float) -> str | None:
    # A high loss alone is a text of another kind, a book after much code: its gradient is as long as any.
    place, ratio = run.place, run.settings.spike_ratio
    if not math.isfinite(loss) or not math.isfinite(norm):
        return "not a number"
    if place.mean_loss is None or place.mean_norm is None or place.num_calm < NUM_CALM_STEPS:
        return None
    if loss > ratio * place.mean_loss and norm > ratio * place.mean_norm:
        return (
            f"loss {loss:.3f} and gradient norm {norm:.3f} are more than {ratio} times their means "
            f"{place.mean_loss:.3f} and {place.mean_norm:.3f}"
        )
    return None


def _require_budget(run: Run, row: Mapping[str, Any]) -> None:
    place, most = run.place, run.settings.max_skipped_steps
    if row["skipped"] and place.num_skipped > most:
        raise TrainingError(
            f"step {place.step} was left out ({row['skipped']}), and with it {place.num_skipped} steps, more "
            f"than the {most} that are allowed.\nThe documents of these steps are named in "
            f"{run.folder / journal.ACCIDENTS}; the last good checkpoint is in {run.folder / CHECKPOINTS}.\n"
            "hint: look at those documents; a lower learning rate or a longer warm-up is the usual cure"
        )


def _evaluate_and_save(
    run: Run, log: Journal | None, step: TrainingStep, *, is_stopped: bool, is_skipped: bool
) -> None:
    """What is due after a step. While steps are left out nothing is saved: the weights may be what is wrong,
    and the last good checkpoint must not be pruned away.
    """
    place, settings, is_end = run.place, run.settings, step.is_last_of_stage
    if is_end or place.tokens - place.tokens_at_evaluation >= settings.evaluate_every_tokens:
        place.tokens_at_evaluation = place.tokens
        figures = run.job.evaluate(run.module)
        if figures is not None and log is not None:
            log.write(journal.EVALUATIONS, {"step": place.step, "tokens": place.tokens, **figures})
        if log is not None and settings.draw is not None:
            settings.draw(run.folder)
    is_due = not is_skipped and place.tokens - place.tokens_at_save >= settings.save_every_tokens
    if is_end or is_due or is_stopped:
        save(run, is_end=is_end and settings.keeps_ends)


def save(run: Run, *, is_end: bool = False) -> None:
    """Write a checkpoint of where the run stands, and prune the old ones."""
    place, folder = run.place, run.folder / CHECKPOINTS
    place.tokens_at_save = place.tokens
    checkpoint.save(
        folder, run.module, run.optimizer, asdict(place), step=place.step, is_end=is_end, group=run.group
    )
    if run.group.is_main:
        checkpoint.prune(folder, run.settings.num_kept)


def _write(log: Journal, row: dict[str, Any], step: TrainingStep) -> None:
    log.write(journal.STEPS, {key: value for key, value in row.items() if key != "stop"})
    if row["skipped"]:
        keys = ("step", "tokens", "loss", "gradient_norm", "skipped")
        log.write(journal.ACCIDENTS, {key: row[key] for key in keys} | {"documents": step.documents()})


def _facts_for_bar(row: Mapping[str, Any]) -> str:
    loss = "nan" if row["loss"] is None else f"{row['loss']:.3f}"
    facts = [f"loss {loss}", f"lr {row['learning_rate']:.1e}"]
    if "mask_rate" in row:
        facts.append(f"mask {row['mask_rate']:.0%}")
    if row["share_of_roofline"] is not None:
        facts.append(f"roofline {row['share_of_roofline']:.0%}")
    return ", ".join(facts)


@contextmanager
def signals_noted(stop: Stop) -> Generator[None]:
    """SIGTERM and the first Ctrl-C let the step end and be saved; a second Ctrl-C ends at once."""

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT and stop.signal == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = number

    try:
        old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread, where signals never arrive
        old = {}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def _full_disk_named(run: Run) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        last = checkpoint.newest(run.folder / CHECKPOINTS)
        kept = "there is no checkpoint yet" if last is None else f"the last good checkpoint is {last}"
        raise TrainingError(
            f"no space left to write {error.filename or run.folder} at step {run.place.step}; {kept}.\n"
            "hint: free space, then run the same command: it goes on from there"
        ) from error


def _on(device: torch.device, inputs: Sequence[Any]) -> list[Any]:
    return [each.to(device) for each in inputs]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
