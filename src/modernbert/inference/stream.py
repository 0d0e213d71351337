"""A model's tasks over an iterator of any length: results as they come, memory that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Generic, TypeVar

from modernbert.inference.inputs import (
    TextOrWords,
    entries,
    require_iterable,
    streamed_text,
    streamed_text_or_pair,
    streamed_text_or_words,
)
from modernbert.inference.model_tasks import NO_TEXTS, ModelTasks

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float
    from torch import Tensor

    from modernbert.inference.engine import Task
    from modernbert.inference.long_texts import Overflow
    from modernbert.inference.results import Classification, Entity, Fill

Item = TypeVar("Item")
Row = TypeVar("Row")
Result = TypeVar("Result")


class Stream(Generic[Item]):
    """Items whose texts a model is asked about, made by `Model.stream`.

        for line, vector in model.stream(open("lines.txt")).embed():

    Each method takes the arguments of the model's own, and yields each item with the result for its text, in
    the order of the items. Wrong arguments are errors at once. An error of the items, or of a text, comes
    behind the results of all items before it.
    """

    def __init__(
        self, tasks: ModelTasks, items: Iterable[Item], text: Callable[[Item], object] | None
    ) -> None:
        require_iterable(items)
        self._tasks = tasks
        self._items = items
        self._text = text

    def embed(
        self,
        *,
        prompt: str | None = None,
        dimensions: int | None = None,
        overflow: Overflow = "windows",
        max_length: int | None = None,
    ) -> Generator[tuple[Item, Float[np.ndarray, "E"]]]:
        """One float32 vector for each text, as `Model.embed`."""
        return self._run(self._tasks.embed(prompt, dimensions, overflow, max_length), streamed_text)

    def embed_tokens(
        self, *, prompt: str | None = None, overflow: Overflow = "error", max_length: int | None = None
    ) -> Generator[tuple[Item, Float[np.ndarray, "n E"]]]:
        """One float32 vector for each token of each text, as `Model.embed_tokens`."""
        return self._run(self._tasks.embed_tokens(prompt, overflow, max_length), streamed_text)

    def hidden_states(
        self, *, overflow: Overflow = "error", max_length: int | None = None
    ) -> Generator[tuple[Item, Float[Tensor, "n D"]]]:
        """The last hidden state of every token of each text, as `Model.hidden_states`."""
        return self._run(self._tasks.hidden_states(overflow, max_length), streamed_text)

    def fill_masks(self, *, top_k: int = 5) -> Generator[tuple[Item, list[Fill]]]:
        """The best candidates for each mask of each text, as `Model.fill_masks`."""
        return self._run(self._tasks.fill_masks(top_k), streamed_text)

    def classify(
        self, *, prompt: str | None = None, overflow: Overflow = "windows", max_length: int | None = None
    ) -> Generator[tuple[Item, Classification]]:
        """Labels with scores for each text, or each pair of texts, as `Model.classify`."""
        return self._run(self._tasks.classify(prompt, overflow, max_length), streamed_text_or_pair)

    def tag(self, *, max_length: int | None = None) -> Generator[tuple[Item, list[Entity]]]:
        """The entities of each text, which may come as its words, as `Model.tag`."""
        return self._run(self._tasks.tag(max_length), streamed_text_or_words)

    def _run(
        self, task: Task[Row, Result], check: Callable[[object, int], TextOrWords]
    ) -> Generator[tuple[Item, Result]]:
        task.read(NO_TEXTS)
        return self._tasks.engine.stream(entries(self._items, self._text, check), task)
