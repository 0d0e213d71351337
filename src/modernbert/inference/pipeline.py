"""The model as a user sees it: load a folder, then ask.

    model = modernbert.load("path-or-hub-id")
    model.embed(["a text", "another"])          # float32 [2, D]

Every method takes texts, cuts them into sequences that fit, runs those in packs without padding, and puts the results together
in the order of the input. A method that the model has no head for says what the model can do instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from modernbert.errors import InputError, TaskError
from modernbert.heads.classify import ClassifyHeadConfig
from modernbert.heads.embed import (
    EmbedHeadConfig,
    TextEmbedder,
    TokenEmbedder,
)
from modernbert.heads.mlm import MaskedLanguageModel
from modernbert.heads.model import ModelConfig
from modernbert.heads.tokens import TagHeadConfig
from modernbert.inference import answering, engine, filling, tagging
from modernbert.inference.engine import BUDGET_TOKENS, SequenceIds
from modernbert.inference.long_texts import Overflow, Pieces, pair_pieces, text_pieces
from modernbert.inference.results import Answer, Choice, Classification, Entity, Fill, Ranked
from modernbert.inference.scores import best_row, probabilities, sigmoid, softmax, unit
from modernbert.inference.tasks import describe, tasks_of
from modernbert.kernels.attention import backend_named
from modernbert.pretrained.folder import Pretrained, write_folder
from modernbert.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float

    from modernbert.encoder.encoder import Encoder
    from modernbert.text.batch import PackedBatch

Text = str | tuple[str, str]
Result = TypeVar("Result")


class Model:
    """A loaded model with its tokenizer. Made by `modernbert.load`; `pretrained` holds all that a folder holds."""

    def __init__(
        self, pretrained: Pretrained, *, device: torch.device, backend: str = "auto", name: str = "model"
    ) -> None:
        if backend != "auto":
            backend_named(backend)
        self.pretrained = pretrained
        self.device = device
        self.backend = backend
        self.name = name
        self._module = pretrained.module.to(device).eval()

    @property
    def config(self) -> ModelConfig:
        """The parts that the model is built from."""
        return self.pretrained.config

    @property
    def module(self) -> nn.Module:
        """The encoder with its head, as a torch module."""
        return self._module

    @property
    def encoder(self) -> Encoder:
        """The encoder alone, to be called with a PackedBatch: [T, D]."""
        return cast("Encoder", self._module.model)

    @property
    def dtype(self) -> torch.dtype:
        """The number format that the model computes in."""
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
        """The longest sequence in tokens: the folder's own limit, else the smaller of the tokenizer's and the positions'."""
        if self.pretrained.settings.max_seq_length is not None:
            return self.pretrained.settings.max_seq_length
        limits = (self.tokenizer.model_max_length, self.config.encoder.max_positions)
        return min(limit for limit in limits if limit is not None)

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
        pieces = self._text_pieces(texts, self._no_windows(overflow, "hidden_states"), max_length)
        return self._run(
            pieces.sequences, lambda batch: _split(batch, self.encoder(batch, self.backend)), "encode"
        )

    def embed(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        dimensions: int | None = None,
        overflow: Overflow = "windows",
        max_length: int | None = None,
    ) -> Float[np.ndarray, "N E"]:
        """One float32 vector for each text, pooled as the folder says (the mean of its tokens where it says nothing).

        `prompt` names a prompt of the folder; "query" and "document" may always be named. `dimensions` keeps the first
        so many numbers (Matryoshka), at length 1 again where the model's vectors have that. A text longer than the model is
        embedded in overlapping windows, averaged by their tokens.
        """
        self._require("embed")
        head = self.config.head if isinstance(self.config.head, EmbedHeadConfig) else EmbedHeadConfig()
        pieces = self._text_pieces(texts, overflow, max_length, self._prompt(prompt))
        skipped = 0 if head.pools_prompt else pieces.num_prompt_tokens
        rows = self._run(
            pieces.sequences, lambda batch: list(self._embed_batch(batch, skipped).cpu().numpy()), "embed"
        )
        size = self._embedding_size(head)
        vectors = np.zeros((len(pieces.of_text), size), dtype=np.float32)
        for text, places in enumerate(pieces.of_text):
            weights = [pieces.weights[place] for place in places]
            vectors[text] = np.average([rows[place] for place in places], axis=0, weights=weights)
        is_pooled = any(len(places) > 1 for places in pieces.of_text)
        if dimensions is not None:
            if not 1 <= dimensions <= size:
                raise InputError(f"dimensions must lie between 1 and the model's {size}, found {dimensions}")
            vectors = vectors[:, :dimensions]
        needs_length = head.is_normalized and (is_pooled or dimensions is not None)
        return unit(vectors) if needs_length else vectors

    def embed_tokens(
        self,
        texts: Sequence[str],
        *,
        prompt: str | None = None,
        overflow: Overflow = "error",
        max_length: int | None = None,
    ) -> list[Float[np.ndarray, "n E"]]:
        """One float32 array [tokens, E] for each text, special tokens included, for late interaction.

        From a multi-vector folder: its projected vectors of length 1. From other encoders: the hidden states.
        """
        self._require("embed_tokens")
        pieces = self._text_pieces(
            texts, self._no_windows(overflow, "embed_tokens"), max_length, self._prompt(prompt)
        )
        forward = self._module if isinstance(self._module, TokenEmbedder) else self.encoder
        return self._run(
            pieces.sequences,
            lambda batch: [x.numpy() for x in _split(batch, forward(batch, self.backend).float())],
            "embed",
        )

    def similarity(self, texts_a: Sequence[str], texts_b: Sequence[str]) -> Float[np.ndarray, "A B"]:
        """The cosine of every text of the first list with every text of the second."""
        self._require("similarity")
        texts_a, texts_b = _as_list(texts_a), _as_list(texts_b)
        vectors = unit(self.embed([*texts_a, *texts_b]))
        return vectors[: len(texts_a)] @ vectors[len(texts_a) :].T

    def fill_mask(self, text: str, *, top_k: int = 5) -> list[Fill]:
        """The best candidates for each mask of a text, those of the first mask first."""
        return self.fill_masks([text], top_k=top_k)[0]

    def fill_masks(self, texts: Sequence[str], *, top_k: int = 5) -> list[list[Fill]]:
        """`fill_mask` for many texts at once. "[MASK]" and other special tokens in the texts count as such."""
        self._require("fill_masks")
        _require_positive("top_k", top_k)
        texts, tokenizer = _as_list(texts), self.tokenizer
        encodings, masks = filling.find_masks(tokenizer, texts)
        longest = max((len(encoding.token_ids) for encoding in encodings), default=0)
        if longest > self.max_length:
            raise InputError(
                f"a text of {longest} tokens is longer than the model's {self.max_length}; shorten it"
            )
        sequences = [SequenceIds(token_ids=e.token_ids, token_types=e.token_types) for e in encodings]
        rows = self._run(sequences, self._mask_scores, "fill masks")
        return [
            filling.fills(tokenizer, *each, top_k) for each in zip(texts, encodings, masks, rows, strict=True)
        ]

    def classify(
        self, texts: Sequence[Text], *, overflow: Overflow = "windows", max_length: int | None = None
    ) -> list[Classification]:
        """Labels with scores for each text, or pair of texts (premise, hypothesis).

        Of a text longer than the model, the windows' scores are averaged by their tokens; of a pair, the second is cut.
        """
        self._require("classify")
        head = cast(ClassifyHeadConfig, self.config.head)
        logits = self._classify_logits(texts, overflow, max_length, np.average)
        scores = probabilities(logits, head.problem)
        return [
            Classification(scores={head.labels[i]: float(row[i]) for i in np.argsort(-row, kind="stable")})
            for row in scores
        ]

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_k: int | None = None,
        overflow: Overflow = "windows",
        max_length: int | None = None,
    ) -> list[Ranked]:
        """The documents by how well they fit the query, best first; of a long document the best window counts.

        Scores are probabilities (a sigmoid), unless the folder says that they are to be taken as they are.
        """
        self._require("rerank")
        if top_k is not None:
            _require_positive("top_k", top_k)
        documents = _as_list(documents)
        logits = self._classify_logits([(query, text) for text in documents], overflow, max_length, best_row)[
            :, 0
        ]
        scores = logits if self.pretrained.settings.activation == "identity" else sigmoid(logits)
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [Ranked(index=int(i), score=float(scores[i]), document=documents[i]) for i in order]

    def tag(
        self, texts: Sequence[str | Sequence[str]], *, max_length: int | None = None
    ) -> list[list[Entity]]:
        """The entities of each text, of any length; a text may come as its words, then joined by one space."""
        self._require("tag")
        return tagging.tag_texts(
            _as_list(texts),
            tokenizer=self.tokenizer,
            labels=cast(TagHeadConfig, self.config.head).labels,
            limit=self._limit(max_length),
            score_tokens=lambda sequences: self._run(sequences, self._tag_scores, "tag"),
        )

    def answer(self, question: str, context: str, *, max_length: int | None = None) -> Answer:
        """The stretch of the context, of any length, that best answers the question."""
        return self.answers(question, context, top_k=1, max_length=max_length)[0]

    def answers(
        self, question: str, context: str, *, top_k: int = 5, max_length: int | None = None
    ) -> list[Answer]:
        """The best stretches, best first. Their scores and that of "no answer" here sum to at most 1."""
        self._require("answers")
        _require_positive("top_k", top_k)
        return answering.find_answers(
            question,
            context,
            tokenizer=self.tokenizer,
            limit=self._limit(max_length),
            score_tokens=lambda sequences: self._run(sequences, self._span_scores, "answer"),
            top_k=top_k,
        )

    def choose(self, question: str, choices: Sequence[str]) -> Choice:
        """The choice that best completes or answers the question."""
        self._require("choose")
        choices = _as_list(choices)
        if not choices:
            raise InputError("there must be at least one choice, found none")
        logits = self._classify_logits([(question, choice) for choice in choices], "error", None, np.average)[
            :, 0
        ]
        scores = softmax(logits)
        best = int(scores.argmax())
        return Choice(index=best, text=choices[best], score=float(scores[best]))

    def save(self, folder: str | Path) -> None:
        """Write a folder that transformers and Sentence Transformers load, or raise and leave an old one as it was."""
        stored = self.pretrained.dtype_of_file
        if stored == torch.float32 and self.dtype != torch.float32:
            warnings.warn(
                f"the folder that this model came from holds float32 and the new one will hold {self.dtype}; "
                "load with dtype='float32' to keep every bit",
                stacklevel=2,
            )
        write_folder(Path(folder), self.pretrained)

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {describe(self.config.head)}, {self.dtype}, {self.device})"

    def _run(
        self, sequences: list[SequenceIds], forward: Callable[[PackedBatch], Sequence[Result]], label: str
    ) -> list[Result]:
        return engine.run(sequences, forward, device=self.device, label=label, budget_tokens=BUDGET_TOKENS)

    def _text_pieces(
        self, texts: Sequence[str], overflow: Overflow, max_length: int | None, prompt: str = ""
    ) -> Pieces:
        texts = _as_list(texts)
        if self.pretrained.settings.lowercases:
            texts = [text.lower() for text in texts]
        return text_pieces(
            self.tokenizer, texts, limit=self._limit(max_length), overflow=overflow, prompt=prompt
        )

    def _classify_logits(
        self,
        texts: Sequence[Text],
        overflow: Overflow,
        max_length: int | None,
        join: Callable[..., np.ndarray],
    ) -> np.ndarray:
        """Logits [N, C]; `join(rows, axis=0, weights=...)` makes one row of the windows of a text."""
        texts = _as_list(texts)
        limit = self._limit(max_length)
        head = self.config.head
        num_scores = len(head.labels) if isinstance(head, ClassifyHeadConfig) else 1
        logits = np.zeros((len(texts), num_scores), dtype=np.float32)
        for is_pair in (False, True):
            chosen = [i for i, text in enumerate(texts) if isinstance(text, tuple) == is_pair]
            if is_pair:
                pieces = pair_pieces(
                    self.tokenizer, [_as_pair(texts[i]) for i in chosen], limit=limit, overflow=overflow
                )
            else:
                pieces = text_pieces(
                    self.tokenizer, [texts[i] for i in chosen], limit=limit, overflow=overflow
                )
            rows = self._run(pieces.sequences, lambda batch: list(self._scores(batch)), "classify")
            for i, places in zip(chosen, pieces.of_text, strict=True):
                logits[i] = join(
                    [rows[p] for p in places], axis=0, weights=[pieces.weights[p] for p in places]
                )
        return logits

    def _scores(self, batch: PackedBatch) -> np.ndarray:
        return self._module(batch, self.backend).float().cpu().numpy()

    def _embed_batch(self, batch: PackedBatch, num_skipped: int) -> Tensor:
        if isinstance(self._module, TextEmbedder) and num_skipped == 0:
            return self._module(batch, self.backend)
        hidden = self.encoder(batch, self.backend)
        embedder = (
            self._module
            if isinstance(self._module, TextEmbedder)
            else TextEmbedder(EmbedHeadConfig(), self.encoder)
        )
        keep = batch.position_ids >= num_skipped
        cu_seqlens = nn.functional.pad((batch.lengths - num_skipped).cumsum(0), (1, 0))
        return embedder.embed(hidden[keep], cu_seqlens)

    def _mask_scores(self, batch: PackedBatch) -> list[np.ndarray]:
        is_mask = batch.token_ids == self.tokenizer.mask_id
        logits = cast(MaskedLanguageModel, self._module)(batch, self.backend, is_mask.nonzero()[:, 0])
        counts = [int(piece.sum()) for piece in batch.split(is_mask)]
        return [piece.cpu().numpy() for piece in log_probabilities(logits).split(counts)]

    def _tag_scores(self, batch: PackedBatch) -> list[np.ndarray]:
        logits = self._module(batch, self.backend).float()
        return [piece.numpy() for piece in _split(batch, logits.softmax(dim=-1))]

    def _span_scores(self, batch: PackedBatch) -> list[np.ndarray]:
        return [piece.numpy() for piece in _split(batch, self._module(batch, self.backend).float())]

    def _embedding_size(self, head: EmbedHeadConfig) -> int:
        pooled = self.config.encoder.hidden_size * len(head.poolings)
        return head.dense[-1].out_features if head.dense else pooled

    def _prompt(self, name: str | None) -> str:
        prompts, chosen = self.pretrained.settings.prompts, name or self.pretrained.settings.default_prompt
        if chosen is None or (chosen not in prompts and chosen in ("query", "document")):
            return ""
        if chosen not in prompts:
            known = ", ".join(map(repr, prompts)) or "none"
            raise InputError(f"{self.name} has no prompt {chosen!r}; its prompts are: {known}")
        return prompts[chosen]

    def _limit(self, max_length: int | None) -> int:
        if max_length is not None:
            _require_positive("max_length", max_length)
        return self.max_length if max_length is None else max_length

    def _no_windows(self, overflow: Overflow, method: str) -> Overflow:
        if overflow == "windows":
            raise InputError(
                f"{method} gives one result a token, which windows would repeat; use 'error' or 'truncate'"
            )
        return overflow

    def _require(self, task: str) -> None:
        if task in self.tasks:
            return
        raise TaskError(
            f"{self.name} cannot {task.replace('_', ' ')}: it is {describe(self.config.head)}. "
            f"It can: {', '.join(self.tasks)}"
        )


def _split(batch: PackedBatch, per_token: Tensor) -> list[Tensor]:
    """One tensor of its own for each sequence, on the CPU."""
    return [piece.clone() for piece in batch.split(per_token.cpu())]


def _as_list(texts: Sequence[Result]) -> list[Result]:
    """A lone string counts as a list of one."""
    if isinstance(texts, str):
        return cast("list[Result]", [texts])
    if not isinstance(cast(object, texts), Sequence | np.ndarray):
        raise InputError(f"texts come as a list of strings, not as {type(texts).__name__}")
    return list(texts)


def _as_pair(text: Text) -> tuple[str, str]:
    if len(text) != 2:
        raise InputError(f"a pair has two texts, found a tuple of {len(text)}")
    return cast("tuple[str, str]", text)


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} must be 1 or more, found {value}")
