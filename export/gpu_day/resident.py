"""The resident pipeline on frames: the real driver and streams, with torch or ONNX Runtime in TensorRT's place."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import ccnet
from ccnet.contract import Artifact, ArtifactFolder, CCNetError, Manifest
from ccnet.model import CCNet
from ccnet.runtime import Reconstructor
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.gpu.cuda import Device, PinnedMemory, Stream, has_gpu
from ccnet.runtime.gpu.device_array import DeviceArray
from ccnet.runtime.gpu.views import View, copy_view, view_of
from ccnet.runtime.quality.tolerances import TOLERANCES, compare
from ccnet.runtime.tiles.memory import tile_rules
from ccnet.runtime.tiles.planner import plan_frame
from ccnet.runtime.tiles.resident.path import ResidentPath
from ccnet.runtime.tiles.resident.pipeline import Pipeline

from .computations import Variant, choose, no_kernels
from .engines import CudaLauncher, Launcher, TensorEngine
from .rig import Rig, Row, SkippedError
from .tf32 import frame, network

Array = npt.NDArray[np.float32]

Size = tuple[int, int]

GRAPHS = Path(ccnet.__file__).resolve().parents[1] / "build" / "ccnet"
"""Folder that ``make engine`` exports the graphs to."""

_EVERY = 4  # rows and columns between the pixels that the table of tolerances is computed of


def run(rig: Rig, launcher: Launcher | None = None, variants: list[Variant] | None = None) -> None:
    """Compare cubes of the pipeline with torch's, and measure frames, the host's part, and the hidden part of copies.

    Args:
        rig: The device.
        launcher: Runs the engines' work; None is torch on the GPU.
        variants: What computes the tiles; None chooses.

    Raises:
        SkippedError: There is no CUDA driver with a GPU, or this is a rehearsal without a launcher.
    """
    if not has_gpu():
        raise SkippedError("no CUDA driver with a GPU")
    if launcher is None and not rig.on_gpu:
        raise SkippedError("a rehearsal needs the double of the driver, which the tests have")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    device, model = Device(), network(rig)
    launcher = launcher or CudaLauncher(device)
    if variants is None:
        variants, why = choose(model, GRAPHS, device)
        note = f"torch alone: {why}" if why else "ONNX Runtime's CUDA provider and torch"
        rig.emit(Row(name="libraries that compute the tiles", value=1 if why else 2, unit="", note=note))
    for size in rig.size(((482, 512), (1080, 1920)), ((32, 192),)):
        pixels = f"{size[0]}×{size[1]}"
        with _reporting(rig, pixels):
            target = _Target(rig, model, launcher, size)
            for variant in (*variants, no_kernels()):
                name = f"{pixels}, {variant.name}"
                with _reporting(rig, name):
                    target.measure(name, variant)


@contextlib.contextmanager
def _reporting(rig: Rig, name: str) -> Iterator[None]:
    """Emit an error as a row, so that the other variants are measured."""
    try:
        yield
    except Exception as error:  # the report says what it was
        rig.emit(Row(name=name, value=None, unit="ms", note=f"failed: {type(error).__name__}: {error}"[:300]))


class _Target:
    """A frame of one size, the cube that torch computes of it as a whole, and the measurements."""

    def __init__(self, rig: Rig, model: CCNet, launcher: Launcher, size: Size) -> None:
        self.rig, self.launcher, self.size = rig, launcher, size
        self.context_size = model.context_size
        rgb_HWC = (255 * frame(*size)[0].permute(1, 2, 0)).round().to(torch.uint8)
        self.frame: npt.NDArray[np.uint8] = rgb_HWC.contiguous().numpy()
        rgb = (rgb_HWC.permute(2, 0, 1)[None] / 255).to(launcher.torch_device)
        with torch.inference_mode():
            context = model.encode(rgb)
            self.context: Array = context.cpu().numpy()
            self.expected: Array = model.decode(rgb, context)[0].cpu().numpy()

    def measure(self, name: str, variant: Variant) -> None:
        """Emit all rows of a variant."""
        device = Device()
        with ExitStack() as stack:
            engines = variant.engines(device, self.launcher, self.context_size)
            selection = _selection(self.context_size, variant.precision)
            reconstructor = stack.enter_context(self._open(selection, engines, self._tile))
            memory = PinnedMemory(device, self.expected.nbytes)
            stack.callback(memory.close)
            locked = memory.array(self.expected.shape, np.float32)
            locked.fill(np.nan)
            on_gpu = DeviceArray.empty(device, self.expected.shape)
            is_network = variant.name != no_kernels().name
            if is_network:
                reconstructor(self.frame, self.context, out=locked)
                self._emit_distance(name, variant, locked)
                self._emit_refusal(name, reconstructor, locked)
            time = functools.partial(
                self._time, reconstructor, lambda: sum(engine.launches for engine in engines.values())
            )
            gpu_ms = self._emit_time(f"{name}, cube on the GPU", time, on_gpu, self.context)
            locked_ms = self._emit_time(f"{name}, page-locked cube", time, locked, self.context)
            if is_network:
                self._emit_time(f"{name}, page-locked cube, own context", time, locked, None)
                self._emit_hidden(name, locked_ms - gpu_ms, self._copy_ms(device, on_gpu, locked), selection)
            else:
                note = "checks, conversion and upload of the frame, the driver's calls: the cube stays on the GPU"
                self.rig.emit(Row(name=f"{name}, the host's part of a frame", value=gpu_ms, unit="ms", note=note))
        if variant.full is not None:
            self._measure_one_pass(f"{name}, one pass", variant)

    def _measure_one_pass(self, name: str, variant: Variant) -> None:
        """Emit distance and time of ``full``, if the frame is a single tile."""
        engines = variant.engines(Device(), self.launcher, self.context_size)
        selection = replace(_selection(self.context_size, variant.precision), full=_artifact("full", variant.precision))
        with self._open(selection, engines, self.rig.size(512, 192)) as reconstructor, ExitStack() as stack:
            if not reconstructor.takes_one_pass(self.frame):
                return
            memory = PinnedMemory(engines["full"].device, self.expected.nbytes)
            stack.callback(memory.close)
            locked = memory.array(self.expected.shape, np.float32)
            locked.fill(np.nan)
            if variant.name != no_kernels().name:
                reconstructor(self.frame, out=locked)
                self._emit_distance(name, variant, locked)
            time = functools.partial(self._time, reconstructor, lambda: engines["full"].launches)
            self._emit_time(f"{name}, page-locked cube", time, locked, None)

    def _open(self, selection: Selection, engines: Mapping[str, TensorEngine], tile: int) -> Reconstructor:
        if selection.full is None:
            engines = {kind: engine for kind, engine in engines.items() if kind != "full"}
        with Device():
            pipeline = Pipeline(engines, selection.folder.manifest)
        rules = tile_rules(selection, tile, None)
        pixels = 2 * self.size[0] * self.size[1]  # ``encode`` reads the frame itself, not means of blocks
        return Reconstructor(selection, ResidentPath(selection, pipeline, rules, encode_pixels=pixels), "camera")

    @property
    def _tile(self) -> int:
        return self.rig.size(512, 176)

    def _emit_distance(self, name: str, variant: Variant, cube: Array) -> None:
        """Emit the largest distance of all values from torch's whole frame, and the table's figures of some pixels."""
        distance = float(np.abs(cube - self.expected).max())
        parity = compare(*(each[:, ::_EVERY, ::_EVERY] for each in (self.expected, cube)))
        broken = "; ".join(TOLERANCES[variant.precision].broken_by(parity)) or "within the table"
        limit, note = TOLERANCES[variant.precision].max_abs, f"{broken}; {parity}"
        row = Row(name=f"{name}, distance from torch's whole frame", value=distance, unit="", target=limit, note=note)
        self.rig.emit(row)

    def _emit_refusal(self, name: str, reconstructor: Reconstructor, out: Array) -> None:
        """Emit whether a cube that is not finite is refused, which the engine's sum of it must show."""
        try:
            reconstructor(self.frame, np.full_like(self.context, 3e38), out=out)
            refused, note = 0, ""
        except CCNetError as error:
            refused, note = int("NaN" in str(error)), str(error)
        self.rig.emit(Row(name=f"{name}, a cube that is not finite is refused", value=refused, unit="", note=note))

    def _emit_time(
        self, name: str, time: Callable[[Any, Array | None], tuple[float, int]], out: Any, context: Array | None
    ) -> float:
        """Emit frames a second and return the time of a frame, ms."""
        time_ms, launches = time(out, context)
        kind = "launched by the host" if launches else "replayed CUDA graphs"
        self.rig.emit(Row(name=name, value=1e3 / time_ms, unit="frames/s", note=f"{time_ms:.2f} ms a frame, {kind}"))
        return time_ms

    def _time(
        self, reconstructor: Reconstructor, launches: Callable[[], int], out: Any, context: Array | None
    ) -> tuple[float, int]:
        """Return the time of a frame, ms, and how many runs the host launched while it was measured."""
        for _ in range(2):  # the second run of a shape is captured
            reconstructor(self.frame, context, out=out)
        before = launches()
        repeats = 20 if self.size[1] < 1024 else 4
        time_ms = self.rig.milliseconds(lambda: reconstructor(self.frame, context, out=out), repeats)
        return time_ms, launches() - before

    def _copy_ms(self, device: Device, source: DeviceArray, target: Array) -> float:
        """Return the time of a copy of the whole cube to page-locked memory, ms."""
        with device:
            stream = Stream(device)

            def copy() -> None:
                copy_view(stream, View.of(target), view_of(source))
                stream.synchronize()

            try:
                return self.rig.milliseconds(copy)
            finally:
                stream.close()

    def _emit_hidden(self, name: str, exposed_ms: float, copy_ms: float, selection: Selection) -> None:
        """Emit the part of the cube's copy that runs beside the tiles; that of the last tile cannot."""
        plan = plan_frame(*self.size, 0, tile_rules(selection, self._tile, None))
        tiles = len(plan.rows) * len(plan.columns)
        hidden, most = 1 - exposed_ms / copy_ms, 1 - 1 / tiles
        note = f"the copy takes {copy_ms:.2f} ms alone and adds {exposed_ms:.2f} ms to a frame of {tiles} tiles"
        self.rig.emit(Row(name=f"{name}, hidden part of the copy", value=hidden, unit="", target=most, note=note))


def _selection(context_size: int, precision: str) -> Selection:
    """Return a selection for the pipeline, of engines that are no files."""
    manifest = Manifest(config={}, weights_sha256="", context_size=context_size, input="float32", tools={})
    encode, decode = _artifact("encode", "fp32"), _artifact("decode", precision)
    return Selection(folder=ArtifactFolder(Path(), manifest), backend="tensorrt", encode=encode, decode=decode)


def _artifact(kind: str, precision: str) -> Artifact:
    return Artifact(file=kind, kind=kind, format="tensorrt", precision=precision, sha256="")
