"""What every benchmark needs: on which processor and with which versions it ran, and where its results go.

Results are kept per processor, in `results/NAME-PROCESSOR.json`: another one tells another story.
"""

from __future__ import annotations

import json
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from modernbert.files import write_atomic

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "modernbert",
    "torch",
    "numpy",
    "tokenizers",
    "safetensors",
    "transformers",
    "sentence-transformers",
    "onnxruntime",
    "openvino",
    "xllamacpp",
)
# What decides which matrix kernels run; names as in /proc/cpuinfo.
FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
    "i8mm",
)


def processor_name() -> str:
    """Such as "AMD EPYC (family 25, model 1)": virtual machines hide the rest of the name."""
    fields = _cpuinfo()
    name = fields.get("model name") or platform.processor() or platform.machine()
    name = re.sub(r"\s+", " ", re.sub(r"\((R|TM)\)", "", name)).strip()
    family, model = fields.get("cpu family"), fields.get("model")
    return name if family is None or model is None else f"{name} (family {family}, model {model})"


def capabilities() -> list[str]:
    """The vector and matrix extensions that this processor has, of those that matter here."""
    present = set((_cpuinfo().get("flags") or _cpuinfo().get("Features") or "").split())
    return [flag for flag in FLAGS if flag in present]


def versions() -> dict[str, str]:
    """Versions of Python and of each package of PACKAGES that is installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """All that a reader needs to judge a number: written into every result file."""
    return {
        "processor": processor_name(),
        "capabilities": capabilities(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def description() -> str:
    """The processor and the versions, for the head of what a benchmark prints."""
    here = machine()
    found = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    return f"{here['processor']}, {here['threads']} threads, {' '.join(here['capabilities'])}\n{found}"


def results_path(name: str, suffix: str = ".json") -> Path:
    """Where the results of the benchmark `name` on this processor go."""
    return RESULTS / f"{name}-{_slug(processor_name())}{suffix}"


def write_results(name: str, data: dict[str, Any]) -> Path:
    """Write `data` and the machine it was measured on, atomically; returns the path."""
    path = results_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"machine": machine(), **data}, indent=2) + "\n")
    return path


def stored_results(name: str) -> dict[str, Any]:
    """What an earlier run on this processor left; nothing where there is none."""
    path = results_path(name)
    return json.loads(path.read_text()) if path.exists() else {}


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty where there is no such file."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
