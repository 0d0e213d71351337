"""The modern bidirectional encoder as one piece of software: train your own, load it, use it.

    import modernbert

    model = modernbert.load("answerdotai/ModernBERT-base")
    model.fill_mask("He walked to the [MASK].")

Names are loaded when they are first used: `import modernbert` alone imports no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modernbert.corpus.mixture import Mixture
    from modernbert.corpus.shard_writing import write_shards
    from modernbert.corpus.shards import Shards
    from modernbert.encoder.attention import AttentionConfig
    from modernbert.encoder.block import ParallelConfig, PostNormConfig, PreNormConfig
    from modernbert.encoder.config import Part
    from modernbert.encoder.embedding import EmbeddingConfig, LearnedPositionsConfig
    from modernbert.encoder.encoder import Encoder, EncoderConfig
    from modernbert.encoder.init import InitConfig
    from modernbert.encoder.mlp import GluConfig, MlpConfig
    from modernbert.encoder.norm import LayerNormConfig, RmsNormConfig
    from modernbert.encoder.presets import PRESETS
    from modernbert.encoder.rotary import RotaryConfig
    from modernbert.errors import ModernBertError
    from modernbert.heads.classify import ChoiceHeadConfig, ClassifyHeadConfig
    from modernbert.heads.embed import DenseConfig, EmbedHeadConfig, TokenEmbedHeadConfig
    from modernbert.heads.mlm import MlmHeadConfig
    from modernbert.heads.model import ModelConfig
    from modernbert.heads.tokens import SpanHeadConfig, TagHeadConfig
    from modernbert.heads.transform import TransformConfig
    from modernbert.inference.loading import load, new
    from modernbert.inference.pipeline import Model
    from modernbert.kernels.attention import attend
    from modernbert.text.batch import PackedBatch
    from modernbert.text.tokenizer import Tokenizer
    from modernbert.text.tokenizer_training import train_tokenizer
    from modernbert.training.finetune_run import Sources, finetune
    from modernbert.training.finetuning import Finetuning
    from modernbert.training.probes import ProbeConfig
    from modernbert.training.recipe import Phase, Recipe
    from modernbert.training.run import pretrain
    from modernbert.training.sweep import Sweep
    from modernbert.training.tasks.answer import FindAnswers
    from modernbert.training.tasks.classify import Classify
    from modernbert.training.tasks.distill import Distill
    from modernbert.training.tasks.embed import Embed
    from modernbert.training.tasks.late import LateInteraction
    from modernbert.training.tasks.mining import Mining, mine_negatives
    from modernbert.training.tasks.rerank import Rerank
    from modernbert.training.tasks.tag import Tag

__version__ = "0.1.0"

_HOME_OF = {
    "AttentionConfig": "encoder.attention",
    "ChoiceHeadConfig": "heads.classify",
    "Classify": "training.tasks.classify",
    "ClassifyHeadConfig": "heads.classify",
    "DenseConfig": "heads.embed",
    "Distill": "training.tasks.distill",
    "Embed": "training.tasks.embed",
    "EmbedHeadConfig": "heads.embed",
    "EmbeddingConfig": "encoder.embedding",
    "Encoder": "encoder.encoder",
    "EncoderConfig": "encoder.encoder",
    "FindAnswers": "training.tasks.answer",
    "Finetuning": "training.finetuning",
    "GluConfig": "encoder.mlp",
    "InitConfig": "encoder.init",
    "LateInteraction": "training.tasks.late",
    "LayerNormConfig": "encoder.norm",
    "LearnedPositionsConfig": "encoder.embedding",
    "Mining": "training.tasks.mining",
    "Mixture": "corpus.mixture",
    "MlmHeadConfig": "heads.mlm",
    "MlpConfig": "encoder.mlp",
    "Model": "inference.pipeline",
    "ModelConfig": "heads.model",
    "ModernBertError": "errors",
    "PRESETS": "encoder.presets",
    "PackedBatch": "text.batch",
    "ParallelConfig": "encoder.block",
    "Part": "encoder.config",
    "Phase": "training.recipe",
    "PostNormConfig": "encoder.block",
    "PreNormConfig": "encoder.block",
    "ProbeConfig": "training.probes",
    "Recipe": "training.recipe",
    "Rerank": "training.tasks.rerank",
    "RmsNormConfig": "encoder.norm",
    "RotaryConfig": "encoder.rotary",
    "Shards": "corpus.shards",
    "Sources": "training.finetune_run",
    "SpanHeadConfig": "heads.tokens",
    "Sweep": "training.sweep",
    "Tag": "training.tasks.tag",
    "TagHeadConfig": "heads.tokens",
    "TokenEmbedHeadConfig": "heads.embed",
    "Tokenizer": "text.tokenizer",
    "TransformConfig": "heads.transform",
    "attend": "kernels.attention",
    "finetune": "training.finetune_run",
    "load": "inference.loading",
    "mine_negatives": "training.tasks.mining",
    "new": "inference.loading",
    "pretrain": "training.run",
    "train_tokenizer": "text.tokenizer_training",
    "write_shards": "corpus.shard_writing",
}

__all__ = [
    "PRESETS",
    "AttentionConfig",
    "ChoiceHeadConfig",
    "Classify",
    "ClassifyHeadConfig",
    "DenseConfig",
    "Distill",
    "Embed",
    "EmbedHeadConfig",
    "EmbeddingConfig",
    "Encoder",
    "EncoderConfig",
    "FindAnswers",
    "Finetuning",
    "GluConfig",
    "InitConfig",
    "LateInteraction",
    "LayerNormConfig",
    "LearnedPositionsConfig",
    "Mining",
    "Mixture",
    "MlmHeadConfig",
    "MlpConfig",
    "Model",
    "ModelConfig",
    "ModernBertError",
    "PackedBatch",
    "ParallelConfig",
    "Part",
    "Phase",
    "PostNormConfig",
    "PreNormConfig",
    "ProbeConfig",
    "Recipe",
    "Rerank",
    "RmsNormConfig",
    "RotaryConfig",
    "Shards",
    "Sources",
    "SpanHeadConfig",
    "Sweep",
    "Tag",
    "TagHeadConfig",
    "TokenEmbedHeadConfig",
    "Tokenizer",
    "TransformConfig",
    "attend",
    "finetune",
    "load",
    "mine_negatives",
    "new",
    "pretrain",
    "train_tokenizer",
    "write_shards",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(
            f"module 'modernbert' has no attribute {name!r}; there are: {', '.join(__all__)}"
        )
    return getattr(importlib.import_module(f"modernbert.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
