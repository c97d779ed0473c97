"""A survey on a Dask cluster: workers may die, and the scheduler may start again."""

from __future__ import annotations

import itertools
import logging
from asyncio import CancelledError
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

from ccnet.contract import CCNetError
from ccnet.runtime.io.files import optional_module

from .manifest import Row
from .sources import ArchiveFrame
from .worker import Task, run_frame

_logger = logging.getLogger(__name__)

CONNECT_S = 60
"""Longest time until a scheduler answers, also after it was lost, s."""

AHEAD = 1000
"""Frames that the scheduler knows at the same time."""


class Cluster:
    """A runner of surveys: each worker of the cluster computes a frame a thread."""

    def __init__(self, address: str, connect_s: float = CONNECT_S) -> None:
        """Connect to a scheduler, so that a wrong address is an error before any work.

        Args:
            address: The scheduler's address, such as ``tcp://host:8786``.
            connect_s: Longest time until it answers, s.
        """
        self._distributed = optional_module("distributed", "scale")
        self._address, self._connect_s = address, connect_s
        client = self._connect()
        self.dashboard = str(client.dashboard_link)
        """Address of the scheduler's page."""
        client.close()

    def __call__(self, task: Task, frames: Sequence[ArchiveFrame]) -> Generator[Row, None, None]:
        """Run a task on frames and yield their rows as they are ready.

        Frames that a dead worker had are computed by another. If the scheduler is lost, connect to its successor, and
        submit the frames that have no row yet.

        Args:
            task: The work on each frame.
            frames: The frames.

        Yields:
            The row of each frame.
        """
        left = {frame.name: frame for frame in frames}
        while left:
            with closing(self._connect()) as client:
                for name, row in self._round(client, task, list(left.values())):
                    del left[name]
                    yield row
            if left:
                _logger.warning("%s: the scheduler was lost, %d frames are left", self._address, len(left))

    def _round(self, client: Any, task: Task, frames: list[ArchiveFrame]) -> Iterator[tuple[str, Row]]:
        """Yield the rows of frames until all are there or the scheduler is lost."""
        waiting = iter(frames)
        shared = client.scatter(task, broadcast=False, hash=False) if len(frames) > AHEAD else task
        names: dict[str, ArchiveFrame] = {}

        def submit(count: int) -> list[Any]:
            futures = []
            for frame in itertools.islice(waiting, count):
                futures.append(client.submit(run_frame, shared, frame, pure=False))
                names[futures[-1].key] = frame
            return futures

        queue = self._distributed.as_completed(submit(AHEAD), loop=client.loop)
        for future in queue:
            frame = names.pop(future.key)
            row = self._row(future, frame)
            if row is None:
                return
            yield frame.name, row
            for fresh in submit(1):
                queue.add(fresh)

    def _row(self, future: Any, frame: ArchiveFrame) -> Row | None:
        """Return the row of a frame, also of one that ended its workers, one after the other; None: no scheduler."""
        if future.status in ("cancelled", "lost"):
            return None
        try:
            error = future.exception()
            row: Row | None = None if error else future.result()
        except (OSError, TimeoutError, CancelledError) as lost:  # the scheduler went while it handed the row over
            _logger.debug("%s: %s", self._address, lost)
            return None
        if error is None:
            return row
        if not isinstance(error, self._distributed.KilledWorker):
            raise error
        reason = "the workers that had this frame died, one after the other: out of memory?"
        return Row(frame=frame.name, location=frame.location, status="failed", reason=reason)

    def _connect(self) -> Any:
        try:
            return self._distributed.Client(self._address, timeout=self._connect_s, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            why = " ".join(str(error).split())[:200]
            raise CCNetError(
                f"{self._address}: no scheduler answers ({why}), expected the address that 'dask scheduler' prints"
            ) from error
