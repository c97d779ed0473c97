"""The reconstructor on a small network with CCNet's interface: tiled equals whole, and bad input gives one line.

encode is the mean over all pixels. decode scales rgb by it, then sees exactly ``HALO`` px to every side through eight
5×5 convolutions, and adds the mean of each patch of the 16-px grid, as PAF does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ccnet.contract import FRAME_SCALE, MANIFEST_KEY, MANIFEST_NAME, Artifact, CCNetError, Manifest
from ccnet.runtime import AsyncReconstructor, Projection, Reconstructor, read_cube
from ccnet.runtime.backends import select as backend
from ccnet.runtime.backends import trt_api as trt
from ccnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from ccnet.runtime.backends.out_of_memory import OutOfMemoryError, is_out_of_memory
from ccnet.runtime.backends.select import Selection, select
from ccnet.runtime.io.arrays import as_frame
from ccnet.runtime.io.frames import block_mean

Array = npt.NDArray[Any]
Files = dict[str, bytes]

HALO = 16
WINDOWS = (48, 64, 112)
FLOAT = TensorProto.FLOAT


# ---------------------------------------------------------------------------------------------------------------------
# The small network


def pixels(height: int, width: int, dtype: str = "uint8", seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.random((height, width, 3), np.float32)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)


def manifest(**changes: Any) -> Manifest:
    base = {"config": {"width": 3}, "weights_sha256": "ab" * 32, "context_size": 3, "input": "float32", "tools": {}}
    return Manifest(**{**base, "halo": HALO, **changes})


def model(kind: str, of: Manifest) -> onnx.ModelProto:
    """encode or decode with a stamp of that manifest, which also decides the input's form."""
    nodes, weights = (_encode if kind == "encode" else _decode)()
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
    inputs, outputs = ([rgb], [context]) if kind == "encode" else ([rgb, context], [cube])
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
    """An artifact folder; ``files`` replaces what the network would be, under a manifest that knows it."""
    folder.mkdir(exist_ok=True)
    content = {kind: model(kind, of).SerializeToString() for kind in ("encode", "decode")} | dict(files or {})
    artifacts = []
    for kind, data in content.items():
        (folder / f"{kind}.onnx").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        artifacts.append(Artifact(file=f"{kind}.onnx", kind=kind, format="onnx", precision="fp32", sha256=digest))
    (folder / MANIFEST_NAME).write_text(dataclasses.replace(of, artifacts=tuple(artifacts)).to_json())
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("float"), manifest())


@pytest.fixture(scope="module")
def folder_uint8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("uint8"), manifest(input="uint8"))


def whole(folder: Path, frame: Array) -> Array:
    """The cube of a frame in one piece, without the code under test."""
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


# ---------------------------------------------------------------------------------------------------------------------
# Cubes


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 31), (48, 48), (113, 97), (241, 256)])
def test_tiled_equals_whole(folder: Path, size: tuple[int, int], window: int) -> None:
    frame = pixels(*size)
    with Reconstructor.open(folder, window=window) as reconstruct:
        cube = reconstruct(frame)
    assert cube.dtype == np.float32
    np.testing.assert_allclose(cube, whole(folder, frame), atol=1e-5)


@settings(max_examples=40)
@given(st.integers(1, 180), st.integers(1, 180), st.integers(1, 4), st.integers(1, 6))
def test_any_frame_in_any_window_under_any_halo_is_the_whole(
    folder: Path, height: int, width: int, halo: int, kept: int
) -> None:
    encoder, decoder = (OnnxRuntimeBackend(folder / f"{kind}.onnx") for kind in ("encode", "decode"))
    frame = pixels(height, width)
    with fake(encoder, decoder, window=16 * (2 * halo + kept), halo=16 * halo) as reconstruct:
        np.testing.assert_allclose(reconstruct(frame), whole(folder, frame), atol=1e-5)


def test_the_small_network_needs_all_of_its_halo(folder: Path) -> None:
    """Otherwise the comparison above would prove little."""
    frame = pixels(97, 97)
    encoder, decoder = (OnnxRuntimeBackend(folder / f"{kind}.onnx") for kind in ("encode", "decode"))
    with fake(encoder, decoder, window=48, halo=8) as reconstruct:
        assert np.abs(reconstruct(frame) - whole(folder, frame)).max() > 1e-3


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", ">u2"])
def test_frames_are_brought_to_one_scale_by_their_dtype(folder: Path, dtype: str) -> None:
    frame: Array = pixels(20, 36, "uint8").astype(np.float32) / 255
    given: Array = frame if dtype == "float32" else np.rint(frame * np.iinfo(dtype).max).astype(dtype)
    with Reconstructor.open(folder) as reconstruct:
        np.testing.assert_allclose(reconstruct(given), whole(folder, frame), atol=1e-5)


def test_a_dark_frame_is_not_stretched(folder: Path) -> None:
    frame = pixels(20, 36) // 8
    with Reconstructor.open(folder) as reconstruct:
        np.testing.assert_allclose(reconstruct(frame), whole(folder, frame), atol=1e-6)


def test_uint8_graphs_take_the_frame_as_it_is(folder: Path, folder_uint8: Path) -> None:
    frame = pixels(113, 97)
    with Reconstructor.open(folder_uint8, window=64) as reconstruct:
        np.testing.assert_allclose(reconstruct(frame), whole(folder, frame), atol=1e-5)


def test_views_and_read_only_frames_are_frames(folder: Path) -> None:
    frame = pixels(60, 80)[::-2, 3::3]
    frame.flags.writeable = False
    with Reconstructor.open(folder) as reconstruct:
        np.testing.assert_array_equal(reconstruct(frame), reconstruct(frame.copy()))


def test_strips_are_the_cube_from_top_to_bottom(folder: Path) -> None:
    frame = pixels(113, 97)
    with Reconstructor.open(folder, window=64) as reconstruct:
        cube = reconstruct(frame)
        bottom = 0
        for top, strip in reconstruct.strips(frame):
            assert top == bottom
            bottom += strip.shape[1]
            np.testing.assert_array_equal(strip, cube[:, top:bottom])
    assert bottom == 113


@pytest.mark.parametrize("suffix", [".hdr", ".npy"])
def test_saves_the_cube(folder: Path, tmp_path: Path, suffix: str) -> None:
    frame = pixels(113, 97)
    with Reconstructor.open(folder, window=64) as reconstruct:
        reconstruct.save(frame, tmp_path / f"cube{suffix}", {"source": "test"})
        np.testing.assert_array_equal(read_cube(tmp_path / f"cube{suffix}"), reconstruct(frame))


# ---------------------------------------------------------------------------------------------------------------------
# Embedding: buffers, other libraries' arrays, projections, two slots


def test_out_is_filled_and_returned(folder: Path) -> None:
    frame = pixels(113, 97)
    with Reconstructor.open(folder, window=64) as reconstruct:
        out = np.full((31, 113, 97), np.nan, np.float32)
        assert reconstruct(frame, out=out) is out
        np.testing.assert_array_equal(out, reconstruct(frame))


@pytest.mark.parametrize(
    "out",
    [
        np.empty((31, 40, 41), np.float32),
        np.empty((31, 40, 40)),
        [0.0],
        np.broadcast_to(np.float32(0), (31, 40, 40)),
    ],
    ids=["shape", "dtype", "list", "read-only"],
)
def test_an_out_that_does_not_fit_is_refused(folder: Path, out: Any) -> None:
    with Reconstructor.open(folder) as reconstruct:
        refusal(lambda: reconstruct(pixels(40, 40), out=out), "out is", "expected a writeable float32 (31, 40, 40)")


def test_nothing_as_large_as_a_frame_is_allocated_after_warm_up(folder: Path) -> None:
    frame, projection = pixels(640, 600), Projection.differences({"a": (700, 500)})
    cube, index = np.empty((31, 640, 600), np.float32), np.empty((1, 640, 600), np.float32)
    with Reconstructor.open(folder, window=64, encode_pixels=64 * 64) as reconstruct:
        reconstruct(frame, out=cube)
        reconstruct.project(frame, projection, out=index)
        tracemalloc.start()
        try:
            reconstruct(frame, out=cube)
            reconstruct.project(frame, projection, out=index)
            left, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert left < 100_000
    assert peak < frame.nbytes  # 1.2 MB; the cube has 48


@pytest.mark.parametrize("size", [(20, 30), (113, 97)])
def test_a_projection_is_that_of_the_cube(folder: Path, size: tuple[int, int]) -> None:
    frame, matrix = pixels(*size), np.random.default_rng(0).normal(size=(4, 31)).astype(np.float32)
    with Reconstructor.open(folder, window=64) as reconstruct:
        cube = reconstruct(frame)
        bands = reconstruct.project(frame, Projection.bands(700, 400))
        np.testing.assert_array_equal(bands, cube[[30, 0]])
        difference = reconstruct.project(frame, Projection.linear(matrix)) - np.tensordot(matrix.astype(float), cube, 1)
        rounding = 31 * np.finfo(np.float32).eps * np.tensordot(np.abs(matrix), np.abs(cube), 1)  # of a sum of 31
        assert (np.abs(difference) <= rounding).all()
        index = reconstruct.project(frame, Projection.differences({"red": (700, 500), "blue": (400, 500)}))
        for found, band in zip(index, (cube[30], cube[0]), strict=True):
            np.testing.assert_allclose(found, (band - cube[10]) / (band + cube[10]), rtol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_frames_come_through_dlpack(folder: Path, dtype: str) -> None:
    frame = pixels(50, 60, dtype)
    with Reconstructor.open(folder) as reconstruct:
        np.testing.assert_array_equal(reconstruct(torch.from_numpy(frame)), reconstruct(frame))
        shared = as_frame(torch.from_numpy(frame))
        assert np.shares_memory(shared, frame)
        assert torch.from_dlpack(reconstruct(frame)).shape == (31, 50, 60)


@pytest.mark.gpu
def test_frames_come_from_cuda(folder: Path) -> None:
    frame = pixels(50, 60)
    with Reconstructor.open(folder) as reconstruct:
        np.testing.assert_array_equal(reconstruct(torch.from_numpy(frame).cuda()), reconstruct(frame))


@pytest.mark.parametrize("frame", [[[1, 2, 3]], None, "photo.png", torch.zeros(4, 4, 3, requires_grad=True)])
def test_what_is_no_array_is_refused(folder: Path, frame: Any) -> None:
    with Reconstructor.open(folder) as reconstruct:
        for call in (reconstruct, reconstruct.encode, reconstruct.strips):
            refusal(lambda call=call: call(frame), "frame")  # type: ignore[misc]


def test_slots_give_cubes_in_order_and_errors_to_their_frames(folder: Path) -> None:
    frames = [pixels(40, 50, seed=seed) for seed in range(5)]
    outs = [np.empty((31, 40, 50), np.float32) for _ in range(2)]
    with Reconstructor.open(folder) as reconstruct, AsyncReconstructor(reconstruct) as slots:
        cubes = [reconstruct(frame) for frame in frames]
        for number, frame in enumerate(frames):
            future = slots.submit(frame, out=outs[number % 2])
            assert future.result(60) is outs[number % 2]
            np.testing.assert_array_equal(future.result(), cubes[number])
        refusal(slots.submit(frames[0][..., 0]).result, "frame is uint8")
        last = slots.submit(frames[1])
    np.testing.assert_array_equal(last.result(0), cubes[1])  # close has finished it
    refusal(lambda: slots.submit(frames[0]), "the slots are closed")


def test_a_third_frame_waits_for_a_slot(folder: Path) -> None:
    decoder = Spy(OnnxRuntimeBackend(folder / "decode.onnx"))
    with (
        fake(OnnxRuntimeBackend(folder / "encode.onnx"), decoder) as reconstruct,
        AsyncReconstructor(reconstruct) as slots,
    ):
        decoder.gate.clear()
        futures = [slots.submit(pixels(20, 20)) for _ in range(2)]
        third = threading.Thread(target=lambda: futures.append(slots.submit(pixels(20, 20))))
        third.start()
        third.join(0.05)
        assert third.is_alive() and len(futures) == 2
        decoder.gate.set()
        third.join(60)
        assert [future.result(60).shape for future in futures] == [(31, 20, 20)] * 3


def test_close_from_another_thread_lets_no_frame_crash(folder: Path) -> None:
    for delay in (0, 0.001, 0.003, 0.01):
        reconstruct = Reconstructor.open(folder, window=48)
        with AsyncReconstructor(reconstruct) as slots:
            future = slots.submit(pixels(200, 200))
            threading.Timer(delay, reconstruct.close).start()
            error = future.exception(60)
        assert error is None or "is closed" in str(error)
        reconstruct.close()


# ---------------------------------------------------------------------------------------------------------------------
# Lack of memory


@pytest.mark.parametrize("size", [(90, 100), (300, 70), (250, 260)])
def test_windows_shrink_where_memory_is_lacking(
    folder: Path, size: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    frame = pixels(*size)
    decoder = Spy(OnnxRuntimeBackend(folder / "decode.onnx"))
    decoder.most = 70 * 70
    with fake(OnnxRuntimeBackend(folder / "encode.onnx"), decoder, window=240) as reconstruct:
        cube = reconstruct(frame)
        assert reconstruct.window == 64
        assert "64 px (by the engine or memory; 240 px was asked for)" in reconstruct.describe()["window"]
        assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]  # 128 px, 64 px
        strips = np.concatenate([strip.copy() for _, strip in reconstruct.strips(frame)], axis=1)
        assert len(caplog.records) == 2  # never said again
    np.testing.assert_allclose(cube, whole(folder, frame), atol=1e-5)
    np.testing.assert_array_equal(cube, strips)


def test_strips_go_on_where_memory_ends_between_them(folder: Path) -> None:
    frame = pixels(300, 90)
    decoder = Spy(OnnxRuntimeBackend(folder / "decode.onnx"))
    with fake(OnnxRuntimeBackend(folder / "encode.onnx"), decoder, window=112) as reconstruct:
        found = []
        for _, strip in reconstruct.strips(frame):
            found.append(strip.copy())
            decoder.most = 60 * 60
    np.testing.assert_allclose(np.concatenate(found, axis=1), whole(folder, frame), atol=1e-5)


def test_the_smallest_window_that_is_too_large_is_an_error(folder: Path) -> None:
    decoder = Spy(OnnxRuntimeBackend(folder / "decode.onnx"))
    decoder.most = 10
    with fake(OnnxRuntimeBackend(folder / "encode.onnx"), decoder, window=240) as reconstruct:
        refusal(lambda: reconstruct(pixels(200, 200)), "bad_alloc")
        assert reconstruct.window == 48


@pytest.mark.parametrize(
    ("told", "lacks"),
    [
        (MemoryError(), True),
        (RuntimeError("Failed to allocate memory for requested buffer of size 9"), True),
        (RuntimeError("std::bad_alloc"), True),
        ("CUDA_ERROR_OUT_OF_MEMORY", True),
        (RuntimeError("Got invalid dimensions for input"), False),
    ],
)
def test_lack_of_memory_is_known_by_its_words(told: Any, lacks: bool) -> None:
    assert is_out_of_memory(told) == lacks


# ---------------------------------------------------------------------------------------------------------------------
# The context


def test_a_context_that_is_given_takes_the_place_of_the_frames_own(folder: Path) -> None:
    first, second = pixels(40, 40, seed=1) // 4, pixels(40, 40, seed=2)
    with Reconstructor.open(folder) as reconstruct:
        context = reconstruct.encode(first)
        assert context.shape == (1, 3)
        own, borrowed = reconstruct(second), reconstruct(second, context)
        ratio = context / reconstruct.encode(second)
        np.testing.assert_allclose(reconstruct(second, context / ratio), own, atol=1e-6)
        assert np.abs(own - borrowed).max() > 0.01
        ((_, strip),) = reconstruct.strips(second, context)
        np.testing.assert_array_equal(strip, borrowed)


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [(1, 1), (12, 18), (13, 17), (6, 40)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_block_means(dtype: str, size: tuple[int, int], factor: int) -> None:
    frame = pixels(*size, dtype)
    expected = [
        [frame[y : y + factor, x : x + factor].mean((0, 1), np.float64) for x in range(0, size[1], factor)]
        for y in range(0, size[0], factor)
    ]
    np.testing.assert_allclose(block_mean(frame, factor), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "limit", "reduced"),
    [
        ((32, 48), 32 * 48, (32, 48)),
        ((32, 48), 32 * 48 - 1, (16, 24)),
        ((33, 49), 17 * 25, (17, 25)),
        ((33, 49), 17 * 25 - 1, (11, 17)),
        ((1, 100), 10, (1, 10)),
        ((50, 50), 1, (1, 1)),
    ],
)
def test_encode_sees_the_smallest_blocks_that_fit_its_limit(
    folder: Path, size: tuple[int, int], limit: int, reduced: tuple[int, int]
) -> None:
    seen = Spy(OnnxRuntimeBackend(folder / "encode.onnx"))
    with fake(seen, OnnxRuntimeBackend(folder / "decode.onnx"), encode_pixels=limit) as reconstruct:
        reconstruct.encode(pixels(*size))
    height, width = (-(-side // 16) * 16 for side in reduced)
    assert seen.shapes == [(1, 3, height, width)]


def test_a_reduced_frame_has_the_context_of_its_means(folder: Path) -> None:
    frame = pixels(64, 128)
    with Reconstructor.open(folder, encode_pixels=16 * 32) as reconstruct:
        np.testing.assert_allclose(reconstruct.encode(frame)[0], frame.mean((0, 1)) / 255, rtol=1e-6)


def test_uint8_graphs_encode_rounded_means(folder_uint8: Path) -> None:
    frame = np.full((32, 32, 3), 10, np.uint8)
    frame[:, ::2] = 13  # mean 11.5, to even 12
    with Reconstructor.open(folder_uint8, encode_pixels=256) as reconstruct:
        np.testing.assert_allclose(reconstruct.encode(frame)[0] * 255, 12, rtol=1e-6)


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (np.ones((1, 4), np.float32), "context is float32 (1, 4), expected float32 (1, 3)"),
        (np.ones(3, np.float32), "context is float32 (3,)"),
        (np.ones((1, 3)), "context is float64"),
        (np.array([[1, np.nan, 1]], np.float32), "context holds NaN"),
    ],
)
def test_a_context_that_does_not_fit_is_refused(folder: Path, context: Array, words: str) -> None:
    with Reconstructor.open(folder) as reconstruct:
        refusal(lambda: reconstruct(pixels(16, 16), context), words)
        refusal(lambda: reconstruct.strips(pixels(16, 16), context), words)


# ---------------------------------------------------------------------------------------------------------------------
# Frames and cubes that are refused


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((16, 16), np.uint8), "frame is uint8 with shape (16, 16), expected (H, W, 3)"),
        (np.zeros((16, 16, 4), np.uint8), "shape (16, 16, 4)"),
        (np.zeros((3, 16, 16), np.uint8), "shape (3, 16, 16)"),
        (np.zeros((0, 16, 3), np.uint8), "shape (0, 16, 3)"),
        (np.zeros((16, 16, 3)), "frame is float64"),
        (np.zeros((16, 16, 3), np.int16), "frame is int16"),
        (np.full((16, 16, 3), np.nan, np.float32), "frame holds nan to nan"),
        (np.full((16, 16, 3), np.inf, np.float32), "frame holds inf to inf"),
        (np.full((16, 16, 3), -0.1, np.float32), "frame holds -0.1 to -0.1, expected float32 in [0, 1]"),
        (np.full((16, 16, 3), 255, np.float32), "frame holds 255 to 255"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused(folder: Path, tmp_path: Path, frame: Array, words: str) -> None:
    with Reconstructor.open(folder) as reconstruct:
        refusal(lambda: reconstruct(frame), words)
        refusal(lambda: reconstruct.encode(frame), words)
        refusal(lambda: reconstruct.strips(frame), words)
        refusal(lambda: reconstruct.save(frame, tmp_path / "cube.npy"), words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_uint8_graphs_refuse_other_frames(folder_uint8: Path, dtype: str) -> None:
    with Reconstructor.open(folder_uint8) as reconstruct:
        refusal(lambda: reconstruct(pixels(16, 16, dtype)), f"frame is {dtype}", "expected (H, W, 3) in uint8")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_cube_that_is_not_finite_is_never_written(tmp_path: Path, value: float) -> None:
    broken = model("decode", manifest())
    weight = next(weight for weight in broken.graph.initializer if weight.name == "w7")
    values = numpy_helper.to_array(weight).copy()
    values[30, 0, 2, 2] = value
    weight.CopyFrom(numpy_helper.from_array(values, "w7"))
    folder = write(tmp_path / "broken", manifest(), {"decode": broken.SerializeToString()})
    (tmp_path / "out").mkdir()
    with Reconstructor.open(folder) as reconstruct:
        words = ("cube holds NaN or infinite values at rows 0 to 16", "weights are broken")
        refusal(lambda: reconstruct(pixels(16, 16)), *words)
        refusal(lambda: reconstruct.save(pixels(16, 16), tmp_path / "out/cube.npy"), *words)
    assert not list((tmp_path / "out").iterdir())


# ---------------------------------------------------------------------------------------------------------------------
# Folders and files that are refused


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    refusal(lambda: Reconstructor.open(tmp_path), tmp_path, "no manifest.json")
    refusal(lambda: Reconstructor.open(tmp_path / "none"), tmp_path / "none", "no manifest.json")


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_missing_and_changed_files_are_refused(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, manifest()) / f"{kind}.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    refusal(lambda: Reconstructor.open(tmp_path), path, "SHA-256")
    path.unlink()
    refusal(lambda: Reconstructor.open(tmp_path), path, "cannot be read")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("config", {"width": 4}),
        ("weights_sha256", "cd" * 32),
        ("context_size", 4),
        ("input", "uint8"),
        ("size_multiple", 8),
        ("halo", 32),
    ],
)
def test_a_file_of_another_export_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    other = model("decode", manifest()).SerializeToString()
    folder = write(tmp_path, manifest(**{field: value}), {"decode": other})
    refusal(lambda: Reconstructor.open(folder), folder / "decode.onnx", "manifest mismatch")


def test_other_tools_are_no_mismatch(tmp_path: Path) -> None:
    other = model("decode", manifest(tools={"torch": "2.6"})).SerializeToString()
    Reconstructor.open(write(tmp_path, manifest(tools={"torch": "2.7"}), {"decode": other})).close()


def damaged() -> Files:
    whole = model("decode", manifest())
    foreign = model("decode", manifest())
    del foreign.metadata_props[:]
    bad_stamp = model("decode", manifest())
    helper.set_model_props(bad_stamp, {MANIFEST_KEY: "{}"})
    return {
        "as ONNX": whole.SerializeToString()[:-200],
        "No graph": b"",
        "without ccnet's manifest": foreign.SerializeToString(),
        "manifest version": bad_stamp.SerializeToString(),
    }


@pytest.mark.parametrize(("words", "data"), damaged().items(), ids=damaged())
def test_damaged_and_foreign_files_are_refused(tmp_path: Path, words: str, data: bytes) -> None:
    folder = write(tmp_path, manifest(), {"decode": data})
    refusal(lambda: Reconstructor.open(folder), folder / "decode.onnx", words)


def test_graphs_of_other_tensors_are_refused(tmp_path: Path) -> None:
    swapped = {kind: model(other, manifest()) for kind, other in (("encode", "decode"), ("decode", "encode"))}
    for kind, made in swapped.items():
        folder = write(tmp_path / kind, manifest(), {kind: made.SerializeToString()})
        with Reconstructor.open(folder) as reconstruct:
            refusal(lambda r=reconstruct: r(pixels(16, 16)), "inputs are")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "fp16"}, "no decode artifact of format onnx and precision fp16; there are: decode onnx fp32"),
        ({"backend": "cuda"}, "backend is 'cuda', expected one of auto, onnxruntime"),
        ({"window": 32}, "window is 32 px, expected a multiple of 16 of at least 48 px"),
        ({"window": 100}, "window is 100 px"),
        ({"threads": 0}, "threads is 0"),
        ({"encode_pixels": 0}, "encode_pixels is 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder: Path, options: dict[str, Any], words: str) -> None:
    refusal(lambda: Reconstructor.open(folder, **options), words)


# ---------------------------------------------------------------------------------------------------------------------
# Life and threads


def test_closes_twice_and_then_refuses_to_run(folder: Path) -> None:
    with Reconstructor.open(folder, window=48) as reconstruct:
        strips = reconstruct.strips(pixels(100, 16))
        next(strips)
    reconstruct.close()
    refusal(lambda: reconstruct(pixels(16, 16)), "is closed")
    refusal(lambda: next(strips), "is closed")


def test_a_manifest_that_is_refused_late_closes_the_backends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[OnnxRuntimeBackend] = []
    monkeypatch.setattr(OnnxRuntimeBackend, "close", lambda self: closed.append(self))
    refusal(lambda: Reconstructor.open(folder, encode_pixels=0), "encode_pixels")
    assert len(closed) == 2


def test_threads_take_turns(folder: Path) -> None:
    frames = [pixels(50 + 7 * index, 70, seed=index) for index in range(8)]
    encoder, decoder = (Spy(OnnxRuntimeBackend(folder / f"{kind}.onnx", threads=1)) for kind in ("encode", "decode"))
    encoder.turn = decoder.turn
    with fake(encoder, decoder, window=48) as reconstruct, ThreadPoolExecutor(4) as pool:
        cubes = list(pool.map(reconstruct, frames))
        for frame, cube in zip(frames, cubes, strict=True):
            np.testing.assert_array_equal(cube, reconstruct(frame))


def test_describes_what_runs(folder: Path) -> None:
    with Reconstructor.open(folder, window=64) as reconstruct:
        described = reconstruct.describe()
    assert described["backend"] == f"onnxruntime {onnxruntime.__version__} (cpu)"
    assert described["precision"] == "decode fp32, encode fp32"
    assert (described["window"], described["halo"]) == ("64 px", "16 px")


def test_importing_the_runtime_loads_no_optional_package() -> None:
    script = "import sys, ccnet.runtime; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "onnx", "onnxruntime", "h5py", "cv2", "PIL", "tensorrt", "matplotlib"}
    assert not heavy & set(output.split())


# ---------------------------------------------------------------------------------------------------------------------
# Engines: chosen by what the folder holds and the machine can run; bounded in the shapes they take


class Spy:
    """A backend that remembers the shapes of ``rgb``, and fails where two threads are in it at once."""

    def __init__(self, real: OnnxRuntimeBackend) -> None:
        self.name, self._real, self.shapes = "spy", real, list[tuple[int, ...]]()
        self.turn = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()
        self.most = 1 << 40
        """Pixels that there is memory for."""

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

    def __enter__(self) -> Spy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def artifact(kind: str, format: str = "onnx", precision: str = "fp32", window: object = None) -> Artifact:
    details = {} if window is None else {"window": window}
    name = f"{kind}.{precision}.{format}"
    return Artifact(file=name, kind=kind, format=format, precision=precision, sha256="", details=details)


def fake(
    encoder: Any, decoder: Any, bounds: Mapping[str, object] | None = None, halo: int = HALO, **options: Any
) -> Reconstructor:
    """A reconstructor over given backends, bounded as engines are."""
    encode, decode = (artifact(kind, window=(bounds or {}).get(kind)) for kind in ("encode", "decode"))
    selection = Selection(backend="onnxruntime", encode=encode, decode=decode)
    return Reconstructor(manifest(halo=halo), selection, encoder, decoder, **options)


@pytest.mark.parametrize("window", [48, 80, 512])
@pytest.mark.parametrize("size", [(20, 30), (90, 90), (300, 70)])
def test_engines_see_windows_within_their_bounds(folder: Path, size: tuple[int, int], window: int) -> None:
    encoder, decoder = (Spy(OnnxRuntimeBackend(folder / f"{kind}.onnx")) for kind in ("encode", "decode"))
    bounds = {"encode": [32, 128], "decode": [64, 96]}
    with fake(encoder, decoder, bounds, window=window) as reconstruct:
        cube = reconstruct(pixels(*size))
        assert reconstruct.window == min(max(window, 64), 96)
        assert (f"{window} px was asked for" in reconstruct.describe()["window"]) == (window != reconstruct.window)
    assert cube.shape == (31, *size)
    assert all(32 <= side <= 128 for shape in encoder.shapes for side in shape[2:])
    assert all(64 <= side <= 96 for shape in decoder.shapes for side in shape[2:])


@pytest.mark.parametrize("window", [[64], "64", [64, "x"], [96, 64], [0, 64], [60, 96], None, 64])
def test_bounds_that_make_no_sense_are_refused(folder: Path, window: object) -> None:
    encoder, decoder = (OnnxRuntimeBackend(folder / f"{kind}.onnx") for kind in ("encode", "decode"))
    odd = dataclasses.replace(artifact("decode"), details={"window": window})
    selection = Selection(backend="onnxruntime", encode=artifact("encode"), decode=odd)
    refusal(lambda: Reconstructor(manifest(), selection, encoder, decoder), "decode.fp32.onnx: window is")


GRAPHS = (artifact("encode"), artifact("decode"), artifact("decode", precision="fp16"))
ENGINES = tuple(
    artifact(kind, flavour, precision)
    for flavour in ("tensorrt", "tensorrt_rtx")
    for kind, precision in (("encode", "fp32"), ("decode", "fp32"), ("decode", "fp16"))
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets which TensorRT libraries load, and whether there is a GPU."""

    def sets(*flavours: str, gpu: bool) -> None:
        def load(name: str) -> None:
            if name not in flavours:
                raise CCNetError(f"{name} is not installed")

        def gpus() -> tuple[str, ...]:
            if not gpu:
                raise CCNetError("no CUDA driver")
            return ("GPU",)

        monkeypatch.setattr(trt, "load", load)
        monkeypatch.setattr(trt, "available", lambda: list(flavours))
        monkeypatch.setattr(backend, "gpus", gpus)
        monkeypatch.setattr(backend, "has_gpu", lambda: gpu)

    return sets


@pytest.mark.parametrize(
    ("flavours", "gpu", "artifacts", "precision", "expected"),
    [
        (("tensorrt", "tensorrt_rtx"), True, GRAPHS + ENGINES, None, ("tensorrt", "fp16")),
        (("tensorrt", "tensorrt_rtx"), True, GRAPHS + ENGINES, "fp32", ("tensorrt", "fp32")),
        (("tensorrt_rtx",), True, GRAPHS + ENGINES, None, ("tensorrt-rtx", "fp16")),
        (("tensorrt",), False, GRAPHS + ENGINES, None, ("onnxruntime", "fp32")),
        ((), True, GRAPHS + ENGINES, "fp16", ("onnxruntime", "fp16")),
        (("tensorrt",), True, GRAPHS, None, ("onnxruntime", "fp32")),
        (("tensorrt",), True, GRAPHS + ENGINES[:1], None, ("onnxruntime", "fp32")),
        (("tensorrt",), True, GRAPHS + ENGINES[:2], "fp16", ("onnxruntime", "fp16")),
        (("tensorrt",), True, GRAPHS + ENGINES[:2], None, ("tensorrt", "fp32")),
    ],
)
def test_auto_is_an_engine_that_can_run_here_or_onnx_runtime(
    machine: Callable[..., None],
    flavours: tuple[str, ...],
    gpu: bool,
    artifacts: tuple[Artifact, ...],
    precision: Any,
    expected: tuple[str, str],
) -> None:
    machine(*flavours, gpu=gpu)
    selection = select(manifest(artifacts=artifacts), "auto", precision)
    assert (selection.backend, selection.decode.precision) == expected
    assert (selection.encode.kind, selection.encode.precision, selection.decode.kind) == ("encode", "fp32", "decode")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_that_was_asked_for_is_never_replaced(machine: Callable[..., None], name: Any) -> None:
    flavour = name.replace("-", "_")
    everything, graphs = manifest(artifacts=GRAPHS + ENGINES), manifest(artifacts=GRAPHS)
    machine(gpu=True)
    refusal(lambda: select(everything, name), f"{flavour} is not installed")
    machine(flavour, gpu=False)
    refusal(lambda: select(everything, name), "no CUDA driver")
    machine(flavour, gpu=True)
    refusal(lambda: select(graphs, name), f"ccnet build FOLDER --backend {name}")
    assert select(everything, name).backend == name


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"version": "10.2.0", "gpu": "Orin (sm_87)"}, "built with tensorrt 10.2.0, this is 10.3.0"),
        ({"version": "10.3.0", "gpu": "RTX 4090 (sm_89)"}, r"built for RTX 4090 \(sm_89\), this is Orin"),
        ({}, "built with tensorrt None"),
        ({"version": "10.2.0", "compatible": "yes"}, "built with tensorrt 10.2.0"),
        ({"version": "10.2.0", "gpu": "RTX 4090 (sm_89)", "compatible": True}, "it is loaded"),
        ({"version": "10.3.0", "gpu": "Orin (sm_87)"}, "it is loaded"),
    ],
    ids=["version", "GPU", "nothing", "not a bool", "compatible", "fitting"],
)
def test_an_engine_of_another_machine_is_never_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, details: dict[str, Any], words: str
) -> None:
    def load(data: bytes, **options: Any) -> Any:
        raise CCNetError("it is loaded")

    monkeypatch.setattr(trt, "load", lambda name: SimpleNamespace(__version__="10.3.0"))
    monkeypatch.setattr(backend, "gpus", lambda: ("Orin (sm_87)",))
    monkeypatch.setattr(backend, "TensorRTBackend", load)
    engine = dataclasses.replace(ENGINES[0], details=details)
    chosen = Selection(backend="tensorrt", encode=engine, decode=engine)
    with pytest.raises(CCNetError, match=words):
        chosen.open(engine, b"", tmp_path, manifest(artifacts=GRAPHS))


def test_an_engines_weights_come_from_its_graph_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = b"\x0a\x08location\x12\x0b/etc/passwd"  # protobuf's words for a tensor in another file
    (tmp_path / "encode.fp32.onnx").write_bytes(graph)
    source = dataclasses.replace(GRAPHS[0], sha256=hashlib.sha256(graph).hexdigest())
    monkeypatch.setattr(trt, "load", lambda name: SimpleNamespace(__version__="10.3.0"))
    monkeypatch.setattr(backend, "TensorRTBackend", lambda *_, **__: pytest.fail("it is loaded"))
    engine = dataclasses.replace(ENGINES[0], details={"version": "10.3.0", "stripped": True})
    chosen = Selection(backend="tensorrt", encode=engine, decode=engine)
    with pytest.raises(CCNetError, match=r"encode\.fp32\.onnx: keeps tensors in another file"):
        chosen.open(engine, b"", tmp_path, manifest(artifacts=(source,)))


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_was_asked_for_is_never_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    name: Any = f"onnxruntime-{provider}"
    refusal(lambda: Reconstructor.open(folder, backend=name), folder, "install onnxruntime-gpu")
