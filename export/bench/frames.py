"""Cost of a whole frame through a Reconstructor: time against other networks, growth with size, memory, loading."""

from __future__ import annotations

import functools
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ccnet.runtime.io.frames import read_frame
from ccnet.runtime.reconstructor import Reconstructor

from .networks import Network, Size
from .timing import Timing, take_turns, timed

LARGE_SIZES: tuple[Size, ...] = ((248, 248), (504, 504), (1000, 1000), (1536, 2048), (3000, 4000))
"""Frames of 0.06 to 12 Mpx, whose cost should grow in a straight line."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The cost of a frame of some megapixels: seconds, and peak resident memory (MB) of a process of its own."""

    megapixels: float
    seconds: float
    peak_mb: float

    @property
    def per_megapixel(self) -> float:
        """Seconds per megapixel."""
        return self.seconds / self.megapixels


def measure_frame(
    networks: Mapping[str, Network], size: Size, repeats: int, threads: int
) -> tuple[dict[str, Timing], dict[str, npt.NDArray[np.float32]]]:
    """Time reading, encoding and decoding a PNG of that size in px.

    Args:
        networks: Variant → the network whose folder it opens.
        size: Height and width, px.
        repeats: Rounds that count.
        threads: CPU threads.

    Returns:
        The timings and the cubes by variant.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "frame.png"
        path.write_bytes(patches_png(size))
        works: dict[str, Callable[[], npt.NDArray[np.float32]]] = {}
        for variant, network in networks.items():
            run = stack.enter_context(Reconstructor.open(network.folder, input_space="camera", threads=threads))
            works[variant] = functools.partial(_read_and_run, run, path)
        return take_turns(works, repeats)


def _read_and_run(run: Reconstructor, path: Path) -> npt.NDArray[np.float32]:
    return run(read_frame(path, as_stored=True))


def patches_png(size: Size) -> bytes:
    """Return a PNG of patches in random colours; the size is its height and width, px."""
    from PIL import Image

    colours = np.random.default_rng(0).integers(0, 256, (-(-size[0] // 8), -(-size[1] // 8), 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours.repeat(8, axis=0).repeat(8, axis=1)[: size[0], : size[1]]).save(file, "PNG")
    return file.getvalue()


_GROWTH_SCRIPT = """
import json, statistics, sys, time
import numpy as np
from ccnet.runtime import Reconstructor
folder, height, width, threads = sys.argv[1], *map(int, sys.argv[2:])
colours = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
frame = colours.repeat(8, axis=0).repeat(8, axis=1)
with Reconstructor.open(folder, input_space='camera', threads=threads) as run:
    run(frame[:512, :512])  # the first use of everything
    seconds = []
    for _ in range(5 if frame.size < 1 << 20 else 1):  # what takes a second meets whatever else the machine does
        started = time.perf_counter()
        for top, left, part in run.parts(frame):
            del part
        seconds.append(time.perf_counter() - started)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([statistics.median(seconds), 1024 * int(status["VmHWM"].split()[0]) / 1e6]))
"""


def measure_growth(network: Network, size: Size, threads: int) -> Growth:
    """Measure a synthetic frame in a process of its own, its cube streamed out part by part and dropped."""
    arguments = [sys.executable, "-c", _GROWTH_SCRIPT, str(network.folder), *map(str, (*size, threads))]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)  # noqa: S603
    seconds, peak = json.loads(done.stdout)
    return Growth(megapixels=size[0] * size[1] / 1e6, seconds=seconds, peak_mb=peak)


def load_seconds(network: Network, threads: int) -> float:
    """Return the seconds from opening the network's folder to a cube of 16×16 px, once its files are in memory."""
    frame = np.zeros((16, 16, 3), np.uint8)

    def load() -> None:
        with Reconstructor.open(network.folder, input_space="camera", threads=threads) as run:
            run(frame)

    return min(timed(load)[0] for _ in range(3))
