"""What can be asked of a model, each as a `Task` of the engine: its arguments checked, its parts bound.

`Model` asks them of lists and `Stream` of endless iterators, with the same arguments and the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from modernbert.errors import TaskError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.embed import TokenEmbedder
from modernbert.heads.mlm import MaskedLanguageModel
from modernbert.heads.tokens import TagHeadConfig
from modernbert.inference import classifying, embedding, filling, tagging
from modernbert.inference.engine import Engine, Reading, Task
from modernbert.inference.inputs import lowered, require_positive
from modernbert.inference.limits import longest_by_default, require_computable
from modernbert.inference.long_texts import Join, Overflow, Pieces, refuse_windows, text_pieces
from modernbert.inference.outside_training import outside_training
from modernbert.inference.results import Classification, Entity, Fill
from modernbert.inference.scores import mean_row, softmax
from modernbert.inference.tasks import describe, tasks_of
from modernbert.inference.windows import Window

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from modernbert.encoder.encoder import Encoder
    from modernbert.pretrained.folder import Pretrained
    from modernbert.text.batch import PackedBatch
    from modernbert.text.tokenizer import Tokenizer

Score = TypeVar("Score")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelTasks:
    """The tasks of one model, as it is when each is asked for."""

    pretrained: Pretrained
    engine: Engine
    name: str

    @property
    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer; TaskError where it came without one."""
        if self.pretrained.tokenizer is None:
            raise TaskError(
                f"{self.name} has no tokenizer files, so it takes no texts; model.encoder(batch) works"
            )
        return self.pretrained.tokenizer

    @property
    def max_length(self) -> int:
        """The most tokens of a sequence: the folder's limit, else the tokenizer's or the positions'."""
        return longest_by_default(self.pretrained.config.encoder, self.pretrained.settings, self.tokenizer)

    def require(self, task: str) -> None:
        """Raise TaskError, which says what the model can do, unless its head serves this."""
        tasks = tasks_of(self.pretrained.config.head)
        if task not in tasks:
            raise TaskError(
                f"{self.name} cannot {task}: it is {describe(self.pretrained.config.head)}. "
                f"It can: {', '.join(tasks)}"
            )

    def limit(self, max_length: int | None) -> int:
        """The tokens of a sequence that were asked for, if the model can compute so many."""
        if max_length is None:
            return self.max_length
        require_computable(max_length, self.pretrained.config.encoder)
        return max_length

    def hidden_states(self, overflow: Overflow, max_length: int | None) -> Task[Tensor, Float[Tensor, "n D"]]:
        """The encoder's last hidden state of every token."""
        overflow = refuse_windows(overflow, "hidden_states")
        pieces_of = self._pieces(overflow, self.limit(max_length), prompt="")

        def read(window: Window[Any]) -> Reading[Tensor, Tensor]:
            pieces = pieces_of(window)
            return Reading(sequences=pieces.sequences, finish=list, cut=pieces.cut)

        forward = self.engine.tokens_of_each(outside_training(self._encoder))
        return Task(label="encode", read=read, forward=forward, reads_all=overflow == "error")

    def embed(
        self, prompt: str | None, dimensions: int | None, overflow: Overflow, max_length: int | None
    ) -> Task[np.ndarray, Float[np.ndarray, "E"]]:
        """One vector for each text."""
        self.require("embed")
        config, settings = self.pretrained.config, self.pretrained.settings
        head = embedding.embed_head(config)
        embedding.require_dimensions(dimensions, embedding.embedding_size(config))
        pieces_of = self._pieces(overflow, self._limit_for(prompt, max_length), self.prompt(prompt))
        embedder = embedding.text_embedder(outside_training(self.pretrained.module))
        kept = settings.dimensions if dimensions is None else None
        num_skipped = 0 if head.pools_prompt else pieces_of(NO_TEXTS).num_prompt_tokens

        def read(window: Window[Any]) -> Reading[np.ndarray, np.ndarray]:
            return embedding.vectors_of(
                pieces_of(window),
                first=window.first,
                dimensions=dimensions,
                kept=kept,
                is_normalized=head.is_normalized,
            )

        def forward(batch: PackedBatch) -> list[np.ndarray]:
            return embedding.embed_batch(
                embedder, batch, num_skipped=num_skipped, backend=self.engine.backend
            )

        return Task(label="embed", read=read, forward=forward, reads_all=overflow == "error")

    def embed_tokens(
        self, prompt: str | None, overflow: Overflow, max_length: int | None
    ) -> Task[Tensor, Float[np.ndarray, "n E"]]:
        """A vector for each token of each text."""
        self.require("embed_tokens")
        overflow = refuse_windows(overflow, "embed_tokens")
        config, tokenizer, is_query = self.pretrained.config, self.tokenizer, prompt == "query"
        expansion = self.pretrained.settings.query_expansion if is_query else None
        skipped = frozenset[int]() if is_query else embedding.skipped_ids(config, tokenizer)
        pieces_of = self._pieces(overflow, self._limit_for(prompt, max_length), self.prompt(prompt))
        module = self.pretrained.module

        def read(window: Window[Any]) -> Reading[Tensor, np.ndarray]:
            pieces = pieces_of(window)
            sequences = embedding.expanded(pieces.sequences, expansion, tokenizer)
            return embedding.token_vectors_of(pieces, sequences, first=window.first, skipped=skipped)

        embedder = module if isinstance(module, TokenEmbedder) else self._encoder
        forward = self.engine.tokens_of_each(outside_training(embedder))
        return Task(label="embed", read=read, forward=forward, reads_all=overflow == "error")

    def fill_masks(self, top_k: int) -> Task[filling.Best, list[Fill]]:
        """The best candidates for each mask of each text."""
        self.require("fill_masks")
        require_positive("top_k", top_k)
        tokenizer, limit = self.tokenizer, self.max_length
        module = cast(MaskedLanguageModel, outside_training(self.pretrained.module))

        def read(window: Window[Any]) -> Reading[filling.Best, list[Fill]]:
            texts = cast("list[str]", window.texts)
            return filling.read_to_fill(texts, first=window.first, tokenizer=tokenizer, limit=limit)

        def forward(batch: PackedBatch) -> list[filling.Best]:
            return filling.best_for_masks(module, batch, tokenizer, top_k, self.engine.backend)

        return Task(label="fill masks", read=read, forward=forward, reads_all=True)

    def classify(
        self, prompt: str | None, overflow: Overflow, max_length: int | None
    ) -> Task[np.ndarray, Classification]:
        """Labels with scores for each text, or each pair."""
        self.require("classify")
        head = cast(ClassifyHeadConfig, self.pretrained.config.head)
        return self.score(
            self.prompt(prompt),
            overflow,
            max_length,
            join=mean_row,
            meaning=lambda logits: classifying.classification(logits, head),
        )

    def score(
        self,
        prompt: str,
        overflow: Overflow,
        max_length: int | None,
        *,
        join: Join,
        meaning: Callable[[Float[np.ndarray, "C"]], Score],
    ) -> Task[np.ndarray, Score]:
        """What the logits of each text or pair mean; `join` makes one row of a text's windows."""
        tokenizer, limit = self.tokenizer, self.limit(max_length)
        lowercases = self.pretrained.settings.lowercases
        prompt = prompt.lower() if lowercases else prompt

        def read(window: Window[Any]) -> Reading[np.ndarray, Score]:
            texts = cast("list[str | tuple[str, str]]", window.texts)
            return classifying.read_to_score(
                lowered(texts) if lowercases else texts,
                first=window.first,
                prompt=prompt,
                tokenizer=tokenizer,
                limit=limit,
                overflow=overflow,
                join=join,
                meaning=meaning,
            )

        forward = self.engine.row_of_each(outside_training(self.pretrained.module))
        return Task(label="classify", read=read, forward=forward, reads_all=overflow == "error")

    def tag(self, max_length: int | None) -> Task[np.ndarray, list[Entity]]:
        """The entities of each text."""
        self.require("tag")
        tokenizer, limit = self.tokenizer, self.limit(max_length)
        labels = cast(TagHeadConfig, self.pretrained.config.head).labels
        logits_of = self.engine.tokens_of_each(outside_training(self.pretrained.module))

        def read(window: Window[Any]) -> Reading[np.ndarray, list[Entity]]:
            texts = cast("Sequence[str | list[str]]", window.texts)
            return tagging.read_to_tag(
                texts, first=window.first, tokenizer=tokenizer, labels=labels, limit=limit
            )

        def forward(batch: PackedBatch) -> list[np.ndarray]:
            return [softmax(logits.float().numpy()) for logits in logits_of(batch)]

        return Task(label="tag", read=read, forward=forward)

    def prompt(self, name: str | None) -> str:
        """The folder's prompt of that name."""
        return embedding.prompt_named(name, self.pretrained.settings, self.name)

    @property
    def _encoder(self) -> Encoder:
        return cast("Encoder", self.pretrained.module.model)

    def _limit_for(self, prompt: str | None, max_length: int | None) -> int:
        """What was asked for, or the folder's limit for queries or documents."""
        named = self.pretrained.settings.length_for(prompt)
        if max_length is None and named is not None:
            max_length = min(named, self.max_length)
        return self.limit(max_length)

    def _pieces(self, overflow: Overflow, limit: int, prompt: str) -> Callable[[Window[Any]], Pieces]:
        tokenizer, lowercases = self.tokenizer, self.pretrained.settings.lowercases
        prompt = prompt.lower() if lowercases else prompt

        def pieces_of(window: Window[Any]) -> Pieces:
            texts = cast("list[str]", window.texts)
            return text_pieces(
                tokenizer,
                [text.lower() for text in texts] if lowercases else texts,
                limit=limit,
                overflow=overflow,
                prompt=prompt,
                first=window.first,
            )

        return pieces_of


# Reading it checks all that does not depend on texts.
NO_TEXTS: Window[Any] = Window(items=[], texts=[], first=0)
