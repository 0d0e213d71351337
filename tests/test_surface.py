"""The public surface: what `import modernbert` offers, and what it costs."""

import subprocess
import sys

import pytest

import modernbert

# fmt: off
PUBLIC = {
    "AttentionConfig", "ChoiceHeadConfig", "ClassifyHeadConfig", "DenseConfig", "EmbedHeadConfig",
    "EmbeddingConfig", "Encoder", "EncoderConfig", "GluConfig", "InitConfig", "LayerNormConfig",
    "LearnedPositionsConfig", "Mixture", "MlmHeadConfig", "MlpConfig", "Model", "ModelConfig",
    "ModernBertError", "PRESETS", "PackedBatch", "ParallelConfig", "Part", "Phase", "PostNormConfig",
    "PreNormConfig", "Recipe", "RmsNormConfig", "RotaryConfig", "Shards", "SpanHeadConfig", "TagHeadConfig",
    "TokenEmbedHeadConfig", "Tokenizer", "TransformConfig", "attend", "load", "new", "pretrain",
    "train_tokenizer", "write_shards",
    "Classify", "Distill", "Embed", "FindAnswers", "Finetuning", "LateInteraction", "Mining", "ProbeConfig",
    "Rerank", "Sources", "Sweep", "Tag", "finetune", "mine_negatives",
}
# fmt: on


def test_the_public_names_are_pinned():
    assert set(modernbert.__all__) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_loads_and_has_a_docstring(name):
    value = getattr(modernbert, name)
    assert name == "PRESETS" or value.__doc__


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(AttributeError, match="there are: PRESETS"):
        _ = modernbert.no_such_thing


def test_importing_the_package_imports_no_torch():
    code = "import sys, modernbert; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'tokenizers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_version_is_that_of_the_installed_package():
    from importlib.metadata import version

    assert modernbert.__version__ == version("modernbert")
