"""Computations of the tiles of the resident pipeline: by torch, ONNX Runtime's CUDA provider, or nothing."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ccnet.contract import CONTEXT, CUBE, CUBE_SUM, RGB, ArtifactFolder, CCNetError
from ccnet.model import CCNet
from ccnet.runtime.backends.onnxruntime import cuda_refusal
from ccnet.runtime.gpu.cuda import Device, Stream

from .engines import Computation, Launcher, TensorEngine

Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A library and a precision of ``decode``; ``encode`` is always FP32.

    Attributes:
        name: Library and precision, for reports.
        precision: Precision of ``decode``.
        encode: Returns the computation of ``encode`` for a stream.
        decode: Returns the computation of ``decode`` for a stream.
        full: Returns the computation of ``full`` for a stream; None if it has none.
        can_be_captured: Whether the runs may be captured as CUDA graphs.
    """

    name: str
    precision: Precision
    encode: Callable[[Stream], Computation]
    decode: Callable[[Stream], Computation]
    full: Callable[[Stream], Computation] | None = None
    can_be_captured: bool = True

    def engines(self, device: Device, launcher: Launcher, context_size: int) -> dict[str, TensorEngine]:
        """Return new engines of ``encode`` and ``decode``, and of ``full`` if the variant has it, by their names."""
        options: dict[str, Any] = {"can_be_captured": self.can_be_captured, "context_size": context_size}
        name = f"{self.name} (cuda:{device.index})"
        kinds = {"encode": self.encode, "decode": self.decode, "full": self.full}
        return {kind: TensorEngine(name, device, launcher, each, **options) for kind, each in kinds.items() if each}


def torch_variant(model: CCNet, precision: Precision) -> Variant:
    """Return the network in torch.

    Args:
        model: The network.
        precision: ``fp16`` decodes under autocast.

    Returns:
        The variant.
    """

    def encode(tensors: Mapping[str, Tensor]) -> None:
        tensors[CONTEXT].copy_(model.encode(tensors[RGB]))

    def decode(tensors: Mapping[str, Tensor], context: Tensor | None = None) -> None:
        kind = tensors[RGB].device.type
        with torch.autocast(kind, torch.float16, enabled=precision == "fp16"):
            tensors[CUBE].copy_(model.decode(tensors[RGB], tensors[CONTEXT] if context is None else context))
        tensors[CUBE_SUM].copy_(tensors[CUBE].sum())

    def full(tensors: Mapping[str, Tensor]) -> None:
        decode(tensors, model.encode(tensors[RGB]))

    name = f"torch {precision.upper()}"
    return Variant(
        name=name, precision=precision, encode=lambda _: encode, decode=lambda _: decode, full=lambda _: full
    )


def no_kernels() -> Variant:
    """Return a variant that sets its outputs to zero, so that everything else of a frame remains."""

    def clear(tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if name in {CUBE, CUBE_SUM}:
                tensor.zero_()

    return Variant(
        name="no network", precision="fp32", encode=lambda _: clear, decode=lambda _: clear, full=lambda _: clear
    )


def onnxruntime_variant(
    encode: bytes, decode: bytes, provider: Literal["cuda", "cpu"], device: int = 0, full: bytes | None = None
) -> Variant:
    """Return the graphs in ONNX Runtime, with a session for each stream, on which all its kernels run.

    Args:
        encode: ONNX graph of ``encode`` in FP32.
        decode: ONNX graph of ``decode`` in FP32.
        provider: ``cpu`` only rehearses.
        device: Index of the GPU.
        full: ONNX graph of ``full`` in FP32; None if there is none.

    Returns:
        The variant. Its runs cannot be captured: ONNX Runtime allocates memory in them.
    """

    @functools.lru_cache(maxsize=3)  # the two contexts of ``decode`` run on one stream
    def session(graph: bytes, stream: int) -> Computation:
        return _Session(graph, provider, device, stream)

    return Variant(
        name="ONNX Runtime FP32",
        precision="fp32",
        encode=lambda stream: session(encode, stream.handle),
        decode=lambda stream: session(decode, stream.handle),
        full=None if full is None else lambda stream: session(full, stream.handle),
        can_be_captured=False,
    )


class _Session:
    """A graph in ONNX Runtime that reads and writes tensors where they are, and does not wait for its kernels."""

    def __init__(self, graph: bytes, provider: Literal["cuda", "cpu"], device: int, stream: int) -> None:
        onnxruntime: Any = importlib.import_module("onnxruntime")
        cuda = {
            "device_id": str(device),
            "user_compute_stream": str(stream),
            "use_tf32": "0",
            "cudnn_conv_algo_search": "HEURISTIC",  # the default times each algorithm for each shape
        }
        providers = [("CUDAExecutionProvider", cuda)] if provider == "cuda" else []
        self._place = provider, device
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self._session: Any = onnxruntime.InferenceSession(graph, options, [*providers, "CPUExecutionProvider"])
        if provider == "cuda" and self._session.get_providers()[0] != "CUDAExecutionProvider":
            raise CCNetError("ONNX Runtime's CUDA provider does not start: check CUDA and cuDNN")
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._outputs = {node.name for node in self._session.get_outputs()}

    def __call__(self, tensors: Mapping[str, Tensor]) -> None:
        """Queue a run; an error of ONNX Runtime is a CCNetError."""
        binding = self._session.io_binding()
        for name, tensor in tensors.items():
            place = (name, *self._place, np.float32, tuple(tensor.shape), tensor.data_ptr())
            if name in self._inputs:
                binding.bind_input(*place)
            elif name in self._outputs:
                binding.bind_output(*place)
        try:
            self._session.run_with_iobinding(binding, self._options)
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise CCNetError(f"ONNX Runtime failed to run: {error}") from error
        if CUBE_SUM in tensors and CUBE_SUM not in self._outputs:
            tensors[CUBE_SUM].copy_(tensors[CUBE].sum())


def choose(model: CCNet, folder: Path, device: Device) -> tuple[list[Variant], str]:
    """Return the variants to measure, the most important first: ONNX Runtime's, if it has graphs and starts, and torch.

    Args:
        model: The network.
        folder: Folder of its graphs, which need not exist.
        device: The GPU.

    Returns:
        The variants, and why ONNX Runtime is not among them, empty if it is.
    """
    half, full = torch_variant(model, "fp16"), torch_variant(model, "fp32")
    try:
        encode, decode, one_pass = _graphs(folder, model.context_size)
    except CCNetError as error:
        return [full, half], str(error)
    if why := cuda_refusal(device.index):
        return [full, half], why
    return [onnxruntime_variant(encode, decode, "cuda", device.index, one_pass), half, full], ""


def _graphs(path: Path, context_size: int) -> tuple[bytes, bytes, bytes | None]:
    """Return the graphs of ``encode``, ``decode`` and ``full`` in FP32; a CCNetError if they are another network's."""
    folder = ArtifactFolder.open(path)
    found = folder.manifest.input, folder.manifest.context_size
    if found != ("float32", context_size):
        raise CCNetError(f"{path} has input and context size {found}, expected ('float32', {context_size})")
    encode, decode = (folder.read(folder.manifest.find(kind)) for kind in ("encode", "decode"))
    has_full = any(artifact.kind == "full" for artifact in folder.manifest.artifacts)  # since 0.2.0
    return encode, decode, folder.read(folder.manifest.find("full")) if has_full else None
