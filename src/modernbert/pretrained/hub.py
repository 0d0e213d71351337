"""From a name to a folder on this machine: a path as it is, or a model of the Hugging Face hub, through its own client.

The client keeps what it fetched in its cache and works offline from there (HF_HUB_OFFLINE=1); HF_ENDPOINT names another hub.
"""

from __future__ import annotations

import re
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from modernbert.errors import FolderError
from modernbert.files import restore_interrupted

# What a model folder may hold; pickles, other frameworks' weights and code are not fetched.
_WANTED = ("*.json", "*.safetensors", "vocab.txt", "merges.txt", "*/config.json", "*/model.safetensors")
_UNWANTED = ("onnx/*", "openvino/*", "*/onnx/*", "checkpoint-*/*")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def fetch(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache: Path | None = None,
    offline: bool = False,
) -> Path:
    """The folder behind `name`: a folder that exists, or the hub's model of that id, fetched where it is not cached.

    `revision` is a branch, tag or commit of the hub; `offline` looks only in the cache. Raises FolderError.
    """
    folder = Path(name).expanduser()
    restore_interrupted(folder)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise FolderError(f"{folder} is a file; a model is a folder with config.json and model.safetensors")
    if isinstance(name, Path) or not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise FolderError(
            f"there is no folder {str(name)!r}, and it is not the form of a hub id (owner/name)"
        )
    return _from_hub(name, revision, token, cache, offline)


def _from_hub(name: str, revision: str | None, token: str | None, cache: Path | None, offline: bool) -> Path:
    try:
        fetched = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            token=token,
            cache_dir=cache,
            local_files_only=offline,
            allow_patterns=list(_WANTED),
            ignore_patterns=list(_UNWANTED),
        )
    except GatedRepoError as error:
        raise FolderError(
            f"{name!r} is gated: accept its terms on the hub, then pass token=... or set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise FolderError(
            f"there is no folder {name!r} here and no model {name!r} on the hub; if it is private, pass token=..."
        ) from error
    except RevisionNotFoundError as error:
        raise FolderError(f"{name!r} has no revision {revision!r} on the hub") from error
    except LocalEntryNotFoundError as error:
        raise FolderError(
            f"there is no folder {name!r} here, and the hub's model {name!r} is not in the cache while the hub is out of "
            "reach or offline was asked for; fetch it once with a connection"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise FolderError(f"{name!r} could not be fetched from the hub: {error}") from error
    return Path(fetched)
