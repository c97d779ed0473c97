"""The lock of a folder: one process at a time exports, builds, calibrates or surveys into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ccnet.contract import CCNetError, make_folder

LOCK_NAME = ".ccnet.lock"
"""File in the folder that the lock is on. The system frees it when its process ends, however that happens."""


def lock_artifacts(
    folder: Path, *, wait: bool = True, say: Callable[[str], object] = lambda line: None
) -> AbstractContextManager[None]:
    """Keep other processes from writing into an artifact folder.

    Args:
        folder: The folder; it is made where it does not exist.
        wait: Wait for a process that has the lock, as long as it takes.
        say: Called with a line before the wait.

    Returns:
        The lock, for a ``with`` block. It raises a CCNetError if another process has it and ``wait`` is False, or the
        folder cannot be written.
    """
    busy = f"{folder}: another ccnet process writes into it"

    def wait_or_refuse() -> None:
        if not wait:
            raise CCNetError(f"{busy}, expected none; wait for its end, or leave --no-wait out")
        say(f"{busy}; waiting for its end")

    return lock_folder(folder, wait_or_refuse)


@contextmanager
def lock_folder(folder: Path, on_busy: Callable[[], object]) -> Iterator[None]:
    """Keep other processes out of a folder.

    Args:
        folder: The folder; it is made where it does not exist.
        on_busy: Called when another process has the lock. If it returns, wait for that process, as long as it takes.

    Yields:
        Nothing.

    Raises:
        CCNetError: The folder cannot be written.
    """
    make_folder(folder)
    lock = FileLock(folder / LOCK_NAME)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_busy()
            lock.acquire()
    except OSError as error:
        raise CCNetError(
            f"{folder}: cannot be locked ({error.strerror}); choose a folder that you can write"
        ) from error
    try:
        yield
    finally:
        lock.release()
