"""One process of two, which leave while gloo still holds a tensor made in Python: started by torchrun."""

import time
from threading import Event

import torch
import torch.distributed as dist

from modernbert.training.parallel import joined

# Longer than Python takes from here to its end on a busy machine: without a wait the process dies of SIGABRT.
LETTING_GO_S = 3.0


class Slow(torch.Tensor):
    """A tensor whose end takes time, in whatever thread holds it last."""

    is_ending = Event()

    def __del__(self, clock=time.monotonic, seconds=LETTING_GO_S):
        self.is_ending.set()
        end = clock() + seconds
        while clock() < end:
            pass


def main() -> None:
    with joined("cpu") as group:
        dist.group.kept = dist.group.WORLD  # pyright: ignore  # as modules and caches of torch do
        if group.is_main:
            dist.all_reduce(torch.ones(3).as_subclass(Slow), async_op=True)  # now only gloo holds it
            assert Slow.is_ending.wait(60)
        else:
            time.sleep(1)  # so that the other one has let go of it before the sum is done
            dist.all_reduce(torch.ones(3))
    print("left")


if __name__ == "__main__":
    main()
