"""Compare what was exported with a reference: every graph and engine that this machine can run, judged.

Nothing here needs torch: a reference is PyTorch's output, computed now or stored in a bundle.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from ccnet.contract import (
    CONTEXT,
    GRAPH_FORMATS,
    NATIVE_FORMAT,
    RGB,
    Artifact,
    ArtifactFolder,
    Manifest,
    padded_size,
    reflect_index,
)
from ccnet.runtime import Reconstructor
from ccnet.runtime.backends import architectures
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.loading import SizeLimits
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend, cuda_refusal, sums_in_fp16
from ccnet.runtime.backends.select import BackendName, Precision
from ccnet.runtime.gpu.cuda import gpu
from ccnet.runtime.io.frames import Frame, block_mean, rgb_tensor
from ccnet.runtime.probe import probe_in_subprocess
from ccnet.runtime.quality.differences import LargestDifference
from ccnet.runtime.quality.tolerances import TOLERANCES, Parity, compare
from ccnet.runtime.tiles.context_encoder import REDUCED_PIXELS, block_side
from ccnet.runtime.tiles.host_path import ENCODE_PIXELS

from .reference import Reference

Array = npt.NDArray[np.float32]

MAX_PIXELS = 4_000_000
"""Largest frame to check: PyTorch holds all of it at once."""

_ENGINE_TILE = 512  # px


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of an artifact against a reference.

    Attributes:
        what: The artifact, and how it was run.
        against: The reference.
        backend: What ran it, or why it was not run.
        parity: The distance; None where it was not run.
        tolerance: Key of TOLERANCES; None for what is reported and not judged.
        ms: Duration of a run, milliseconds.
        largest: The place of the largest difference, for a judged cube.
    """

    what: str
    against: str
    backend: str
    parity: Parity | None = None
    tolerance: str | None = None
    ms: float = float("nan")
    largest: LargestDifference | None = field(default=None, repr=False, compare=False)

    @property
    def broken(self) -> list[str]:
        """The limits that are broken; empty if none is, or nothing is judged."""
        return TOLERANCES[self.tolerance].broken_by(self.parity) if self.tolerance and self.parity else []

    @property
    def verdict(self) -> str:
        """``not run``, ``FAILS``, ``passes`` or ``reported``."""
        if self.parity is None:
            return "not run"
        return "FAILS" if self.broken else "passes" if self.tolerance else "reported"

    @property
    def tolerance_used(self) -> float:
        """The largest share of a limit that is used: 1 is all of it; 0 where nothing is judged."""
        if not (self.tolerance and self.parity):
            return 0.0
        limits = TOLERANCES[self.tolerance]
        used = [
            getattr(self.parity, name) / limit
            for name in ("max_abs", "mrae", "mean_abs")
            if (limit := getattr(limits, name)) is not None
        ]
        return max(used, default=0.0)


class _Run(NamedTuple):
    """Result of a run: a cube (31, H, W) or a context as (N, 1, 1), the backend, and the time in milliseconds."""

    cube: Array
    backend: str
    ms: float


def check(
    folder: Path | ArtifactFolder, reference: Reference, *, tile: int = 320, device: int = 0
) -> Iterator[Comparison]:
    """Compare every artifact of a folder with a reference, on the reference's frame.

    Args:
        folder: Artifact folder. An open folder hashes each file once, however many checks use it.
        reference: A frame with its context and cube.
        tile: Side of the tiled runs' tiles, px; a smaller one is taken for frames that would fit into a single tile.
        device: Index of the GPU that runs engines.

    Yields:
        The comparisons, as soon as each is done.

    Raises:
        CCNetError: The folder is not whole, or its context has another size than the reference's.
    """
    folder = ArtifactFolder.open(folder)
    for artifact in folder.manifest.artifacts:
        folder.verify(artifact)  # engines that cannot run here, too: "not run" would hide that they are damaged
    yield from _Check(folder, reference, tile, device).comparisons()


class _Check:
    """A folder, and the reference that its artifacts are compared with."""

    def __init__(self, folder: ArtifactFolder, reference: Reference, tile: int, device: int) -> None:
        self.folder, self.reference, self.device = folder, reference, device
        self.manifest = manifest = folder.manifest
        self.largest_side = max(padded_size(size, manifest.size_multiple) for size in reference.frame.shape[:2])
        self.tile = _cutting_tile(self.largest_side, tile, manifest)

    def comparisons(self) -> Iterator[Comparison]:
        reference = self.reference
        with self._open(max(self.largest_side, _smallest_tile(self.manifest))) as runner:
            if runner.selection.full is not None:
                yield self._judge("full fp32", self._run_full(runner), reference.cube, "fp32")
            yield self._judge_encode("encode fp32", runner)
            whole = self._decode(runner)
            yield self._judge("decode fp32", whole, reference.cube, "fp32")
            yield from self._reduced_contexts(runner, whole.cube)
            is_fused = runner.selection.decode.format == NATIVE_FORMAT
        if is_fused:  # the unrolled graphs are those that TensorRT builds from, or that run without the operators
            if self._has("full", "fp32"):
                yield self._judge("full fp32, unrolled", self._run_portable("full"), reference.cube, "fp32")
            context = _as_cube(reference.context)
            yield self._judge("encode fp32, unrolled", self._run_portable("encode"), context, "fp32")
            unrolled = self._run_portable("decode", reference.context)
            yield self._judge("decode fp32, unrolled", unrolled, reference.cube, "fp32")
        yield from self._tiled(whole.cube)
        for artifact in self.manifest.artifacts:
            if artifact.kind == "decode" and artifact.format not in GRAPH_FORMATS:
                yield from self._engine(artifact)
        if trt.has_gpu():
            yield from self._on_device("onnxruntime-cuda", "fp32", "CUDA provider", cuda_refusal(self.device))

    def _tiled(self, whole: Array) -> Iterator[Comparison]:
        """Compare decoding in tiles with decoding the whole frame, and other precisions with the reference."""
        if self.tile < self.largest_side:
            with self._open(self.tile) as runner:
                run = self._decode(runner)
            yield _comparison(f"decode fp32, {self.tile} px tiles", run, whole, "tiled", against="decode fp32")
        precisions: tuple[Precision, ...] = ("fp16", "int8")
        for precision in precisions:
            if self._has("decode", precision):
                with self._open(self.tile, precision=precision) as runner:
                    run = self._decode(runner)
                tolerance = None if precision == "fp16" and sums_in_fp16() else precision
                what = f"decode {precision}, {self.tile} px tiles{'' if tolerance else ', FP16 sums'}"
                yield self._judge(what, run, self.reference.cube, tolerance)

    def _reduced_contexts(self, runner: Reconstructor, whole: Array) -> Iterator[Comparison]:
        """Report what a context from fewer pixels costs, all else equal; no tolerance says how much is too much."""
        frame = self.reference.frame
        pixels = frame.shape[0] * frame.shape[1]
        schemes = {"default context": ENCODE_PIXELS}
        if pixels // 4 <= REDUCED_PIXELS:  # else the default reads fewer
            schemes["context of 1/4 of the pixels"] = max(pixels // 4, 1)
        for what, most in schemes.items():
            runner.encode_pixels = most
            run = _timed(runner, frame, runner.encode(frame))
            yield _comparison(what, run, whole, None, against="the whole frame's context")

    def _engine(self, artifact: Artifact) -> Iterator[Comparison]:
        """Compare an engine where its library and a GPU are; elsewhere say why it was not run."""
        backend: BackendName = "tensorrt" if artifact.format == "tensorrt" else "tensorrt-rtx"
        refusal, name = _cannot_run(artifact.format, self.device), f"{artifact.format} engine"
        yield from self._on_device(backend, cast(Precision, artifact.precision), name, refusal)

    def _on_device(self, backend: BackendName, precision: Precision, name: str, refusal: str) -> Iterator[Comparison]:
        """Compare encode, decode and full in a backend of the GPU, or say why it was not run."""
        if refusal:
            what = f"decode {precision}, {name}"
            yield Comparison(what=what, against=self.reference.made_by, backend=f"not run: {refusal}")
            return
        probe_in_subprocess(self.folder.path, backend, precision, self.device)
        with self._open(_ENGINE_TILE, backend=backend, precision=precision) as runner:
            yield self._judge_encode(f"encode fp32, {name}", runner)
            self._decode(runner)  # the first run plans and compiles
            yield self._judge(f"decode {precision}, {name}", self._decode(runner), self.reference.cube, precision)
            if runner.selection.full is not None:
                yield self._judge_full(f"full {precision}, {name}", runner, precision)

    def _judge(self, what: str, run: _Run, expected: Array, tolerance: str | None) -> Comparison:
        return _comparison(what, run, expected, tolerance, against=self.reference.made_by)

    def _judge_full(self, what: str, runner: Reconstructor, precision: Precision) -> Comparison:
        """Compare one pass with the reference, if the engine takes the frame in one."""
        run = self._run_full(runner)
        with _all_pixels(runner, self.reference.frame):
            took = runner.takes_one_pass(self.reference.frame)  # not any more, if memory ran out
        if took:
            return self._judge(what, run, self.reference.cube, precision)
        why = "not run: the engine does not take this frame in one pass"
        return Comparison(what=what, against=self.reference.made_by, backend=why)

    def _judge_encode(self, what: str, runner: Reconstructor) -> Comparison:
        """Compare a context with the reference's, or with another of the same block means where there are any."""
        # An engine takes frames up to some side. Beyond it the whole frame's context is another, and no defect of the
        # engine; the unrolled graph on the CPU, which is judged on the whole frame itself, is the reference then
        frame = self.reference.frame
        height, width = frame.shape[:2]
        longest = SizeLimits.of(runner.selection.encode, self.manifest.size_multiple).most
        side = block_side(height, width, height * width, longest)
        run = self._encode(runner)
        if side == 1:
            return self._judge(what, run, _as_cube(self.reference.context), "fp32")
        expected = self._run_portable("encode", block=side).cube
        against = f"unrolled encode, {side} px means"
        return _comparison(f"{what}, {side} px means", run, expected, "fp32", against=against)

    def _has(self, kind: str, precision: str) -> bool:
        wanted = (kind, "onnx", precision)
        return any((entry.kind, entry.format, entry.precision) == wanted for entry in self.manifest.artifacts)

    def _open(
        self, tile: int, *, backend: BackendName = "onnxruntime", precision: Precision | None = None
    ) -> Reconstructor:
        options: dict[str, Any] = {"backend": backend, "precision": precision, "device": self.device}
        return Reconstructor.open(self.folder, input_space="camera", tile=tile, **options)

    def _decode(self, runner: Reconstructor) -> _Run:
        return _timed(runner, self.reference.frame, self.reference.context)

    def _run_full(self, runner: Reconstructor) -> _Run:
        """Reconstruct the whole frame in one pass, as the runtime does with a frame that fits one tile."""
        frame = self.reference.frame
        with _all_pixels(runner, frame):
            runner(frame)  # the first run loads the graph
            return _timed(runner, frame, None)

    def _encode(self, runner: Reconstructor) -> _Run:
        """Encode all of the frame's pixels."""
        frame = self.reference.frame
        with _all_pixels(runner, frame):
            started = time.perf_counter()
            context = runner.encode(frame)
        return _Run(_as_cube(context), runner.describe()["backend"], 1e3 * (time.perf_counter() - started))

    def _run_portable(self, kind: str, context: Array | None = None, block: int = 1) -> _Run:
        """Run a graph without fused operators on the whole frame, as means of blocks of some px."""
        frame, multiple = block_mean(self.reference.frame, block), self.manifest.size_multiple
        height, width = frame.shape[:2]
        rows, columns = (reflect_index(size, 0, padded_size(size, multiple)) for size in (height, width))
        feeds = {RGB: rgb_tensor(frame[np.ix_(rows, columns)], self.manifest.input, self.reference.frame.dtype)}
        if context is not None:
            feeds[CONTEXT] = context
        with OnnxRuntimeBackend(self.folder.read(self.folder.find(kind))) as backend:
            started = time.perf_counter()
            (result,) = backend.run(feeds).values()
            ms = 1e3 * (time.perf_counter() - started)
            cube = _as_cube(result) if kind == "encode" else result[0, :, :height, :width]
            return _Run(cube, backend.name, ms)


@contextmanager
def _all_pixels(runner: Reconstructor, frame: Frame) -> Iterator[None]:
    """Let ``encode`` read every pixel of a frame."""
    most, runner.encode_pixels = runner.encode_pixels, frame.shape[0] * frame.shape[1]
    try:
        yield
    finally:
        runner.encode_pixels = most


def _smallest_tile(manifest: Manifest) -> int:
    return 2 * manifest.halo + manifest.size_multiple


def _cutting_tile(largest_side: int, tile: int, manifest: Manifest) -> int:
    """Return the tile that was asked for, or a smaller one that cuts the frame in two, if any can."""
    if largest_side > tile:
        return tile
    multiple = manifest.size_multiple
    return max(_smallest_tile(manifest), padded_size(largest_side - multiple, multiple))


def _comparison(what: str, run: _Run, expected: Array, tolerance: str | None, *, against: str) -> Comparison:
    is_judged_cube = tolerance is not None and min(run.cube.shape[1:]) > 1
    return Comparison(
        what=what,
        against=against,
        backend=run.backend,
        parity=compare(expected, run.cube),
        tolerance=tolerance,
        ms=run.ms,
        largest=LargestDifference.between(expected, run.cube) if is_judged_cube else None,
    )


def _timed(runner: Reconstructor, frame: Frame, context: Array | None) -> _Run:
    started = time.perf_counter()
    cube = runner(frame, context)
    return _Run(cube, runner.describe()["backend"], 1e3 * (time.perf_counter() - started))


def _as_cube(context: Array) -> Array:
    """Return a context (1, N) as (N, 1, 1), so that it is compared as cubes are."""
    return context.reshape(-1, 1, 1)


def _cannot_run(format: str, device: int) -> str:
    """Return what an engine lacks here, empty if nothing; anything else that goes wrong with it is an error."""
    if not trt.has_gpu():
        return "there is no NVIDIA GPU"
    if format not in trt.available():
        return f"{format} is not installed"
    return architectures.why_unsupported(format, gpu(device))
