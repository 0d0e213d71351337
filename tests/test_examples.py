"""The examples run as a reader would run them, offline and without a warning, and print something.

All run in one process, one after the other: importing torch anew for each would cost most of the time.
They run from a copy, beside the README alone, since the demo reads all the documentation that it finds.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
NOTEBOOK_READS = {"corpus/bg": 60, "data/classification/cinexio_bg": 100, "data/tokens/ner_bg_bsnlp": 60}
RUN_ALL = """
import contextlib, io, json, runpy, sys, traceback
results = {}
for path in sys.argv[1:]:
    sys.argv, shown, failure = [path], io.StringIO(), ""
    with contextlib.redirect_stdout(shown):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            failure = str(end.code or "")
        except BaseException:
            failure = traceback.format_exc()
    results[path] = {"shown": shown.getvalue(), "failure": failure}
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    copy = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "examples", copy / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", copy)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN_ALL, *(f"examples/{name}" for name in EXAMPLES)],
        cwd=copy,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.xdist_group("examples")
def test_an_example_runs_offline_without_a_warning(results, name):
    result = results[f"examples/{name}"]
    assert not result["failure"], result["failure"]
    assert result["shown"].strip()


@pytest.mark.slow
def test_the_bulgarian_notebook_runs_from_top_to_bottom_on_a_little_of_its_data(
    data_root, tmp_path, monkeypatch
):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for folder, num_rows in NOTEBOOK_READS.items():
        for path in sorted((data_root.parent / folder).glob("*.jsonl*")):
            copy_start(path, tmp_path / folder / path.name, num_rows)
    monkeypatch.setenv("MODERNBERT_DATA", str(tmp_path))
    monkeypatch.setenv("BULGARIAN_OUT", str(tmp_path / "out"))
    monkeypatch.setenv("BULGARIAN_TOKENS", "60_000")
    notebook = nbformat.read(ROOT / "examples" / "bulgarian.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(ROOT / "examples")}}
    ).execute()
    (table,) = (
        output["data"]["text/markdown"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "text/markdown" in output.get("data", ())
    )
    assert table.count("\n") == 4
    assert "| our own | 0." in table


def copy_start(path, target, num_rows):
    """The first lines of a file, compressed as it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    is_packed = path.suffix == ".zst"
    text = (
        zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
        if is_packed
        else path.read_bytes()
    )
    start = b"".join(text.splitlines(keepends=True)[:num_rows])
    target.write_bytes(zstandard.compress(start) if is_packed else start)
