"""ONNX → TensorRT engine. Precision is the graph's own: every network is strongly typed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccnet.contract import CCNetError, decode_errors_as, write_atomic
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends import trt_plugin
from ccnet.runtime.backends.onnxruntime import refuse_external
from ccnet.runtime.gpu.cuda import Device, gpu, has_gpu

from .cube_sum import add_cube_sum
from .kernel_count import count_kernels
from .monitor import Progress, deferred_interrupt, make_monitor
from .plugin import compile_kernels
from .report import EngineReport, Range, Shape, count_types, describe_io, inputs_of, purpose, scratch_bytes


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """The options of a build.

    Attributes:
        backend: The TensorRT to build with.
        shapes: For each input with free dimensions its (min, opt, max); where all three are the same, it is static.
        workspace_bytes: Limit on scratch memory; None leaves it to TensorRT.
        timing_cache: File with kernel timings to start from and to update (``tensorrt`` only).
        compatible: The engine loads in later versions and on other GPUs from Ampere on; may be slower (``tensorrt``
            only).
        strip: The engine has no weights, and a runtime must give it back; needs a GPU.
        plugin: The graph has nodes of the plugin ``PooledNeSCM`` (``tensorrt`` only).
        capability: The one compute capability that a ``tensorrt_rtx`` engine is for; None is all that are portable.
        device: Index of the GPU that ``tensorrt`` builds on, and for.
    """

    backend: trt.Name
    shapes: Mapping[str, Range]
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    compatible: bool = False
    strip: bool = False
    plugin: bool = False
    capability: tuple[int, int] | None = None
    device: int = 0


def build_engine(
    onnx_path: Path, out_path: Path, options: BuildOptions, *, progress: Progress | None = None
) -> EngineReport:
    """Build an engine and write it, whole or not at all.

    Args:
        onnx_path: The graph.
        out_path: Where the engine goes.
        options: How to build it.
        progress: Called at each step; an exception that it raises cancels the build and is raised here. Ctrl-C does
            the same, with or without ``progress``.

    Returns:
        A description of the engine.

    Raises:
        CCNetError: The module or (for ``tensorrt``) the GPU is missing, TensorRT refuses the graph (the error has the
            node's name and the reason), or the output cannot be written.
    """
    trt.load(options.backend)
    _check_request(out_path, options)
    with Device(options.device) if has_gpu() else nullcontext():  # TensorRT builds on the GPU that is current
        return _build(onnx_path, out_path, options, progress)


def _build(onnx_path: Path, out_path: Path, options: BuildOptions, progress: Progress | None) -> EngineReport:
    backend, module = options.backend, trt.load(options.backend)
    started = time.perf_counter()
    builder = module.Builder(trt.log(backend))
    if options.plugin:
        trt_plugin.register(module, compile_kernels(gpu(options.device)))
    with decode_errors_as(onnx_path, "a whole graph from 'ccnet export'"):
        network, parser = _parse(module, builder, onnx_path, backend)
        add_cube_sum(module, network)
        config = _configure(module, builder, network, options)
        io, layers, types = describe_io(network, options.shapes), network.num_layers, count_types(network)
    _set_flags(module, config, options)
    cache = None if options.timing_cache is None else _attach_cache(config, options.timing_cache, backend)
    with trt.log(backend).recording() as messages:
        plan = _compile(module, builder, network, config, onnx_path, backend, progress)
    del parser  # the network's constants may lie in the parser's memory until here
    write_atomic(out_path, plan)
    if cache is not None and options.timing_cache is not None:
        write_atomic(options.timing_cache, bytes(cache.serialize()))
    return EngineReport(
        backend=backend,
        version=module.__version__,
        gpu=gpu(options.device) if backend == "tensorrt" else "",
        layers=layers,
        types=types,
        bytes=len(plan),
        seconds=time.perf_counter() - started,
        io=io,
        purpose=purpose(backend, options.device),
        scratch_bytes=scratch_bytes(messages),
        kernels=count_kernels(line for message in messages for line in message.splitlines()),
    )


def _check_request(out: Path, options: BuildOptions) -> None:
    """Refuse at once what would fail after minutes of building."""
    backend, workspace = options.backend, options.workspace_bytes
    if workspace is not None and workspace <= 0:
        raise CCNetError(f"workspace is {workspace} bytes, expected a positive number or None")
    if backend == "tensorrt_rtx" and options.compatible:
        raise CCNetError(
            "tensorrt_rtx builds no version-compatible engines, as its wheel lacks the lean runtime for them: leave it"
            " out; its engines are for all of its GPUs as they are"
        )
    if backend == "tensorrt_rtx" and options.timing_cache is not None:
        raise CCNetError(
            "tensorrt_rtx has no timing cache, as it compiles kernels at run time: leave it out, and give"
            " TensorRTBackend a runtime_cache"
        )
    if backend == "tensorrt_rtx" and options.plugin:
        raise CCNetError("tensorrt_rtx runs no plugins, and its parser dies on them: build with tensorrt")
    for path in filter(None, (out, options.timing_cache)):
        _check_writable(path)
    if backend == "tensorrt":
        _require_gpu(options.device)
    if options.strip and not has_gpu():
        raise CCNetError(f"{backend} strips engines of their weights only beside a GPU: build there, or with weights")


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise CCNetError(f"{path}: is a folder, expected a file's name")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise CCNetError(f"{path}: cannot be written; choose a folder that exists and that you can write")


def _require_gpu(device: int) -> None:
    try:
        gpu(device)
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
    """Return a parser's error in one line."""
    code, reason = error.code().name, trt.one_line(error.desc())
    what = f"node {error.node_name()!r} ({error.node_operator()})" if error.node_operator() else "the file"
    # For an operator that it does not know, the parser says just "false".
    return f"{what}: {code}" if reason in ("", "false") else f"{what}: {code}: {reason}"


def _configure(module: Any, builder: Any, network: Any, options: BuildOptions) -> Any:
    config, shapes = builder.create_builder_config(), options.shapes
    config.clear_flag(module.BuilderFlag.TF32)  # on by default: it rounds what convolutions read to 10 bits
    trt.resize_scratch_by_shape(module, config)
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    inputs = {tensor.name: tuple(tensor.shape) for tensor in inputs_of(network)}
    _check_shapes(inputs, shapes)
    for tensor in inputs_of(network):
        if tensor.name in shapes and len(set(shapes[tensor.name])) == 1:
            tensor.shape = inputs[tensor.name] = shapes[tensor.name][0]
    free = [name for name, shape in inputs.items() if -1 in shape]
    if free:
        profile = builder.create_optimization_profile()
        for name in free:
            profile.set_shape(name, *shapes[name])
        config.add_optimization_profile(profile)
    return config


def _set_flags(module: Any, config: Any, options: BuildOptions) -> None:
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # the log lists kernels, which are counted
    if options.capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(module.ComputeCapability, "SM{}{}".format(*options.capability)), 0)
    if options.compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.strip:
        config.set_flag(module.BuilderFlag.STRIP_PLAN)
        config.set_flag(module.BuilderFlag.REFIT)  # by any weights, not only those that were stripped


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
        written = ", ".join(map(str, bounds))
        raise CCNetError(
            f"input {name!r} has shape {shape}, its range is {written}: expected min <= opt <= max that fit"
        )


def _attach_cache(config: Any, path: Path, backend: trt.Name) -> Any:
    """Load the timing cache from the file, if there is any; a cache of another GPU or version is not overwritten."""
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
    monitor = make_monitor(module, progress, raised)  # TensorRT does not keep it alive
    config.progress_monitor = monitor
    trt.log(backend).forget()
    with deferred_interrupt(raised):
        plan = builder.build_serialized_network(network, config)
    if raised:
        raise raised[0]
    if plan is None:
        raise CCNetError(f"{onnx_path}: {trt.title(backend)} builds no engine: {trt.log(backend).reason()}")
    return bytes(plan)
