"""What config.json says: a model in the words that transformers has for its family, or in our own, in full.

The families are asked in turn, the one that the folder was of first; what none can express is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modernbert.encoder.config import parts_by_kind, parts_in, to_json
from modernbert.errors import ConfigError
from modernbert.heads.model import ALL_PARTS, ModelConfig
from modernbert.pretrained.bert import BERT, ROBERTA, XLM_ROBERTA
from modernbert.pretrained.family import Family, NotExpressible, architecture
from modernbert.pretrained.huggingface import MODERNBERT
from modernbert.pretrained.settings import TextSettings, own_keys
from modernbert.text.tokenizer import Tokenizer

CONFIG_FILE = "config.json"
OWN_MODEL_TYPE = "modernbert-parts"
FAMILIES = (MODERNBERT, BERT, ROBERTA, XLM_ROBERTA)
# Keys that are written anew wherever they still hold; an old value could contradict the others.
_SET_ANEW = frozenset(
    """
    attention_out_dropout dtype global_attn_every_n_layers head_dim id2label label2id layer_norm_eps
    null_score_diff_threshold num_labels problem_type sbert_ce_default_activation_function
    sentence_transformers sliding_window transformers_version
    """.split()  # noqa: SIM905
)


def family_named(model_type: object, source: str) -> Family:
    """The family of that `model_type`; ConfigError, which names `source`, lists those there are."""
    for family in FAMILIES:
        if family.model_type == model_type:
            return family
    known = ", ".join([family.model_type for family in FAMILIES] + [OWN_MODEL_TYPE])
    raise ConfigError(f"{source}: model_type {model_type!r} is not supported; supported are {known}")


def foreign_config(config: ModelConfig, foreign: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """A config.json that transformers reads, of its old family if possible; or why there is none."""
    reason = ""
    for family in sorted(FAMILIES, key=lambda family: family.model_type != foreign.get("model_type")):
        try:
            keys = family.write(config)
            name = architecture(family, config.head, foreign)
        except NotExpressible as missing:
            reason = reason or str(missing)
            continue
        is_its_own = family.model_type == foreign.get("model_type")
        kept = {key: value for key, value in foreign.items() if is_its_own and key not in _SET_ANEW}
        return kept | keys | {"model_type": family.model_type, "architectures": [name]}, ""
    return None, reason


def own_config(config: ModelConfig, settings: TextSettings) -> dict[str, Any]:
    """Ours, with the parts in full; ConfigError where they could not be read again."""
    parts_by_kind((*ALL_PARTS, *(type(part) for part in parts_in(config))))
    return {"model_type": OWN_MODEL_TYPE, "model": to_json(config), "text": own_keys(settings)}


def special_ids(tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Null without a tokenizer: nobody knows them, and transformers would take the published model's."""
    first, last = (None, None) if tokenizer is None else (tokenizer.cls_id, tokenizer.sep_id)
    return {"cls_token_id": first, "sep_token_id": last, "bos_token_id": first, "eos_token_id": last}
