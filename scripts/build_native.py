"""Build the native kernels: one library for each instruction set, beside the package's Python files.

Needs g++ (or what $CXX names) and nothing else: no torch headers, no Python headers. `--sanitize` builds with
the address and undefined-behaviour sanitisers; give it another folder.

    python scripts/build_native.py [--out FOLDER] [--sanitize]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
KERNELS = ROOT / "src" / "modernbert" / "kernels"
# GCC 12 takes the undefined part of its own AVX-512 functions for a mistake of ours.
AVX512 = (
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"),
    *("-mprefer-vector-width=512", "-Wno-maybe-uninitialized", "-Wno-uninitialized"),
)
FLAGS = {
    "avx2": ("-mavx2", "-mfma", "-mtune=haswell"),
    "avx512": (*AVX512, "-mtune=icelake-server"),
    "avx512_bf16": (*AVX512, "-mavx512bf16", "-mavx512vnni", "-mtune=icelake-server"),
}
COMMON = ("-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra", "-Werror")
COMMON += ("-Wno-missing-field-initializers",)
# What of the C++ library is not used must not ask for a newer C library than the rest does.
STATIC = ("-static-libstdc++", "-Wl,--exclude-libs,ALL", "-Wl,--gc-sections")
SANITIZE = (
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
)


def main() -> None:
    """Build for every instruction set, whatever this processor has."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=KERNELS)
    parser.add_argument("--sanitize", action="store_true")
    args = parser.parse_args()
    compiler = os.environ.get("CXX", "g++")
    if platform.machine().lower() not in ("x86_64", "amd64"):
        sys.exit(
            f"the native kernels are for x86-64, this is {platform.machine()}; the package works without"
        )
    if shutil.which(compiler) is None:
        sys.exit(f"no compiler {compiler!r}: install g++ or set CXX; the package works without, more slowly")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in FLAGS:
        build(compiler, name, args.out / f"native_{name}.so", args.sanitize)


def build(compiler: str, name: str, target: Path, sanitizes: bool) -> None:
    """One library; it is put in place whole."""
    options = [*COMMON, *FLAGS[name], *(SANITIZE if sanitizes else ())]
    sources = sorted((KERNELS / "csrc").glob("*.cpp"))
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        objects = [Path(folder) / f"{source.stem}.o" for source in sources]

        def compiled(pair: tuple[Path, Path]) -> None:
            subprocess.run([compiler, *options, "-c", str(pair[0]), "-o", str(pair[1])], check=True)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compiled, zip(sources, objects, strict=True)))
        built = Path(folder) / target.name
        static = () if sanitizes else STATIC
        subprocess.run(
            [compiler, *options, "-shared", *static, *map(str, objects), "-o", str(built)], check=True
        )
        os.replace(built, target)
    print(f"built {target} ({target.stat().st_size / 1e6:.1f} MB)", file=sys.stderr)


if __name__ == "__main__":
    main()
