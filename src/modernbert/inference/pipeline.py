"""The model as a user sees it: load a folder, then ask.

    model = modernbert.load("path-or-hub-id")
    model.embed(["a text", "another"])          # float32 [2, D]

Every method takes texts, cuts them into sequences that fit, runs those in packs without padding, and puts
the results together in the order of the input. A method that the model has no head for says what it can do.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn

from modernbert.encoder.native import NativeEncoder
from modernbert.errors import TaskError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.embed import TokenEmbedder
from modernbert.heads.mlm import MaskedLanguageModel
from modernbert.heads.model import ModelConfig
from modernbert.heads.tokens import TagHeadConfig
from modernbert.inference import answering, classifying, embedding, filling, tagging
from modernbert.inference.engine import Engine, outside_training
from modernbert.inference.inputs import (
    Text,
    as_text,
    as_texts,
    as_texts_or_pairs,
    as_texts_or_words,
    lowered,
    require_positive,
)
from modernbert.inference.limits import longest_by_default, longest_possible, require_computable
from modernbert.inference.long_texts import Join, Overflow, Pieces, refuse_windows, text_pieces
from modernbert.inference.results import Answer, Choice, Classification, Entity, Fill, Ranked
from modernbert.inference.scores import best_row, mean_row, require_finite, softmax, unit
from modernbert.inference.tasks import describe, tasks_of
from modernbert.kernels.attention import backend_named
from modernbert.pretrained.folder import Pretrained, write_folder
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float

    from modernbert.encoder.encoder import Encoder


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
        if self.pretrained.tokenizer is None:
            raise TaskError(
                f"{self.name} has no tokenizer files, so it takes no texts; model.encoder(batch) works"
            )
        return self.pretrained.tokenizer

    @property
    def max_length(self) -> int:
        """The most tokens of a sequence: the folder's limit, else the tokenizer's or the positions'."""
        return longest_by_default(self.config.encoder, self.pretrained.settings, self.tokenizer)

    @property
    def longest_possible(self) -> int:
        """The most tokens that the positions can take, whatever limit the folder sets below that."""
        return longest_possible(self.config.encoder)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the methods that this model's head serves."""
        return tasks_of(self.config.head)

    def hidden_states(
        self, texts: Sequence[str], *, overflow: Overflow = "error", max_length: int | None = None
    ) -> list[Float[Tensor, "n D"]]:
        """The encoder's last hidden state of every token of each text, special tokens included, on the CPU.

        A text that does not fit raises TooLongError; `overflow="truncate"` cuts it with a warning.
        """
        pieces = self._text_pieces(texts, refuse_windows(overflow, "hidden_states"), max_length)
        return self._engine.tokens(outside_training(self.encoder), pieces.sequences, label="encode")

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
        self._require("embed")
        head, size = embedding.embed_head(self.config), embedding.embedding_size(self.config)
        embedding.require_dimensions(dimensions, size)
        pieces = self._text_pieces(texts, overflow, self._length(max_length, prompt), self._prompt(prompt))
        num_skipped = 0 if head.pools_prompt else pieces.num_prompt_tokens
        embedder = embedding.text_embedder(outside_training(self.module))
        rows = self._engine.run(
            pieces.sequences,
            lambda batch: embedding.embed_batch(
                embedder, batch, num_skipped=num_skipped, backend=self.backend
            ),
            label="embed",
        )
        vectors = embedding.join_vectors(
            pieces, rows, size=size, dimensions=dimensions, is_normalized=head.is_normalized
        )
        kept = self.pretrained.settings.dimensions if dimensions is None else None
        return np.ascontiguousarray(vectors[:, :kept])

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
        self._require("embed_tokens")
        overflow = refuse_windows(overflow, "embed_tokens")
        pieces = self._text_pieces(texts, overflow, self._length(max_length, prompt), self._prompt(prompt))
        is_query = prompt == "query"
        expansion = self.pretrained.settings.query_expansion if is_query else None
        sequences = embedding.expanded(pieces.sequences, expansion, self.tokenizer)
        module = self.module if isinstance(self.module, TokenEmbedder) else self.encoder
        found = self._engine.tokens(outside_training(module), sequences, label="embed")
        vectors = [each.float().numpy() for each in found]
        require_finite(vectors)
        skipped = frozenset[int]() if is_query else embedding.skipped_ids(self.config, self.tokenizer)
        return embedding.without_skipped(vectors, sequences, skipped)

    def maxsim(
        self, queries: Sequence[str], documents: Sequence[str], *, overflow: Overflow = "error"
    ) -> Float[np.ndarray, "Q N"]:
        """How well each document answers each query, compared token by token (late interaction).

        The sum, over the query's tokens, of the largest product with a token of the document; with prompts
        and limits of both as the folder has them. Long texts as in `embed_tokens`.
        """
        self._require("maxsim")
        asked = self.embed_tokens(queries, prompt="query", overflow=overflow)
        return embedding.maxsim(asked, self.embed_tokens(documents, prompt="document", overflow=overflow))

    def similarity(self, texts_a: Sequence[str], texts_b: Sequence[str]) -> Float[np.ndarray, "A B"]:
        """The cosine of every text of the first list with every text of the second."""
        self._require("similarity")
        first, second = as_texts(texts_a), as_texts(texts_b)
        vectors = unit(self.embed([*first, *second]))
        return vectors[: len(first)] @ vectors[len(first) :].T

    def fill_mask(self, text: str, *, top_k: int = 5) -> list[Fill]:
        """The best candidates for each mask of a text, those of the first mask first."""
        self._require("fill_mask")
        return self.fill_masks([as_text(text, "the text")], top_k=top_k)[0]

    def fill_masks(self, texts: Sequence[str], *, top_k: int = 5) -> list[list[Fill]]:
        """`fill_mask` for many texts at once; "[MASK]" and other special tokens in them count as such."""
        self._require("fill_masks")
        require_positive("top_k", top_k)
        module, tokenizer = cast(MaskedLanguageModel, outside_training(self.module)), self.tokenizer
        return filling.fill_texts(
            as_texts(texts),
            tokenizer=tokenizer,
            limit=self.max_length,
            score_masks=lambda sequences: self._engine.run(
                sequences,
                lambda batch: filling.best_for_masks(module, batch, tokenizer, top_k, self.backend),
                label="fill masks",
            ),
        )

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
        self._require("classify")
        head = cast(ClassifyHeadConfig, self.config.head)
        rows = self._rows(
            as_texts_or_pairs(texts), overflow, max_length, mean_row, prompt=self._prompt(prompt)
        )
        return [classifying.classification(logits, head) for logits in rows]

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
        self._require("rerank")
        if top_k is not None:
            require_positive("top_k", top_k)
        query, listed = as_text(query, "the query"), as_texts(documents)
        pairs = [(query, text) for text in listed]
        rows = self._rows(pairs, overflow, max_length, best_row, prompt=self._prompt(prompt))
        return classifying.rank(listed, rows, self.pretrained.settings.activation or "sigmoid", top_k)

    def tag(
        self, texts: Sequence[str | Sequence[str]], *, max_length: int | None = None
    ) -> list[list[Entity]]:
        """The entities of each text, of any length; a text may come as its words."""
        self._require("tag")
        return tagging.tag_texts(
            as_texts_or_words(texts),
            tokenizer=self.tokenizer,
            labels=cast(TagHeadConfig, self.config.head).labels,
            limit=self._limit(max_length),
            score_tokens=lambda sequences: [
                softmax(logits.float().numpy())
                for logits in self._engine.tokens(outside_training(self.module), sequences, label="tag")
            ],
        )

    def answer(self, question: str, context: str, *, max_length: int | None = None) -> Answer:
        """The first of `answers`: the stretch of the context, of any length, that answers best."""
        self._require("answer")
        return self.answers(question, context, top_k=1, max_length=max_length)[0]

    def answers(
        self, question: str, context: str, *, top_k: int = 5, max_length: int | None = None
    ) -> list[Answer]:
        """The best stretches, best first. Their scores and that of "no answer" here sum to at most 1.

        Where "no answer" beats all by more than the folder's threshold, one of empty text stands first.
        """
        self._require("answers")
        require_positive("top_k", top_k)
        return answering.find_answers(
            as_text(question, "the question"),
            as_text(context, "the context"),
            tokenizer=self.tokenizer,
            limit=self._limit(max_length),
            score_tokens=lambda sequences: [
                logits.float().numpy()
                for logits in self._engine.tokens(outside_training(self.module), sequences, label="answer")
            ],
            top_k=top_k,
            threshold=self.pretrained.settings.no_answer_threshold,
        )

    def choose(self, question: str, choices: Sequence[str]) -> Choice:
        """The choice that best completes or answers the question."""
        self._require("choose")
        question, listed = as_text(question, "the question"), as_texts(choices)
        rows = self._rows([(question, choice) for choice in listed], "error", None, mean_row)
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

    def _text_pieces(
        self, texts: Sequence[str], overflow: Overflow, max_length: int | None, prompt: str = ""
    ) -> Pieces:
        listed = as_texts(texts)
        if self.pretrained.settings.lowercases:
            prompt, listed = prompt.lower(), [text.lower() for text in listed]
        limit = self._limit(max_length)
        return text_pieces(self.tokenizer, listed, limit=limit, overflow=overflow, prompt=prompt)

    def _rows(
        self,
        texts: Sequence[Text],
        overflow: Overflow,
        max_length: int | None,
        join: Join,
        *,
        prompt: str = "",
    ) -> list[Float[np.ndarray, "C"]]:
        """The classifier's logits for each text or pair; `join` makes one row of a text's windows."""
        if self.pretrained.settings.lowercases:
            texts, prompt = lowered(texts), prompt.lower()
        return classifying.score_texts(
            texts,
            prompt=prompt,
            tokenizer=self.tokenizer,
            limit=self._limit(max_length),
            overflow=overflow,
            score_rows=lambda sequences: self._engine.rows(
                outside_training(self.module), sequences, label="classify"
            ),
            join=join,
        )

    def _prompt(self, name: str | None) -> str:
        return embedding.prompt_named(name, self.pretrained.settings, self.name)

    def _length(self, max_length: int | None, prompt: str | None) -> int | None:
        """What was asked for, or the folder's limit for queries or documents."""
        named = self.pretrained.settings.length_for(prompt)
        return max_length if max_length is not None or named is None else min(named, self.max_length)

    def _limit(self, max_length: int | None) -> int:
        if max_length is None:
            return self.max_length
        require_computable(max_length, self.config.encoder)
        return max_length

    def _require(self, task: str) -> None:
        if task not in self.tasks:
            raise TaskError(
                f"{self.name} cannot {task}: it is {describe(self.config.head)}. "
                f"It can: {', '.join(self.tasks)}"
            )
