"""From a name to a folder on this machine: a path as it is, or a model of the Hugging Face hub.

The hub's own client keeps what it fetched in its cache and works offline from there (HF_HUB_OFFLINE=1);
HF_ENDPOINT names another hub, HF_TOKEN the right to private models, and HF_HUB_ETAG_TIMEOUT the seconds
(10) after which a hub that does not answer is out of reach. The client is imported when the hub is asked: who
loads a folder of their own does not wait for it.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from modernbert.errors import FolderError
from modernbert.files import restore_interrupted

# What a model folder may hold. Pickles, code, other frameworks' weights and checkpoints are not fetched.
_WANTED = (
    "config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "[0-9]*_*/config.json",
    "[0-9]*_*/model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
# Those without which a folder still loads, and gives other numbers.
_DECIDING = (
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def fetch(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache: Path | None = None,
    offline: bool = False,
) -> Path:
    """The folder behind `name`: one that exists, or the hub's model of that id, fetched unless it is cached.

    `revision` is a branch, tag or commit of the hub; `offline` looks only in the cache. Raises FolderError.
    """
    folder = Path(name).expanduser()
    restore_interrupted(folder)
    if folder.is_dir():
        if revision is not None:
            warnings.warn(
                f"{folder} is a folder on this machine: revision={revision!r} has no effect", stacklevel=2
            )
        return folder
    if folder.exists():
        raise FolderError(f"{folder} is a file; a model is a folder with config.json and model.safetensors")
    if isinstance(name, Path) or not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise FolderError(
            f"there is no folder {str(name)!r}, and it is not the form of a hub id (owner/name)"
        )
    fetched = _from_hub(name, revision, token, cache, offline)
    if unknown := _unknown(fetched):
        _ask_for(name, fetched, unknown, token, offline)
    if not any(fetched.glob("*.safetensors")):
        found = ", ".join(sorted(path.name for path in fetched.iterdir())) or "nothing"
        raise FolderError(
            f"the hub's model {name!r} has no weights as safetensors; of what a model folder holds it has: "
            f"{found}. Pickled weights can run code and are not fetched; transformers' save_pretrained "
            "writes safetensors"
        )
    return fetched


def _from_hub(name: str, revision: str | None, token: str | None, cache: Path | None, offline: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        fetched = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            token=token,
            cache_dir=cache,
            local_files_only=offline or _is_out_of_reach(name, revision, token),
            allow_patterns=list(_WANTED),
        )
    except GatedRepoError as error:
        raise FolderError(
            f"{name!r} is gated: accept its terms on the hub, then pass token=... or set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise FolderError(
            f"there is no folder {name!r} here and no model {name!r} on the hub; if it is private, pass "
            "token=... or set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise FolderError(f"{name!r} has no revision {revision!r} on the hub") from error
    except LocalEntryNotFoundError as error:
        raise FolderError(
            f"there is no folder {name!r} here, and the hub's model {name!r} is not in the cache as a whole, "
            "while the hub is out of reach or offline was asked for; fetch it once with a connection"
        ) from error
    except Exception as error:  # the client's transport has errors of its own, which change with its versions
        reason = (str(error).strip().splitlines() or [""])[0]
        raise FolderError(
            f"{name!r} could not be fetched from the hub ({type(error).__name__}: {reason}); try again later"
        ) from error
    return Path(fetched)


def _is_out_of_reach(name: str, revision: str | None, token: str | None) -> bool:
    """Whether one short question to the hub stays without an answer.

    The client itself asks without a limit of time, or tries six times over 23 seconds.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(
            name,
            revision=revision or constants.DEFAULT_REVISION,
            token=token,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
    except HfHubHTTPError:  # an answer, of which the client makes what it means
        return False
    except Exception:  # the transport's own, as above
        return True
    return False


def _unknown(snapshot: Path) -> list[str]:
    """Files that are not in the cached snapshot though the hub may have them; none where it is whole.

    The newer client keeps the list of a commit's files and has compared; each client keeps an empty file for
    what it asked for in vain. A tool that fetches file by file, as transformers does, leaves neither.
    """
    if (snapshot.parent.parent / "trees" / f"{snapshot.name}.json").exists():
        return []
    missing = [name for name in _DECIDING if not (snapshot / name).exists()]
    if not any((snapshot / name).exists() for name in _WEIGHTS):
        missing += _WEIGHTS
    return [name for name in missing if not _absent(snapshot, name).exists()]


def _absent(snapshot: Path, name: str) -> Path:
    """Where the hub's client notes that a commit has no file of that name."""
    return snapshot.parent.parent / ".no_exist" / snapshot.name / name


def _ask_for(name: str, snapshot: Path, unknown: list[str], token: str | None, offline: bool) -> None:
    """Note which of these files the hub's model has not; FolderError where it cannot be asked, or has one."""
    from huggingface_hub import HfApi, constants

    try:
        if offline:
            raise ConnectionError
        about = HfApi().model_info(
            name, revision=snapshot.name, token=token, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
        found = {file.rfilename for file in about.siblings or ()}
    except Exception as error:  # as above
        raise _not_whole(name, snapshot, unknown) from error
    if present := [each for each in unknown if each in found]:
        raise _not_whole(name, snapshot, present)
    for each in unknown:
        _absent(snapshot, each).parent.mkdir(parents=True, exist_ok=True)
        _absent(snapshot, each).touch()


def _not_whole(name: str, snapshot: Path, unknown: list[str]) -> FolderError:
    return FolderError(
        f"the hub's model {name!r} is not known to be in the cache as a whole: the hub may have "
        f"{', '.join(unknown)}, which another tool did not fetch and which could change the numbers, while "
        "the hub is out of reach or offline was asked for; fetch it once with a connection, or name the "
        f"folder {snapshot} to use it as it is"
    )
