"""Photographs, and small graphs with their inputs, for the tests of calibration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import skimage.data
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array
from PIL import Image

from ccnet.calibration.data import Feed
from ccnet.calibration.graph_runner import GraphRunner
from ccnet.contract import Manifest
from ccnet.model import CCNet


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(skimage.data.astronaut()).save(folder / "astronaut.png")
    Image.fromarray(skimage.data.coffee()).save(folder / "coffee.jpg")
    (folder / "notes.txt").write_text("not a frame")
    return folder


@pytest.fixture
def graph() -> Callable[..., GraphRunner]:
    """graph(*nodes, **weights): rgb (1, 31, 4, 4) → cube of the same shape."""

    def build(*nodes: onnx.NodeProto, **weights: Any) -> GraphRunner:
        value = [make_tensor_value_info(name, TensorProto.FLOAT, [1, 31, 4, 4]) for name in ("rgb", "cube")]
        constants = [from_array(np.array(array, np.float32), name) for name, array in weights.items()]
        body = make_graph(nodes, "hand-made", value[:1], value[1:], constants)
        return GraphRunner(make_model(body, opset_imports=[make_opsetid("", 18)]).SerializeToString())

    return build


@pytest.fixture
def feed() -> Callable[..., Feed]:
    """feed(scale): random values from 0 to scale for a graph that the fixture above builds."""

    def build(scale: float = 1.0) -> Feed:
        return {"rgb": np.random.default_rng(0).random((1, 31, 4, 4), np.float32) * np.float32(scale)}

    return build


@pytest.fixture(scope="session")
def noise(artifacts: tuple[CCNet, Path]) -> Feed:
    """A noisy frame for the network that the artifacts hold."""
    size = Manifest.read(artifacts[1]).context_size
    rng = np.random.default_rng(0)
    return {"rgb": rng.random((1, 3, 16, 16), np.float32), "context": np.full((1, size), 0.125, np.float32)}
