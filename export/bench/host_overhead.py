"""The host's time for a frame with a GPU that takes none: everything but the engines and the driver's own work.

A driver and engines that do nothing stand in for a GPU. What remains is this package: checks, the conversion of the
frame, Python, and the copy of the cube where the GPU cannot write into the caller's memory.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CUBE, Artifact, ArtifactFolder, Closeable, Manifest
from ccnet.runtime import Reconstructor
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.gpu import devices, library
from ccnet.runtime.gpu.cuda import Device, PinnedMemory
from ccnet.runtime.tiles.host_path import HostPath
from ccnet.runtime.tiles.memory import tile_rules
from ccnet.runtime.tiles.resident.path import ResidentPath
from ccnet.runtime.tiles.resident.pipeline import Pipeline

from .timing import Timing, take_turns

Array = npt.NDArray[np.float32]

SIZES = ((482, 512), (1080, 1920))
"""Height and width of the frames, px."""

COPY, THROUGH_HOST = "one copy of the cube", "numpy in, numpy out (0.1.0)"
PAGE_LOCKED, PAGEABLE, OWN_CONTEXT = "page-locked cube", "other memory", "page-locked cube, own context"

_CONTEXT_SIZE, _TILE = 7680, 512
_ANSWERS = {"cuDeviceGetCount": 1, "cuDeviceGetAttribute": 8, "cuDeviceGet": 0}
_HOST_MEMORY = 1


@dataclass(frozen=True, kw_only=True)
class HostOverhead:
    """The times of one size of frames, in turns: variant → timing."""

    size: tuple[int, int]
    timings: Mapping[str, Timing]

    @property
    def beyond_a_copy(self) -> float:
        """Median time with memory that the GPU cannot write, beyond a copy of the cube, milliseconds."""
        return self.timings[PAGEABLE].median - self.timings[COPY].median


def measure(sizes: Sequence[tuple[int, int]], repeats: int) -> list[HostOverhead]:
    """Time frames of some sizes in turns, under a context of an earlier frame and under their own."""
    found = []
    with null_driver():
        for size in sizes:
            with contextlib.ExitStack() as stack:
                timings, _ = take_turns(_works(size, stack), repeats)
            found.append(HostOverhead(size=size, timings=timings))
    return found


def _works(size: tuple[int, int], stack: contextlib.ExitStack) -> dict[str, Callable[[], Any]]:
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    context = np.zeros((1, _CONTEXT_SIZE), np.float32)
    source, target = (np.full((len(BANDS_NM), *size), 1, np.float32) for _ in range(2))
    memory = PinnedMemory(Device(), target.nbytes)
    stack.callback(memory.close)
    locked = memory.array(target.shape, np.float32)
    selection = _selection()
    resident = stack.enter_context(Reconstructor(selection, _resident_path(selection), "camera"))
    backends = NullBackend(), NullBackend()
    host = stack.enter_context(Reconstructor(selection, HostPath(selection, *backends, tile=_TILE), "camera"))
    return {
        COPY: lambda: np.copyto(target, source),
        PAGE_LOCKED: lambda: resident(frame, context, out=locked),
        PAGEABLE: lambda: resident(frame, context, out=target),
        OWN_CONTEXT: lambda: resident(frame, out=locked),
        THROUGH_HOST: lambda: host(frame, context, out=target),
    }


def _selection() -> Selection:
    manifest = Manifest(config={}, weights_sha256="", context_size=_CONTEXT_SIZE, input="float32", tools={})
    encode, decode = (
        Artifact(
            file=kind, kind=kind, format="tensorrt", precision="fp32", sha256="", details={"window": [16, 2 * _TILE]}
        )
        for kind in ("encode", "decode")
    )
    return Selection(folder=ArtifactFolder(Path(), manifest), backend="tensorrt", encode=encode, decode=decode)


def _resident_path(selection: Selection) -> ResidentPath:
    engines: dict[str, Any] = {kind: NullEngine(Device()) for kind in ("encode", "decode")}
    with Device():
        pipeline = Pipeline(engines, selection.folder.manifest)
    return ResidentPath(selection, pipeline, tile_rules(selection, _TILE, None), encode_pixels=_TILE**2)


class NullBackend(Closeable):
    """A backend whose cubes are copies of one buffer, as those of TensorRT's are."""

    name = "nothing"

    def __init__(self) -> None:
        """Start without a buffer."""
        self._cube = np.empty(0, np.float32)

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return a cube of zeros for the shape of ``rgb``."""
        shape = (1, len(BANDS_NM), *feeds["rgb"].shape[2:])
        if self._cube.shape != shape:
            self._cube = np.zeros(shape, np.float32)
        return {CUBE: self._cube.copy()}

    def close(self) -> None:
        """Do nothing."""


class NullEngine:
    """An engine, and its execution context, that computes nothing."""

    name, can_be_captured = "nothing", True

    def __init__(self, device: Device) -> None:
        """Remember the GPU."""
        self.device = device

    def execution_context(self, *_: object) -> NullEngine:
        """Return itself."""
        return self

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class NullDriver:
    """A CUDA driver that allocates host memory, hands out numbers as handles, and otherwise does nothing."""

    def __init__(self) -> None:
        """Start without memory."""
        self._handles = itertools.count(1 << 40, 1 << 32)
        self._blocks: dict[int, npt.NDArray[np.uint8]] = {}

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name not in library.SIGNATURES:
            raise AttributeError(name)
        if name in _ANSWERS:
            return lambda result, *_: _answer(result, _ANSWERS[name])
        if name.startswith(("cuStreamCreate", "cuEventCreate", "cuMemAlloc", "cuGraphInstantiate")):
            return lambda result, *_: _answer(result, next(self._handles))
        return lambda *_: 0

    def cuMemHostAlloc(self, result: Any, size: int, flags: int) -> int:  # noqa: N802
        """Allocate host memory, zeroed so that sums of cubes are finite."""
        block = np.full(size, 0, np.uint8)  # written, since untouched pages are read from a cache
        self._blocks[block.ctypes.data] = block
        return _answer(result, block.ctypes.data)

    def cuMemFreeHost(self, address: int) -> int:  # noqa: N802
        """Free host memory."""
        del self._blocks[address]
        return 0

    def cuPointerGetAttribute(self, result: Any, attribute: int, address: int) -> int:  # noqa: N802
        """Say that host memory from here is page-locked, and refuse all other addresses."""
        known = any(start <= address < start + block.size for start, block in self._blocks.items())
        return _answer(result, _HOST_MEMORY) if known else 1


def _answer(result: Any, value: int) -> int:
    result._obj.value = value
    return 0


@contextlib.contextmanager
def null_driver() -> Iterator[None]:
    """Put a driver that does nothing in place of CUDA's.

    Yields:
        Nothing.
    """
    real, driver = library.driver, NullDriver()
    _forget_devices()
    setattr(library, "driver", lambda: driver)  # noqa: B010
    try:
        yield
    finally:
        _forget_devices()
        setattr(library, "driver", real)  # noqa: B010


def _forget_devices() -> None:
    devices.release_devices()
    devices.gpus.cache_clear()


def document(found: Sequence[HostOverhead]) -> list[dict[str, Any]]:
    """Return the content for ``bench.json``: times in milliseconds."""
    return [
        {
            "size": overhead.size,
            "variants": {variant: asdict(timing) for variant, timing in overhead.timings.items()},
            "beyond_a_copy": overhead.beyond_a_copy,
        }
        for overhead in found
    ]


def markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """Return a table for a page."""
    variants = [*found[0]["variants"]]
    lines = [
        "| host's time for a frame, ms (least) | " + " | ".join(variants) + " |",
        "| --- |" + " ---: |" * len(variants),
    ]
    for row in found:
        cells = [f"{timing['median']:.2f} ({timing['least']:.2f})" for timing in row["variants"].values()]
        lines.append("| {}×{} px | ".format(*row["size"]) + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
