"""One process of a run, as torchrun starts it:  worker.py DATA OUT OPTIMIZER SPREAD [STOP_AFTER]."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from modernbert.training import loop
from modernbert.training.optim import AdamWConfig, AdoptConfig, MuonConfig, OptimizerConfig, StableAdamWConfig
from modernbert.training.recipe import Recipe
from modernbert.training.run import Switches, pretrain
from tests.training.small_recipe import small_recipe

OPTIMIZERS: dict[str, OptimizerConfig] = {
    "stable_adamw": StableAdamWConfig(),
    "adamw": AdamWConfig(),
    "adopt": AdoptConfig(),
    "muon": MuonConfig(),
}


class Ended(Exception):
    """What stands for a kill."""


def recipe_with(optimizer: str) -> Recipe:
    # the promise is of float32: in bfloat16 sums in another order are rounded to other numbers
    return replace(small_recipe(), optimizer=OPTIMIZERS[optimizer], precision="float32")


def end_after(num_steps: int) -> None:
    take = loop._take  # pyright: ignore[reportPrivateUsage]

    def counted(run: loop.Run, step: loop.TrainingStep) -> dict[str, object]:
        if run.place.step == num_steps:
            raise Ended
        return take(run, step)

    loop._take = counted  # pyright: ignore[reportPrivateUsage]


def main() -> None:
    data, out, optimizer, spread, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    if rest:
        end_after(int(rest[0]))
    try:
        pretrain(
            recipe_with(optimizer), Path(data), Path(out), switches=Switches(device="cpu", spread=spread)
        )  # pyright: ignore[reportArgumentType]
    except Ended:
        print("ended")


if __name__ == "__main__":
    main()
