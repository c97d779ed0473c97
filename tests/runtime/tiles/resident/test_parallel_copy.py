"""Copies of cubes by several threads."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from ccnet.runtime.tiles.resident.parallel_copy import ParallelCopy


@pytest.mark.parametrize("threads", [1, 2, 3, 40])
def test_all_values_are_copied(threads: int) -> None:
    source = np.random.default_rng(0).random((31, 5, 7), np.float32)
    cube = np.full((31, 8, 9), -1, np.float32)
    copies = ParallelCopy(threads)
    copies.copy(cube[:, 2:7, 1:8], source)
    copies.close()
    copies.close()
    np.testing.assert_array_equal(cube[:, 2:7, 1:8], source)
    assert (cube == -1).sum() == cube.size - source.size


@pytest.mark.parametrize("wrong", [slice(0, 3), slice(28, 31)])
def test_error_of_any_thread_is_raised(wrong: slice) -> None:
    """Read-only bands stand for whatever fails."""
    target = np.zeros((31, 2, 2), np.float32)

    class Refuses(np.ndarray):
        """An array whose parts of some bands are read-only."""

        def __getitem__(self, key: slice) -> np.ndarray:
            part = np.asarray(self)[key]
            part.flags.writeable = not (key.start < wrong.stop and wrong.start < key.stop)
            return part

    copies = ParallelCopy(2)
    with pytest.raises(ValueError, match="read-only"):
        copies.copy(target.view(Refuses), np.ones((31, 2, 2), np.float32))
    copies.close()
    assert target[:15].all() == (wrong.start > 0) and target[15:].all() == (wrong.start == 0)


def test_copies_that_run_are_waited_for_where_the_next_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = ParallelCopy(3)
    submit, runs, ended = copies._pool.submit, threading.Event(), threading.Event()

    def slow_copy(*_: Any) -> None:
        runs.set()
        threading.Event().wait(0.1)
        ended.set()

    def submit_once(*_: Any) -> Any:
        if runs.is_set():
            raise RuntimeError("can't start new thread")
        future = submit(slow_copy)
        assert runs.wait(10)
        return future

    monkeypatch.setattr(copies._pool, "submit", submit_once)
    with pytest.raises(RuntimeError, match="new thread"):
        copies.copy(np.zeros((31, 2, 2), np.float32), np.ones((31, 2, 2), np.float32))
    assert ended.is_set()
    copies.close()
