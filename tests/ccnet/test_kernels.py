"""The threads that run the compiled kernels."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch

from ccnet.kernels import parallel, run_all, runs


@pytest.fixture
def three(threads: None) -> None:
    torch.set_num_threads(3)


@pytest.mark.parametrize("count", [0, 1, 2, 17])
@pytest.mark.usefixtures("three")
def test_every_job_runs_once_and_results_keep_their_order(count: int) -> None:
    ran: list[int] = []
    assert parallel(lambda job: (ran.append(job), 2 * job)[1], ((job,) for job in range(count))) == [
        *range(0, 2 * count, 2)
    ]
    assert sorted(ran) == [*range(count)]


@pytest.mark.usefixtures("three")
def test_jobs_run_at_once() -> None:
    meeting = threading.Barrier(3, timeout=20)
    assert sorted(parallel(lambda job: meeting.wait(), [(0,), (1,), (2,)])) == [0, 1, 2]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_what_a_job_raises_is_raised(error: type[BaseException]) -> None:
    def work(job: int) -> int:
        if job == 1:
            raise error
        return job

    with pytest.raises(error):
        parallel(work, [(0,), (1,), (2,)])
    assert parallel(lambda job: job, [(5,)]) == [5]  # and what comes after is as before


def test_a_kernel_that_lacks_memory_is_told() -> None:
    seen: list[tuple[object, ...]] = []

    def kernel(*given: object) -> int:
        seen.append(given)
        return 0

    with pytest.raises(MemoryError):
        run_all(kernel, 4, "given")
    assert all(one[0] == "given" for one in seen)


def test_runs_are_whole_blocks_and_all() -> None:
    pieces = [*runs(10, 4)]
    assert pieces[0][0] == 0
    assert pieces[-1][1] == 10
    assert all(first % 4 == 0 and before == first for (_, before), (first, _) in itertools.pairwise(pieces))
