"""What a folder says about texts, beside the model itself: prompts, limits, lower case, an activation.

Sentence Transformers keeps it in two files, whose keys are judged as those of a foreign config.json are:

    config_sentence_transformers.json   prompts, the default one, the numbers that are kept of a vector
    sentence_bert_config.json           the longest text, lower case, how its processor is called
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from modernbert.encoder.activation import ACTIVATIONS
from modernbert.errors import ConfigError, FolderError
from modernbert.pretrained.keys import Keys
from modernbert.pretrained.weights import read_json

SETTINGS_FILE = "config_sentence_transformers.json"
# The second is the name that the first releases gave it for RoBERTa models.
TRANSFORMER_FILES = ("sentence_bert_config.json", "sentence_roberta_config.json")
CLASS_PATHS = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
    "relu": "torch.nn.modules.activation.ReLU",
    "gelu": "torch.nn.modules.activation.GELU",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
    "silu": "torch.nn.modules.activation.SiLU",
}
# In config.json, where transformers keeps and ignores it; its fine-tuning scripts call the option so.
THRESHOLD_KEY = "null_score_diff_threshold"
_NONE = (None, False, "", [], {})
# Late interaction that adds tokens to texts, or leaves some out, as Sentence Transformers and PyLate say it.
_EXPANSIONS = dict.fromkeys(
    ("do_query_expansion", "query_prefix", "document_prefix", "skiplist_words"), _NONE
)
_HARMLESS_SETTINGS = frozenset(
    {"__version__", "attend_to_expansion_tokens", "attend_to_mask_tokens", "keep_in_fp32_modules"}
)
_KINDS = ("SentenceTransformer", "CrossEncoder", "MultiVectorEncoder", "SparseEncoder", None)
_OUTPUTS = ("last_hidden_state", "logits")
# How the encoder and the tokenizer are called, where it is as here.
_CALLS: Mapping[str, tuple[Any, ...]] = _EXPANSIONS | {
    "transformer_task": ("feature-extraction", "sequence-classification", "fill-mask"),
    "modality_config": (
        None,
        *({"text": {"method": "forward", "method_output_name": output}} for output in _OUTPUTS),
    ),
    "module_output_name": ("token_embeddings", "scores", None),
    "config_args": _NONE,
    "config_kwargs": _NONE,
}
_HARMLESS_MODEL_ARGS = frozenset(
    "add_pooling_layer attn_implementation device_map dtype torch_dtype trust_remote_code".split()  # noqa: SIM905
)
_HARMLESS_TOKENIZER_ARGS = frozenset({"padding_side", "trust_remote_code", "use_fast"})
_TEXT_CALL: Mapping[str, tuple[Any, ...]] = {
    "truncation": (True, "longest_first"),
    "add_special_tokens": (True,),
}


@dataclass(frozen=True, kw_only=True)
class QueryExpansion:
    """Masks behind a query, up to `length` tokens with it: they find words of their own for it, which late
    interaction compares too (Khattab and Zaharia 2020, arXiv 2004.12832, section 3.2).

    `cuts_queries` says that a longer query is cut to that length. `token` is the vocabulary entry that is
    added, None the mask. Tokens attend to what is added as to any other.
    """

    length: int
    cuts_queries: bool = True
    token: str | None = None


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """What a folder says about texts, beside the model itself.

    `prompts` are put before texts by name; `max_seq_length` limits texts, in tokens, below what the model
    could take, `query_length` and `document_length` those under the prompt of that name; `dimensions` says
    how many numbers of a vector are kept; `activation` is what a reranker's scores go through ("sigmoid",
    "identity", or None where nothing is said). A context holds no answer where the logit of none is above
    that of the best stretch by more than `no_answer_threshold` (None: there always is one). Vectors of the
    tokens of queries are made with `query_expansion`, if any.
    """

    prompts: Mapping[str, str] = field(default_factory=dict[str, str])
    default_prompt: str | None = None
    max_seq_length: int | None = None
    query_length: int | None = None
    document_length: int | None = None
    lowercases: bool = False
    dimensions: int | None = None
    similarity: str | None = None
    activation: str | None = None
    no_answer_threshold: float | None = None
    query_expansion: QueryExpansion | None = None

    def length_for(self, prompt: str | None) -> int | None:
        """The most tokens of a text that is embedded under the prompt of that name, where it has a limit."""
        if prompt == "query" and self.query_expansion is not None and self.query_expansion.cuts_queries:
            return self.query_expansion.length
        return {"query": self.query_length, "document": self.document_length}.get(prompt or "")


def read_settings(folder: Path, config: Mapping[str, Any], *, strict: bool = False) -> TextSettings:
    """The settings in the two files, if any; `config` is config.json, where older rerankers have theirs."""
    own = _keys_of(folder / SETTINGS_FILE, harmless=_HARMLESS_SETTINGS, neutral=_EXPANSIONS)
    path = next((folder / name for name in TRANSFORMER_FILES if (folder / name).exists()), None)
    path = path or folder / TRANSFORMER_FILES[0]
    call = _keys_of(path, harmless=frozenset({"unpad_inputs"}), neutral=_CALLS)
    _refuse_pylate(own)
    max_length, loaded_length = _call_length(call, strict), _tokenizer_length(call, strict)
    query, document = (
        [keys.count(name, None) for keys in (call, own)] for name in ("query_length", "document_length")
    )
    named_length = call.count("max_seq_length", None)
    settings = TextSettings(
        prompts=_read_prompts(own),
        default_prompt=own.take("default_prompt_name", None, (str, type(None))),
        max_seq_length=max_length or loaded_length or named_length,
        query_length=None if max_length else query[0] or query[1],
        document_length=None if max_length else document[0] or document[1],
        lowercases=bool(call.take("do_lower_case", False, (bool, type(None)))),
        dimensions=own.count("truncate_dim", None),
        similarity=own.take("similarity_fn_name", None, (str, type(None))),
        activation=_read_activation(own, config, folder),
        no_answer_threshold=_number(Keys(config, str(folder / "config.json")), THRESHOLD_KEY),
        query_expansion=_read_expansion(call) or _read_expansion(own),
    )
    own.finish(strict=strict)
    call.finish(strict=strict)
    return settings


def own_settings(text: Any, source: str) -> TextSettings:
    """The settings in a config.json of our own kind, where they stand under our names."""
    keys = Keys({"text": text}, source).inner("text", harmless=frozenset(), neutral={})
    words = (str, type(None))
    settings = TextSettings(
        prompts=_read_prompts(keys),
        default_prompt=keys.take("default_prompt", None, words),
        max_seq_length=keys.count("max_seq_length", None),
        query_length=keys.count("query_length", None),
        document_length=keys.count("document_length", None),
        lowercases=keys.take("lowercases", False),
        dimensions=keys.count("dimensions", None),
        similarity=keys.take("similarity", None, words),
        activation=keys.take("activation", None, words),
        no_answer_threshold=_number(keys, "no_answer_threshold"),
        query_expansion=_own_expansion(keys),
    )
    if settings.activation not in (None, *ACTIVATIONS):
        raise ConfigError(f"{keys.source}: unknown activation {settings.activation!r}")
    keys.finish(strict=True)
    return settings


def own_keys(settings: TextSettings) -> dict[str, Any]:
    """What `own_settings` reads: all that is said, as JSON knows it."""
    said = {name: value for name, value in vars(settings).items() if value or isinstance(value, float)}
    return {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in said.items()
    }


def settings_keys(settings: TextSettings, model_type: str) -> dict[str, Any]:
    """The keys of config_sentence_transformers.json."""
    keys: dict[str, Any] = {
        "model_type": model_type,
        "prompts": dict(settings.prompts),
        "default_prompt_name": settings.default_prompt,
        "similarity_fn_name": settings.similarity,
    }
    if settings.dimensions is not None:
        keys["truncate_dim"] = settings.dimensions
    if settings.activation is not None:
        keys["activation_fn"] = CLASS_PATHS[settings.activation]
    return keys


def transformer_keys(settings: TextSettings) -> dict[str, Any]:
    """The keys of sentence_bert_config.json; none where there is nothing to say."""
    lengths = {"query_length": settings.query_length, "document_length": settings.document_length}
    said: dict[str, Any] = {name: length for name, length in lengths.items() if length is not None}
    expansion = settings.query_expansion
    if expansion is not None:
        strategy = "fixed" if expansion.cuts_queries else "min"
        said["query_expansion"] = {
            "strategy": strategy,
            "attend": True,
            "token": expansion.token,
            "length": expansion.length,
        }
    if settings.max_seq_length is None and not settings.lowercases and not said:
        return {}
    return {"max_seq_length": settings.max_seq_length, "do_lower_case": settings.lowercases} | said


def activation_named(path: str, source: Path) -> str:
    """Our name for a class path such as torch.nn.modules.activation.Tanh; nothing is imported."""
    class_name = path.rsplit(".", 1)[-1]
    for name, known in CLASS_PATHS.items():
        if known.rsplit(".", 1)[-1] == class_name:
            return name
    raise FolderError(
        f"{source}: the activation {path!r} is not supported; known are {', '.join(CLASS_PATHS.values())}"
    )


def _keys_of(path: Path, **lists: Any) -> Keys:
    return Keys(read_json(path) if path.exists() else {}, str(path), **lists)


def _read_prompts(keys: Keys) -> dict[str, str]:
    """The prompts by name; one of null is none."""
    found = keys.inner("prompts")
    prompts = {name: found.take(name, "", (str, type(None))) for name in found.raw}
    return {name: prompt for name, prompt in prompts.items() if prompt is not None}


def _number(keys: Keys, name: str) -> float | None:
    found = keys.take(name, None, (float, int, type(None)))
    return None if found is None else float(found)


def _read_expansion(keys: Keys) -> QueryExpansion | None:
    """As Sentence Transformers says it; masks that nothing attends to are refused: no kernel hides them."""
    said = keys.inner("query_expansion", harmless=frozenset(), neutral={})
    if not said.raw:
        return None
    strategy = said.take("strategy", "")
    if strategy not in ("fixed", "min") or not said.take("attend", False):
        raise ConfigError(
            f"{keys.source}: query_expansion={said.raw!r} is not supported; only the strategies fixed and "
            "min with 'attend': true are"
        )
    expansion = QueryExpansion(
        length=said.count("length", 1),
        cuts_queries=strategy == "fixed",
        token=said.take("token", None, (str, type(None))),
    )
    said.finish(strict=True)
    return expansion


def _own_expansion(keys: Keys) -> QueryExpansion | None:
    said = keys.inner("query_expansion", harmless=frozenset(), neutral={})
    if not said.raw:
        return None
    expansion = QueryExpansion(
        length=said.count("length", 1),
        cuts_queries=said.take("cuts_queries", True),
        token=said.take("token", None, (str, type(None))),
    )
    said.finish(strict=True)
    return expansion


def _read_activation(own: Keys, config: Mapping[str, Any], folder: Path) -> str | None:
    words = (str, type(None))
    older = Keys(config, str(folder / "config.json"))
    found = [
        own.take("activation_fn", None, words),
        older.inner("sentence_transformers").take("activation_fn", None, words),
        older.take("sbert_ce_default_activation_function", None, words),
    ]
    path = next((path for path in found if path), None)
    return None if path is None else activation_named(path, folder)


def _refuse_pylate(own: Keys) -> None:
    """Its older form says less than it does: tokens are added to queries, and left out of documents."""
    kind = own.take("model_type", None, (str, type(None)))
    if kind not in _KINDS:
        raise FolderError(
            f"{own.source}: model_type={kind!r} is not supported; known are "
            f"{', '.join(known for known in _KINDS if known)}. Sentence Transformers 6 loads the folders of "
            "PyLate, and saves them in a form that says all"
        )
    marks = ("query_length", "document_length", "attend_to_expansion_tokens")
    is_pylate = any(name in own.raw for name in marks)
    if is_pylate and own.raw.get("do_query_expansion") is not False and "query_expansion" not in own.raw:
        raise FolderError(
            f"{own.source}: PyLate adds tokens to queries unless do_query_expansion is false, which is not "
            "supported: the vectors would not be the model's"
        )


def _call_length(call: Keys, strict: bool) -> int | None:
    """The max_length with which the tokenizer is called, whatever else the folder says."""
    processing = call.inner(
        "processing_kwargs",
        harmless=frozenset({"audio", "image", "video"}),
        neutral={"common": _NONE, "chat_template": _NONE},
    )
    text = processing.inner("text", harmless=frozenset({"padding", "pad_to_multiple_of"}), neutral=_TEXT_CALL)
    max_length = text.count("max_length", None)
    text.finish(strict=strict)
    processing.finish(strict=strict)
    return max_length


def _tokenizer_length(call: Keys, strict: bool) -> int | None:
    """The limit among the arguments that the tokenizer is loaded with; the model's must say nothing."""
    length: int | None = None
    for name in ("model_args", "model_kwargs"):
        call.inner(name, harmless=_HARMLESS_MODEL_ARGS, neutral={}).finish(strict=strict)
    for name in ("tokenizer_args", "processor_kwargs"):
        keys = call.inner(name, harmless=_HARMLESS_TOKENIZER_ARGS, neutral={})
        length = keys.count("model_max_length", None) or length
        keys.finish(strict=strict)
    return length
