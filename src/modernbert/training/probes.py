"""What the weights of a run are good for so far, besides guessing masks: two scores of frozen vectors.

    classification   of which source (or of which label in a file of the user's) is a text?
    retrieval        which of all second halves of documents belongs to this first half?

A vector is the mean of a text's last hidden states. Nothing of the encoder is trained, and nothing is drawn
by chance: the texts are the same every time, so that figures can be compared along a run and between runs on
one held-out set, and a run learns the same with probes and without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modernbert.corpus.split import Documents
from modernbert.encoder.encoder import Encoder
from modernbert.heads.pooling import pool
from modernbert.text.batch import PackedBatch
from modernbert.text.packing import pack_by_budget
from modernbert.text.tokenizer import Tokenizer
from modernbert.training.parallel import Group
from modernbert.training.probe_scores import classification_scores, retrieval_scores
from modernbert.training.probe_texts import Chooser, Halves, LabelledTexts

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeConfig:
    """What is asked at every evaluation: the source of a text, and the other half of a document.

    `labelled` names a file to classify instead of sources: texts and labels in the columns (of CSV) or
    fields (of JSON lines) "text" and "label".
    """

    labelled: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Probes:
    """The texts to ask about, and the encoder inside the module in training that gives their vectors.

    `row_tokens` go through the module at once, under autocast to `precision`. `left_out` says why a probe
    is not there.
    """

    encoder: Encoder
    labelled: LabelledTexts | None
    halves: Halves | None
    row_tokens: int
    precision: torch.dtype
    left_out: tuple[str, ...] = ()

    @classmethod
    def choose(
        cls,
        config: ProbeConfig,
        documents: Documents,
        tokenizer: Tokenizer,
        encoder: Encoder,
        *,
        seq_len: int,
        row_tokens: int,
        precision: torch.dtype,
    ) -> Probes:
        """Take the texts out of held-out documents, none longer than a sequence in training.

        CorpusError where a labelled file cannot be used.
        """
        chooser = Chooser.of(tokenizer, seq_len)
        labelled = (
            chooser.of_sources(documents) if config.labelled is None else chooser.of_file(config.labelled)
        )
        halves = chooser.halves(documents)
        named = {"classification": labelled, "retrieval": halves}
        return cls(
            encoder=encoder,
            labelled=None if isinstance(labelled, str) else labelled,
            halves=None if isinstance(halves, str) else halves,
            row_tokens=row_tokens,
            precision=precision,
            left_out=tuple(
                f"the {name} probe is left out: {why}" for name, why in named.items() if isinstance(why, str)
            ),
        )

    def figures(self, module: nn.Module, group: Group) -> dict[str, Any]:
        """The scores by probe, as they go into the journal; every process calls it and takes its share.

        `module` must be in evaluation: dropout would make the vectors a matter of chance.
        """
        found: dict[str, Any] = {}
        if self.labelled is not None:
            vectors = self._vectors(module, group, self.labelled.texts)
            found["classification"] = classification_scores(vectors, self.labelled)
        if self.halves is not None:
            both = self._vectors(module, group, [*self.halves.queries, *self.halves.documents])
            found["retrieval"] = retrieval_scores(both, self.halves)
        return found

    @torch.no_grad()
    def _vectors(
        self, module: nn.Module, group: Group, texts: Sequence[Int[np.ndarray, "n"]]
    ) -> Float[np.ndarray, "N D"]:
        """The mean of each text's hidden states, taken on their way from the encoder to the head.

        A module that is spread over processes gathers its parameters when it is called as a whole, and all
        of them must call it equally often.
        """
        packs = pack_by_budget([len(text) for text in texts], self.row_tokens)
        mine = packs[group.rank :: group.world_size]
        num_fillers = -(-len(packs) // group.world_size) - len(mine)
        size = (len(texts), self.encoder.config.hidden_size)
        vectors = torch.zeros(size, dtype=torch.float64, device=group.device)
        hidden: list[Tensor] = []
        asked: list[Tensor] = []

        def ask_for_all(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            batch, backend, positions = inputs
            asked[:] = [positions]
            return batch, backend, None

        def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            hidden[:] = [output.float()]
            return output[asked[0]]

        handles = (
            self.encoder.register_forward_pre_hook(ask_for_all),
            self.encoder.register_forward_hook(keep),
        )
        try:
            for pack in mine:
                batch = PackedBatch.from_sequences([texts[index].tolist() for index in pack]).to(group.device)
                self._run(module, batch)
                vectors[pack] = pool(hidden[0], batch.cu_seqlens, "mean").double()  # [S, D]
            filler = PackedBatch.from_sequences([texts[0][:1].tolist()]).to(group.device)
            for _ in range(num_fillers):
                self._run(module, filler)
        finally:
            for handle in handles:
                handle.remove()
        return group.sum(vectors).cpu().numpy()

    def _run(self, module: nn.Module, batch: PackedBatch) -> None:
        """The module wants a token to guess; what it makes of it is of no interest here."""
        kind = batch.token_ids.device.type
        with torch.autocast(kind, self.precision, self.precision != torch.float32):
            module(batch, torch.zeros_like(batch.token_ids[:1]), batch.token_ids[:1])
