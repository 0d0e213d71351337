"""The command as a process of its own: what it imports, terminals, pipes."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

NUM_LINES = 200_000
HEAVY = ("torch", "numpy", "tokenizers", "safetensors", "huggingface_hub", "matplotlib")


def command(*args, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "modernbert", *args], capture_output=True, text=True, check=False, **kwargs
    )


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["embed", "--help"], ["info", "--help"]])
def test_help_imports_nothing_heavy(args):
    code = (
        "import atexit, sys; from modernbert.cli import main\n"
        f"atexit.register(lambda: print('heavy:', [m for m in {HEAVY!r} if m in sys.modules]))\n"
        "main()"
    )
    result = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("heavy: []\n")


def test_the_package_runs_as_a_module():
    assert command("--version").stdout.startswith("modernbert, version ")


@pytest.mark.parametrize(
    ("args", "awaited"),
    [
        (["embed", "--model", "any"], "no texts: pass them as arguments, with --file, or pipe them in"),
        (["answer", "who", "--model", "any"], "no context: pass --context"),
    ],
)
def test_a_terminal_is_not_waited_at_in_silence(args, awaited):
    ours, theirs = pty.openpty()
    try:
        result = command(*args, stdin=theirs, timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert result.returncode == 2
    assert awaited in result.stderr


def test_a_closed_pipe_is_quiet(folders, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_text("rain\n" * 3000)
    call = [
        sys.executable,
        "-m",
        "modernbert",
        "embed",
        "--file",
        lines,
        "--json",
        "--model",
        folders["embed"],
    ]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"text": "rain"')
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.fixture
def many_lines(tmp_path):
    """Minutes of work."""
    path = tmp_path / "lines.txt"
    path.write_text("rain\n" * NUM_LINES)
    return path


@contextlib.contextmanager
def interruptible(*args):
    """A verb that hears Ctrl-C, which background jobs of a shell, and what they start, ignore."""
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from modernbert.cli import main; main()"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code, *args], **pipes) as process:
        yield process
        process.kill()


@pytest.fixture
def streaming(folders):
    """A verb that waits for more lines after the first."""
    with interruptible("embed", "--json", "-", "--model", folders["embed"]) as process:
        yield process


def test_a_line_is_answered_before_the_next_one_comes(streaming):
    for line in (b"rain\n", b"the cat\n"):
        streaming.stdin.write(line)
        streaming.stdin.flush()
        assert json.loads(streaming.stdout.readline())["text"] == line.decode().strip()
    streaming.stdin.close()
    assert streaming.wait(60) == 0
    assert streaming.stderr.read() == b""


def test_ctrl_c_ends_a_verb_that_waits_for_lines(streaming):
    streaming.stdin.write(b"rain\n")
    streaming.stdin.flush()
    assert json.loads(streaming.stdout.readline())["text"] == "rain"
    streaming.send_signal(signal.SIGINT)
    assert streaming.wait(60) == 130
    assert streaming.stderr.read() == b""


@pytest.mark.parametrize("verb", ["embed", "classify"])
def test_ctrl_c_in_a_file_keeps_whole_lines(folders, many_lines, verb):
    call = (verb, "--file", many_lines, "--json", "--model", folders[verb])
    with interruptible(*call) as process:
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        lines = [first, *process.stdout]
        assert process.wait(60) == 130
        assert process.stderr.read() == b""
    assert 0 < len(lines) < NUM_LINES
    assert all(json.loads(line)["text"] == "rain" for line in lines)


def test_ctrl_c_while_an_array_is_written_leaves_none(folders, many_lines, tmp_path):
    call = ("embed", "--file", many_lines, "--out", tmp_path / "v.npy", "--model", folders["embed"])
    with interruptible(*call) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".v.npy.new-*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""
    assert list(tmp_path.iterdir()) == [many_lines]
