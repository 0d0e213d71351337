"""The examples run as a reader would run them, offline and without a warning, and print something.

All run in one process, one after the other: importing torch anew for each would cost most of the time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
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
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN_ALL, *map(str, EXAMPLES)],
        cwd=tmp_path_factory.mktemp("examples"),
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.xdist_group("examples")
def test_an_example_runs_offline_without_a_warning(results, path):
    result = results[str(path)]
    assert not result["failure"], result["failure"]
    assert result["shown"].strip()
