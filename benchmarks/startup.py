"""How long a user waits before anything happens: for `--help`, and for the package on top of torch.

Each command is a fresh process; they run in turns, so that a busy moment hits all of them. Prints medians.

    python benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from common import description, write_results

LIMIT_HELP_S = 0.3
LIMIT_IMPORT_S = 0.2
COMMANDS = {
    "modernbert --help": ["-m", "modernbert", "--help"],
    "modernbert embed --help": ["-m", "modernbert", "embed", "--help"],
    "import torch": ["-c", "import torch"],
    "import torch, modernbert": ["-c", "import torch, modernbert"],
    "import torch, modernbert.load": ["-c", "import torch; from modernbert import load"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="processes a command")
    repeats = parser.parse_args().repeats
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats + 1):  # the first round fills the disk cache
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(found[1:]) for name, found in times.items()}
    torch_alone = medians["import torch"]
    print(description() + "\n")
    for name, median in medians.items():
        added = f", {median - torch_alone:+.3f} s" if name.startswith("import torch,") else ""
        print(f"{name:<32}{median:.3f} s{added}")
    print(f"\nLimits: {LIMIT_HELP_S} s for --help, {LIMIT_IMPORT_S} s on top of torch.")
    print(f"wrote {write_results('startup', {'median_seconds': medians, 'repeats': repeats})}")


if __name__ == "__main__":
    main()
