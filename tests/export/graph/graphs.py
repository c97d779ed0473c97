"""Helpers that load and run exported graphs, and compute the expected result with PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch

from ccnet.contract import CONTEXT, CUBE, RGB
from ccnet.model import CCNet

Artifacts = tuple[CCNet, Path]


Array = npt.NDArray[np.float32]


each_graph = pytest.mark.parametrize("name", ["encode.fp32", "decode.fp32", "decode.fp16", "full.fp32"])


each_kind = pytest.mark.parametrize("kind", ["encode", "decode", "full"])


def load(folder: Path, name: str) -> onnx.ModelProto:
    return onnx.load(folder / f"{name}.onnx")


def modules(model: onnx.ModelProto) -> set[str]:
    """Return the modules that a graph's nodes are named after."""
    return {node.name.partition("/")[0] for node in model.graph.node}


def expected(model: CCNet, rgb: Array) -> dict[str, Array]:
    """Return the cube and the context that PyTorch computes."""
    with torch.inference_mode():
        cube, context = model.run(torch.from_numpy(rgb), None)
    return {CUBE: cube.numpy(), CONTEXT: context.numpy()}


def feeds(kind: str, rgb: npt.NDArray[Any], context: Array) -> dict[str, npt.NDArray[Any]]:
    return {RGB: rgb, CONTEXT: context} if kind == "decode" else {RGB: rgb}


def run(model: onnx.ModelProto, inputs: dict[str, npt.NDArray[Any]]) -> Array:
    """Run a graph in ONNX Runtime and return its only output."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]
