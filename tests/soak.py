"""Two cameras for as long as is asked, with everything going wrong now and then: python tests/soak.py [--seconds 1800]

Cameras stall, tear frames, change size and disappear; a sink is slow, a disk is full, and a ZeroMQ consumer is killed
and started again. It exits with 1 unless every fault has come, both streams live to the end, every frame is accounted
for, every cube that a sink took is there and whole, no file handle is left open and memory does not grow.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from ccnet.contract import CCNetError
from ccnet.runtime import Reconstructor, read_cube, stream
from ccnet.runtime.contexts import ContextPolicy
from ccnet.runtime.sinks import Files, Sink, Socket, ZarrGroup
from ccnet.runtime.sources import GoneError, SourceSpec
from ccnet.runtime.stream import Stream

SIZES = ((48, 64), (64, 48), (40, 40))
LIBC = ctypes.CDLL(None)  # glibc 2.33 or later
GROWTH_MB = 2.0  # in use; it comes and goes by the cubes that wait in a socket, 0.4 MB each
KEPT = 20  # cubes a sink may hold before they are read back and removed
CONSUMER = """
import sys, zmq
socket = zmq.Context().socket(zmq.PULL)
socket.connect(sys.argv[1])
while True:
    socket.recv_multipart()
"""


class Camera:
    """Frames at 100 Hz, and faults."""

    def __init__(self, seed: int) -> None:
        self._random, self._size = random.Random(seed), SIZES[0]
        self.given = 0
        self.faults = dict.fromkeys(("stall", "torn", "size", "gone"), 0)

    def open(self) -> Camera:
        if self.given and self._random.random() < 0.5:
            raise GoneError("still away")
        return self

    def read(self) -> tuple[str, Any]:
        time.sleep(0.01)
        fault = self._random.choices(("stall", "torn", "size", "gone", ""), (1, 5, 3, 1, 200))[0]
        if fault:
            self.faults[fault] += 1
        if fault == "gone":
            raise GoneError("unplugged")
        self.given += 1
        if fault == "torn":
            raise CCNetError("torn")
        if fault == "stall":
            time.sleep(0.5)
        if fault == "size":
            self._size = self._random.choice(SIZES)
        return "", np.full((*self._size, 3), self.given % 256, np.uint8)

    def close(self) -> None: ...


class Troubled:
    """A sink that is slow or full now and then, whose cubes are read back and removed."""

    def __init__(self, sink: Sink, folder: Path, seed: int) -> None:
        self.name, self._sink, self._folder, self._random = sink.name, sink, folder, random.Random(seed)
        self.taken = self.read = 0
        self.faults = dict.fromkeys(("slow", "full"), 0)

    @contextmanager
    def cube(self, name: str, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[Any]:
        trouble = self._random.choices(("slow", "full", ""), (2, 2, 100))[0]
        if trouble:
            self.faults[trouble] += 1
        with self._sink.cube(name, height, width, metadata) as writer:
            yield writer
            if trouble == "slow":
                time.sleep(0.3)
            if trouble == "full":
                raise CCNetError("no space left on device")
        self.taken += 1
        if self.taken % KEPT == 0:
            self.read_back()

    def read_back(self) -> None:
        self.read += read_back(self._folder)

    def close(self) -> None:
        self._sink.close()


def read_back(folder: Path) -> int:
    """Read and remove the cubes of a folder or a Zarr group, and count them; an error for one that is not whole."""
    headers, arrays = list(folder.glob("*.hdr")), [path for path in folder.glob("0*") if path.is_dir()]
    for header in headers:
        read_cube(header)
        header.unlink()
        header.with_suffix(".img").unlink()
    for array in arrays:
        values = np.asarray(zarr.open_array(str(array), mode="r")[:])
        assert np.isfinite(values).all() and values.any()
        shutil.rmtree(array)
    return len(headers) + len(arrays)


class Rest:
    """Holds all streams between two frames, so that what is in memory is what they keep, and no frame in work."""

    def __init__(self, streams: int) -> None:
        self._asked, self._here = threading.Event(), threading.Barrier(streams + 1, timeout=60)

    def prepare(self, pixels: Any) -> Any:
        """Of each stream: pass a frame on, after a rest where one is asked for."""
        if self._asked.is_set():
            self._here.wait()
            self._here.wait()
        return pixels

    @contextmanager
    def all(self) -> Iterator[None]:
        self._asked.set()
        self._here.wait()
        yield
        self._asked.clear()
        self._here.wait()


class Consumer(threading.Thread):
    """A process that pulls cubes, killed and started again every few seconds."""

    def __init__(self, address: str, until: float) -> None:
        super().__init__(name="consumer")
        self._address, self._until, self.kills = address, until, 0

    def run(self) -> None:
        while time.monotonic() < self._until:
            with subprocess.Popen([sys.executable, "-c", CONSUMER, self._address]) as process:
                time.sleep(4)
                process.kill()
            self.kills += 1
            time.sleep(1)


class _Malloc(ctypes.Structure):
    """What glibc (2.33 and later) says of all its arenas; ``used`` and ``mapped`` are what the program holds."""

    _names = ("arena", "free_chunks", "fast_chunks", "maps", "mapped", "unused", "fast_free", "used", "free", "top")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


class Sample(NamedTuple):
    """In use: MB that malloc and Python count as held. Resident: MB, with what they keep for later. Files, threads."""

    seconds: float
    in_use: float
    resident: float
    handles: int


def measure() -> Sample:
    """This process now, which is best done at rest.

    Resident memory says little in a minute: each thread has an arena that fills with holes, by 20 MB and more, and
    the slower the machine, the longer that takes. What is held of it is counted exactly.
    """
    gc.collect()
    LIBC.malloc_trim(0)
    LIBC.mallinfo2.restype = _Malloc
    malloc = LIBC.mallinfo2()
    python = 100 * sys.getallocatedblocks()  # small objects are beside malloc, of about so many bytes
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    handles = sum(len(list(Path("/proc/self", kind).iterdir())) for kind in ("fd", "task"))
    held = malloc.used + malloc.mapped + python
    return Sample(time.monotonic(), held / 1e6, pages * os.sysconf("SC_PAGE_SIZE") / 1e6, handles)


def cameras(
    work: Path, stack: ExitStack, reconstruct: Reconstructor, rest: Rest
) -> Iterator[tuple[Camera, Stream, list[Troubled]]]:
    """One to a Zarr group under ``latest``, one to a socket under ``drop-oldest``, both to files as well."""
    for number, policy in enumerate(("latest", "drop-oldest")):
        folder, group = work / f"files{number}", work / "cubes.zarr"
        files = Troubled(Files(folder, "hdr"), folder, seed=number)
        other: Sink = Socket(f"ipc://{work}/socket", patience_ms=500) if number else ZarrGroup(group)
        sinks = [files, Troubled(other, work / "sent" if number else group, seed=7)]
        camera = Camera(seed=number)
        for sink in sinks:
            stack.callback(sink.close)
        yield (
            camera,
            Stream(
                source=SourceSpec(f"camera {number}", True, camera.open),
                sinks=sinks,
                reconstructor=reconstruct,
                prepare=rest.prepare,
                context=ContextPolicy("scene" if number else "smooth"),
                policy=policy,  # type: ignore[arg-type]
            ),
            sinks,
        )


def soak(seconds: float, artifacts: str) -> list[str]:
    """What is wrong after so long."""
    stream._FIRST_WAIT, stream._LONGEST_WAIT = 0.05, 0.2
    samples: list[Sample] = []
    still = np.full((*SIZES[0], 3), 99, np.uint8)
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        reconstruct = stack.enter_context(Reconstructor.open(artifacts, threads=1))
        rest = Rest(streams=2)
        running = list(cameras(Path(work), stack, reconstruct, rest))
        threads = [threading.Thread(target=one.run, name=one.source.name) for _, one, _ in running]
        until = time.monotonic() + seconds
        consumer = Consumer(f"ipc://{work}/socket", until)
        for thread in (*threads, consumer):
            thread.start()
        while time.monotonic() < until:
            time.sleep(max(0.5, min(10, seconds / 60)))
            if not all(thread.is_alive() for thread in threads):
                break
            with rest.all():
                reconstruct(still)  # ONNX Runtime keeps the region of its last outputs: let that be the same always
                samples.append(measure())
            now = samples[-1]
            print(
                f"{until - now.seconds:6.1f} s left, {now.in_use:.2f} MB in use, {now.resident:.1f} MB resident,"
                f" {now.handles} handles and threads",
                flush=True,
            )
        wrong = [f"{thread.name} ended early" for thread in threads if not thread.is_alive()]
        for _, one, _ in running:
            one.stop()
        for thread in (*threads, consumer):
            thread.join(60)
        wrong += [problem for each in running for problem in check(*each)]
        wrong += [f"{path} is half-written" for path in Path(work).rglob(".ccnet-*")]
    print(f"consumer killed {consumer.kills} times")
    if not consumer.kills:
        wrong.append("the consumer was never killed")
    return wrong + leaks(samples)


def check(camera: Camera, one: Stream, sinks: list[Troubled]) -> list[str]:
    tally = one.account.tally()
    print(f"{one.source.name}, {one.policy}: {one.pulse}; faults {camera.faults}, {[sink.faults for sink in sinks]}")
    faults = [*camera.faults.items(), *(fault for sink in sinks for fault in sink.faults.items())]
    faults += [("reconnect", one.pulse.reconnects), ("rejection by a sink", tally.rejected.get("sink", 0))]
    wrong = [f"{one.source.name}: no {name} came" for name, times in faults if not times]
    if tally.in_flight or tally.arrived != tally.delivered + tally.dropped + sum(tally.rejected.values()):
        wrong.append(f"{one.source.name}: the account does not balance: {tally}")
    if tally.arrived not in (camera.given, camera.given - 1):
        wrong.append(f"{one.source.name}: {camera.given} frames were given, {tally.arrived} arrived")
    for sink in sinks:
        if not tally.delivered or sink.taken < tally.delivered:
            wrong.append(f"{one.source.name}: {tally.delivered} delivered, {sink.taken} taken by {sink.name}")
        sink.read_back()
        if not sink.name.startswith("zmq:") and sink.read != sink.taken:
            wrong.append(f"{sink.name}: {sink.taken} cubes taken, {sink.read} were there")
    return wrong


def leaks(samples: list[Sample]) -> list[str]:
    """By the second half of the run, when all sizes have been seen."""
    later = samples[len(samples) // 2 :]
    if len(later) < 4:
        return [f"{len(samples)} measurements are too few"]
    seconds, in_use, resident, handles = (np.array(column) for column in zip(*later, strict=True))
    growth = float(np.polyfit(seconds, in_use, 1)[0] * np.ptp(seconds))
    rate = 3600 / np.ptp(seconds)
    rss = float(np.polyfit(seconds, resident, 1)[0] * np.ptp(seconds))
    print(
        f"second half: in use {in_use.min():.1f} to {in_use.max():.1f} MB, {growth:+.2f} MB, {growth * rate:+.1f} MB/h;"
        f" resident {resident.min():.0f} to {resident.max():.0f} MB, {rss:+.1f} MB;"
        f" {handles.min()} to {handles.max()} handles and threads"
    )
    wrong = [f"memory grew by {growth:.1f} MB"] if growth > GROWTH_MB else []
    return wrong + ([f"{handles.max()} handles after {handles.min()}"] if np.ptp(handles) > 12 else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--artifacts", default="build/ccnet")
    options = parser.parse_args()
    wrong = soak(options.seconds, options.artifacts)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
