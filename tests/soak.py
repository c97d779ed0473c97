"""Two cameras for as long as is asked, with everything going wrong now and then: python tests/soak.py [--seconds 1800]

Cameras stall, tear frames, change size and disappear; a sink is slow, a disk is full, and a ZeroMQ consumer is killed
and started again. It exits with 1 unless every frame is accounted for, every cube that is there is whole, no file
handle is left open and memory does not grow.
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
from typing import Any

import numpy as np
import zarr

from ccnet.contract import CCNetError
from ccnet.runtime import Reconstructor, read_cube, stream
from ccnet.runtime.contexts import ContextPolicy
from ccnet.runtime.sinks import Files, Sink, Socket, ZarrGroup
from ccnet.runtime.sources import GoneError, SourceSpec
from ccnet.runtime.stream import Stream

SIZES = ((48, 64), (64, 48), (40, 40))
LIBC = ctypes.CDLL(None)
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
        self.taken = 0

    @contextmanager
    def cube(self, name: str, height: int, width: int, metadata: Mapping[str, str]) -> Iterator[Any]:
        trouble = self._random.choices(("slow", "full", ""), (2, 2, 100))[0]
        with self._sink.cube(name, height, width, metadata) as writer:
            yield writer
            if trouble == "slow":
                time.sleep(0.3)
            if trouble == "full":
                raise CCNetError("no space left on device")
        self.taken += 1
        if self.taken % KEPT == 0:
            read_back(self._folder)

    def close(self) -> None:
        self._sink.close()


def read_back(folder: Path) -> None:
    """Read and remove the cubes of a folder or a Zarr group; an error for one that is not whole."""
    assert not list(folder.glob(".ccnet-*")), "something half-written is left"
    for header in folder.glob("*.hdr"):
        read_cube(header)
        header.unlink()
        header.with_suffix(".img").unlink()
    for array in folder.glob("0*"):
        assert np.isfinite(zarr.open_array(str(array), mode="r")[:]).all()
        shutil.rmtree(array)


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


def measure() -> tuple[float, int]:
    """Resident memory, MB, without what was freed and the C library keeps; open file handles. Of this process."""
    gc.collect()
    if hasattr(LIBC, "malloc_trim"):  # glibc's
        LIBC.malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(list(Path("/proc/self/fd").iterdir()))


def cameras(
    work: Path, stack: ExitStack, reconstruct: Reconstructor
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
                prepare=lambda pixels: pixels,
                context=ContextPolicy("scene" if number else "smooth"),
                policy=policy,  # type: ignore[arg-type]
            ),
            sinks,
        )


def soak(seconds: float, artifacts: str) -> list[str]:
    """What is wrong after so long."""
    stream._FIRST_WAIT, stream._LONGEST_WAIT = 0.05, 0.2
    samples: list[tuple[float, float, int]] = []
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        reconstruct = stack.enter_context(Reconstructor.open(artifacts, threads=1))
        running = list(cameras(Path(work), stack, reconstruct))
        threads = [threading.Thread(target=one.run, name=one.source.name) for _, one, _ in running]
        until = time.monotonic() + seconds
        consumer = Consumer(f"ipc://{work}/socket", until)
        for thread in (*threads, consumer):
            thread.start()
        while (now := time.monotonic()) < until:
            time.sleep(max(0.5, min(10, seconds / 60)))
            samples.append((now, *measure()))
            alive = sum(thread.is_alive() for thread in threads)
            print(
                f"{until - now:6.0f} s left, {samples[-1][1]:.1f} MB, {samples[-1][2]} handles, {alive} streams",
                flush=True,
            )
        for _, one, _ in running:
            one.stop()
        for thread in (*threads, consumer):
            thread.join(60)
        wrong = [problem for each in running for problem in check(*each)]
        for folder in Path(work).iterdir():
            read_back(folder)
    print(f"consumer killed {consumer.kills} times")
    return wrong + leaks(samples)


def check(camera: Camera, one: Stream, sinks: list[Troubled]) -> list[str]:
    tally = one.account.tally()
    print(f"{one.source.name}, {one.policy}: {one.pulse}; faults {camera.faults}")
    wrong = []
    if tally.in_flight or tally.arrived != tally.delivered + tally.dropped + sum(tally.rejected.values()):
        wrong.append(f"{one.source.name}: the account does not balance: {tally}")
    if tally.arrived not in (camera.given, camera.given - 1):
        wrong.append(f"{one.source.name}: {camera.given} frames were given, {tally.arrived} arrived")
    for sink in sinks:
        if not tally.delivered or sink.taken < tally.delivered:
            wrong.append(f"{one.source.name}: {tally.delivered} delivered, {sink.taken} taken by {sink.name}")
    return wrong


def leaks(samples: list[tuple[float, float, int]]) -> list[str]:
    """By the second half of the run, when all sizes have been seen: 1 MB/h, and 8 MB that come and go."""
    times, memory, handles = (np.array(column) for column in zip(*samples[len(samples) // 2 :], strict=True))
    slope = np.polyfit(times, memory, 1)[0] * 3600
    growth = slope / 3600 * (times[-1] - times[0])
    print(f"second half: {slope:+.2f} MB/h ({growth:+.2f} MB), {handles.min()} to {handles.max()} handles")
    wrong = [f"memory grew by {growth:.1f} MB, {slope:.1f} MB/h"] if growth > 8 and slope > 1 else []
    return wrong + ([f"{handles.max()} handles after {handles.min()}"] if handles.max() - handles.min() > 12 else [])


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
