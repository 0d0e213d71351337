"""The candidates for the masks of a text, as words and as the text with each of them in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modernbert.errors import InputError, TaskError, TooLongError
from modernbert.heads.mlm import MaskedLanguageModel, log_probabilities
from modernbert.inference.engine import Reading, SequenceIds
from modernbert.inference.results import Fill
from modernbert.inference.scores import require_finite
from modernbert.text.batch import PackedBatch
from modernbert.text.tokenizer import Encoding, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

# The scores [M, k] and token ids [M, k] of the best candidates for the M masks of a sequence.
Best = tuple["Tensor", "Tensor"]
_PIECE = "##"  # how WordPiece marks a token inside a word
_BLANKS = ("\u0120", "\u2581")  # how byte-level BPE and SentencePiece mark one that begins a word


def read_to_fill(
    texts: Sequence[str], *, first: int = 0, tokenizer: Tokenizer, limit: int
) -> Reading[Best, list[Fill]]:
    """Texts to the best candidates for each mask of each, in the order of the masks.

    "[MASK]" and other special tokens in a text count as such. InputError where a text has no mask. `first`
    texts came before these.
    """
    encodings = _encode(texts, tokenizer, limit)

    def finish(best: list[Best]) -> list[list[Fill]]:
        require_finite((scores.float().numpy() for scores, _ in best), first=first)
        return [
            _fills(text, encoding, scores, token_ids, tokenizer)
            for text, encoding, (scores, token_ids) in zip(texts, encodings, best, strict=True)
        ]

    sequences = [SequenceIds(token_ids=e.token_ids, token_types=e.token_types) for e in encodings]
    return Reading(sequences=sequences, finish=finish)


def best_for_masks(
    module: MaskedLanguageModel, batch: PackedBatch, tokenizer: Tokenizer, top_k: int, backend: str
) -> list[Best]:
    """The scores and ids of the best candidates for the masks of each sequence.

    Rows of the embedding behind the vocabulary's end stand for no word: they have a share of the probability,
    but are no candidates.
    """
    is_mask = batch.token_ids == tokenizer.mask_id
    logits = module(batch, backend, is_mask.nonzero()[:, 0])  # [M, V]
    words = log_probabilities(logits)[:, : tokenizer.vocab_size].exp()
    scores, token_ids = words.topk(min(top_k, words.shape[1]))  # each [M, k]
    counts = [int(piece.sum()) for piece in batch.split(is_mask)]
    return list(zip(scores.cpu().split(counts), token_ids.cpu().split(counts), strict=True))


def _encode(texts: Sequence[str], tokenizer: Tokenizer, limit: int) -> list[Encoding]:
    if tokenizer.mask_id is None:
        raise TaskError("the tokenizer of this model has no mask token, so it cannot fill masks")
    encodings = tokenizer.encode(texts, special_tokens="parse")
    for text, encoding in zip(texts, encodings, strict=True):
        if tokenizer.mask_id not in encoding.token_ids:
            raise InputError(
                f"the text has no {tokenizer.mask_token}; put one where a word is to be found: {text[:80]!r}"
            )
        if len(encoding.token_ids) > limit:
            raise TooLongError(
                f"a text of {len(encoding.token_ids)} tokens is longer than the model's {limit}; shorten it: "
                f"{text[:80]!r}"
            )
    return encodings


def _fills(
    text: str, encoding: Encoding, scores: Tensor, token_ids: Tensor, tokenizer: Tokenizer
) -> list[Fill]:
    masks = [place for place, token in enumerate(encoding.token_ids) if token == tokenizer.mask_id]
    fills: list[Fill] = []
    for mask, place in enumerate(masks):
        for score, token_id in zip(scores[mask].tolist(), token_ids[mask].tolist(), strict=True):
            raw = _raw(tokenizer, token_id)
            token = _as_word(tokenizer, token_id, raw)
            filled = _put(text, encoding.offsets[place], token, raw)
            fills.append(
                Fill(token=token, raw_token=raw, token_id=token_id, score=score, text=filled, mask=mask)
            )
    return fills


def _raw(tokenizer: Tokenizer, token_id: int) -> str:
    """The vocabulary's entry; a vocabulary may have holes."""
    try:
        return tokenizer.token(token_id)
    except InputError:
        return f"<{token_id}>"


def _as_word(tokenizer: Tokenizer, token_id: int, raw: str) -> str:
    if tokenizer.id_of(raw) != token_id or raw.startswith(_PIECE):
        return raw.removeprefix(_PIECE)
    return tokenizer.decode([token_id]).strip()


def _put(text: str, place: tuple[int, int], token: str, raw: str) -> str:
    """The text with the candidate in the mask's place.

    A mask that took the blank before it gives it back only to a token that begins a word; a piece ("##s")
    joins what is before it.
    """
    before, mask, after = text[: place[0]], text[place[0] : place[1]], text[place[1] :]
    if raw.startswith(_PIECE):
        return before.rstrip() + token + after
    taken = mask[: len(mask) - len(mask.lstrip())]
    return before + (taken if raw.startswith(_BLANKS) else "") + token + after
