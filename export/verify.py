"""Does what was exported compute what the reference does? Every graph and engine that this machine can run, judged.

Nothing here needs torch: a reference is PyTorch's output, of now or stored in a bundle.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccnet.contract import CONTEXT, NATIVE_FORMAT, ONNX_FORMATS, RGB, Manifest, padded_size, reflect_index
from ccnet.runtime import Reconstructor
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.backends.select import BackendName, Precision
from ccnet.runtime.io.frames import Frame, rgb_tensor
from ccnet.runtime.probe import probe_in_subprocess
from ccnet.runtime.quality.tolerances import TOLERANCES, Parity, compare, worst
from ccnet.runtime.reconstructor import ENCODE_PIXELS

from .reference import Reference

Array = npt.NDArray[np.float32]

MAX_PIXELS = 4_000_000
"""Of a frame to check: PyTorch holds all of it at once."""


@dataclass(frozen=True, kw_only=True)
class Worst:
    """Where a cube is farthest from its reference.

    differences: (H, W), the largest over the bands. pixel: (y, x) of the largest of all; expected, found: its spectra.
    """

    differences: Array
    pixel: tuple[int, int]
    expected: Array
    found: Array


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    what: artifact and how it was run. against: the reference. backend: what ran it, or why it was not run.
    parity: None where it was not run. tolerance: key of TOLERANCES, or None for what is reported and not judged.
    ms: of one run.
    """

    what: str
    against: str
    backend: str
    parity: Parity | None = None
    tolerance: str | None = None
    ms: float = float("nan")
    worst: Worst | None = field(default=None, repr=False, compare=False)

    @property
    def broken(self) -> list[str]:
        """What breaks the tolerance; empty if nothing does or nothing is judged."""
        return TOLERANCES[self.tolerance].broken_by(self.parity) if self.tolerance and self.parity else []

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.parity is None:
            return "not run"
        return "FAILS" if self.broken else "passes" if self.tolerance else "reported"

    @property
    def tolerance_used(self) -> float:
        """How much of its tolerance is used, 1 is all of it; 0 where nothing is judged."""
        if not (self.tolerance and self.parity):
            return 0.0
        limits = TOLERANCES[self.tolerance]
        used = [
            getattr(self.parity, name) / limit
            for name in ("max_abs", "mrae", "mean_abs")
            if (limit := getattr(limits, name)) is not None
        ]
        return max(used, default=0.0)


def check(folder: Path, reference: Reference, *, window: int = 320) -> Iterator[Row]:
    """Compare on one frame, row by row as they come.

    window: of the tiled runs, px; a smaller one is taken for frames that would fit into it. CCNetError where the folder
    is not whole, or its context has another size than the reference's.
    """
    manifest = Manifest.read(folder)
    for artifact in manifest.artifacts:
        artifact.read(folder)  # engines that cannot run here, too: "not run" would say nothing of their damage
    sides = [padded_size(size, manifest.size_multiple) for size in reference.frame.shape[:2]]
    windows = _window(max(sides), window, manifest)
    frame, judged = reference.frame, partial(_row, against=reference.made_by)

    if _has(manifest, "full", "fp32"):
        yield judged("full fp32", *_portable(folder, manifest, "full", frame), reference.cube, "fp32")
    with _open(folder, max(*sides, 2 * manifest.halo + manifest.size_multiple)) as runner:
        yield judged("encode fp32", *_encoded(runner, frame), _as_cube(reference.context), "fp32")
        whole, name, ms = _timed(runner, frame, reference.context)
        yield judged("decode fp32", whole, name, ms, reference.cube, "fp32")
        yield from _reduced(runner, frame, whole)
        natively = runner.selection.decode.format == NATIVE_FORMAT
    if natively:  # what TensorRT builds from, and what runs where the operators are not compiled
        context = _portable(folder, manifest, "encode", frame)
        yield judged("encode fp32, unrolled", *context, _as_cube(reference.context), "fp32")
        cube = _portable(folder, manifest, "decode", frame, reference.context)
        yield judged("decode fp32, unrolled", *cube, reference.cube, "fp32")
    if windows < max(sides):
        with _open(folder, windows) as runner:
            tiled = _timed(runner, frame, reference.context)
        yield _row(f"decode fp32, {windows} px windows", *tiled, whole, "tiled", against="decode fp32")
    for precision in ("fp16", "int8"):
        if _has(manifest, "decode", precision):
            with _open(folder, windows, precision=precision) as runner:
                found = _timed(runner, frame, reference.context)
            yield judged(f"decode {precision}, {windows} px windows", *found, reference.cube, precision)
    yield from _engines(folder, manifest, reference)


def _window(largest: int, window: int, manifest: Manifest) -> int:
    """The window that was asked for, or a smaller one that cuts the frame in two, if any can."""
    least = 2 * manifest.halo + manifest.size_multiple
    return (
        window
        if largest > window
        else max(least, padded_size(largest - manifest.size_multiple, manifest.size_multiple))
    )


def _has(manifest: Manifest, kind: str, precision: str) -> bool:
    return any((a.kind, a.format, a.precision) == (kind, "onnx", precision) for a in manifest.artifacts)


def _row(what: str, found: Array, backend: str, ms: float, expected: Array, tolerance: str | None, against: str) -> Row:
    return Row(
        what=what,
        against=against,
        backend=backend,
        parity=compare(expected, found),
        tolerance=tolerance,
        ms=ms,
        worst=_worst(expected, found) if tolerance and min(found.shape[1:]) > 1 else None,
    )


def _worst(expected: Array, found: Array) -> Worst:
    _, y, x = worst(expected, found)
    differences = np.zeros(found.shape[1:], np.float32)
    for one, other in zip(expected, found, strict=True):  # band by band, in little memory
        np.maximum(differences, np.abs(one - other), out=differences)
    return Worst(differences=differences, pixel=(y, x), expected=expected[:, y, x].copy(), found=found[:, y, x].copy())


def _portable(
    folder: Path, manifest: Manifest, kind: str, frame: Frame, context: Array | None = None
) -> tuple[Array, str, float]:
    """A graph without operators of ours on the whole frame; what it gives, as a cube."""
    height, width = frame.shape[:2]
    rows, columns = (reflect_index(size, 0, padded_size(size, manifest.size_multiple)) for size in (height, width))
    pixels = frame[np.ix_(rows, columns)]
    feeds = {RGB: rgb_tensor(pixels, manifest.input)} | ({} if context is None else {CONTEXT: context})
    with OnnxRuntimeBackend(manifest.find(kind).read(folder)) as backend:
        started = time.perf_counter()
        (found,) = backend.run(feeds).values()
        ms = 1e3 * (time.perf_counter() - started)
        return _as_cube(found) if kind == "encode" else found[0, :, :height, :width], backend.name, ms


def _open(
    folder: Path, window: int, *, backend: BackendName = "onnxruntime", precision: Precision | None = None
) -> Reconstructor:
    return Reconstructor.open(folder, backend=backend, window=window, precision=precision)


def _timed(runner: Reconstructor, frame: Frame, context: Array) -> tuple[Array, str, float]:
    started = time.perf_counter()
    cube = runner(frame, context)
    return cube, runner.describe()["backend"], 1e3 * (time.perf_counter() - started)


def _encoded(runner: Reconstructor, frame: Frame) -> tuple[Array, str, float]:
    """The context of all of the frame's pixels, as a cube."""
    most, runner.encode_pixels = runner.encode_pixels, frame.shape[0] * frame.shape[1]
    started = time.perf_counter()
    context = runner.encode(frame)
    runner.encode_pixels = most
    return _as_cube(context), runner.describe()["backend"], 1e3 * (time.perf_counter() - started)


def _as_cube(context: Array) -> Array:
    """(1, N) → (N, 1, 1), so that it is compared as cubes are."""
    return context.reshape(-1, 1, 1)


def _reduced(runner: Reconstructor, frame: Frame, whole: Array) -> Iterator[Row]:
    """What a context from fewer pixels costs, all else the same. Reported: no tolerance says how much is too much."""
    pixels = frame.shape[0] * frame.shape[1]
    for what, most in (("default context", ENCODE_PIXELS), ("context of 1/4 of the pixels", pixels // 4)):
        runner.encode_pixels = max(most, 1)
        found = _timed(runner, frame, runner.encode(frame))
        yield _row(what, *found, whole, None, against="the whole frame's context")


def _engines(folder: Path, manifest: Manifest, reference: Reference) -> Iterator[Row]:
    """Engines run where their library and a GPU are; elsewhere the row says that they were not."""
    for artifact in manifest.artifacts:
        if artifact.kind != "decode" or artifact.format in ONNX_FORMATS:
            continue
        backend: BackendName = "tensorrt" if artifact.format == "tensorrt" else "tensorrt-rtx"
        precision: Any = artifact.precision
        engine, judged = f"{artifact.format} engine", partial(_row, against=reference.made_by)
        if why := _cannot_run(artifact.format):
            yield Row(what=f"decode {precision}, {engine}", against=reference.made_by, backend=f"not run: {why}")
            continue
        probe_in_subprocess(folder, backend, precision)
        with _open(folder, 512, backend=backend, precision=precision) as runner:
            yield judged(
                f"encode fp32, {engine}", *_encoded(runner, reference.frame), _as_cube(reference.context), "fp32"
            )
            _timed(runner, reference.frame, reference.context)  # the first run plans and compiles
            found = _timed(runner, reference.frame, reference.context)
            yield judged(f"decode {precision}, {engine}", *found, reference.cube, precision)


def _cannot_run(format: str) -> str:
    """What an engine lacks here; empty if nothing. Whatever else goes wrong with it is an error and no excuse."""
    if not trt.has_gpu():
        return "there is no NVIDIA GPU"
    return "" if format in trt.available() else f"{format} is not installed"
