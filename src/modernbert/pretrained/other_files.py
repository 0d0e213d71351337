"""Files that stand beside a model in its folder: which a save keeps, and which go with the old model."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from modernbert.files import link_or_copy
from modernbert.pretrained.weights import OWNED_FILES

_LAYOUT_FILES = frozenset(
    """
    added_tokens.json config.json config_sentence_transformers.json merges.txt modules.json
    sentence_bert_config.json sentence_roberta_config.json sentencepiece.bpe.model special_tokens_map.json
    spiece.model tokenizer.json tokenizer.model tokenizer_config.json vocab.json vocab.txt
    """.split()  # noqa: SIM905
)
# The same weights for other tools: beside new ones they would be an old model under the new one's name.
_OTHER_WEIGHTS = re.compile(
    r"(pytorch_model|tf_model|flax_model|rust_model|openvino_model|model)([._-].*)?"
    r"\.(bin|h5|msgpack|ot|xml|onnx|onnx_data|safetensors|gguf)(\.index\.json)?|onnx|openvino|coreml"
)


def keep_other_files(old: Path, new: Path) -> None:
    """Take over what is not part of a model, so that saving over a folder loses no reports."""
    for path in old.iterdir():
        is_model_file = OWNED_FILES.fullmatch(path.name) or _is_layout_file(path.name) or _is_stale(path.name)
        if is_model_file or (new / path.name).exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True, copy_function=link_or_copy)
        else:
            link_or_copy(path, new / path.name)


def _is_layout_file(name: str) -> bool:
    return (
        name in _LAYOUT_FILES
        or re.fullmatch(r"\d+_(Pooling|Dense|Normalize|MultiVectorMask)", name) is not None
    )


def _is_stale(name: str) -> bool:
    return _OTHER_WEIGHTS.fullmatch(name) is not None
