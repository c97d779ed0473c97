"""CCNet beside what a user would run instead, on this CPU: the paper's loop, PyTorch, and MST++'s design (MHA).

All variants of a row take turns in one run. Other libraries run as their users would have it: ONNX Runtime and OpenVINO
with their own defaults but for the number of threads, OpenVINO with the row's size known.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ccnet.model import CCNet
from ccnet.ops.kernels import reference_ops
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend

from . import networks
from .frames import measure_frame
from .networks import PARTS, Network, Size, function_of, inputs_of, module_of
from .roofline import Rates, roofline
from .timing import Measurement, take_turns

Array = npt.NDArray[np.float32]
Work = Callable[[], Array]

FUSED = "ONNX Runtime, fused operators"
UNROLLED = "ONNX Runtime, unrolled graph"
TORCH = "PyTorch, compiled kernels"
COMPILED = "torch.compile, compiled kernels"
LOOP = "ONNX Runtime, the paper's loop"
TORCH_LOOP = "PyTorch, the paper's loop"
MHA = "MHA in ONNX Runtime"
MHA_FUSED = "MHA in ONNX Runtime, fused operators"
TORCH_MHA = "MHA in PyTorch"
OPENVINO = "OpenVINO, unrolled graph"
OPENVINO_MHA = "MHA in OpenVINO"
VARIANTS = (FUSED, UNROLLED, TORCH, COMPILED, LOOP, TORCH_LOOP, MHA, TORCH_MHA, OPENVINO, OPENVINO_MHA, MHA_FUSED)
"""The columns. MHA has no NeSCM and no PAF, so it can use all fused operators but those two. torch.compile is measured
where there is a C++ compiler, OpenVINO where it is installed."""

FRAME = "frame"
"""The name of the rows that read a PNG, encode it and decode it in tiles, as ``Reconstructor`` does."""

_COMPILED_PARTS = ("CSRM block", "decode")  # each takes minutes to compile
_LOOP_PIXELS = 1 << 19  # of larger frames, ONNX Runtime computes the paper's loop in minutes

_HD: Size = (1080, 1920)
_NTIRE: Size = (482, 512)

SIZES: tuple[tuple[str, Size], ...] = (
    *((part, (side, side)) for side in (128, 256) for part in PARTS),
    ("decode", (480, 512)),
    (FRAME, _NTIRE),
    (FRAME, _HD),
)
"""The rows of ``ccnet bench``: part, height and width in px."""

QUICK_SIZES: tuple[tuple[str, Size], ...] = (*((part, (256, 256)) for part in PARTS[:4]), (FRAME, (240, 256)))
"""The rows of ``ccnet bench --quick``."""


@dataclass(frozen=True, kw_only=True)
class Row(Measurement):
    """The timings of a part, or of a frame, by variant.

    Attributes:
        size: Height and width, px.
        roofline: Milliseconds, None where it is not estimated.
        difference: Largest difference between the outputs of CCNet and of the paper's loop, None without the loop.
    """

    size: Size
    roofline: float | None
    difference: float | None


def measure(exported: Mapping[str, Network], part: str, size: Size, repeats: int, threads: int, rates: Rates) -> Row:
    """Measure a row: a part of PARTS, or FRAME, at a size in px."""
    if part == FRAME:
        return _measure_frame(exported, size, repeats, threads)
    with ExitStack() as stack:
        works = {variant: work for variant, work in _works(exported, part, size, threads, stack) if work}
        timings, results = take_turns(works, repeats)
    model = exported[networks.CCNET].model
    inputs = [*inputs_of(model, part, size).values()]
    return Row(
        name=part,
        size=size,
        timings=timings,
        roofline=roofline(function_of(model, part), module_of(model, part), inputs, rates),
        difference=float(np.abs(results[FUSED] - results[TORCH_LOOP]).max()),
    )


def _measure_frame(exported: Mapping[str, Network], size: Size, repeats: int, threads: int) -> Row:
    compared = {FUSED: exported[networks.CCNET], MHA: exported[networks.MHA]}
    if size[0] * size[1] <= _LOOP_PIXELS:
        compared[LOOP] = exported[networks.LOOP]
    timings, cubes = measure_frame(compared, size, repeats, threads)
    difference = float(np.abs(cubes[FUSED] - cubes[LOOP]).max()) if LOOP in cubes else None
    return Row(name=FRAME, size=size, timings=timings, roofline=None, difference=difference)


def _works(
    exported: Mapping[str, Network], part: str, size: Size, threads: int, stack: ExitStack
) -> Iterator[tuple[str, Work | None]]:
    """Yield every variant that has the part, in the order of VARIANTS; None where a network lacks the part."""

    def backend(network: Network, graphs: Mapping[str, bytes]) -> Work | None:
        return _backend_work(graphs[part], network.model, part, size, threads, stack) if part in graphs else None

    def defaults(network: Network, graphs: Mapping[str, bytes]) -> Work | None:
        return _session_work(graphs[part], network.model, part, size, threads) if part in graphs else None

    ccnet, loop, mha = (exported[name] for name in (networks.CCNET, networks.LOOP, networks.MHA))
    yield FUSED, backend(ccnet, ccnet.graphs)
    yield UNROLLED, backend(ccnet, ccnet.unrolled)
    yield TORCH, _torch_work(ccnet.model, part, size)
    if part in _COMPILED_PARTS and _has_compiler():
        yield COMPILED, _torch_work(ccnet.model, part, size, compiled=True)
    yield LOOP, defaults(loop, loop.graphs)
    yield TORCH_LOOP, reference_ops()(_torch_work(loop.model, part, size))
    if part in mha.unrolled:
        yield MHA, defaults(mha, mha.unrolled)
        yield TORCH_MHA, _torch_work(mha.model, part, size)
        yield MHA_FUSED, backend(mha, mha.graphs)
    if openvino := _openvino():
        yield OPENVINO, _openvino_work(openvino, ccnet, part, size, threads)
        if part in mha.unrolled:
            yield OPENVINO_MHA, _openvino_work(openvino, mha, part, size, threads)


def _has_compiler() -> bool:
    default = "clang++" if sys.platform == "darwin" else "g++"
    return shutil.which(os.environ.get("CXX", default)) is not None


def _feeds(model: CCNet, part: str, size: Size) -> dict[str, Array]:
    return {key: tensor.numpy() for key, tensor in inputs_of(model, part, size).items()}


def _backend_work(data: bytes, model: CCNet, part: str, size: Size, threads: int, stack: ExitStack) -> Work:
    """Run a graph by the runtime's own backend."""
    backend, feeds = stack.enter_context(OnnxRuntimeBackend(data, threads=threads)), _feeds(model, part, size)
    return lambda: next(iter(backend.run(feeds).values()))


def _session_work(data: bytes, model: CCNet, part: str, size: Size, threads: int) -> Work:
    """Run a graph by ONNX Runtime with its own defaults."""
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session, feeds = ort.InferenceSession(data, options), _feeds(model, part, size)
    return lambda: session.run(None, feeds)[0]


def _torch_work(model: CCNet, part: str, size: Size, *, compiled: bool = False) -> Work:
    inputs, run = inputs_of(model, part, size), function_of(model, part)
    if compiled:
        run = torch.compile(run, dynamic=False)

    @torch.inference_mode()
    def work() -> Array:
        return run(*inputs.values()).numpy()

    return work


@functools.cache
def _openvino() -> Any:
    """Return the only Core, where OpenVINO is installed.

    When a Core ends, it puts back the stack for signals that it found (2026.4). With several, that can be the stack of
    a Core that has ended before, and Ctrl-C ends the process.
    """
    return importlib.import_module("openvino").Core() if importlib.util.find_spec("openvino") else None


def _openvino_work(core: Any, network: Network, part: str, size: Size, threads: int) -> Work:
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"})
    read = core.read_model(network.unrolled[part])
    feeds = _feeds(network.model, part, size)
    read.reshape({key: list(array.shape) for key, array in feeds.items()})
    compiled = core.compile_model(read, "CPU")
    return lambda: np.asarray(next(iter(compiled(feeds).values())))
