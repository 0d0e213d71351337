"""The candidates for the masks of a text, as words and as the text with each of them in place."""

from __future__ import annotations

import numpy as np

from modernbert.errors import InputError, TaskError
from modernbert.inference.results import Fill
from modernbert.text.tokenizer import Encoding, Tokenizer

_PIECE = "##"  # how WordPiece marks a token inside a word
_BLANKS = ("\u0120", "\u2581")  # how byte-level BPE and SentencePiece mark one that begins a word


def find_masks(tokenizer: Tokenizer, texts: list[str]) -> tuple[list[Encoding], list[list[int]]]:
    """The texts encoded with "[MASK]" as the mask itself, and where each has its masks; InputError where one has none."""
    if tokenizer.mask_id is None:
        raise TaskError("the tokenizer of this model has no mask token, so it cannot fill masks")
    encodings = tokenizer.encode(texts, special_tokens="parse")
    masks = [
        [place for place, token in enumerate(encoding.token_ids) if token == tokenizer.mask_id]
        for encoding in encodings
    ]
    for text, places in zip(texts, masks, strict=True):
        if not places:
            raise InputError(
                f"the text has no {tokenizer.mask_token}; put one where a word is to be found: {text[:80]!r}"
            )
    return encodings, masks


def fills(
    tokenizer: Tokenizer,
    text: str,
    encoding: Encoding,
    masks: list[int],
    log_probabilities: np.ndarray,
    top_k: int,
) -> list[Fill]:
    """The best `top_k` candidates for each mask, in the order of the masks; `log_probabilities` is [masks, V]."""
    found: list[Fill] = []
    for mask, (place, row) in enumerate(zip(masks, log_probabilities, strict=True)):
        start, end = encoding.offsets[place]
        for token_id in np.argsort(row)[::-1][:top_k]:
            raw = _raw(tokenizer, int(token_id))
            token = _as_word(tokenizer, int(token_id), raw)
            found.append(
                Fill(
                    token=token,
                    raw_token=raw,
                    token_id=int(token_id),
                    score=float(np.exp(row[token_id])),
                    text=_put(text, start, end, token, raw),
                    mask=mask,
                )
            )
    return found


def _raw(tokenizer: Tokenizer, token_id: int) -> str:
    """The vocabulary's entry; an embedding may have rows behind the vocabulary's end."""
    return tokenizer.token(token_id) if token_id < tokenizer.vocab_size else f"<{token_id}>"


def _as_word(tokenizer: Tokenizer, token_id: int, raw: str) -> str:
    if token_id >= tokenizer.vocab_size or raw.startswith(_PIECE):
        return raw.removeprefix(_PIECE)
    return tokenizer.decode([token_id]).strip()


def _put(text: str, start: int, end: int, token: str, raw: str) -> str:
    """The text with the candidate in the mask's place.

    A mask that took the space before it gives it back only to a token that begins a word; a piece ("##s") joins what is
    before it.
    """
    before, mask, after = text[:start], text[start:end], text[end:]
    if raw.startswith(_PIECE):
        return before.rstrip() + token + after
    took_blank = mask[:1].isspace()
    return before + (" " if took_blank and raw.startswith(_BLANKS) else "") + token + after
