"""Work spread over processes of this machine, with results in the order of the jobs.

Each worker has one job at a time, and asks for the next by answering, so no more than that waits in memory. A
worker whose master is gone, killed or not, finds its pipe closed and ends.
"""

from __future__ import annotations

import itertools
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from modernbert.errors import CorpusError, ModernBertError

Job = TypeVar("Job")
Result = TypeVar("Result")


def num_processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_workers(work: Callable[[Job], Result], jobs: Iterable[Job], *, num_workers: int) -> Iterator[Result]:
    """`work(job)` for each job, by up to `num_workers` processes at once; all of it must be picklable.

    With one worker the work is done in this process. Errors of the package and of the system are raised as
    they were; CorpusError where a worker died.
    """
    if num_workers == 1:
        yield from map(work, jobs)
        return
    pool = _Pool(work, num_workers)
    try:
        yield from pool.run(jobs)
        pool.close()
    finally:
        pool.end()


class _Pool:
    def __init__(self, work: Callable[[Any], Any], num_workers: int) -> None:
        self._work, self._num_workers = work, num_workers
        self._processes: dict[Connection, BaseProcess] = {}
        self._idle: list[Connection] = []
        self._busy: dict[Connection, int] = {}  # and the number of its job

    def run(self, jobs: Iterable[Any]) -> Iterator[Any]:
        numbered = enumerate(jobs)
        results: dict[int, Any] = {}
        num_given = 0
        is_more = True
        while is_more or self._busy:
            if is_more:
                jobs_now = list(itertools.islice(numbered, self._num_workers - len(self._busy)))
                is_more = len(self._busy) + len(jobs_now) == self._num_workers
                self._hand_out(jobs_now)
            for ready in connection.wait(list(self._busy)) if self._busy else ():
                assert isinstance(ready, Connection)
                number = self._busy.pop(ready)
                results[number] = self._answer(ready)
                self._idle.append(ready)
            while num_given in results:
                yield results.pop(num_given)
                num_given += 1

    def close(self) -> None:
        """Let idle workers end."""
        for each, process in self._processes.items():
            each.close()
            process.join()

    def end(self) -> None:
        """End the workers that still live: what they write is written whole or not at all."""
        for each, process in self._processes.items():
            process.terminate()
            process.join()
            process.close()
            each.close()

    def _hand_out(self, jobs: list[tuple[int, Any]]) -> None:
        # All are started before any is sent its work, which waits until it reads: they start side by side.
        new = [self._start() for _ in range(len(jobs) - len(self._idle))]
        for worker in new:
            self._send(worker, self._work)
        self._idle += new
        while jobs:
            number, job = jobs.pop()
            worker = self._idle.pop()
            self._send(worker, job)
            self._busy[worker] = number

    def _send(self, worker: Connection, content: Any) -> None:
        with suppress(BrokenPipeError):  # it died; its answer will tell
            worker.send(content)

    def _start(self) -> Connection:
        # Spawned, not forked: a fork of a process with threads may hold a lock forever.
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def _answer(self, worker: Connection) -> Any:
        try:
            is_right, answer = worker.recv()
        except (EOFError, ConnectionResetError):
            process = self._processes[worker]
            process.join()
            raise CorpusError(
                f"a worker process died with exit code {process.exitcode}; a negative one is a signal, and "
                "-9 often means that memory ran out\n"
                "hint: run the same again, with fewer --workers; what is done is kept"
            ) from None
        if not is_right:
            raise answer
        return answer


def _serve(master: Connection) -> None:
    """A worker's life: it is sent what to do, then job after job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the master ends the workers
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers are the parallelism
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        work: Callable[[Any], Any] = master.recv()
        while True:
            job = master.recv()
            try:
                answer = (True, work(job))
            except (ModernBertError, OSError) as error:
                answer = (False, error)
            except Exception:
                answer = (False, RuntimeError(f"in a worker process:\n{traceback.format_exc()}"))
            del job
            master.send(answer)
