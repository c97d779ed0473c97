"""The speed of a server beside the same artifacts in this process: time a frame, frames a second, 95th percentile."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccnet.contract import CCNetError

from .client import SharedMemoryClient, connect
from .service import ServiceSettings, open_reconstructor

Frame = Any
_PERCENTILE = 95


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """The measured times.

    Attributes:
        side: Side of the frames, px.
        local_ms: Time of each frame in this process, one after the other.
        served_ms: Time of each frame by one client with shared memory; the two took turns.
        clients: Number of clients at the same time.
        load_ms: Time of each frame of those clients, from call to cube.
        seconds: Time of all their frames together.
        server_ms: Mean time of a frame in the server during both, by its own statistics: queue, input, compute, output.
        largest_difference: Largest difference of a served cube and the local one.
        settings: Parameters of the server's model, with which the frames in this process were computed too.
    """

    side: int
    local_ms: list[float]
    served_ms: list[float]
    clients: int
    load_ms: list[float]
    seconds: float
    server_ms: dict[str, float]
    largest_difference: float
    settings: ServiceSettings

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        local, served = float(np.median(self.local_ms)), float(np.median(self.served_ms))
        fewest = min(self.served_ms) / min(self.local_ms) - 1
        parts = ", ".join(f"{name} {ms:.2f}" for name, ms in self.server_ms.items())
        settings = ", ".join(f"{name} {value}" for name, value in asdict(self.settings).items() if value is not None)
        return [
            f"{self.side}×{self.side} px, {len(self.local_ms)} frames in turns, largest difference of the cubes"
            f" {self.largest_difference:g}",
            f"in this process: median {local:.1f} ms, minimum {min(self.local_ms):.1f}, p95 {_p95(self.local_ms):.1f}",
            f"server, 1 client: median {served:.1f} ms, minimum {min(self.served_ms):.1f}, p95"
            f" {_p95(self.served_ms):.1f}",
            f"overhead: {served / local - 1:+.1%} of medians, {fewest:+.1%} of minima",
            f"server, {self.clients} clients: {len(self.load_ms) / self.seconds:.2f} frames/s, p95"
            f" {_p95(self.load_ms):.0f} ms; in this process {1e3 / local:.2f} frames/s",
            f"server's own statistics, ms a frame: {parts}",
            f"both: {settings}",
        ]


def measure(artifacts: Path, url: str, *, side: int, frames: int, clients: int) -> LoadReport:
    """Measure a server that serves these artifacts on this machine, beside this process with the server's settings.

    Args:
        artifacts: The artifact folder that the server's repository was written from.
        url: The server's gRPC address.
        side: Side of the frames, px.
        frames: Frames of each measurement.
        clients: Clients at the same time.

    Returns:
        The report.
    """
    frame = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    settings, device = _settings(url)
    local_ms, served_ms = [], []
    with (
        open_reconstructor(artifacts, settings, device) as reconstruct,
        SharedMemoryClient(url, side, side) as serve,
    ):
        out = reconstruct(frame).copy()  # the first frame loads the graphs
        difference = float(np.abs(serve(frame) - out).max())
        before = _statistics(url)  # the first frame, which is not timed, does not count
        for _ in range(frames):
            local_ms.append(_ms(lambda: reconstruct(frame, out=out)))
            served_ms.append(_ms(lambda: serve(frame)))
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        shares = [frames // clients + (number < frames % clients) for number in range(clients)]
        load_ms = [ms for times in pool.map(lambda count: _client(url, frame, count), shares) for ms in times]
    return LoadReport(
        side=side,
        local_ms=local_ms,
        served_ms=served_ms,
        clients=clients,
        load_ms=load_ms,
        seconds=time.perf_counter() - started,
        server_ms=_difference(before, _statistics(url)),
        largest_difference=difference,
        settings=settings,
    )


def _client(url: str, frame: Frame, count: int) -> list[float]:
    with SharedMemoryClient(url, *frame.shape[:2]) as serve:
        return [_ms(lambda: serve(frame)) for _ in range(count)]


def _ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def _p95(times: list[float]) -> float:
    return float(np.percentile(times, _PERCENTILE))


def _settings(url: str) -> tuple[ServiceSettings, int]:
    """Return the parameters of the server's model, and the index of its first GPU, or 0."""
    client = connect(url)
    try:
        config = client.get_model_config("ccnet").config
    finally:
        client.close()
    gpus = [gpu for group in config.instance_group for gpu in group.gpus]
    texts = {name: value.string_value for name, value in config.parameters.items()}
    return ServiceSettings.parse(texts), min(gpus, default=0)


def _statistics(url: str) -> dict[str, tuple[int, int]]:
    """Return part of a request → (number, nanoseconds) since the server started."""
    client = connect(url)
    try:
        (model,) = client.get_inference_statistics("ccnet").model_stats
    finally:
        client.close()
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    return {name: (part.count, part.ns) for name in parts for part in [getattr(model.inference_stats, name)]}


def _difference(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> dict[str, float]:
    """Return part of a request → mean ms between two readings."""
    means = {}
    for name, (count, ns) in after.items():
        requests = count - before[name][0]
        if requests < 1:
            raise CCNetError("the server counted no request meanwhile, it was restarted: measure again")
        means[name.replace("_", " ")] = (ns - before[name][1]) / requests / 1e6
    return means
