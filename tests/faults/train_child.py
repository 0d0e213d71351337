"""A training run that may kill itself:  train_child.py DATA OUT [MOMENT COUNT]

MOMENT is where, COUNT at which time it comes there. Nothing runs after SIGKILL, not even `finally`.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from modernbert.training import checkpoint, loop
from modernbert.training.journal import Journal
from modernbert.training.run import Switches, pretrain
from tests.training.small_recipe import small_recipe

TIMES_LONGER = 4


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_step(count: int) -> None:
    take, calls = loop.set_learning_rate, [0]

    def counted(*args: Any) -> None:
        calls[0] += 1
        if calls[0] == count:
            die()
        take(*args)

    loop.set_learning_rate = counted


def kill_in_save(count: int) -> None:
    write, calls = checkpoint._write_state, [0]  # pyright: ignore[reportPrivateUsage]

    def counted(folder: Path, state: dict[str, Any]) -> None:
        calls[0] += 1
        if calls[0] == count:
            die()
        write(folder, state)

    checkpoint._write_state = counted  # pyright: ignore[reportPrivateUsage]


def kill_in_journal(count: int) -> None:
    """Half of a line is written when the kill comes."""
    write, calls = Journal.write, [0]

    def counted(self: Journal, name: str, row: Any) -> None:
        calls[0] += 1
        if calls[0] == count:
            with (self.folder / name).open("a") as file:
                file.write('{"step": 1, "tok')
            die()
        write(self, name, row)

    Journal.write = counted


MOMENTS = {"step": kill_in_step, "save": kill_in_save, "journal": kill_in_journal}


def main() -> None:
    data, out, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    if rest:
        MOMENTS[rest[0]](int(rest[1]))
    recipe = small_recipe()
    recipe = recipe.scaled_to(TIMES_LONGER * recipe.num_tokens)
    assert pretrain(recipe, Path(data), Path(out), switches=Switches(device="cpu")) is not None


if __name__ == "__main__":
    main()
