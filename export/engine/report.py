"""Facts about a built engine: its inputs and outputs, its layers, and where it runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.gpu.cuda import gpu

from .kernel_count import PartCounts

Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]
"""Smallest, most usual and largest shape of an input."""


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
    """A description of an engine that was built.

    Attributes:
        backend: The TensorRT that built it.
        version: That TensorRT's version.
        gpu: The GPU that it was built on and for; empty where it is for none in particular.
        layers: Number of the network's layers as parsed, before TensorRT fuses them.
        types: Data type → how many layers compute it.
        bytes: The engine's size.
        seconds: Duration of the build.
        io: Inputs and outputs.
        purpose: One sentence on where the engine runs.
        scratch_bytes: Scratch memory for the largest shape, bytes; None if TensorRT does not report it.
        kernels: Part of the network → kernels and the bytes that they move; empty where TensorRT lists no kernels.
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
    kernels: PartCounts
    scratch_bytes: int | None = None


def scratch_bytes(messages: Iterable[str]) -> int | None:
    """Return the scratch memory that a builder reports among its messages, bytes; None if it does not."""
    found = (re.search(r"Total Activation Memory: (\d+) bytes", message) for message in messages)
    return next((int(match[1]) for match in found if match), None)


def inputs_of(network: Any) -> list[Any]:
    """Return the inputs of a TensorRT network."""
    return [network.get_input(index) for index in range(network.num_inputs)]


def describe_io(network: Any, shapes: Mapping[str, Range]) -> tuple[Tensor, ...]:
    """Return a network's inputs, with the ranges of their free dimensions, and its outputs."""
    inputs = tuple(_tensor(tensor, "input", shapes) for tensor in inputs_of(network))
    outputs = (network.get_output(index) for index in range(network.num_outputs))
    return inputs + tuple(_tensor(tensor, "output", {}) for tensor in outputs)


def _tensor(tensor: Any, mode: Literal["input", "output"], shapes: Mapping[str, Range]) -> Tensor:
    shape = tuple(tensor.shape)
    limits = shapes[tensor.name] if mode == "input" and -1 in shape else None
    return Tensor(name=tensor.name, mode=mode, dtype=str(trt.dtype(tensor.dtype)), shape=shape, range=limits)


def count_types(network: Any) -> dict[str, int]:
    """Return how many layers compute each data type, by TensorRT's names."""
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return dict(Counter(layer.get_output(0).dtype.name for layer in layers if layer.num_outputs))


def purpose(backend: trt.Name, device: int = 0) -> str:
    """Return one sentence on where an engine that was built for a GPU of this machine runs."""
    if backend == "tensorrt":
        return f"Runs on {gpu(device)} with {trt.title(backend)}; another GPU or TensorRT needs its own build."
    return (
        "Shows that the graph compiles, and runs on RTX PCs (SM 8.6, 8.9 and 12.0; others where it is built for them);"
        " not for Jetson, whose engine tensorrt builds on the device."
    )
