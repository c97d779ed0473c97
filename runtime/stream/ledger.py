"""The ledger of a stream's frames: each is delivered, kept, dropped by the policy, or rejected with a reason."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import Literal

RejectionCause = Literal["source", "radiometry", "reconstruction", "sink"]
"""Step of the pipeline that rejected a frame."""

_REASONS_KEPT = 5


@dataclass(frozen=True)
class FrameCounts:
    """Numbers of frames at one moment; ``arrived`` is always the sum of all others."""

    arrived: int
    delivered: int
    kept: int
    """Frames whose cubes every sink had already, from an earlier stream."""
    dropped: int
    """Dropped by the queue's policy, or after a second stop."""
    rejected: dict[RejectionCause, int]
    in_flight: int
    """Neither delivered, dropped nor rejected yet; 0 when a stream has ended."""

    def __str__(self) -> str:
        rejected = sum(self.rejected.values())
        causes = ", ".join(f"{cause} {count}" for cause, count in sorted(self.rejected.items()))
        text = f"{self.arrived} frames arrived: {self.delivered} delivered, "
        text += f"{self.kept} there already, " if self.kept else ""
        text += f"{self.dropped} dropped by policy, "
        text += f"{rejected} rejected" + (f" ({causes})" if causes else "")
        return text + (f", {self.in_flight} in flight" if self.in_flight else "")


class FrameLedger:
    """A ledger with an entry for each frame, opened when the frame arrives and settled once; threads may share it.

    Its methods raise ValueError for a frame that arrives twice and for a frame that is settled without being in flight:
    a ledger that does not balance is an error of the program, never of the user.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight: set[int] = set()
        self._last = -1
        self._arrived = self._delivered = self._kept = self._dropped = 0
        self._rejected: Counter[RejectionCause] = Counter()
        self._reasons: deque[str] = deque(maxlen=_REASONS_KEPT)

    def arrive(self, frame_id: int) -> None:
        """Open the entry of a frame.

        Args:
            frame_id: Larger than that of every frame before.

        Raises:
            ValueError: The id is not larger.
        """
        with self._lock:
            if frame_id <= self._last:
                raise ValueError(f"frame {frame_id} arrives after frame {self._last}, expected ascending ids")
            self._last = frame_id
            self._in_flight.add(frame_id)
            self._arrived += 1

    def deliver(self, frame_id: int) -> None:
        """Settle a frame whose cube every sink has."""
        with self._lock:
            self._settle(frame_id)
            self._delivered += 1

    def keep(self, frame_id: int) -> None:
        """Settle a frame whose cube every sink had already."""
        with self._lock:
            self._settle(frame_id)
            self._kept += 1

    def drop(self, frame_id: int) -> None:
        """Settle a frame that the policy, or a second stop, dropped."""
        with self._lock:
            self._settle(frame_id)
            self._dropped += 1

    def reject(self, frame_id: int, cause: RejectionCause, reason: str) -> None:
        """Settle a frame that could not become a cube, or whose cube a sink refused."""
        with self._lock:
            self._settle(frame_id)
            self._rejected[cause] += 1
            self._reasons.append(f"frame {frame_id}: {reason}")

    def counts(self) -> FrameCounts:
        """Return the numbers of frames now."""
        with self._lock:
            return FrameCounts(
                arrived=self._arrived,
                delivered=self._delivered,
                kept=self._kept,
                dropped=self._dropped,
                rejected=dict(self._rejected),
                in_flight=len(self._in_flight),
            )

    @property
    def reasons(self) -> list[str]:
        """Reasons of the last five rejections, one line each."""
        with self._lock:
            return list(self._reasons)

    def _settle(self, frame_id: int) -> None:
        if frame_id not in self._in_flight:
            raise ValueError(f"frame {frame_id} is settled without being in flight")
        self._in_flight.remove(frame_id)
