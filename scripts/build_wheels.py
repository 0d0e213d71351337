"""Build two wheels into dist/: one for every machine, and one for x86-64 Linux with the native kernels.

The second is the first with the libraries added and the tag that auditwheel finds for them: they are linked
against the C library alone, and the newest of its symbols that they use decides the tag. Needs what
build_native.py needs, and pip; nothing is uploaded.

    python scripts/build_wheels.py [--out dist]
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PURE_TAG = "py3-none-any"


def main() -> None:
    """The pure wheel, then the other from it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        pure = build_pure(Path(work), args.out)
        print(f"built {pure}", file=sys.stderr)
        print(f"built {build_native(Path(work), pure, args.out)}", file=sys.stderr)


def build_pure(work: Path, out: Path) -> Path:
    """The wheel of the sources; from a copy, so that a build leaves nothing behind in the tree."""
    source = work / "source"
    ignore = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source / "src", ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(work / "pure")]
    subprocess.run([*pip, str(source)], check=True)
    (wheel,) = (work / "pure").glob("*.whl")
    return Path(shutil.copy(wheel, out))


def build_native(work: Path, pure: Path, out: Path) -> Path:
    """The same with the libraries, its tag and RECORD made anew."""
    folder = work / "unpacked"
    with zipfile.ZipFile(pure) as file:
        file.extractall(folder)
    kernels = folder / "modernbert" / "kernels"
    subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "build_native.py"), "--out", str(kernels)], check=True
    )
    tag = f"py3-none-manylinux_{needed_glibc(kernels)}_x86_64"
    (info,) = folder.glob("*.dist-info")
    text = (info / "WHEEL").read_text().replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
    (info / "WHEEL").write_text(text.replace(f"Tag: {PURE_TAG}", f"Tag: {tag}"))
    target = out / pure.name.replace(PURE_TAG, tag)
    write_wheel(folder, info, target)
    return target


def write_wheel(folder: Path, info: Path, target: Path) -> None:
    """Zip a folder, with a RECORD of the digest and size of each file (PEP 427)."""
    record = info / "RECORD"
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != record)
    lines = []
    for path in paths:
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
        lines.append(f"{path.relative_to(folder)},sha256={digest},{path.stat().st_size}")
    record.write_text("\n".join([*lines, f"{record.relative_to(folder)},,"]) + "\n")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for path in [*paths, record]:
            file.write(path, path.relative_to(folder))


def needed_glibc(folder: Path) -> str:
    """The newest version of the C library that a symbol of ours needs, as in a tag: 2_34."""
    newest = (2, 17)  # manylinux2014, the oldest that pip still knows by a number
    for library in folder.glob("*.so"):
        symbols = subprocess.run(
            ["objdump", "-T", str(library)], capture_output=True, text=True, check=True
        ).stdout
        newest = max([newest, *((int(a), int(b)) for a, b in re.findall(r"GLIBC_(\d+)\.(\d+)", symbols))])
    return f"{newest[0]}_{newest[1]}"


if __name__ == "__main__":
    main()
