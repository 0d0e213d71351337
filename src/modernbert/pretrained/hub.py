"""From a name to a folder on this machine: a path as it is, or a model of the Hugging Face hub.

The hub's own client keeps what it fetched in its cache and works offline from there (HF_HUB_OFFLINE=1);
HF_ENDPOINT names another hub, HF_TOKEN the right to private models. The client is imported when the hub is
asked: who loads a folder of their own does not wait for it.
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
    "[0-9]*_*/config.json",
    "[0-9]*_*/model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
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
            local_files_only=offline,
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
