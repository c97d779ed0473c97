"""A stream's pulse: latency, rate, queue and fates, as a line for people and as metrics for Prometheus."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ccnet.contract import CCNetError
from ccnet.runtime.io.files import optional_module

from .ledger import FrameLedger

_logger = logging.getLogger(__name__)

_RECENT = 1024  # frames that percentiles and rate are of
_PERCENTILES = (50, 95, 99)


class StreamMetrics:
    """Latencies of the last 1024 frames that were delivered; threads may share it."""

    def __init__(self, account: FrameLedger, clock: Callable[[], float] = time.time) -> None:
        self.account, self._clock = account, clock
        self.reconnects = 0
        self._lock = threading.Lock()
        self._ends: deque[tuple[float, float]] = deque(maxlen=_RECENT)

    def delivered(self, captured: float) -> None:
        """A frame that was captured at that time, s since 1970, is delivered now."""
        now = self._clock()
        with self._lock:
            self._ends.append((now, now - captured))

    def latency(self) -> dict[int, float]:
        """Percentile → seconds from capture to delivery; NaN before the first frame."""
        with self._lock:
            latencies = [latency for _, latency in self._ends]
        values = np.percentile(latencies, _PERCENTILES) if latencies else [float("nan")] * len(_PERCENTILES)
        return dict(zip(_PERCENTILES, map(float, values), strict=True))

    def rate(self) -> float:
        """Frames a second that were delivered, over those last frames and up to now; 0 before the second."""
        with self._lock:
            if len(self._ends) < 2:
                return 0.0
            return (len(self._ends) - 1) / max(self._clock() - self._ends[0][0], 1e-9)

    def __str__(self) -> str:
        told = [f"p{percentile} {1e3 * value:.0f} ms" for percentile, value in self.latency().items() if value == value]
        speed = ", ".join([f"{self.rate():.3g} frames/s", *told])
        return f"{speed}; {self.account.tally()}; {self.reconnects} reconnects"


class StatusLine:
    """Writes a line over and over on a terminal, once a second; nothing where the output is none."""

    def __init__(self, pulse: StreamMetrics, out: TextIO) -> None:
        self._pulse, self._out = pulse, out
        self._on = out.isatty()
        self._next = 0.0

    def refresh(self) -> None:
        if self._on and (now := time.monotonic()) >= self._next:
            self._next = now + 1
            # A line that wraps could not be wiped again
            self._print(str(self._pulse)[: shutil.get_terminal_size().columns - 1])

    def close(self) -> None:
        if self._on:
            self._print("")

    def _print(self, line: str) -> None:
        try:
            print(f"\r\x1b[K{line}", end="", file=self._out, flush=True)
        except OSError:  # the terminal was closed, which is no reason to end the stream
            self._on = False


class Metrics:
    """The pulse for Prometheus: on a port, or in a text file that its node exporter collects."""

    def __init__(self, pulse: StreamMetrics, target: str) -> None:
        """target: a port's number, or a path that ends in ``.prom``; CCNetError for another, or one that is taken."""
        client = optional_module("prometheus_client", "camera")
        self._families = optional_module("prometheus_client.core", "camera")
        self._pulse = pulse
        self._registry = client.CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._path = Path(target) if target.endswith(".prom") else None
        self._write: Callable[[str, Any], None] = client.write_to_textfile
        self._server: Any = None
        self._next = 0.0
        self._warned = False
        if self._path:
            self._save()
        elif target.isdecimal() and 0 < int(target) < 1 << 16:
            with _naming(f"port {target}"):
                self._server, _ = client.start_http_server(int(target), registry=self._registry)
        else:
            raise CCNetError(f"--metrics is {target!r}, expected a port or a file's path that ends in .prom")

    def collect(self) -> Iterator[Any]:
        """What Prometheus' client library asks for."""
        counter, gauge = self._families.CounterMetricFamily, self._families.GaugeMetricFamily
        tally = self._pulse.account.tally()
        yield counter("ccnet_frames_arrived", "Frames that the source gave", value=tally.arrived)
        yield counter("ccnet_frames_delivered", "Frames whose cubes all sinks have", value=tally.delivered)
        yield counter("ccnet_frames_dropped", "Frames that the policy dropped", value=tally.dropped)
        rejected = counter("ccnet_frames_rejected", "Frames that could not be delivered", labels=["cause"])
        for cause in ("source", "radiometry", "reconstruction", "sink"):
            rejected.add_metric([cause], tally.rejected.get(cause, 0))
        yield rejected
        yield gauge("ccnet_frames_in_flight", "Frames that are not decided yet", value=tally.in_flight)
        yield gauge("ccnet_frames_per_second", "Frames delivered a second, of late", value=self._pulse.rate())
        yield counter("ccnet_reconnects", "Times that the camera came back", value=self._pulse.reconnects)
        latency = gauge("ccnet_latency_seconds", "From capture to delivery, of late", labels=["quantile"])
        for percentile, value in self._pulse.latency().items():
            latency.add_metric([str(percentile / 100)], value)
        yield latency

    def refresh(self) -> None:
        """Write the file, at most once a second; a port needs nothing. A disk that is full does not end the stream."""
        if self._path and (now := time.monotonic()) >= self._next:
            self._next = now + 1
            try:
                self._save()
            except CCNetError as error:
                if not self._warned:
                    _logger.warning("%s (said once, tried again)", error)
                self._warned = True

    def close(self) -> None:
        if self._path:
            self._next = 0.0
            self.refresh()
        elif self._server:
            self._server.shutdown()
            self._server.server_close()

    def _save(self) -> None:
        with _naming(str(self._path)):
            self._write(str(self._path), self._registry)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """What the system refuses, in one line."""
    try:
        yield
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        why = getattr(error, "strerror", None) or error
        raise CCNetError(f"{what}: cannot be used for metrics ({why}); give another --metrics") from error
