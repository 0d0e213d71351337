"""Work in processes: results in order, errors as they were, dead workers told."""

from __future__ import annotations

import os
import signal
import time
import weakref

import pytest

from modernbert.corpus.workers import in_workers
from modernbert.errors import CorpusError


def slow_first(job: int) -> tuple[int, int]:
    time.sleep(0.3 if job == 0 else 0)
    return job, os.getpid()


def fail_at_two(job: int) -> int:
    if job == 2:
        raise CorpusError("two is wrong")
    if job == 3:
        raise OSError(28, "No space left on device")
    if job == 4:
        raise KeyError("a bug")
    return job


def die_at_one(job: int) -> int:
    if job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_jobs(num_workers):
    results = list(in_workers(slow_first, range(6), num_workers=num_workers))
    assert [job for job, _ in results] == list(range(6))
    processes = {process for _, process in results}
    assert len(processes) <= num_workers
    assert (os.getpid() in processes) is (num_workers == 1)


def test_no_more_processes_than_jobs_are_started():
    started = time.monotonic()
    assert len({process for _, process in in_workers(slow_first, [1], num_workers=64)}) == 1
    assert list(in_workers(slow_first, [], num_workers=64)) == []
    assert time.monotonic() - started < 8  # 64 interpreters take longer


@pytest.mark.parametrize("num_workers", [1, 2])
def test_errors_come_as_they_were(num_workers):
    with pytest.raises(CorpusError, match="two is wrong"):
        list(in_workers(fail_at_two, [0, 1, 2], num_workers=num_workers))
    with pytest.raises(OSError, match="No space left"):
        list(in_workers(fail_at_two, [3], num_workers=num_workers))
    with pytest.raises((KeyError, RuntimeError), match="a bug"):
        list(in_workers(fail_at_two, [4], num_workers=num_workers))


def test_a_worker_that_dies_is_told():
    with pytest.raises(CorpusError, match=r"a worker process died with exit code -9"):
        list(in_workers(die_at_one, [0, 1, 2, 3], num_workers=2))


class Job:
    """A job that can be watched."""

    def __init__(self, number: int) -> None:
        self.number = number


def number_of(job: Job) -> int:
    return job.number


@pytest.mark.parametrize("num_workers", [1, 2])
def test_few_jobs_lie_in_memory_at_once(num_workers):
    living: weakref.WeakSet[Job] = weakref.WeakSet()

    def jobs():
        for number in range(30):
            job = Job(number)
            living.add(job)
            assert len(living) <= num_workers + 1, "one for each worker, and the one that is made"
            yield job

    assert list(in_workers(number_of, jobs(), num_workers=num_workers)) == list(range(30))
