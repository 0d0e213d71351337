"""Models by their hub id, from a small hub on this machine that the client is pointed to with HF_ENDPOINT.

The client reads its environment when it is imported, so `fetch` runs here in a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from modernbert.errors import FolderError
from modernbert.heads.embed import DenseConfig, EmbedHeadConfig
from modernbert.pretrained.folder import read_folder, write_folder
from modernbert.pretrained.hub import fetch
from tests.pretrained.small_hub import TOKEN, Model, SmallHub
from tests.pretrained.small_models import numbers, small_model, small_tokenizer

OLD, NEW = "a" * 40, "b" * 40
NAME = "someone/small-model"
# Two questions of one second each, and a busy machine.
SLOWEST_ANSWER_S = 8.0
UNWANTED = {
    "README.md": b"# a model",
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"raise SystemExit",
    "onnx/model.onnx": b"onnx",
    "onnx/config.json": b"{}",
    "checkpoint-500/model.safetensors": b"training",
    "checkpoint-500/optimizer.pt": b"pickle",
    "training_args.json": b"{}",
}
CLIENT = """
import json, sys, time, warnings
warnings.simplefilter("error")
from modernbert.errors import FolderError
from modernbert.pretrained.hub import fetch
time.sleep = lambda seconds: None  # the client waits between tries
for line in sys.stdin:
    try:
        print(json.dumps({"folder": str(fetch(**json.loads(line)))}), flush=True)
    except FolderError as error:
        print(json.dumps({"error": str(error)}), flush=True)
"""


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def commits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    root = tmp_path_factory.mktemp("commits")
    head = EmbedHeadConfig(dense=(DenseConfig(out_features=3),), is_normalized=True)
    for seed, commit in enumerate((OLD, NEW)):
        write_folder(root / commit, small_model(seed=seed, head=head, tokenizer=small_tokenizer()))
    return {commit: files_of(root / commit) | UNWANTED for commit in (OLD, NEW)}


class Client:
    """A process that calls `fetch`, as often as it is asked to; `home` is where its cache lies by default."""

    def __init__(self, url: str, home: Path, **environment: str) -> None:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env=ours
            | {
                "HF_ENDPOINT": url,
                "HF_HOME": str(home),
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "NO_PROXY": "127.0.0.1",
                "no_proxy": "127.0.0.1",
            }
            | environment,
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0

    def ask(self, name: str, options: dict[str, object]) -> dict[str, str]:
        self.process.stdin.write(json.dumps({"name": name, **options}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def fetch(self, name: str = NAME, **options: object) -> Path:
        return Path(self.ask(name, options)["folder"])

    def error(self, name: str = NAME, **options: object) -> str:
        return self.ask(name, options)["error"]


class CachedClient:
    """The client that the tests share, with a cache for each test."""

    def __init__(self, client: Client, cache: Path) -> None:
        self.client = client
        self.cache = cache

    def fetch(self, name: str = NAME, **options: object) -> Path:
        return self.client.fetch(name, cache=str(self.cache), **options)

    def error(self, name: str = NAME, **options: object) -> str:
        return self.client.error(name, cache=str(self.cache), **options)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SmallHub, Client]]:
    with SmallHub() as hub, Client(hub.url, tmp_path_factory.mktemp("home")) as client:
        yield hub, client


@pytest.fixture
def hub(running: tuple[SmallHub, Client], commits: dict[str, dict[str, bytes]]) -> SmallHub:
    hub, _ = running
    hub.models = {NAME: Model(commits=commits, names={"main": NEW, "v1": OLD})}
    hub.asked = []
    return hub


@pytest.fixture
def client(running: tuple[SmallHub, Client], hub: SmallHub, tmp_path: Path) -> CachedClient:
    return CachedClient(running[1], tmp_path / "my cache")


def is_seed(folder: Path, seed: int) -> bool:
    head = EmbedHeadConfig(dense=(DenseConfig(out_features=3),), is_normalized=True)
    return torch.equal(numbers(read_folder(folder)), numbers(small_model(seed=seed, head=head)))


def test_a_model_is_fetched_by_its_id_and_read(client):
    folder = client.fetch()
    assert folder.is_relative_to(client.cache)
    assert is_seed(folder, 1)
    assert read_folder(folder).tokenizer is not None


def test_only_what_a_model_folder_holds_is_fetched(client, hub):
    folder = client.fetch()
    wanted = hub.models[NAME].commits[NEW].keys() - UNWANTED.keys()
    assert {"config.json", "model.safetensors", "tokenizer.json", "2_Dense/model.safetensors"} <= wanted
    assert files_of(folder).keys() == wanted == hub.fetched()


def test_a_cached_model_needs_no_hub(tmp_path, commits):
    with SmallHub() as hub, Client(hub.url, tmp_path) as client:
        hub.models[NAME] = Model(commits=commits, names={"main": NEW})
        folder = client.fetch()
        assert folder.is_relative_to(tmp_path / "hub")
        hub.__exit__()
        num_asked = len(hub.asked)
        assert client.fetch() == client.fetch(offline=True) == folder
        with Client(hub.url, tmp_path, HF_HUB_OFFLINE="1") as offline:
            assert offline.fetch() == folder
    assert len(hub.asked) == num_asked
    assert is_seed(folder, 1)


@pytest.mark.parametrize("how", ["down", "offline", "environment"])
def test_nothing_cached_and_no_hub_says_both(tmp_path, how):
    environment = {"HF_HUB_OFFLINE": "1"} if how == "environment" else {}
    with SmallHub() as hub:
        pass
    with Client(hub.url, tmp_path, **environment) as client:
        message = client.error(offline=how == "offline")
    assert message == (
        f"there is no folder {NAME!r} here, and the hub's model {NAME!r} is not in the cache as a whole, "
        "while the hub is out of reach or offline was asked for; fetch it once with a connection"
    )


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of a hub that takes every connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("what", ["nothing", "whole", "part"])
def test_a_hub_that_does_not_answer_is_out_of_reach_after_one_timeout(tmp_path, commits, hub, mute, what):
    """Not after the client's six tries of a list of files, which take 23 seconds, nor never."""
    with Client(hub.url, tmp_path) as client:
        if what == "whole":
            client.fetch()
        if what == "part":
            fetch_files(CachedClient(client, tmp_path / "hub"), hub, "config.json", "model.safetensors")
    with Client(mute, tmp_path, HF_HUB_ETAG_TIMEOUT="1") as client:
        client.ask("./nothing", {})  # imports what it needs
        start = time.monotonic()
        answer = client.ask(NAME, {})
        seconds = time.monotonic() - start
    assert seconds < SLOWEST_ANSWER_S
    if what == "whole":
        assert is_seed(Path(answer["folder"]), 1)
    else:
        expected = "out of reach or offline was asked for; fetch it once with a connection"
        assert expected in answer["error"]


def test_offline_does_not_ask_a_hub_that_is_there(client, hub):
    client.fetch()
    asked = len(hub.asked)
    client.fetch(offline=True)
    assert len(hub.asked) == asked


@pytest.mark.parametrize(("revision", "seed"), [("main", 1), ("v1", 0), (OLD, 0), (NEW, 1)])
def test_a_revision_is_a_branch_a_tag_or_a_commit(client, revision, seed):
    assert is_seed(client.fetch(revision=revision), seed)


def test_a_missing_revision_is_named(client):
    assert client.error(revision="v9") == f"{NAME!r} has no revision 'v9' on the hub"
    client.fetch()
    assert client.error(revision="v9") == f"{NAME!r} has no revision 'v9' on the hub"


def test_a_private_model_needs_a_token(client, hub):
    hub.models[NAME].is_private = True
    assert client.error() == (
        f"there is no folder {NAME!r} here and no model {NAME!r} on the hub; if it is private, pass "
        "token=... or set HF_TOKEN"
    )
    assert is_seed(client.fetch(token=TOKEN), 1)


def test_a_token_may_come_from_the_environment(hub, tmp_path):
    hub.models[NAME].is_private = True
    with Client(hub.url, tmp_path, HF_TOKEN=TOKEN) as client:
        assert is_seed(client.fetch(), 1)


def test_a_wrong_token_is_said_to_be_one(client):
    message = client.error(token="hf_wrong")
    assert message.startswith(f"{NAME!r} could not be fetched from the hub (HfHubHTTPError: ")
    assert "401" in message


def test_a_gated_model_says_what_to_do(client, hub):
    hub.models[NAME].is_gated = True
    assert client.error() == (
        f"{NAME!r} is gated: accept its terms on the hub, then pass token=... or set HF_TOKEN"
    )


def test_an_unknown_model_is_named(client):
    assert client.error("someone/else").startswith(
        "there is no folder 'someone/else' here and no model 'someone/else' on the hub"
    )


def test_a_connection_that_breaks_is_an_error_of_ours_and_the_next_try_completes_it(client, hub):
    hub.models[NAME].cut_after = 1000
    assert re.match(
        rf"'{NAME}' could not be fetched from the hub \(\w+: .*\); try again later", client.error()
    )
    assert "is not in the cache as a whole" in client.error(offline=True)
    hub.models[NAME].cut_after = None
    assert is_seed(client.fetch(), 1)


def test_a_model_with_pickles_alone_says_so(client, hub, commits):
    files = {"config.json": commits[NEW]["config.json"], "pytorch_model.bin": b"pickle"}
    hub.models[NAME].commits = {NEW: files}
    message = client.error()
    assert message.startswith(f"the hub's model {NAME!r} has no weights as safetensors")
    assert "it has: config.json. Pickled weights can run code and are not fetched" in message
    assert hub.fetched() == {"config.json"}


def test_a_folder_comes_before_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "someone" / "small-model", small_model())
    assert fetch(NAME) == Path(NAME)
    assert fetch(tmp_path / NAME) == tmp_path / NAME
    with pytest.warns(UserWarning, match="is a folder on this machine: revision='v1' has no effect"):
        fetch(NAME, revision="v1")


def test_a_folder_left_by_a_killed_save_is_found(tmp_path):
    write_folder(tmp_path / "model", small_model())
    (tmp_path / "model").rename(tmp_path / ".model.old-0123abcd")
    found = read_folder(fetch(tmp_path / "model"))
    assert torch.equal(numbers(found), numbers(small_model()))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "name", ["./nothing", "../nothing", "/no/such/folder", "a/b/c", "", "with space", "~/nothing-here"]
)
def test_what_is_no_folder_and_no_id_is_not_asked_for(name):
    with pytest.raises(FolderError, match=r"there is no folder .* not the form of a hub id \(owner/name\)"):
        fetch(name) if name else fetch(Path("nothing"))


def test_a_file_is_said_to_be_one(tmp_path):
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(FolderError, match=r"is a file; a model is a folder with config.json"):
        fetch(tmp_path / "model.safetensors")


FETCH_FILES = """
import sys
from huggingface_hub import hf_hub_download
for name in sys.argv[3:]:
    hf_hub_download(sys.argv[1], name, cache_dir=sys.argv[2])
"""


def fetch_files(client: CachedClient, hub: SmallHub, *names: str) -> None:
    """What a tool leaves in the cache that fetches file by file, as transformers does."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", FETCH_FILES, NAME, str(client.cache), *names]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)


def test_a_part_of_a_model_in_the_cache_is_refused_offline_and_completed_with_a_connection(client, hub):
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    fetch_files(client, hub, *names)
    message = client.error(offline=True)
    assert message.startswith(f"the hub's model {NAME!r} is not known to be in the cache as a whole: ")
    assert "may have modules.json, config_sentence_transformers.json" in message
    assert "tokenizer.json" not in message
    folder = client.fetch()
    assert is_seed(folder, 1)
    assert client.fetch(offline=True) == folder


def test_without_weights_in_the_cache_nothing_is_said_of_the_hubs(client, hub):
    fetch_files(client, hub, "config.json", "tokenizer.json")
    message = client.error(offline=True)
    assert "is not known to be in the cache as a whole" in message
    assert "model.safetensors, model.safetensors.index.json" in message


def test_a_client_that_keeps_no_list_of_files_is_helped_with_notes_of_what_there_is_not(client, hub):
    folder = client.fetch()
    listing = folder.parent.parent / "trees" / f"{NEW}.json"
    assert listing.exists()
    listing.unlink()
    assert "special_tokens_map.json" in client.error(offline=True)
    assert client.fetch() == folder
    listing.unlink(missing_ok=True)
    assert client.fetch(offline=True) == folder
