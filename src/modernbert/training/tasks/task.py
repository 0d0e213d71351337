"""What a task is to the loop: a way to read a user's file, a head, a loss, and figures on held-out rows.

TaskConfig   what a user says: columns, kind of labels, losses; plain values, kept in recipe.json
  .read      a file -> rows
  .prepare   rows to learn from -> Task
Task         what that became: the labels are known now
  .head, .examples, .inputs, .loss      learning
  .evaluate, .settle, .report           figures, what follows training, what a person reads
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from modernbert.corpus.labelled import Row, Rows
    from modernbert.heads.model import HeadPart
    from modernbert.heads.transform import TransformConfig
    from modernbert.inference.pipeline import Model
    from modernbert.pretrained.folder import Pretrained
    from modernbert.training.examples import Example


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Figures of one part of the data, and what the model said of each row, ready for JSON."""

    figures: Mapping[str, float]
    predictions: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The rows of the three parts; a part that was not given and not split off is None."""

    train: Rows
    dev: Rows | None
    test: Rows | None

    def items(self) -> Iterator[tuple[str, Rows]]:
        """Those that are there, by name."""
        named = (("train", self.train), ("dev", self.dev), ("test", self.test))
        yield from ((name, rows) for name, rows in named if rows is not None)


@dataclass(kw_only=True)
class Notes:
    """What a person should know of the data and the run, kept for the report; each begins with `prefix`.

    Where it `speaks`, what may spoil the result is also said at once, as a warning.
    """

    lines: list[str] = field(default_factory=list[str])
    prefix: str = ""
    speaks: bool = False

    def add(self, line: str) -> None:
        """Keep a line, once."""
        line = self.prefix + line
        if line not in self.lines:
            self.lines.append(line)

    def warn(self, line: str) -> None:
        """Keep a line, and say it at once."""
        self.add(line)
        if self.speaks:
            warnings.warn(self.prefix + line, stacklevel=3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of report.md: a title, Markdown, and pictures that stand under it, by their file names.

    `figures` are those of others that stand beside the model's, by their names, for results.json.
    """

    title: str
    text: str
    pictures: Sequence[str] = ()
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportContext:
    """What a report is made from. Pictures are written into `folder`."""

    folder: Path
    parts: Parts
    dev: Evaluation | None
    test: Evaluation | None
    settled: Mapping[str, Any]

    @property
    def measured(self) -> tuple[str, Rows | None, Evaluation | None]:
        """The part that the report is about: the test part where there is one, else the dev part."""
        if self.test is not None:
            return "test", self.parts.test, self.test
        return "dev", self.parts.dev, self.dev


class TaskConfig(Protocol):
    """What a user says of a task; a frozen dataclass of plain values."""

    @property
    def name(self) -> str:
        """Such as "classify"."""
        ...

    def read(self, source: str, notes: Notes) -> Iterator[Row]:
        """The rows of a file; what was mended is noted. CorpusError names what is wrong in it."""
        ...

    def strata(self, rows: Rows) -> Sequence[str] | None:
        """What a split keeps the shares of, a value a row; None where rows are alike."""
        ...

    def groups(self, rows: Rows) -> Iterable[str] | None:
        """What a split keeps on one side: rows of one group; None where each stands alone."""
        ...

    def texts(self, row: Row) -> Sequence[str]:
        """What a row says, for `adapt`: each text by itself."""
        ...

    def prepare(self, parts: Parts, notes: Notes) -> Task:
        """The task, with its labels as the training rows have them; CorpusError where none can be learned."""
        ...


class Task(Protocol):
    """A task whose labels are known."""

    @property
    def metric(self) -> str:
        """The figure on the dev part, larger is better, by which the best weights are chosen."""
        ...

    @property
    def unit(self) -> str:
        """What a loss is a mean over, such as "text" or "word": that of which an example's weight counts."""
        ...

    @property
    def takes_whole_batches(self) -> bool:
        """Whether the loss needs all examples of a step at once, as in-batch negatives do."""
        ...

    def head(self, transform: TransformConfig | None, pooling: str) -> HeadPart:
        """The head; the transform and pooling are those that the model's family has words for."""
        ...

    def examples(self, rows: Iterable[Row], model: Model, limit: int, notes: Notes) -> Iterator[Example]:
        """Rows as sequences of at most `limit` tokens, in their order; what is cut or left out is noted."""
        ...

    def inputs(self, examples: Sequence[Example]) -> tuple[Any, ...]:
        """What `loss` takes beside the module, each with a method `to(device)`."""
        ...

    @property
    def loss(self) -> Callable[..., Float[Tensor, ""]]:
        """`loss(module, *inputs, backend=...)`: the sum over the examples."""
        ...

    def evaluate(self, model: Model, rows: Rows) -> Evaluation:
        """Figures, among them `metric`, and predictions, through the path that users take."""
        ...

    def settle(self, model: Model, dev: Rows) -> Mapping[str, Any]:
        """What is fitted on the dev part after training (a temperature, thresholds), and what came out."""
        ...

    def report(self, context: ReportContext) -> Sequence[Section]:
        """Sections of report.md, with their pictures drawn."""
        ...


@runtime_checkable
class BeginsItself(Protocol):
    """A task that needs more of a model than a new head: its old one, or prompts in its settings."""

    def begin(self, pretrained: Pretrained, *, seed: int) -> Pretrained:
        """The model as it learns; new weights are drawn by `seed`."""
        ...
