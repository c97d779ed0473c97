"""Does what was exported compute what PyTorch computes? Every graph and engine that this machine can run, judged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ccnet.checkpoint import weights_hash
from ccnet.contract import CUBE, RGB, CCNetError, Manifest, padded, reflect_index
from ccnet.model import CCNet
from ccnet.runtime import Reconstructor
from ccnet.runtime.backend import BackendName, Precision
from ccnet.runtime.frames import rgb_tensor
from ccnet.runtime.onnxruntime_backend import OnnxRuntimeBackend
from ccnet.runtime.parity import TOLERANCES, Parity, compare
from ccnet.runtime.reconstructor import ENCODE_PIXELS

Array = npt.NDArray[np.float32]
Frame = npt.NDArray[Any]

MAX_PIXELS = 4_000_000
"""Of a frame to check: PyTorch holds all of it at once."""


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

    @property
    def broken(self) -> list[str]:
        """What breaks the tolerance; empty if nothing does or nothing is judged."""
        return TOLERANCES[self.tolerance].broken_by(self.parity) if self.tolerance and self.parity else []


def check(model: CCNet, folder: Path, frame: Frame, *, window: int = 320) -> Iterator[Row]:
    """Compare on one frame (H, W, 3), row by row as they come.

    window: of the tiled runs, px; smaller than the frame, or they show nothing.
    CCNetError if the weights are not those that the folder was exported from.
    """
    manifest = Manifest.read(folder)
    if weights_hash(model) != manifest.weights_sha256:
        raise CCNetError(f"{folder}: exported from other weights; name them with --weights, or export again")
    planes = rgb_tensor(frame, "float32")
    with torch.inference_mode():
        cube, context = (tensor.numpy() for tensor in model.eval().run(torch.from_numpy(planes), None))
    expected, torch_name = cube[0], f"torch {torch.__version__}"

    full, name, ms = _full(folder, manifest, frame)
    yield Row(
        what="full fp32", against=torch_name, backend=name, parity=compare(expected, full), tolerance="fp32", ms=ms
    )
    largest = max(padded(size, manifest.size_multiple) for size in frame.shape[:2])
    with _open(folder, max(largest, 2 * manifest.halo + manifest.size_multiple)) as runner:
        whole, name, ms = _timed(runner, frame, context)
        parity = compare(expected, whole)
        yield Row(what="decode fp32", against=torch_name, backend=name, parity=parity, tolerance="fp32", ms=ms)
        yield from _reduced(runner, frame, whole)
    runs: list[tuple[Precision, str, Array, str]] = [
        ("fp32", "decode fp32", whole, "tiled"),
        ("fp16", torch_name, expected, "fp16"),
    ]
    for precision, against, reference, tolerance in runs:
        with _open(folder, window, precision=precision) as runner:
            tiled, name, ms = _timed(runner, frame, context)
        what, parity = f"decode {precision}, {window} px windows", compare(reference, tiled)
        yield Row(what=what, against=against, backend=name, parity=parity, tolerance=tolerance, ms=ms)
    yield from _engines(folder, manifest, frame, context, expected, torch_name)


def _full(folder: Path, manifest: Manifest, frame: Frame) -> tuple[Array, str, float]:
    """The full graph on the whole frame."""
    height, width = frame.shape[:2]
    rows, columns = (reflect_index(size, 0, padded(size, manifest.size_multiple)) for size in (height, width))
    pixels = frame[np.ix_(rows, columns)]
    with OnnxRuntimeBackend(manifest.find("full").read(folder)) as backend:
        started = time.perf_counter()
        cube = backend.run({RGB: rgb_tensor(pixels, manifest.input)})[CUBE]
        return cube[0, :, :height, :width], backend.name, 1e3 * (time.perf_counter() - started)


def _open(
    folder: Path, window: int, *, backend: BackendName = "onnxruntime", precision: Precision | None = None
) -> Reconstructor:
    return Reconstructor.open(folder, backend=backend, window=window, precision=precision)


def _timed(runner: Reconstructor, frame: Frame, context: Array) -> tuple[Array, str, float]:
    started = time.perf_counter()
    cube = runner(frame, context)
    return cube, runner.describe()["backend"], 1e3 * (time.perf_counter() - started)


def _engines(
    folder: Path, manifest: Manifest, frame: Frame, context: Array, expected: Array, reference: str
) -> Iterator[Row]:
    """Engines run where there is a GPU for them; elsewhere the row says that they were not."""
    for artifact in manifest.artifacts:
        if artifact.kind != "decode" or artifact.format == "onnx":
            continue
        backend: BackendName = "tensorrt" if artifact.format == "tensorrt" else "tensorrt-rtx"
        what = f"decode {artifact.precision}, {artifact.format} engine"
        try:
            runner = _open(folder, 512, backend=backend)
        except CCNetError as error:
            yield Row(what=what, against=reference, backend=f"not run: {str(error).removeprefix(f'{folder}: ')}")
            continue
        with runner:
            cube, name, ms = _timed(runner, frame, context)
        yield Row(what=what, against=reference, backend=name, parity=compare(expected, cube), tolerance="fp16", ms=ms)


def _reduced(runner: Reconstructor, frame: Frame, whole: Array) -> Iterator[Row]:
    """What a context from fewer pixels costs, all else the same. Reported: no tolerance says how much is too much."""
    pixels = frame.shape[0] * frame.shape[1]
    for what, most in (("default context", ENCODE_PIXELS), ("context of 1/4 of the pixels", pixels // 4)):
        runner.encode_pixels = max(most, 1)
        cube, name, ms = _timed(runner, frame, runner.encode(frame))
        against = "the whole frame's context"
        yield Row(what=what, against=against, backend=name, parity=compare(whole, cube), ms=ms)
