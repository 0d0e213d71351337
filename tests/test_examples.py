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

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
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
