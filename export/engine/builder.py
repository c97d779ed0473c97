"""ONNX → TensorRT engine. Precision is the graph's own: every network is strongly typed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ccnet.contract import CCNetError, decode_errors_as, write_atomic
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.cuda import gpus, has_gpu
from ccnet.runtime.backends.onnxruntime import refuse_external

Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]
"""Smallest, most usual and largest shape of an input."""

Progress = Callable[[str, int, int], None]
"""Called with a phase's name, its steps done and its steps in all."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output of an engine; -1 in ``shape`` is free within ``range``, which is None for fixed shapes."""

    name: str
    mode: Literal["input", "output"]
    dtype: str
    shape: Shape
    range: Range | None = None


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """What was built: by which backend and its version, from how many layers, how large, how long it took.

    gpu: that it was built on and for; empty where it is for none in particular.
    layers: of the network as parsed, before TensorRT fuses them. types: how many of them give which data type.
    purpose: one sentence on where the engine runs.
    """

    backend: trt.Name
    version: str
    gpu: str
    layers: int
    types: Mapping[str, int]
    bytes: int
    seconds: float
    io: tuple[Tensor, ...]
    purpose: str


def build_engine(
    onnx_path: Path,
    out_path: Path,
    *,
    backend: trt.Name,
    shapes: Mapping[str, Range],
    workspace_bytes: int | None = None,
    timing_cache: Path | None = None,
    compatible: bool = False,
    strip: bool = False,
    progress: Progress | None = None,
) -> EngineReport:
    """Build an engine and write it, whole or not at all.

    shapes: for each input with free dimensions its (min, opt, max); where all three are the same, it is static.
    workspace_bytes: limit on scratch memory; None leaves it to TensorRT.
    timing_cache: file with kernel timings to start from and to update (``tensorrt`` only).
    compatible: loads in later versions and on other GPUs from Ampere on, too; may be slower (``tensorrt`` only).
    strip: without weights, which a runtime must give it back; needs a GPU.
    progress: whatever it raises cancels the build and is raised here; so does Ctrl-C, with or without ``progress``.

    CCNetError, one line, if the module or (for ``tensorrt``) the GPU is missing, if TensorRT refuses the graph, with
    the node's name and its reason, or if the output cannot be written.
    """
    module = trt.load(backend)
    _check_request(backend, out_path, workspace_bytes, timing_cache, compatible, strip)
    started = time.perf_counter()
    builder = module.Builder(trt.log(backend))
    with decode_errors_as(onnx_path, "a whole graph made by 'ccnet export'"):
        network, parser = _parse(module, builder, onnx_path, backend)
        config = _configure(module, builder, network, shapes, workspace_bytes)
        io, layers, types = _io(network, shapes), network.num_layers, _types(network)
    _set_flags(module, config, compatible, strip)
    cache = None if timing_cache is None else _attach(config, timing_cache, backend)
    plan = _compile(module, builder, network, config, onnx_path, backend, progress)
    # Constants of the network may lie in the parser's memory until here.
    del parser
    write_atomic(out_path, plan)
    if cache is not None and timing_cache is not None:
        write_atomic(timing_cache, bytes(cache.serialize()))
    return EngineReport(
        backend=backend,
        version=module.__version__,
        gpu=gpus()[0] if backend == "tensorrt" else "",
        layers=layers,
        types=types,
        bytes=len(plan),
        seconds=time.perf_counter() - started,
        io=io,
        purpose=_purpose(backend),
    )


def _check_request(
    backend: trt.Name, out: Path, workspace: int | None, timing_cache: Path | None, compatible: bool, strip: bool
) -> None:
    """What can be refused at once, rather than after minutes of building."""
    if workspace is not None and workspace <= 0:
        raise CCNetError(f"workspace is {workspace} bytes, expected a positive number or None")
    if backend == "tensorrt_rtx" and compatible:
        raise CCNetError(
            "tensorrt_rtx builds no version-compatible engines, as its wheel lacks the lean runtime for them: leave it"
            " out; its engines are for all of its GPUs as they are"
        )
    if backend == "tensorrt_rtx" and timing_cache is not None:
        raise CCNetError(
            "tensorrt_rtx has no timing cache, as it compiles kernels at run time: leave it out, and give"
            " TensorRTBackend a runtime_cache"
        )
    for path in filter(None, (out, timing_cache)):
        _check_writable(path)
    if backend == "tensorrt":
        _require_gpu()
    if strip and not has_gpu():
        raise CCNetError(f"{backend} strips engines of their weights only beside a GPU: build there, or with weights")


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise CCNetError(f"{path}: is a folder, expected a file's name")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise CCNetError(f"{path}: cannot be written; choose a folder that exists and that you can write")


def _require_gpu() -> None:
    try:
        gpus()
    except CCNetError as error:
        raise CCNetError(
            f"tensorrt builds an engine only on the GPU that will run it ({error}); build there, or build with"
            " tensorrt_rtx to check here that the graph compiles"
        ) from error


def _parse(module: Any, builder: Any, path: Path, backend: trt.Name) -> tuple[Any, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CCNetError(f"{path}: cannot be read ({error.strerror}); expected an ONNX model") from error
    refuse_external(str(path), data)
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, trt.log(backend))
    trt.log(backend).forget()
    if not parser.parse(data):
        errors = "; ".join(_refusal(parser.get_error(index)) for index in range(min(parser.num_errors, 3)))
        raise CCNetError(f"{path}: {trt.title(backend)} refuses {errors or trt.log(backend).reason()}")
    if not network.num_outputs:  # protobuf reads arbitrary text as a model of unknown fields
        raise CCNetError(f"{path}: a model without outputs, or no ONNX model at all; export it again")
    return network, parser


def _refusal(error: Any) -> str:
    code, reason = error.code().name, trt.one_line(error.desc())
    what = f"node {error.node_name()!r} ({error.node_operator()})" if error.node_operator() else "the file"
    # Of an operator it does not know the parser says just "false".
    return f"{what}: {code}" if reason in ("", "false") else f"{what}: {code}: {reason}"


def _configure(module: Any, builder: Any, network: Any, shapes: Mapping[str, Range], workspace: int | None) -> Any:
    config = builder.create_builder_config()
    if workspace is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace)
    inputs = {tensor.name: tuple(tensor.shape) for tensor in _inputs(network)}
    _check_shapes(inputs, shapes)
    for tensor in _inputs(network):
        if tensor.name in shapes and len(set(shapes[tensor.name])) == 1:
            tensor.shape = inputs[tensor.name] = shapes[tensor.name][0]
    free = [name for name, shape in inputs.items() if -1 in shape]
    if free:
        profile = builder.create_optimization_profile()
        for name in free:
            profile.set_shape(name, *shapes[name])
        config.add_optimization_profile(profile)
    return config


def _set_flags(module: Any, config: Any, compatible: bool, strip: bool) -> None:
    if compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if strip:
        config.set_flag(module.BuilderFlag.STRIP_PLAN)
        config.set_flag(module.BuilderFlag.REFIT)  # by any weights, not only those that were stripped


def _types(network: Any) -> dict[str, int]:
    """Data types of the layers' results, by TensorRT's names."""
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return dict(Counter(layer.get_output(0).dtype.name for layer in layers if layer.num_outputs))


def _check_shapes(inputs: Mapping[str, Shape], shapes: Mapping[str, Range]) -> None:
    for name in shapes:
        if name not in inputs:
            raise CCNetError(f"shapes name input {name!r}, expected one of {', '.join(inputs)}")
    for name, shape in inputs.items():
        if name in shapes:
            _check_range(name, shape, shapes[name])
        elif -1 in shape:
            raise CCNetError(f"input {name!r} has shape {shape} and no range: give shapes its (min, opt, max)")


def _check_range(name: str, shape: Shape, bounds: Range) -> None:
    fits = all(len(bound) == len(shape) for bound in bounds) and all(
        0 < low <= usual <= high and size in (-1, low) and (size == -1 or low == high)
        for size, low, usual, high in zip(shape, *bounds, strict=True)
    )
    if not fits:
        given = ", ".join(map(str, bounds))
        raise CCNetError(f"input {name!r} has shape {shape}, its range is {given}: expected min <= opt <= max that fit")


def _attach(config: Any, path: Path, backend: trt.Name) -> Any:
    """A timing cache from the file if there is one. One from another GPU or version is not overwritten."""
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise CCNetError(
            f"{path}: not a timing cache of {trt.title(backend)} on this GPU ({trt.log(backend).reason()});"
            " delete it or name another"
        )
    return cache


def _compile(
    module: Any,
    builder: Any,
    network: Any,
    config: Any,
    onnx_path: Path,
    backend: trt.Name,
    progress: Progress | None,
) -> bytes:
    raised: list[BaseException] = []
    monitor = _monitor(module, progress, raised)
    config.progress_monitor = monitor
    trt.log(backend).forget()
    with _interrupt_kept(raised):
        plan = builder.build_serialized_network(network, config)
    if raised:
        raise raised[0]
    if plan is None:
        raise CCNetError(f"{onnx_path}: {trt.title(backend)} builds no engine: {trt.log(backend).reason()}")
    return bytes(plan)


@contextmanager
def _interrupt_kept(raised: list[BaseException]) -> Iterator[None]:
    """Ctrl-C goes to ``raised``: as an exception it would strike in one of TensorRT's callbacks and be lost there."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: raised.append(KeyboardInterrupt()))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _monitor(module: Any, progress: Progress | None, raised: list[BaseException]) -> Any:
    """TensorRT's progress monitor: stops the build once something is in ``raised``, as what ``progress`` raises is."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return not raised

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self._steps[phase_name])

        def _tell(self, phase: str, done: int) -> None:
            if raised or progress is None:
                return
            try:
                progress(phase, done, self._steps[phase])
            except BaseException as error:  # raised again by _compile
                raised.append(error)

    return Monitor()


def _inputs(network: Any) -> list[Any]:
    return [network.get_input(index) for index in range(network.num_inputs)]


def _io(network: Any, shapes: Mapping[str, Range]) -> tuple[Tensor, ...]:
    inputs = tuple(_tensor(tensor, "input", shapes) for tensor in _inputs(network))
    outputs = (network.get_output(index) for index in range(network.num_outputs))
    return inputs + tuple(_tensor(tensor, "output", {}) for tensor in outputs)


def _tensor(tensor: Any, mode: Literal["input", "output"], shapes: Mapping[str, Range]) -> Tensor:
    shape = tuple(tensor.shape)
    limits = shapes[tensor.name] if mode == "input" and -1 in shape else None
    return Tensor(name=tensor.name, mode=mode, dtype=str(trt.dtype(tensor.dtype)), shape=shape, range=limits)


def _purpose(backend: trt.Name) -> str:
    if backend == "tensorrt":
        return f"Runs on {gpus()[0]} with {trt.title(backend)}; another GPU or TensorRT needs its own build."
    return (
        "Shows that the graph compiles, and runs on RTX PCs (SM 8.0, 8.6, 8.9, 12.0 and later);"
        " not for Jetson, whose engine tensorrt builds on the device."
    )
