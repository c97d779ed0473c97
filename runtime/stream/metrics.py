"""Latency and frame rate of a stream, and the status line that shows them on a terminal."""

from __future__ import annotations

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

import numpy as np

from .ledger import FrameLedger

RECENT_FRAMES = 1024
"""Number of delivered frames that percentiles and rate are computed from."""

_PERCENTILES = (50, 95, 99)


class StreamMetrics:
    """Latencies of the last 1024 delivered frames, beside the ledger of all frames; threads may share it."""

    def __init__(self, ledger: FrameLedger, clock: Callable[[], float] = time.time) -> None:
        """Start without a frame.

        Args:
            ledger: Ledger of the same stream.
            clock: Function that returns seconds since 1970.
        """
        self.ledger, self._clock = ledger, clock
        self.reconnects = 0
        self._lock = threading.Lock()
        self._deliveries: deque[tuple[float, float]] = deque(maxlen=RECENT_FRAMES)  # (time, latency) in s

    def record_delivery(self, arrived: float) -> None:
        """Record that a frame, that arrived at that time (s since 1970), is delivered now."""
        now = self._clock()
        with self._lock:
            self._deliveries.append((now, now - arrived))

    def latency(self) -> dict[int, float]:
        """Return percentile → seconds from capture to delivery; NaN before the first frame."""
        with self._lock:
            latencies = [latency for _, latency in self._deliveries]
        values = np.percentile(latencies, _PERCENTILES) if latencies else [float("nan")] * len(_PERCENTILES)
        return dict(zip(_PERCENTILES, map(float, values), strict=True))

    def rate(self) -> float:
        """Return delivered frames per second, from the first of the recent frames until now.

        A single frame counts from its capture; the rate is 0 before it.
        """
        with self._lock:
            if not self._deliveries:
                return 0.0
            delivered, latency = self._deliveries[0]
            later = len(self._deliveries) - 1
            since = delivered if later else delivered - latency
            return max(later, 1) / max(self._clock() - since, 1e-9)

    def __str__(self) -> str:
        latency = [
            f"p{percentile} {1e3 * value:.0f} ms" for percentile, value in self.latency().items() if value == value
        ]
        speed = ", ".join([f"{self.rate():.3g} frames/s", *latency])
        return f"{speed}; {self.ledger.counts()}; {self.reconnects} reconnects"


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
