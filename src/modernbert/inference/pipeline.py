"""The model as a user sees it: load a folder, then ask.

    model = modernbert.load("path-or-hub-id")
    model.embed(["a text", "another"])          # float32 [2, D]

Every method takes texts, cuts them into sequences that fit, runs those in packs without padding, and puts
the results together in the order of the input. A method that the model has no head for says what it can do.
Texts without an end go through `model.stream(texts)`, with the same methods.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from modernbert.encoder.native import NativeEncoder
from modernbert.heads.model import ModelConfig
from modernbert.inference import answering, classifying, embedding
from modernbert.inference.engine import Engine
from modernbert.inference.inputs import (
    Text,
    as_text,
    as_texts,
    as_texts_or_pairs,
    as_texts_or_words,
    require_positive,
)
from modernbert.inference.limits import longest_possible
from modernbert.inference.long_texts import Overflow
from modernbert.inference.model_tasks import ModelTasks
from modernbert.inference.outside_training import outside_training
from modernbert.inference.results import Answer, Choice, Classification, Entity, Fill, Ranked
from modernbert.inference.scores import best_row, mean_row, unit
from modernbert.inference.stream import Stream
from modernbert.inference.tasks import describe, tasks_of
from modernbert.kernels.attention import backend_named
from modernbert.pretrained.folder import Pretrained, write_folder
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float

    from modernbert.encoder.encoder import Encoder

Item = TypeVar("Item")


class Model:
    """A loaded model with its tokenizer, made by `modernbert.load`; may be shared between threads.

    `pretrained` holds all that its folder holds.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        *,
        device: torch.device,
        backend: str = "auto",
        is_int8: bool = False,
        name: str = "model",
    ) -> None:
        if backend not in ("auto", "native"):
            backend_named(backend)
        self.pretrained = pretrained
        self.name = name
        self._engine = Engine(device=device, backend=backend)
        pretrained.module.to(device).eval()
        self.encoder.native = NativeEncoder(is_on=backend == "auto", is_int8=is_int8)

    @property
    def config(self) -> ModelConfig:
        """The parts that the model is built from."""
        return self.pretrained.config

    @property
    def module(self) -> nn.Module:
        """The encoder with its head, as a torch module.

        Train it if you like: what the methods here give is computed without dropout all the same.
        """
        return self.pretrained.module

    @property
    def encoder(self) -> Encoder:
        """The encoder alone, to be called with a PackedBatch: [T, D]."""
        return cast("Encoder", self.module.model)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._engine.device

    @property
    def backend(self) -> str:
        """The attention kernel that was asked for."""
        return self._engine.backend

    @property
    def dtype(self) -> torch.dtype:
        """The number format that the model computes in; torch.int8: its products do."""
        if self.encoder.native.is_int8:
            return torch.int8
        return next(self.encoder.parameters()).dtype

    @property
    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer; TaskError where it came without one."""
        return self._asks.tokenizer

    @property
    def max_length(self) -> int:
        """The most tokens of a sequence: the folder's limit, else the tokenizer's or the positions'."""
        return self._asks.max_length

    @property
    def longest_possible(self) -> int:
        """The most tokens that the positions can take, whatever limit the folder sets below that."""
        return longest_possible(self.config.encoder)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the methods that this model's head serves."""
        return tasks_of(self.config.head)

    def stream(self, items: Iterable[Item], text: Callable[[Item], object] | None = None) -> Stream[Item]:
        """Ask about texts in any number, an endless iterator too: each item with its result, as they come.

        `text` takes the text out of an item; without it the items are texts (or what the method takes). They
        are tokenised ahead of the model, and only a few windows of them are in memory. The items are read in
        a thread of their own, so what they come from must allow that (sqlite3: `check_same_thread=False`).

            for line, vector in model.stream(open("lines.txt")).embed():
            for row, found in model.stream(rows, text=lambda row: row["body"]).classify():
        """
        return Stream(self._asks, items, text)

    def hidden_states(
        self, texts: Sequence[str], *, overflow: Overflow = "error", max_length: int | None = None
    ) -> list[Float[Tensor, "n D"]]:
        """The encoder's last hidden state of every token of each text, special tokens included, on the CPU.

        A text that does not fit raises TooLongError; `overflow="truncate"` cuts it with a warning.
        """
        return list(self._engine.ask(as_texts(texts), self._asks.hidden_states(overflow, max_length)))

    def embed(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        dimensions: int | None = None,
        overflow: Overflow = "windows",
        max_length: int | None = None,
    ) -> Float[np.ndarray, "N E"]:
        """One float32 vector for each text, pooled as the folder says (the mean of its tokens by default).

        `prompt` names a prompt of the folder; "query" and "document" may always be named. `dimensions` keeps
        the first so many numbers (Matryoshka), at length 1 again where the model's vectors have that; without
        it a folder's own choice holds, cut as Sentence Transformers does. A text longer than the model is
        embedded in overlapping windows, averaged by their tokens.
        """
        task = self._asks.embed(prompt, dimensions, overflow, max_length)
        listed = as_texts(texts)
        size = embedding.embedding_size(self.config)
        kept = self.pretrained.settings.dimensions if dimensions is None else dimensions
        vectors = np.empty((len(listed), size if kept is None else min(size, kept)), np.float32)
        for place, vector in enumerate(self._engine.ask(listed, task)):
            vectors[place] = vector
        return vectors

    def embed_tokens(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        overflow: Overflow = "error",
        max_length: int | None = None,
    ) -> list[Float[np.ndarray, "n E"]]:
        """One float32 array [tokens, E] for each text, special tokens included, for late interaction.

        From a multi-vector folder: its projected vectors of length 1; with `prompt="query"` also those of the
        masks that it adds to queries, and for other texts without those of its skiplist. From other encoders:
        the hidden states.
        """
        task = self._asks.embed_tokens(prompt, overflow, max_length)
        return list(self._engine.ask(as_texts(texts), task))

    def maxsim(
        self, queries: Sequence[str], documents: Sequence[str], *, overflow: Overflow = "error"
    ) -> Float[np.ndarray, "Q N"]:
        """How well each document answers each query, compared token by token (late interaction).

        The sum, over the query's tokens, of the largest product with a token of the document; with prompts
        and limits of both as the folder has them. Long texts as in `embed_tokens`.
        """
        self._asks.require("maxsim")
        asked = self.embed_tokens(queries, prompt="query", overflow=overflow)
        return embedding.maxsim(asked, self.embed_tokens(documents, prompt="document", overflow=overflow))

    def similarity(self, texts_a: Sequence[str], texts_b: Sequence[str]) -> Float[np.ndarray, "A B"]:
        """The cosine of every text of the first list with every text of the second."""
        self._asks.require("similarity")
        first, second = as_texts(texts_a), as_texts(texts_b)
        vectors = unit(self.embed([*first, *second]))
        return vectors[: len(first)] @ vectors[len(first) :].T

    def fill_mask(self, text: str, *, top_k: int = 5) -> list[Fill]:
        """The best candidates for each mask of a text, those of the first mask first."""
        self._asks.require("fill_mask")
        return self.fill_masks([as_text(text, "the text")], top_k=top_k)[0]

    def fill_masks(self, texts: Sequence[str], *, top_k: int = 5) -> list[list[Fill]]:
        """`fill_mask` for many texts at once; "[MASK]" and other special tokens in them count as such."""
        return list(self._engine.ask(as_texts(texts), self._asks.fill_masks(top_k)))

    def classify(
        self,
        texts: Sequence[Text],
        *,
        prompt: str | None = None,
        overflow: Overflow = "windows",
        max_length: int | None = None,
    ) -> list[Classification]:
        """Labels with scores for each text, or each pair of texts (premise, hypothesis).

        Of a text longer than the model, the windows' logits are averaged by their tokens; of a pair, windows
        go over the second text. `prompt` names a prompt of the folder, put before a text or a pair.
        """
        task = self._asks.classify(prompt, overflow, max_length)
        return list(self._engine.ask(as_texts_or_pairs(texts), task))

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_k: int | None = None,
        prompt: str | None = None,
        overflow: Overflow = "windows",
        max_length: int | None = None,
    ) -> list[Ranked]:
        """The documents by how well they fit the query, best first; a long one counts by its best window.

        Scores are probabilities (a sigmoid), unless the folder names another activation. `prompt` names a
        prompt of the folder, put before the query.
        """
        self._asks.require("rerank")
        if top_k is not None:
            require_positive("top_k", top_k)
        query, listed = as_text(query, "the query"), as_texts(documents)
        asks = self._asks
        task = asks.score(asks.prompt(prompt), overflow, max_length, join=best_row, meaning=lambda row: row)
        rows = list(self._engine.ask([(query, text) for text in listed], task))
        return classifying.rank(listed, rows, self.pretrained.settings.activation or "sigmoid", top_k)

    def tag(
        self, texts: Sequence[str | Sequence[str]], *, max_length: int | None = None
    ) -> list[list[Entity]]:
        """The entities of each text, of any length; a text may come as its words."""
        return list(self._engine.ask(as_texts_or_words(texts), self._asks.tag(max_length)))

    def answer(self, question: str, context: str, *, max_length: int | None = None) -> Answer:
        """The first of `answers`: the stretch of the context, of any length, that answers best."""
        self._asks.require("answer")
        return self.answers(question, context, top_k=1, max_length=max_length)[0]

    def answers(
        self, question: str, context: str, *, top_k: int = 5, max_length: int | None = None
    ) -> list[Answer]:
        """The best stretches, best first. Their scores and that of "no answer" here sum to at most 1.

        Where "no answer" beats all by more than the folder's threshold, one of empty text stands first.
        """
        self._asks.require("answers")
        require_positive("top_k", top_k)
        logits_of = self._engine.tokens_of_each(outside_training(self.module))
        return answering.find_answers(
            as_text(question, "the question"),
            as_text(context, "the context"),
            tokenizer=self.tokenizer,
            limit=self._asks.limit(max_length),
            score_tokens=lambda sequences: [
                logits.float().numpy() for logits in self._engine.run(sequences, logits_of, label="answer")
            ],
            top_k=top_k,
            threshold=self.pretrained.settings.no_answer_threshold,
        )

    def choose(self, question: str, choices: Sequence[str]) -> Choice:
        """The choice that best completes or answers the question."""
        self._asks.require("choose")
        question, listed = as_text(question, "the question"), as_texts(choices)
        task = self._asks.score("", "error", None, join=mean_row, meaning=lambda row: row)
        rows = list(self._engine.ask([(question, choice) for choice in listed], task))
        return classifying.best_choice(listed, rows)

    def save(self, folder: str | Path) -> None:
        """Write a folder that transformers and Sentence Transformers load, or raise and leave an old one.

        Of a model that computes in int8 the folder holds the encoder's matrices in 8 bits, and only this
        package reads it.
        """
        stored = self.pretrained.dtype_of_file
        if stored == torch.float32 and self.dtype not in (torch.float32, torch.int8):
            warnings.warn(
                f"the folder that this model came from holds float32 and the new one will hold {self.dtype}; "
                "load with dtype='float32' to keep every bit",
                stacklevel=2,
            )
        layout = "int8" if self.encoder.native.is_int8 else "auto"
        write_folder(Path(folder), self.pretrained, layout=layout)

    def export(self, folder: str | Path) -> None:
        """Write an ONNX graph with the tokenizer beside it, for ONNX Runtime, OpenVINO and others.

        It takes padded rows and is in float32, whatever the model computes in: load with dtype="float32" to
        keep every bit of such a folder. Raises as `save` does, ConfigError for parts of your own that only
        packs can serve, and ModernBertError without the extra `export`.
        """
        from modernbert.inference.export import export_onnx  # the one use of a package that may be missing

        export_onnx(self.pretrained, Path(folder))

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {describe(self.config.head)}, {self.dtype}, {self.device})"

    @property
    def _asks(self) -> ModelTasks:
        return ModelTasks(pretrained=self.pretrained, engine=self._engine, name=self.name)
