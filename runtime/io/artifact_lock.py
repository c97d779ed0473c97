"""The lock of an artifact folder: one process at a time exports, builds or calibrates in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ccnet.contract import CCNetError, make_folder

LOCK_NAME = ".ccnet.lock"
"""File in the folder that the lock is on. The system frees it when its process ends, however that happens."""


@contextmanager
def lock_artifacts(
    folder: Path, *, wait: bool = True, say: Callable[[str], object] = lambda line: None
) -> Iterator[None]:
    """Keep other processes from writing into an artifact folder.

    Args:
        folder: The folder; it is made where it does not exist.
        wait: Wait for a process that has the lock, as long as it takes.
        say: Called with a line before the wait.

    Yields:
        Nothing.

    Raises:
        CCNetError: Another process has the lock and ``wait`` is False, or the folder cannot be written.
    """
    make_folder(folder)
    lock = FileLock(folder / LOCK_NAME)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            busy = f"{folder}: another ccnet process writes into it"
            if not wait:
                raise CCNetError(f"{busy}, expected none; wait for its end, or leave --no-wait out") from None
            say(f"{busy}; waiting for its end")
            lock.acquire()
    except OSError as error:
        raise CCNetError(
            f"{folder}: cannot be locked ({error.strerror}); choose a folder that you can write"
        ) from error
    try:
        yield
    finally:
        lock.release()
