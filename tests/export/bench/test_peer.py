"""Networks that were exported elsewhere: which of them ``ccnet bench --against`` takes, and their cubes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ccnet.contract import CCNetError
from ccnet.export.bench.peer import Peer

Shape = Sequence[int | str]
FREE: Shape = (1, 3, "height", "width")


def write_peer(
    path: Path, shape: Shape = FREE, *, bands: int = 31, halvings: int = 0, dtype: int = TensorProto.FLOAT,
    more_inputs: Sequence[str] = (), outputs: Sequence[str] = ("cube",),
) -> Path:  # fmt: skip
    """Write a network whose band k is k + 1 times the frame's red, halved in size some times and doubled back."""
    nodes, last = [], "frame"
    if dtype != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [last], ["cast"], to=TensorProto.FLOAT))
        last = "cast"
    for index in range(halvings):
        nodes.append(helper.make_node("MaxPool", [last], [f"half{index}"], kernel_shape=[2, 2], strides=[2, 2]))
        last = f"half{index}"
    if halvings:
        nodes.append(helper.make_node("Resize", [last, "", "scales"], ["same"], mode="nearest"))
        last = "same"
    channels = shape[1] if len(shape) == 4 and isinstance(shape[1], int) else 3
    weights = np.zeros((bands, channels, 1, 1), np.float32)
    weights[:, 0, 0, 0] = np.arange(1, bands + 1)
    nodes += [helper.make_node("Conv", [last, "weights"], ["cube"]), helper.make_node("Relu", [last], ["features"])]
    scales = np.array([1, 1, 2**halvings, 2**halvings], np.float32)
    graph = helper.make_graph(
        nodes, "peer",
        [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in
         (("frame", dtype, shape), *((name, TensorProto.FLOAT, [1]) for name in more_inputs))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(scales, "scales")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (37, 50, 3), np.uint8)


@pytest.mark.parametrize("shape", [FREE, ("batch", 3, "h", "w"), (1, "channels", "h", "w"), (1, 3, 37, 50)])
def test_cube_of_a_frame_is_the_networks(tmp_path: Path, frame: np.ndarray, shape: Shape) -> None:
    cube = Peer(write_peer(tmp_path / "peer.onnx", shape), threads=1)(frame)
    expected = np.arange(1, 32)[:, None, None] * (frame[None, :, :, 0] / np.float32(255))
    np.testing.assert_allclose(cube, expected, rtol=1e-6)


@pytest.mark.parametrize("halvings", [0, 1, 3])
def test_multiple_of_a_free_size_is_found_and_frames_are_padded_to_it(
    tmp_path: Path, frame: np.ndarray, halvings: int
) -> None:
    peer = Peer(write_peer(tmp_path / "peer.onnx", halvings=halvings), threads=1)
    assert peer.size == (None, None)
    assert peer.multiple == 2**halvings
    assert peer(frame).shape == (31, 37, 50)


def test_fixed_size_takes_frames_up_to_it(tmp_path: Path, frame: np.ndarray) -> None:
    peer = Peer(write_peer(tmp_path / "peer.onnx", (1, 3, 40, 64)), threads=1)
    assert peer.size == (40, 64)
    cube = peer(frame)
    np.testing.assert_allclose(cube[0], frame[:, :, 0] / np.float32(255), rtol=1e-6)
    assert not peer.takes(41, 64)
    with pytest.raises(CCNetError, match=r"takes 40×64 px, the frame has 37×100 px"):
        peer(np.zeros((37, 100, 3), np.uint8))


def test_one_free_side_is_found_beside_a_fixed_one(tmp_path: Path) -> None:
    peer = Peer(write_peer(tmp_path / "peer.onnx", (1, 3, 40, "width"), halvings=2), threads=1)
    assert (peer.size, peer.multiple) == ((40, None), 4)
    assert peer.takes(40, 1000)
    assert not peer.takes(41, 1000)


def test_outputs_after_the_cube_are_ignored(tmp_path: Path, frame: np.ndarray) -> None:
    path = write_peer(tmp_path / "peer.onnx", outputs=("cube", "features"))
    assert Peer(path, threads=1)(frame).shape == (31, 37, 50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (1, 4, "h", "w")}, r"input is frame tensor\(float\) \(1, 4, h, w\), expected .* \(1, 3, H, W\)"),
        ({"shape": (2, 3, "h", "w")}, r"\(2, 3, h, w\), expected"),
        ({"shape": (1, "h", "w", 3)}, r"\(1, h, w, 3\), expected"),
        ({"dtype": TensorProto.DOUBLE}, r"tensor\(double\)"),
        ({"more_inputs": ("context",)}, r"context tensor\(float\) \(1\), expected one"),
        ({"bands": 12}, r"first output is \(1, 12, .*\), expected the cube \(1, 31,"),
        ({"outputs": ("features", "cube")}, r"first output is \(1, 3, .*\), expected the cube"),
    ],
    ids=["four channels", "batch of two", "channels last", "float64", "two inputs", "12 bands", "cube second"],
)
def test_other_networks_are_refused(tmp_path: Path, options: dict[str, object], message: str) -> None:
    path = write_peer(tmp_path / "peer.onnx", **options)  # type: ignore[arg-type]
    with pytest.raises(CCNetError, match=message) as error:
        Peer(path, threads=1)
    assert "\n" not in str(error.value)


def test_wrong_output_of_a_fixed_size_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(CCNetError, match=r"first output is \(1, 12, 16, 32\)"):
        Peer(write_peer(tmp_path / "peer.onnx", (1, 3, 16, 32), bands=12), threads=1)


@pytest.mark.parametrize("content", [None, b"", b"not a network"])
def test_files_that_are_no_networks_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "peer.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CCNetError, match=r"peer\.onnx") as error:
        Peer(path, threads=1)
    assert "\n" not in str(error.value)
