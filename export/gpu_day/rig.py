"""The tools of a step of the day: the device, sizes for it, timers, and rows for the report."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import torch

Size = TypeVar("Size")

Device = Literal["cuda", "cpu"]


class SkippedError(Exception):
    """A step, or a part of it, cannot run here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure of the report.

    Attributes:
        name: What was measured.
        value: The figure; None for what could not be measured.
        unit: Its unit.
        target: What to compare the figure with, in the same unit: a roofline or a limit.
        note: Variant, error or reason, in words.
    """

    name: str
    value: float | None
    unit: str
    target: float | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object."""
        return asdict(self)


class Rig:
    """The device to measure on.

    Args:
        device: ``cuda``, or ``cpu`` for a rehearsal.
        emit: Called with each row as soon as it is measured.
        emulated: The CUDA kernels run in an emulator on the CPU.

    Attributes:
        runs_kernels: Whether the CUDA kernels can run.
    """

    def __init__(self, device: Device, emit: Callable[[Row], None], *, emulated: bool = False) -> None:
        self.device, self.emit = device, emit
        self.runs_kernels = emulated or self.on_gpu
        torch.manual_seed(0)

    @property
    def on_gpu(self) -> bool:
        """True for a measurement, False for a rehearsal."""
        return self.device == "cuda"

    def size(self, full: Size, tiny: Size) -> Size:
        """Return the size of a measurement, or that of a rehearsal."""
        return full if self.on_gpu else tiny

    def synchronize(self) -> None:
        """Wait for all queued work."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def attempt(self, name: str, unit: str, measure: Callable[[], Row]) -> None:
        """Emit a measurement, or why it failed: the others of the step go on."""
        try:
            self.emit(measure())
        except Exception as error:  # the report says what it was
            self.emit(Row(name=name, value=None, unit=unit, note=f"failed: {type(error).__name__}: {error}"[:300]))

    def milliseconds(self, work: Callable[[], object], repeats: int = 30) -> float:
        """Return the median time of a piece of work as the host sees it, its end included."""
        for _ in range(self.size(3, 0)):
            work()
        self.synchronize()
        seconds = []
        for _ in range(self.size(repeats, 1)):
            started = time.perf_counter()
            work()
            self.synchronize()
            seconds.append(time.perf_counter() - started)
        return 1e3 * statistics.median(seconds)

    def kernel_microseconds(self, works: Sequence[Callable[[], object]], repeats: int = 20) -> float:
        """Return the time of a kernel alone, without the host's part of a launch.

        Args:
            works: The kernel on buffers of its own each, together larger than the cache, so that each run finds its own
                in memory.
            repeats: Rounds.

        Returns:
            The median over the rounds of the time of a run.
        """
        if not self.on_gpu:
            return 1e3 * self.milliseconds(works[0])
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for work in works:  # compiles, and loads the module
                work()
        torch.cuda.synchronize()
        graph, kept = torch.cuda.CUDAGraph(), []
        with torch.cuda.graph(graph, stream=stream):
            for work in works:
                kept.append(work())  # memory that is freed inside a graph is used again, and so found in the cache
        times = []
        for _ in range(repeats):
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            graph.replay()
            last.record()
            torch.cuda.synchronize()
            times.append(1e3 * first.elapsed_time(last) / len(works))
        return statistics.median(times)
