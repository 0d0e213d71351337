"""Tensors in and out of safetensors files, single and sharded; errors name the file and the tensor."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from modernbert.errors import FolderError, WeightsError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000  # the size at which other tools cut their shards
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
OWNED_FILES = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model folder, from `model.safetensors` or from the shards that its index names."""
    if (folder / SINGLE_FILE).exists():
        return read_file(folder / SINGLE_FILE)
    if (folder / INDEX_FILE).exists():
        return _read_shards(folder)
    raise FolderError(
        f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}; found: {_listing(folder)}."
        + _pickle_hint(folder)
    )


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's tensors, whatever its index calls them, and the index."""
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
    named = set[str]()
    if INDEX_FILE in found:
        with suppress(FolderError):  # whoever reads the weights will say it
            weight_map = read_json(folder / INDEX_FILE).get("weight_map")
            named = set(map(str, weight_map.values())) if isinstance(weight_map, dict) else named
    return sorted(folder / name for name in found if OWNED_FILES.fullmatch(name) or name in named)


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file; FolderError where it is missing, cut or of another kind."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except FileNotFoundError:
        raise FolderError(f"{path} does not exist; download or copy the folder again") from None
    except (SafetensorError, OSError, RuntimeError) as error:  # torch's: changed between opening and mapping
        size = f"{path.stat().st_size:,} bytes" if path.exists() else "been taken away meanwhile"
        raise FolderError(
            f"{path} cannot be read as safetensors ({error}); it has {size}: a cut download, or another kind "
            "of file. Fetch it again"
        ) from error


def write_weights(folder: Path, tensors: Mapping[str, Tensor], shard_bytes: int = SHARD_BYTES) -> None:
    """Write tensors as one file, or as shards with an index where they are more than `shard_bytes`."""
    ready = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    shards = _shards(ready, shard_bytes)
    if len(shards) == 1:
        save_file(ready, folder / SINGLE_FILE, metadata={"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file_name)
    total = sum(tensor.nbytes for tensor in ready.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def fill(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    cast: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None,
) -> None:
    """Give the module these tensors, as `cast` makes them; every parameter exactly one, of its shape.

    `source` names the file in errors. Where two parameters are one (a tied decoder), either name will do.
    Tensors of whole numbers, truth values or complex numbers keep their kind, as in `Module.to`.
    """
    wanted = module.state_dict(keep_vars=True)
    twins = _names_by_tensor(wanted)
    missing = [names[0] for names in twins if not any(name in tensors for name in names)]
    extra = sorted(tensors.keys() - wanted.keys())
    wrong = [
        f"{name} is {list(tensor.shape)}, the configuration says {list(wanted[name].shape)}"
        for name, tensor in tensors.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    check_kinds(source, {name: (tensors[name], place) for name, place in wanted.items() if name in tensors})
    if missing or extra or wrong:
        raise WeightsError(_misfit(source, missing, extra, wrong))
    first = {names[0]: next(tensors[name] for name in names if name in tensors) for names in twins}
    values = first if cast is None else cast(first)
    for names in twins:
        value, place = values[names[0]], wanted[names[0]]
        if isinstance(place, nn.Parameter):
            value = nn.Parameter(value, requires_grad=place.requires_grad)
        for name in names:
            path, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(path), attribute, value)


def check_kinds(source: str, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Raise WeightsError where a tensor is not of the kind of number that its place holds."""
    wrong = [
        f"{name} is {_kind(tensor)}, the model's is {_kind(place)}"
        for name, (tensor, place) in pairs.items()
        if (tensor.dtype not in FLOATS if place.is_floating_point() else tensor.dtype != place.dtype)
    ]
    if wrong:
        raise WeightsError(
            f"{source} holds tensors of another kind than the model's ({len(wrong)}): {_some(wrong, '; ')}. "
            "Quantised weights are not read; save the model as float32, float16 or bfloat16"
        )


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """The module's tensors, each once: of tied parameters the first name is kept."""
    state = module.state_dict(keep_vars=True)
    return {names[0]: state[names[0]].detach() for names in _names_by_tensor(state)}


def not_numbers(module: nn.Module) -> dict[str, int]:
    """For each tensor that holds NaN or infinities: how many."""
    counts = {name: int((~tensor.isfinite()).sum()) for name, tensor in state_of(module).items()}
    return {name: count for name, count in counts.items() if count}


def check_numbers(source: Path, module: nn.Module) -> None:
    """Raise WeightsError, naming the tensors, where any holds NaN or infinities."""
    if counts := not_numbers(module):
        raise WeightsError(
            f"{source} holds values that are not finite numbers, in {len(counts)} tensors: "
            + _some(f"{name} ({count:,})" for name, count in counts.items())
            + ". The run that wrote it had diverged, or the file is damaged; take an earlier one"
        )


def _read_shards(folder: Path) -> dict[str, Tensor]:
    index = read_json(folder / INDEX_FILE)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict):
        raise FolderError(
            f"{folder / INDEX_FILE} has no 'weight_map'; it is not an index of safetensors shards"
        )
    _check_names(folder / INDEX_FILE, weight_map)
    tensors: dict[str, Tensor] = {}
    for file_name in sorted(set(weight_map.values())):
        tensors |= read_file(folder / file_name)
    if missing := sorted(weight_map.keys() - tensors.keys()):
        raise WeightsError(f"{folder}: the index promises tensors that no shard holds: {_some(missing)}")
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; FolderError names the file where it is missing, cut or of another kind."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FolderError(f"{path} does not exist; found beside it: {_listing(path.parent)}") from None
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FolderError(f"{path} is not JSON ({error}); a cut download, or another kind of file") from error
    if not isinstance(data, dict):
        raise FolderError(f"{path} must hold a JSON object, found {type(data).__name__}")
    return data


def _check_names(index: Path, weight_map: Mapping[str, object]) -> None:
    """Only names of files in the same folder: an index must not lead the reader elsewhere."""
    for tensor, name in weight_map.items():
        if not isinstance(name, str):
            raise FolderError(f"{index} must name a file for each tensor; for {tensor!r} it has {name!r}")
        if Path(name).name != name or name in ("", ".."):
            raise FolderError(f"{index} names a shard outside its folder: {name!r}")


def _shards(tensors: dict[str, Tensor], shard_bytes: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def _names_by_tensor(state: Mapping[str, Any]) -> list[list[str]]:
    """Names grouped by the parameter they belong to, in order; of a tied one's two the encoder's is first."""
    groups: dict[int, list[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(id(tensor), []).append(name)
    return [sorted(names, key=lambda name: not name.startswith("model.")) for names in groups.values()]


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _misfit(source: str, missing: list[str], extra: list[str], wrong: list[str]) -> str:
    lines = [f"the tensors in {source} do not fit the model that its configuration describes:"]
    if missing:
        lines.append(f"  missing ({len(missing)}): {_some(missing)}")
    if extra:
        lines.append(f"  not part of the model ({len(extra)}): {_some(extra)}")
    if wrong:
        lines.append(f"  of the wrong shape ({len(wrong)}): {_some(wrong, '; ')}")
    lines.append("check that the configuration and the weights belong together, 'architectures' first")
    return "\n".join(lines)


def _some(names: Iterable[str], separator: str = ", ", most: int = 6) -> str:
    names = list(names)
    return separator.join(names[:most]) + (
        f"{separator}and {len(names) - most} more" if len(names) > most else ""
    )


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    return _some(sorted(path.name for path in folder.iterdir()), most=12) or "nothing"


def _pickle_hint(folder: Path) -> str:
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        return (
            " Pickled weights can run code and are not read; `modernbert convert` reads research checkpoints "
            "from them, and transformers' save_pretrained writes safetensors"
        )
    return ""
