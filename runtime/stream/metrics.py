"""Latency and frame rate of a stream, and the status line that shows them on a terminal."""

from __future__ import annotations

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TextIO

import numpy as np

from .ledger import FrameLedger

RECENT_FRAMES = 1024
"""Number of delivered frames that percentiles and rate are computed from."""

_PERCENTILES = (50, 95, 99)


class StreamMetrics:
    """Latencies of the last 1024 delivered frames, beside the ledger of all frames; threads may share it.

    A file is read faster than it is computed, so that its frames spend most of their latency in the queue.
    """

    def __init__(self, ledger: FrameLedger, clock: Callable[[], float] = time.time) -> None:
        """Start without a frame.

        Args:
            ledger: Ledger of the same stream.
            clock: Function that returns seconds since 1970.
        """
        self.ledger, self._clock = ledger, clock
        self.reconnects = 0
        self._lock = threading.Lock()
        # (time of delivery, latency, the part of it in the queue) in s
        self._deliveries: deque[tuple[float, float, float]] = deque(maxlen=RECENT_FRAMES)

    def record_delivery(self, arrived: float, begun: float) -> None:
        """Record that a frame is delivered now.

        Args:
            arrived: Time when the source gave the frame, s since 1970.
            begun: Time when the frame left the queue.
        """
        now = self._clock()
        with self._lock:
            self._deliveries.append((now, now - arrived, begun - arrived))

    def latency(self) -> dict[int, float]:
        """Return percentile → seconds from arrival to delivery, the wait in the queue included; NaN before a frame."""
        with self._lock:
            return _percentiles([latency for _, latency, _ in self._deliveries])

    def waiting(self) -> dict[int, float]:
        """Return percentile → seconds in the queue, between arrival and computation; NaN before the first frame."""
        with self._lock:
            return _percentiles([waited for _, _, waited in self._deliveries])

    def rate(self) -> float:
        """Return delivered frames per second, from the first of the recent frames until now.

        A single frame counts from its arrival; the rate is 0 before it.
        """
        with self._lock:
            if not self._deliveries:
                return 0.0
            delivered, latency, _ = self._deliveries[0]
            later = len(self._deliveries) - 1
            since = delivered if later else delivered - latency
            return max(later, 1) / max(self._clock() - since, 1e-9)

    def __str__(self) -> str:
        speed = f"{self.rate():.3g} frames/s"
        if (waited := self.waiting()[50]) == waited:
            latency = ", ".join(f"p{percentile} {1e3 * value:.0f} ms" for percentile, value in self.latency().items())
            speed += f", {latency}, of which p50 {1e3 * waited:.0f} ms in the queue"
        return f"{speed}; {self.ledger.counts()}; {self.reconnects} reconnects"


def _percentiles(seconds: Sequence[float]) -> dict[int, float]:
    values = np.percentile(seconds, _PERCENTILES) if seconds else [float("nan")] * len(_PERCENTILES)
    return dict(zip(_PERCENTILES, map(float, values), strict=True))


class StatusLine:
    """A line on a terminal that is written again once a second; nothing where the output is no terminal."""

    def __init__(self, metrics: StreamMetrics, out: TextIO) -> None:
        self._metrics, self._out = metrics, out
        self._on = out.isatty()
        self._next = 0.0

    def refresh(self) -> None:
        """Write the line, at most once a second."""
        if self._on and (now := time.monotonic()) >= self._next:
            self._next = now + 1
            # A line that wraps could not be cleared
            self._print(str(self._metrics)[: shutil.get_terminal_size().columns - 1])

    def close(self) -> None:
        """Clear the line."""
        if self._on:
            self._print("")

    def _print(self, line: str) -> None:
        try:
            print(f"\r\x1b[K{line}", end="", file=self._out, flush=True)
        except OSError:  # the terminal was closed, which is no reason to end the stream
            self._on = False
