"""The bounded queue between a camera and the network, and its policies for a camera that is faster."""

from __future__ import annotations

import threading
from collections import deque
from typing import Literal

from ccnet.contract import CCNetError

from .ledger import FrameLedger
from .sources.source import CapturedFrame

QueuePolicy = Literal["latest", "block", "drop-oldest"]
"""``latest`` keeps one frame, the newest; ``block`` makes the source wait; ``drop-oldest`` drops the oldest frame."""


class FrameQueue:
    """A queue in which one thread puts frames, one thread gets them, and any thread may close.

    A frame enters the ledger when it is put, and is settled there if the queue drops it.
    """

    def __init__(self, ledger: FrameLedger, policy: QueuePolicy, size: int) -> None:
        """Make an empty queue.

        Args:
            ledger: Ledger of the stream.
            policy: What happens to frames when the queue is full.
            size: Largest number of frames that wait; ``latest`` always has one.

        Raises:
            CCNetError: The size is below 1.
        """
        if size < 1:
            raise CCNetError(f"the queue holds {size} frames, expected at least 1")
        self._ledger, self._policy = ledger, policy
        self._size = 1 if policy == "latest" else size
        self._frames: deque[CapturedFrame] = deque()
        self._changed = threading.Condition()
        self._blocked = 0
        self._closed = self._abandoned = False

    def put(self, frame: CapturedFrame) -> bool:
        """Put a frame, after a wait for room under ``block``; return False once the queue is closed."""
        with self._changed:
            if self._closed:
                return False
            self._ledger.arrive(frame.frame_id)
            if self._policy == "block":
                self._wait_for_room()
            while len(self._frames) >= self._size:
                self._ledger.drop(self._frames.popleft().frame_id)
            if self._abandoned:
                self._ledger.drop(frame.frame_id)
            else:
                self._frames.append(frame)
            self._changed.notify_all()
            return not self._closed

    def get(self, timeout: float | None = None) -> CapturedFrame | None:
        """Get the oldest frame.

        Args:
            timeout: Longest wait, s.

        Returns:
            The frame, or None if the queue is closed and empty.

        Raises:
            TimeoutError: The queue is still open and empty after the wait.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._frames or (self._closed and not self._blocked), timeout):
                raise TimeoutError
            frame = self._frames.popleft() if self._frames else None
            self._changed.notify_all()
            return frame

    def close(self) -> None:
        """Refuse new frames; the frames in the queue, and those that wait for room, can still be got."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Close the queue and drop the frames in it."""
        with self._changed:
            self._closed = self._abandoned = True
            while self._frames:
                self._ledger.drop(self._frames.popleft().frame_id)
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._frames)

    def _wait_for_room(self) -> None:
        self._blocked += 1
        try:
            self._changed.wait_for(lambda: len(self._frames) < self._size or self._abandoned)
        finally:
            self._blocked -= 1
