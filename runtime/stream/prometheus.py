"""The metrics of a stream for Prometheus: on a port, or in a text file that its node exporter collects."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from ccnet.contract import CCNetError
from ccnet.runtime.io.files import optional_module

from .ledger import RejectionCause
from .metrics import StreamMetrics

_logger = logging.getLogger(__name__)


class PrometheusExporter:
    """An HTTP server or a text file with the metrics of a stream."""

    def __init__(self, metrics: StreamMetrics, target: str) -> None:
        """Start the server, or write the file for the first time.

        Args:
            metrics: Metrics of a stream.
            target: Number of a port, or a path that ends in ``.prom``.

        Raises:
            CCNetError: The target is neither, cannot be used, or the client library is not installed.
        """
        client = optional_module("prometheus_client", "camera")
        self._families = optional_module("prometheus_client.core", "camera")
        self._metrics = metrics
        self._registry = client.CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._path = Path(target) if target.endswith(".prom") else None
        self._write: Callable[[str, Any], None] = client.write_to_textfile
        self._server: Any = None
        self._next = 0.0
        self._warned = False
        if self._path:
            with _target_errors(target):
                self._path.parent.mkdir(parents=True, exist_ok=True)
            self._save()
        elif target.isdecimal() and 0 < int(target) < 1 << 16:
            with _target_errors(f"port {target}"):
                self._server, _ = client.start_http_server(int(target), registry=self._registry)
        else:
            raise CCNetError(f"--metrics is {target!r}, expected a port or the path of a file that ends in .prom")

    def collect(self) -> Iterator[Any]:
        """Yield the metric families; Prometheus' client library calls this.

        Yields:
            Counters and gauges of ``prometheus_client``.
        """
        counter, gauge = self._families.CounterMetricFamily, self._families.GaugeMetricFamily
        counts = self._metrics.ledger.counts()
        yield counter("ccnet_frames_arrived", "Frames from the source", value=counts.arrived)
        yield counter("ccnet_frames_delivered", "Frames whose cubes all sinks have", value=counts.delivered)
        yield counter("ccnet_frames_kept", "Frames whose cubes were there already", value=counts.kept)
        yield counter("ccnet_frames_dropped", "Frames that the policy dropped", value=counts.dropped)
        rejected = counter("ccnet_frames_rejected", "Frames that could not be delivered", labels=["cause"])
        for cause in get_args(RejectionCause):
            rejected.add_metric([cause], counts.rejected.get(cause, 0))
        yield rejected
        yield gauge("ccnet_frames_in_flight", "Frames that are not settled yet", value=counts.in_flight)
        yield gauge("ccnet_frames_per_second", "Recently delivered frames per second", value=self._metrics.rate())
        yield counter("ccnet_reconnects", "Times that the camera came back", value=self._metrics.reconnects)
        for name, text, seconds in (
            ("ccnet_latency_seconds", "Recent time from arrival to delivery, with the queue", self._metrics.latency()),
            ("ccnet_queue_seconds", "Recent time in the queue", self._metrics.waiting()),
        ):
            family = gauge(name, text, labels=["quantile"])
            for percentile, value in seconds.items():
                family.add_metric([str(percentile / 100)], value)
            yield family

    def refresh(self) -> None:
        """Write the file, at most once a second; a full disk does not end the stream. A port needs nothing."""
        if self._path and (now := time.monotonic()) >= self._next:
            self._next = now + 1
            try:
                self._save()
            except CCNetError as error:
                if not self._warned:
                    _logger.warning("%s (printed once, tried again)", error)
                self._warned = True

    def close(self) -> None:
        """Write the file for the last time, or end the server."""
        if self._path:
            self._next = 0.0
            self.refresh()
        elif self._server:
            self._server.shutdown()
            self._server.server_close()

    def _save(self) -> None:
        with _target_errors(str(self._path)):
            self._write(str(self._path), self._registry)


@contextmanager
def _target_errors(target: str) -> Iterator[None]:
    """Turn an error of the system into a CCNetError of one line."""
    try:
        yield
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise CCNetError(f"{target}: cannot be used for metrics ({reason}); choose another --metrics") from error
