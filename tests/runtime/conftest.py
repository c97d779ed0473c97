"""A small network with CCNet's interface, for all tests of the runtime.

encode is the mean over all pixels. decode scales rgb by it, then reads exactly ``HALO`` px to every side through eight
5×5 convolutions, and adds the mean of each patch of the 16-px grid, as PAF does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ccnet.contract import (
    FRAME_SCALE,
    MANIFEST_KEY,
    MANIFEST_NAME,
    Artifact,
    ArtifactFolder,
    CCNetError,
    Closeable,
    Manifest,
)
from ccnet.runtime import Reconstructor
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.backends.select import Selection
from ccnet.runtime.gpu import cuda
from ccnet.runtime.gpu.out_of_memory import OutOfMemoryError
from ccnet.runtime.tiles.host_path import HostPath
from tests.runtime.gpu.driver_double import Driver, installed

Array = npt.NDArray[Any]
Files = dict[str, bytes]

HALO = 16
FLOAT = TensorProto.FLOAT


def pixels(height: int, width: int, dtype: str = "uint8", seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.random((height, width, 3), np.float32)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)


def manifest(**changes: Any) -> Manifest:
    base = {"config": {"width": 3}, "weights_sha256": "ab" * 32, "context_size": 3, "input": "float32", "tools": {}}
    return Manifest(**{**base, "halo": HALO, **changes})


def model(kind: str, of: Manifest) -> onnx.ModelProto:
    """Return encode, decode or full, stamped with a manifest, which also decides the type of the input."""
    parts = {"encode": (_encode,), "decode": (_decode,), "full": (_encode, _decode)}[kind]
    nodes = [node for part in parts for node in part()[0]]
    weights = {name: array for part in parts for name, array in part()[1].items()}
    rgb = helper.make_tensor_value_info("rgb", FLOAT, [1, 3, "H", "W"])
    if of.input == "uint8":
        rgb = helper.make_tensor_value_info("rgb", TensorProto.UINT8, [1, "H", "W", 3])
        weights["255"] = np.float32(255)
        nodes = [
            helper.make_node("Cast", ["rgb"], ["float"], to=FLOAT),
            helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Div", ["planes", "255"], ["scaled"]),
            *nodes,
        ]
        for node in nodes[3:]:
            node.input[:] = ["scaled" if name == "rgb" else name for name in node.input]
    context = helper.make_tensor_value_info("context", FLOAT, [1, 3])
    cube = helper.make_tensor_value_info("cube", FLOAT, [1, 31, "H", "W"])
    inputs = [rgb, context] if kind == "decode" else [rgb]
    outputs = [context] if kind == "encode" else [cube]
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, kind, inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(made, {MANIFEST_KEY: of.to_json()})
    return made


def _encode() -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    axes: dict[str, Array] = {"axes": np.array([2, 3])}
    return [helper.make_node("ReduceMean", ["rgb", "axes"], ["context"], keepdims=0)], axes


def _decode() -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    rng = np.random.default_rng(1)
    widths = (3, *[4] * 7, 31)
    weights: dict[str, Array] = {
        f"w{i}": rng.normal(0, 0.2, (widths[i + 1], widths[i], 5, 5)).astype(np.float32) for i in range(8)
    }
    weights |= {"shape": np.array([1, 3, 1, 1]), "scales": np.array([1, 1, 16, 16], np.float32)}
    nodes = [
        helper.make_node("Reshape", ["context", "shape"], ["factors"]),
        helper.make_node("Mul", ["rgb", "factors"], ["x0"]),
        *(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], pads=[2] * 4) for i in range(8)),
        helper.make_node("AveragePool", ["x8"], ["patches"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Resize", ["patches", "", "scales"], ["spread"], mode="nearest"),
        helper.make_node("Add", ["x8", "spread"], ["cube"]),
    ]
    return nodes, weights


def write(folder: Path, of: Manifest, files: Mapping[str, bytes] | None = None) -> Path:
    """Write an artifact folder and return it; ``files`` replaces graphs, with a manifest that has their SHA-256."""
    folder.mkdir(exist_ok=True)
    content = {kind: model(kind, of).SerializeToString() for kind in ("encode", "decode")} | dict(files or {})
    artifacts = []
    for kind, data in content.items():
        (folder / f"{kind}.onnx").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        artifacts.append(Artifact(file=f"{kind}.onnx", kind=kind, format="onnx", precision="fp32", sha256=digest))
    (folder / MANIFEST_NAME).write_text(dataclasses.replace(of, artifacts=tuple(artifacts)).to_json())
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("float"), manifest())


@pytest.fixture(scope="session")
def folder_uint8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("uint8"), manifest(input="uint8"))


def whole(folder: Path, frame: Array) -> Array:
    """Return the cube of a whole frame, computed without the code under test."""
    height, width = frame.shape[:2]
    padded = np.pad(frame, ((0, -height % 16), (0, -width % 16), (0, 0)), "reflect")
    rgb = (padded / np.float32(FRAME_SCALE[frame.dtype.name])).astype(np.float32).transpose(2, 0, 1)[None]
    encode, decode = (onnxruntime.InferenceSession(folder / f"{kind}.onnx") for kind in ("encode", "decode"))
    (context,) = encode.run(None, {"rgb": rgb})
    cube: Array = decode.run(None, {"rgb": rgb, "context": context})[0][0, :, :height, :width]
    return cube


def refusal(call: Callable[[], Any], *words: object) -> None:
    with pytest.raises(CCNetError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    for word in words:
        assert str(word) in message


class Spy(Closeable):
    """A backend that records the shapes of ``rgb`` and fails if two threads run it at once."""

    def __init__(self, real: OnnxRuntimeBackend) -> None:
        self.name, self._real, self.shapes = "spy", real, list[tuple[int, ...]]()
        self.turn = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()
        self.most = 1 << 40
        """Largest number of pixels that ``run`` has memory for."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        assert self.turn.acquire(blocking=False), "two threads run at once"
        try:
            self.gate.wait(60)
            if math.prod(feeds["rgb"].shape[2:]) > self.most:
                raise OutOfMemoryError("std::bad_alloc")
            self.shapes.append(feeds["rgb"].shape)
            return self._real.run(feeds)
        finally:
            self.turn.release()

    def close(self) -> None:
        self._real.close()


def artifact(kind: str, format: str = "onnx", precision: str = "fp32", tile: object = None) -> Artifact:
    details = {} if tile is None else {"window": tile}
    name = f"{kind}.{precision}.{format}"
    return Artifact(file=name, kind=kind, format=format, precision=precision, sha256="", details=details)


def fake(
    encoder: Any, decoder: Any, bounds: Mapping[str, object] | None = None, halo: int = HALO, **options: Any
) -> Reconstructor:
    """Return a reconstructor over backends, with tile limits like those of engines."""
    encode, decode = (artifact(kind, tile=(bounds or {}).get(kind)) for kind in ("encode", "decode"))
    opened = ArtifactFolder(Path("folder"), manifest(halo=halo))
    selection = Selection(folder=opened, backend="onnxruntime", encode=encode, decode=decode)
    return Reconstructor(selection, HostPath(selection, encoder, decoder, **options), "camera")


def open_camera(folder: Path, **options: Any) -> Reconstructor:
    """Return a reconstructor for linear frames of the weights' camera."""
    return Reconstructor.open(folder, input_space="camera", **options)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Forget modules and GPUs before and after the test."""
    caches = (trt.load, cuda.gpus)  # here, for a test may replace them

    def forget() -> None:
        cuda.release_devices()
        for cached in caches:
            cached.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def driver(fresh: None) -> Iterator[Driver]:
    """Put a driver double in place of CUDA's; the test fails if it is left with a fault, a leak or a context."""
    with installed(Driver()) as driver:
        yield driver
