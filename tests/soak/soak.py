"""A long run of two cameras with all kinds of faults: python tests/soak/soak.py [--seconds 1800]

Cameras stall, tear frames, change size and disappear; a sink is slow, a disk is full, another process writes into the
same folders and Zarr group, ends and starts again, and a ZeroMQ consumer is killed and started again. It exits with 1
unless every fault has occurred, both streams run to the end, no cube of the other process is lost or doubled, the
other process is refused the ZeroMQ address, every frame is accounted for, every cube that a sink took is complete, no
file handle is left open and memory does not grow.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from writers import SecondWriter

from ccnet.contract import CCNetError
from ccnet.runtime import Reconstructor
from ccnet.runtime.stream import metrics, pipeline
from ccnet.runtime.stream.context_policy import ContextPolicy
from ccnet.runtime.stream.pipeline import Stream
from ccnet.runtime.stream.sinks import CubeFolder, Sink, ZarrGroup, ZeroMQSocket
from ccnet.runtime.stream.sources.source import SourceDisconnectedError, SourceSpec

SIZES = ((48, 64), (64, 48), (40, 40))
LIBC = ctypes.CDLL(None)  # glibc 2.33 or later
GROWTH_MB, GROWTH_MB_H = 3.0, 1.0  # limits of a short run, which is noisy, and of a long one
HANDLES = 2  # files and threads
_ARENA_MAX, _MMAP_THRESHOLD = -8, -3  # of mallopt
KEPT = 20  # cubes a sink may hold before they are read back and removed
CONSUMER = """
import sys, zmq
socket = zmq.Context().socket(zmq.PULL)
socket.connect(sys.argv[1])
print(flush=True)
while True:
    socket.recv_multipart()
"""


class Faults:
    """A schedule of faults: rounds of all in random order, at times that do not depend on the machine's speed."""

    def __init__(self, names: tuple[str, ...], seconds: float, seed: int) -> None:
        """Start a schedule with a fault every so many seconds on average."""
        self._names, self._seconds, self.random = names, seconds, random.Random(seed)
        self._round: list[str] = []
        self._next = time.monotonic()
        self.times = dict.fromkeys(names, 0)

    def due(self) -> str:
        """Return the fault that is due now, or an empty string."""
        if time.monotonic() < self._next:
            return ""
        self._next = time.monotonic() + self._seconds * self.random.uniform(0.2, 1.8)
        self._round = self._round or self.random.sample(self._names, len(self._names))
        fault = self._round.pop()
        self.times[fault] += 1
        return fault


class Camera:
    """A camera of 100 frames per second with faults."""

    expected, colour = None, ""

    def __init__(self, seed: int) -> None:
        self.faults, self._size = Faults(("stall", "torn", "torn", "size", "gone"), 0.5, seed), SIZES[0]
        self.given = 0

    def open(self) -> Camera:
        if self.given and self.faults.random.random() < 0.5:
            raise SourceDisconnectedError("still disconnected")
        return self

    def read(self) -> tuple[str, Any]:
        time.sleep(0.01)
        fault = self.faults.due()
        if fault == "gone":
            raise SourceDisconnectedError("unplugged")
        self.given += 1
        if fault == "torn":
            raise CCNetError("torn")
        if fault == "stall":
            time.sleep(0.5)
        if fault == "size":
            self._size = self.faults.random.choice([size for size in SIZES if size != self._size])
        return "", np.full((*self._size, 3), self.given % 256, np.uint8)

    def close(self) -> None: ...


class FaultySink:
    """A sink that is slow or full at times; its cubes are read back and removed."""

    def __init__(self, sink: Sink, folder: Path, seed: int, second: SecondWriter) -> None:
        self.name, self._sink, self._folder, self._second = sink.name, sink, folder, second
        self.taken = self.read = 0
        self.faults = Faults(("slow", "full"), 2, seed)

    @contextmanager
    def cube(self, name: str | None, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[Any]:
        fault = self.faults.due()
        with self._sink.cube(name, height, width, metadata) as writer:
            yield writer
            if fault == "slow":
                time.sleep(0.3)
            if fault == "full":
                raise CCNetError("no space left on device")
        self.taken += 1
        if self.taken % KEPT == 0:
            self.read_back()

    def read_back(self) -> None:
        self.read += self._second.read_back(self._folder)

    def close(self) -> None:
        self._sink.close()


class Pause:
    """A pause of all streams between two frames, so that memory holds no frame in work."""

    def __init__(self, streams: int) -> None:
        self._due, self._barrier = threading.Event(), threading.Barrier(streams + 1, timeout=60)

    def prepare(self, pixels: Any) -> Any:
        """Pass a frame on, after a pause if one is due; each stream calls this."""
        if self._due.is_set():
            self._barrier.wait()
            self._barrier.wait()
        return pixels

    @contextmanager
    def all(self) -> Iterator[None]:
        self._due.set()
        self._barrier.wait()
        yield
        self._due.clear()
        self._barrier.wait()


class Consumer(threading.Thread):
    """A process that pulls cubes, killed and started again every few seconds."""

    def __init__(self, address: str, until: float) -> None:
        super().__init__(name="consumer")
        self._address, self._until, self.kills = address, until, 0

    def run(self) -> None:
        while time.monotonic() < self._until:
            command = [sys.executable, "-c", CONSUMER, self._address]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()  # it has started, which takes a slow machine seconds
                time.sleep(4)
                process.kill()
            self.kills += 1
            time.sleep(1)


class _Malloc(ctypes.Structure):
    """``struct mallinfo2`` of glibc 2.33: ``used`` and ``mapped`` are the bytes that the program holds."""

    _names = ("arena", "free_chunks", "fast_chunks", "maps", "mapped", "unused", "fast_free", "used", "free", "top")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


class Sample(NamedTuple):
    """A measurement: MB that malloc and Python hold, MB of resident memory, number of open files and threads."""

    seconds: float
    in_use: float
    resident: float
    handles: float


def measure() -> Sample:
    """Measure this process, at best in a pause."""
    gc.collect()
    LIBC.malloc_trim(0)
    LIBC.mallinfo2.restype = _Malloc
    malloc = LIBC.mallinfo2()
    python = 100 * sys.getallocatedblocks()  # small objects are not in malloc; they have about 100 bytes
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    handles = sum(len(list(Path("/proc/self", kind).iterdir())) for kind in ("fd", "task"))
    held = malloc.used + malloc.mapped + python
    return Sample(time.monotonic(), held / 1e6, pages * os.sysconf("SC_PAGE_SIZE") / 1e6, handles)


def cameras(
    work: Path, stack: ExitStack, reconstruct: Reconstructor, pause: Pause, second: SecondWriter
) -> Iterator[tuple[Camera, Stream, list[FaultySink]]]:
    """Yield a stream to a Zarr group (``latest``) and a stream to a socket (``drop-oldest``), both also to files."""
    for number, policy in enumerate(("latest", "drop-oldest")):
        folder, group = work / f"files{number}", work / "cubes.zarr"
        files = FaultySink(CubeFolder(folder, "hdr"), folder, number, second)
        other: Sink = ZeroMQSocket(f"ipc://{work}/socket", send_timeout_ms=500) if number else ZarrGroup(group)
        sinks = [files, FaultySink(other, work / "sent" if number else group, 7, second)]
        camera = Camera(seed=number)
        for sink in sinks:
            stack.callback(sink.close)
        yield (
            camera,
            Stream(
                source=SourceSpec(f"camera {number}", True, camera.open),
                sinks=sinks,
                reconstructor=reconstruct,
                prepare=pause.prepare,
                context=ContextPolicy("scene" if number else "smooth"),
                policy=policy,  # type: ignore[arg-type]
            ),
            sinks,
        )


def soak(seconds: float, artifacts: str) -> list[str]:
    """Run both streams for some seconds and return everything that went wrong."""
    pipeline.FIRST_RECONNECT_WAIT_S, pipeline.LONGEST_RECONNECT_WAIT_S = 0.05, 0.2
    metrics.RECENT_FRAMES = 16  # 1024 latencies would let memory grow for a quarter of an hour
    samples = array("d")  # a list of objects would grow by half a megabyte an hour
    still = np.full((*SIZES[0], 3), 99, np.uint8)
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        reconstruct = stack.enter_context(Reconstructor.open(artifacts, input_space="camera", threads=1))
        pause = Pause(streams=2)
        until = time.monotonic() + seconds
        socket = f"ipc://{work}/socket"
        second = SecondWriter([Path(work, name) for name in ("files0", "files1", "cubes.zarr")], f"zmq:{socket}", until)
        running = list(cameras(Path(work), stack, reconstruct, pause, second))
        threads = [threading.Thread(target=stream.run, name=stream.source.name) for _, stream, _ in running]
        consumer = Consumer(socket, until)
        for thread in (*threads, consumer, second):
            thread.start()
        while time.monotonic() < until:
            time.sleep(max(0.5, min(2, seconds / 60)))
            if not all(thread.is_alive() for thread in threads):
                break
            with pause.all():
                reconstruct(still)  # ONNX Runtime keeps the memory of its last outputs: make it the same each time
                now = measure()
            samples.extend(now)
            print(
                f"{until - now.seconds:6.1f} s left, {now.in_use:.2f} MB in use, {now.resident:.1f} MB resident,"
                f" {now.handles:.0f} handles and threads",
                flush=True,
            )
        wrong = [f"{thread.name} ended early" for thread in threads if not thread.is_alive()]
        for _, stream, _ in running:
            stream.stop()
        for thread in (*threads, consumer, second):
            thread.join(60)
        wrong += [problem for each in running for problem in check(*each)] + second.problems()
        wrong += [f"{path} is half-written" for path in Path(work).rglob(".ccnet-*")]
    print(f"consumer killed {consumer.kills} times")
    if not consumer.kills:
        wrong.append("the consumer was never killed")
    return wrong + leaks([Sample(*values) for values in zip(*[iter(samples)] * len(Sample._fields), strict=True)])


def check(camera: Camera, stream: Stream, sinks: list[FaultySink]) -> list[str]:
    """Return what is wrong with a stream that has ended: faults, counts and cubes."""
    counts = stream.ledger.counts()
    schedules = [camera.faults, *(sink.faults for sink in sinks)]
    print(
        f"{stream.source.name}, {stream.policy}: {stream.metrics}; faults {[schedule.times for schedule in schedules]}"
    )
    faults = [fault for schedule in schedules for fault in schedule.times.items()]
    faults += [("reconnect", stream.metrics.reconnects), ("dropped frame", counts.dropped)]
    faults += [("rejection by a sink", counts.rejected.get("sink", 0))]
    wrong = [f"{stream.source.name}: no {name} came" for name, times in faults if not times]
    if counts.in_flight or counts.arrived != counts.delivered + counts.dropped + sum(counts.rejected.values()):
        wrong.append(f"{stream.source.name}: the ledger does not balance: {counts}")
    if counts.arrived not in (camera.given, camera.given - 1):
        wrong.append(f"{stream.source.name}: {camera.given} frames were given, {counts.arrived} arrived")
    for sink in sinks:
        if not counts.delivered or sink.taken < counts.delivered:
            wrong.append(f"{stream.source.name}: {counts.delivered} delivered, {sink.taken} taken by {sink.name}")
        sink.read_back()
        if not sink.name.startswith("zmq:") and sink.read != sink.taken:
            wrong.append(f"{sink.name}: {sink.taken} cubes taken, {sink.read} were there")
    return wrong


def leaks(samples: list[Sample]) -> list[str]:
    """Compare the third and the last quarter of the run, when all sizes have occurred."""
    later = samples[len(samples) // 2 :]
    if len(later) < 4:
        return [f"{len(samples)} measurements are too few"]
    before, after = later[: len(later) // 2], later[len(later) // 2 :]
    hours = (after[0].seconds - before[0].seconds) / 3600
    grown = {kind: lowest(after, kind) - lowest(before, kind) for kind in ("in_use", "resident")}
    handles = [[sample.handles for sample in half] for half in (before, after)]
    print(f"in use {lowest(before, 'in_use'):.2f} MB, {grown['in_use'] / hours:+.2f} MB/h;", end=" ")
    print(f"resident {lowest(before, 'resident'):.2f} MB, {grown['resident'] / hours:+.2f} MB/h;", end=" ")
    print("handles and threads", ", then ".join(f"{min(half):.0f} to {max(half):.0f}" for half in handles))
    most = GROWTH_MB_H * hours if hours > 0.1 else GROWTH_MB
    wrong = [f"memory {kind} grew by {growth:.2f} MB" for kind, growth in grown.items() if growth > most]
    left = min(handles[1]) - min(handles[0])
    return wrong + ([f"{left:.0f} more handles and threads are open"] if left > HANDLES else [])


def lowest(samples: list[Sample], kind: str) -> float:
    """Return the smallest MB of a kind; larger samples also hold queued cubes, or memory that is not yet returned."""
    return min(float(getattr(sample, kind)) for sample in samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--artifacts", default="build/ccnet")
    options = parser.parse_args()
    # Otherwise each thread has an arena with gaps, and resident memory varies by 20 MB for a quarter of an hour
    LIBC.mallopt(_ARENA_MAX, 1)
    LIBC.mallopt(_MMAP_THRESHOLD, 1 << 16)
    wrong = soak(options.seconds, options.artifacts)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
