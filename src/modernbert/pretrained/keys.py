"""Reading a foreign config.json without swallowing a key that matters.

Every key is either read, known to be harmless, known to change the numbers (an error unless it has its
neutral value), or unknown: one warning names those, and `strict=True` makes them an error. Harmless keys are
kept, to be written back. Files of Sentence Transformers are read in the same way, with lists of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from modernbert.errors import ConfigError

# Keys that say nothing about the numbers a model gives.
HARMLESS = frozenset(  # words in lines, not one a line
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path architectures auto_map
    bos_token_id chunk_size_feed_forward cls_token_id compile_model deterministic_flash_attn
    directionality dtype eos_token_id finetuning_task gradient_checkpointing id2label
    initializer_cutoff_factor initializer_range label2id mask_token_id model_type
    null_score_diff_threshold num_labels output_attentions output_hidden_states output_past pad_token_id
    pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type
    problem_type
    reference_compile repad_logits_with_grad return_dict sbert_ce_default_activation_function
    sentence_transformers sep_token_id sparse_pred_ignore_index sparse_prediction task_specific_params
    tf_legacy_loss tie_last_hidden_states tokenizer_class torch_dtype torchscript transformers_version
    unk_token_id use_bfloat16 use_cache
    """.split()  # noqa: SIM905
)
# Keys that would change the numbers, beside the values with which they do not.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False, None),
    "cross_attention_hidden_size": (None,),
    "is_decoder": (False, None),
    "is_encoder_decoder": (False, None),
    "per_layer_config": (None, {}),
    "position_embedding_type": ("absolute", None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "rope_scaling": (None,),
    "tie_encoder_decoder": (False, None),
}


@contextmanager
def naming(source: str) -> Generator[None]:
    """Put the name of the file before what a part says of a value that came from there."""
    try:
        yield
    except ConfigError as error:
        if source in str(error):
            raise
        raise ConfigError(f"{source}: {error}") from error


class Keys:
    """A JSON object being read: `take` what is understood, then `finish` judges the rest.

    `harmless` and `neutral` are as the two lists above, which are those of config.json.
    """

    def __init__(
        self,
        raw: Mapping[str, Any],
        source: str,
        *,
        harmless: frozenset[str] = HARMLESS,
        neutral: Mapping[str, tuple[Any, ...]] = NEUTRAL,
    ) -> None:
        self.raw = raw
        self.source = source
        self._harmless = harmless
        self._neutral = neutral
        self._taken: set[str] = set()

    def take(self, key: str, default: Any, kinds: type | tuple[type, ...] | None = None) -> Any:
        """The value of a key, or its default; ConfigError where it is not of the kind wanted."""
        self._taken.add(key)
        value = self.raw.get(key, default)
        wanted = kinds if isinstance(kinds, tuple) else (kinds or type(default),)
        if not _is_of_kind(value, wanted):
            raise ConfigError(f"{self.source}: {key!r} must be {_kind_names(wanted)}, found {value!r}")
        return value

    def count(self, key: str, default: int | None) -> Any:
        """A whole number above zero; null will do where the default is None."""
        value = self.take(key, default, (int,) if default is not None else (int, type(None)))
        if value is not None and value < 1:
            raise ConfigError(f"{self.source}: {key!r} must be a whole number above 0, found {value!r}")
        return value

    def inner(self, key: str, **lists: Any) -> Keys:
        """The object under a key, itself to be taken apart and finished; null and none at all are empty."""
        found = cast("dict[str, Any] | None", self.take(key, None, (dict, type(None))))
        return Keys(found or {}, f"{self.source}: {key}", **lists)

    def contradiction(self, one: str, other: str) -> None:
        """Refuse two generations of keys that do not say the same."""
        raise ConfigError(f"{self.source} contradicts itself: {one}, but {other}; keep the one that is meant")

    def finish(self, *, strict: bool) -> dict[str, Any]:
        """Judge every key not taken; gives the harmless ones, to be kept."""
        rest = {key: value for key, value in self.raw.items() if key not in self._taken}
        for key, neutral in self._neutral.items():
            if key in rest and rest[key] not in neutral:
                raise ConfigError(
                    f"{self.source}: {key}={rest[key]!r} would change the numbers and is not supported; "
                    f"only {' or '.join(repr(value) for value in neutral)} is"
                )
        unknown = sorted(key for key in rest if key not in self._harmless and key not in self._neutral)
        if unknown and strict:
            raise ConfigError(f"{self.source} has keys that nothing here reads: {', '.join(unknown)}")
        if unknown:
            warnings.warn(
                f"{self.source} has keys that nothing here reads, and that have no effect: "
                + ", ".join(unknown),
                stacklevel=2,
            )
        return dict(self.raw)


def labels_from(raw: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """The labels in the order of their ids; two of them where a config gives none, as in transformers."""
    id2label = raw.get("id2label")
    if id2label is None:
        return tuple(f"LABEL_{i}" for i in range(Keys(raw, source).count("num_labels", 2)))
    try:
        by_id = {int(key): str(value) for key, value in id2label.items()}
        if not by_id:
            raise ValueError
    except (AttributeError, ValueError):
        raise ConfigError(f"{source}: 'id2label' must map numbers to names, found {id2label!r}") from None
    if sorted(by_id) != list(range(len(by_id))):
        raise ConfigError(
            f"{source}: 'id2label' must number its labels 0 to {len(by_id) - 1}, found {sorted(by_id)}"
        )
    return tuple(by_id[i] for i in range(len(by_id)))


def label_keys(labels: tuple[str, ...]) -> dict[str, Any]:
    """`id2label` and `label2id` for a config.json."""
    return {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def _is_of_kind(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whole numbers will do where any number is wanted; true and false are no numbers."""
    if isinstance(value, bool):
        return bool in kinds or object in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


def _kind_names(kinds: tuple[type, ...]) -> str:
    return " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
