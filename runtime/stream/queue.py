"""The bounded queue between a camera and the network, and what it does when the camera is faster."""

from __future__ import annotations

import threading
from collections import deque
from typing import Literal

from ccnet.contract import CCNetError

from .ledger import FrameLedger
from .sources import CapturedFrame

Policy = Literal["latest", "block", "drop-oldest"]
"""``latest`` keeps one frame, the newest; ``block`` makes the source wait; ``drop-oldest`` lets the oldest go."""


class FrameQueue:
    """One thread puts, one gets, any thread closes. A frame is opened in the account as it is put."""

    def __init__(self, account: FrameLedger, policy: Policy, size: int) -> None:
        """size: most frames that wait; ``latest`` has one whatever is said."""
        if size < 1:
            raise CCNetError(f"the queue holds {size} frames, expected at least 1")
        self._account, self._policy = account, policy
        self._size = 1 if policy == "latest" else size
        self._shots: deque[CapturedFrame] = deque()
        self._changed = threading.Condition()
        self._blocked = 0
        self._closed = self._abandoned = False

    def put(self, shot: CapturedFrame) -> bool:
        """Take a frame, after a wait under ``block``; False once the queue is closed: no more frames are taken."""
        with self._changed:
            if self._closed:
                return False
            self._account.arrive(shot.frame_id)
            if self._policy == "block":
                self._wait_for_room()
            while len(self._shots) >= self._size:
                self._account.drop(self._shots.popleft().frame_id)
            if self._abandoned:
                self._account.drop(shot.frame_id)
            else:
                self._shots.append(shot)
            self._changed.notify_all()
            return not self._closed

    def get(self, timeout: float | None = None) -> CapturedFrame | None:
        """The oldest frame; None when it is closed and empty. TimeoutError after ``timeout`` s without either."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._shots or (self._closed and not self._blocked), timeout):
                raise TimeoutError
            shot = self._shots.popleft() if self._shots else None
            self._changed.notify_all()
            return shot

    def close(self) -> None:
        """Take no more frames; those that are here, or wait for room, can still be got."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Close, and drop what waits."""
        with self._changed:
            self._closed = self._abandoned = True
            while self._shots:
                self._account.drop(self._shots.popleft().frame_id)
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._shots)

    def _wait_for_room(self) -> None:
        self._blocked += 1
        try:
            self._changed.wait_for(lambda: len(self._shots) < self._size or self._abandoned)
        finally:
            self._blocked -= 1
