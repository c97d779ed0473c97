"""Where every frame of a stream went: delivered, dropped by the policy, or rejected with a reason. Nothing else."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import Literal

Cause = Literal["source", "radiometry", "reconstruction", "sink"]
"""Which step rejected a frame."""

_REASONS_KEPT = 5


@dataclass(frozen=True)
class FrameCounts:
    """An account at one moment. ``arrived`` is the sum of all others, always."""

    arrived: int
    delivered: int
    dropped: int
    """By the queue's policy, or since the stream was stopped twice."""
    rejected: dict[Cause, int]
    in_flight: int
    """Not decided yet; 0 when a stream has ended."""

    def __str__(self) -> str:
        rejected = sum(self.rejected.values())
        causes = ", ".join(f"{cause} {count}" for cause, count in sorted(self.rejected.items()))
        text = f"{self.arrived} frames arrived: {self.delivered} delivered, {self.dropped} dropped by policy, "
        text += f"{rejected} rejected" + (f" ({causes})" if causes else "")
        return text + (f", {self.in_flight} in flight" if self.in_flight else "")


class FrameLedger:
    """Opened for each frame when it arrives and settled once; threads may share it.

    ValueError for a frame that arrives twice, and for one that is settled without being in flight: an account that
    does not balance is a mistake in the program, never the user's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight: set[int] = set()
        self._last = -1
        self._arrived = self._delivered = self._dropped = 0
        self._rejected: Counter[Cause] = Counter()
        self._reasons: deque[str] = deque(maxlen=_REASONS_KEPT)

    def arrive(self, frame_id: int) -> None:
        """A frame is here; ids ascend."""
        with self._lock:
            if frame_id <= self._last:
                raise ValueError(f"frame {frame_id} arrives after frame {self._last}, expected ascending ids")
            self._last = frame_id
            self._in_flight.add(frame_id)
            self._arrived += 1

    def deliver(self, frame_id: int) -> None:
        """Every sink has the frame's cube."""
        with self._lock:
            self._settle(frame_id)
            self._delivered += 1

    def drop(self, frame_id: int) -> None:
        """The policy preferred another frame, or the user stopped twice."""
        with self._lock:
            self._settle(frame_id)
            self._dropped += 1

    def reject(self, frame_id: int, cause: Cause, reason: str) -> None:
        """The frame cannot become a cube, or a sink does not take it."""
        with self._lock:
            self._settle(frame_id)
            self._rejected[cause] += 1
            self._reasons.append(f"frame {frame_id}: {reason}")

    def tally(self) -> FrameCounts:
        with self._lock:
            return FrameCounts(
                self._arrived, self._delivered, self._dropped, dict(self._rejected), in_flight=len(self._in_flight)
            )

    @property
    def reasons(self) -> list[str]:
        """Of the last few rejected frames, one line each."""
        with self._lock:
            return list(self._reasons)

    def _settle(self, frame_id: int) -> None:
        if frame_id not in self._in_flight:
            raise ValueError(f"frame {frame_id} is settled without being in flight")
        self._in_flight.remove(frame_id)
