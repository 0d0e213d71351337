"""The house rules that a machine can hold: levels, owners of outside packages, file lengths.

Dependencies point one way: a level imports only lower levels, and neighbours do not import each other (DESIGN
section 4).
"""

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "modernbert"
FILES = sorted(SOURCE.rglob("*.py"))
LEVELS = (
    ("errors", "files", "progress"),
    ("plots", "text", "kernels", "metrics"),
    ("report_plots",),
    ("encoder",),
    ("heads",),
    ("pretrained", "bundled"),
    ("corpus", "inference"),
    ("training", "search"),
    ("evaluation", "recipes"),
    ("server",),
    ("cli",),
)
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}
# kernels take tensors and know nothing of text; the value that encoders pass around is a PackedBatch
OWNERS = {
    "tokenizers": ("text/tokenizer",),
    "flash_attn": ("kernels/flash.py",),
    "torch.nn.attention": ("kernels/",),
    "safetensors": ("pretrained/",),
    "huggingface_hub": ("pretrained/",),
    "torch.distributed": ("training/parallel.py", "training/checkpoint.py"),
    "lancedb": ("search/",),
    "fastapi": ("server/",),
    "onnx": ("inference/export.py",),
    "onnx_ir": ("inference/export.py",),
    "onnxscript": ("inference/export.py",),
    "torch.onnx": ("inference/export.py",),
    "matplotlib": ("plots.py", "report_plots.py"),
    "sklearn": ("training/baseline.py",),
    "scipy": ("training/baseline.py",),
    "tensorboard": ("training/journal.py",),
    "torch.utils.tensorboard": ("training/journal.py",),
    "optimi": ("training/stable_adamw.py",),
    "pyarrow": ("corpus/",),
    "fsspec": ("corpus/",),
    "zstandard": ("corpus/",),
    "tqdm": ("progress.py",),
    "click": ("cli/",),
}
NEVER = ("transformers", "sentence_transformers", "pickle", "datasets")
LONG_FILE, TOO_LONG_FILE = 400, 600


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module in a file, by its dotted name, and whether it is imported for type checking
    alone.
    """
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for child in block.body
        for node in ast.walk(child)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield from ((f"{node.module}.{alias.name}", id(node) in typing_only) for alias in node.names)


def home(path: Path) -> str:
    """The top-level name a file belongs to: its folder, or its own name."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_only_lower_levels_and_its_own_folder(path):
    here = home(path)
    if here in ("__init__", "__main__"):
        return
    for module, _ in imports(path):
        if not module.startswith("modernbert."):
            continue
        there = module.split(".")[1]
        if there != here and there in LEVEL_OF:
            assert LEVEL_OF[there] < LEVEL_OF[here], f"{path} (level {LEVEL_OF[here]}) imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_an_outside_package_is_imported_by_its_owner_only(path):
    place = path.relative_to(SOURCE).as_posix()
    for module, _ in imports(path):
        assert module.split(".")[0] not in NEVER, f"{path} imports {module}, which the package never does"
        for package, owners in OWNERS.items():
            if module == package or module.startswith(f"{package}."):
                assert place.startswith(owners), f"{path} imports {module}, which belongs to {owners}"


def test_every_folder_has_its_level():
    found = {home(path) for path in FILES} - {"__init__", "__main__"}
    assert found <= LEVEL_OF.keys(), f"without a level: {found - LEVEL_OF.keys()}"


def test_kernels_never_see_a_packed_batch():
    for path in (SOURCE / "kernels").rglob("*.py"):
        assert not any(module.startswith("modernbert.text") for module, _ in imports(path)), path


@pytest.mark.filterwarnings("default:long file")
def test_files_are_short_enough_to_be_read_in_one_sitting():
    lengths = {path: len(path.read_text().splitlines()) for path in FILES}
    for path, length in lengths.items():
        assert length <= TOO_LONG_FILE, f"{path} has {length} lines"
        if length > LONG_FILE:
            warnings.warn(
                f"long file: {path.relative_to(SOURCE)} has {length} lines; look again", stacklevel=1
            )
    assert sum(length > LONG_FILE for length in lengths.values()) <= len(FILES) // 20


def test_the_rules_can_fail(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import torch\nfrom modernbert.cli import main\nif TYPE_CHECKING:\n    import lancedb\n")
    assert list(imports(bad)) == [("torch", False), ("modernbert.cli.main", False), ("lancedb", True)]
